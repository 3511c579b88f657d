"""Damage to a file, drawn by hypothesis: bytes flipped, inserted, overwritten, deleted, repeated, cut off."""

from hypothesis import strategies as st

NASTY = [
    b"\0", b"\n", b"\r", b"\n\n", b";", b",", b"\t", b'"', b"{", b"}", b"[" * 2000, b'{"a":' * 2000,
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud83d", b"\\u0000", b"\x1b[2J", "\u202e\u2028🙂".encode(),
    b"NaN", b"-1", b"1e999", b"9" * 5000, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0" * 8, b"../../x", b"null", b"true",
]  # fmt: skip
KINDS = ["flip", "insert", "overwrite", "delete", "repeat", "cut", "append"]


def mutations():
    """Up to four of them: what is done, where as a share of the file, with what bytes, and to how many."""
    content = st.sampled_from(NASTY) | st.binary(min_size=1, max_size=8)
    change = st.tuples(st.sampled_from(KINDS), st.floats(0, 1), content, st.integers(1, 40))
    return st.lists(change, min_size=1, max_size=4)


def mutated(data: bytes, changes: list[tuple[str, float, bytes, int]]) -> bytes:
    original = data
    for kind, share, content, count in changes:
        at = int(share * max(0, len(data) - 1))
        before, behind = data[:at], data[at:]
        data = {
            "flip": before + bytes(byte ^ 1 << count % 8 for byte in behind[:1]) + behind[1:],
            "insert": before + content + behind,
            "overwrite": before + content + behind[len(content) :],
            "delete": before + behind[count:],
            "repeat": before + behind[:count] + behind,
            "cut": before,
            "append": data + original,
        }[kind]
    return data
