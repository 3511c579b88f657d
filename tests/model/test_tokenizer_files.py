"""The files of a tokenizer: what lists of merges make, and that a clone does not change them.

test_foreign_tokenizers.py has the folders of other programs."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Tokenizer
from model.names import EMBEDDED
from model.tokenizer import order_merges
from model.tokenizer_files import BYTE_OF

# A pair may break up another: tiktoken must not make what the list does not say.


@given(data=st.data())
@settings(deadline=None, max_examples=200, derandomize=True)
def test_any_list_of_merges_is_obeyed(data):
    from tokenizers import Tokenizer as Reference
    from tokenizers.models import BPE

    tokens, merges = ["a", "b", "c"], []
    for _ in range(data.draw(st.integers(0, 9))):
        pair = tuple(data.draw(st.sampled_from(tokens)) for _ in range(2))
        if pair not in merges:  # else its last place counts, maybe behind one that needs it
            merges.append(pair)
            tokens.append("".join(pair))
    names = [*BYTE_OF, *dict.fromkeys(tokens[3:])]
    vocab = {token: i for i, token in enumerate(names)}
    reference = Reference(BPE(vocab=vocab, merges=merges))
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    ours = Tokenizer({"vocab.json": json.dumps(vocab).encode(), "merges.txt": lines.encode()})
    for text in data.draw(st.lists(st.text("abc", min_size=1, max_size=150), min_size=9, max_size=9)):
        assert ours.encode(text) == reference.encode(text).ids


def test_a_merge_that_never_happens_is_left_out():
    assert order_merges([("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]) == ["ab", "bc", "abc"]
    assert order_merges([("a", "a"), ("a", "aa")]) == ["aa"]  # the leftmost pair first: aa|a
    assert order_merges([("a", "a"), ("aa", "a")]) == ["aa", "aaa"]
    assert order_merges([("a", "b"), ("b", "c"), ("a", "b")]) == ["bc", "ab"]  # the last place counts


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_clone_with_crlf_leaves_the_vocabulary_as_it_is(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *arguments], check=True, capture_output=True)

    files = [EMBEDDED / "vocab.json", EMBEDDED / "merges.txt", EMBEDDED.parents[1] / ".gitattributes"]
    git("init", tmp_path / "here")
    for path in files:
        shutil.copy(path, tmp_path / "here")
    git("-C", tmp_path / "here", "add", ".")
    git("-C", tmp_path / "here", "commit", "-m", "all")
    git("clone", "-c", "core.autocrlf=true", tmp_path / "here", tmp_path / "clone")
    for path in files:
        assert (tmp_path / "clone" / path.name).read_bytes() == path.read_bytes()
