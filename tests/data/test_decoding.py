import pytest
from commands import line_of

from data import ReadOptions, read_corpus
from data.decoding import decode, guess_encoding
from data.formats import read_table

ROWS = [("i wasn’t sad – at all", "x"), ("“so”", "y")]


def write(path, text, encoding):
    path.write_bytes(text.encode(encoding))
    return path


def table(rows):
    return "text,label\r\n" + "".join(f"{text},{label}\r\n" for text, label in rows)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_advice_is_what_reads_the_file_right(tmp_path, encoding):
    path = write(tmp_path / "a.csv", table(ROWS), encoding)
    message = line_of(read_corpus, path)
    assert f"expected UTF-8, got another encoding; read it with --encoding {encoding}" in message
    rows = read_table(path, ReadOptions(encoding=encoding)).rows
    assert list(zip(rows["text"], rows["label"], strict=True)) == ROWS


@pytest.mark.parametrize(
    ("text", "encoding", "advice"),
    [
        ("the café was shut", "latin-1", "latin-1"),
        ("i wasn’t", "cp1252", "cp1252"),
        ("the horse of Ťapka was here", "cp1250", "cp1250, mac_roman, cp850 or another"),
        ("я была счастлива", "cp1251", "cp1251 (Russian), gb18030 (Chinese), shift_jis, euc_kr or another"),
        ("我很高兴", "gb18030", "cp1251 (Russian), gb18030 (Chinese), shift_jis, euc_kr or another"),
    ],
)
def test_bytes_show_what_an_encoding_may_be(text, encoding, advice):
    assert guess_encoding(text.encode(encoding)) == advice


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".jsonl"])
def test_a_row_of_another_encoding_in_a_file_of_utf8_is_said_to_be_one(tmp_path, ending):
    """To read all of it as latin-1 would spoil every other row."""
    line = {".csv": "{},x\n", ".tsv": "{}\tx\n", ".txt": "{};x\n", ".jsonl": '{{"text": "{}", "label": "x"}}\n'}[ending]
    header = {".csv": "text,label\n", ".tsv": "text\tlabel\n"}.get(ending, "")
    path = tmp_path / f"a{ending}"
    path.write_bytes(
        (header + line.format("naïve") + line.format("café")).encode() + line.format("été").encode("latin-1")
    )
    table = read_table(path)
    assert table.rows["text"].tolist() == ["naïve", "café"]
    assert table.bad_rows["kind"].tolist() == ["rows in another encoding"]
    assert (
        table.bad_rows["reason"][0] == "expected UTF-8, got other bytes in a file that is UTF-8 elsewhere; correct them"
    )
    assert "\\udce9t\\udce9" in table.bad_rows["content"][0]


def test_a_foreign_byte_in_another_column_is_found_too(tmp_path):
    path = write(tmp_path / "a.csv", "name,text,label\né,a,x\nb,b,y\n", "latin-1")
    assert read_table(path).bad_rows["line"].tolist() == [2]


def test_utf8_is_not_spoilt_by_an_encoding_that_reads_all_bytes(tmp_path):
    path = write(tmp_path / "a.csv", table(ROWS), "utf-8")
    assert "expected latin-1, got UTF-8; leave out --encoding" in line_of(
        read_table, path, ReadOptions(encoding="latin-1")
    )
    for name in ("utf-8", "utf8", "UTF-8-SIG"):
        assert len(read_table(path, ReadOptions(encoding=name)).rows) == 2
    ascii_only = write(tmp_path / "b.csv", "text,label\na,x\n", "ascii")
    assert len(read_table(ascii_only, ReadOptions(encoding="latin-1")).rows) == 1


def test_an_encoding_that_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", table(ROWS), "cp1252")
    assert "cannot be read with --encoding utf-32" in line_of(read_table, path, ReadOptions(encoding="utf-32"))
    reasons = read_table(path, ReadOptions(encoding="ascii")).bad_rows["reason"]
    assert reasons.unique().tolist() == ["expected ascii, got another encoding; read it with --encoding cp1252"]
    path.write_bytes(b"text,label\nso \x81 it is,x\n")
    reasons = read_table(path, ReadOptions(encoding="cp1250")).bad_rows["reason"]
    assert "read it with --encoding cp1250, mac_roman, cp850 or another" in reasons[0]
    for name in ("no-such", "rot13", "base64", "a\0b"):
        assert "expected a name that Python knows" in line_of(lambda name: ReadOptions(encoding=name), name)
    parquet = tmp_path / "a.parquet"
    parquet.write_bytes(b"PAR1")
    assert "--encoding is for text files" in line_of(read_table, parquet, ReadOptions(encoding="cp1252"))


@pytest.mark.parametrize("encoding", [None, "utf-8", "utf-16"])
def test_a_file_of_a_byte_order_mark_is_empty(tmp_path, encoding):
    content = "\ufeff".encode("utf-8" if encoding is None else encoding) if encoding != "utf-16" else b"\xff\xfe"
    assert "the file is empty" in line_of(decode, content, tmp_path, encoding if encoding == "utf-16" else None)


def test_a_header_in_another_encoding_is_told_as_that_and_not_as_a_missing_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        "text;gefühl\n".encode("cp1252") + b"".join(b"text %d;%s\n" % (i, b"ab"[i % 2 :][:1]) for i in range(40))
    )
    assert line_of(read_corpus, path).startswith(
        f"{path}:1: expected UTF-8, got another encoding; read it with --encoding"
    )
    assert len(read_corpus(path, ReadOptions(label_column="gefühl", encoding="cp1252")).examples) == 40
