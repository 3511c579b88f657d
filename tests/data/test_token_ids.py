import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from commands import line_of
from hypothesis import given, settings
from hypothesis import strategies as st

from data import token_ids
from data.token_ids import TokenIds, find_tokens, pack, store

TEXTS = st.lists(st.lists(st.integers(0, 50_256), max_size=9), max_size=40)


def stored(texts, chunk):
    """These texts, as if so few were many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_ids, "CHUNK", chunk)
        return store(iter(texts))


@given(texts=TEXTS, chunk=st.integers(1, 50), data=st.data())
@settings(derandomize=True, deadline=None)
def test_they_are_a_list_of_lists_in_all_that_they_offer(texts, chunk, data):
    for ids in (pack(texts), stored(texts, chunk), pickle.loads(pickle.dumps(stored(texts, chunk)))):
        assert [*ids] == texts
        assert (len(ids), repr(ids), [*reversed(ids)]) == (len(texts), repr(texts), texts[::-1])
        assert ids.lengths.dtype == np.int64
        assert ids.lengths.tolist() == [len(text) for text in texts]
        assert ids == texts
        assert ids == pack(texts)
        assert ids != [*texts, [1]]
        assert ids != [[*text, 1] for text in texts] or not texts
        assert all(type(token) is int for text in ids for token in text)
        i, part = data.draw(st.integers(-50, 50)), data.draw(st.slices(len(texts)))
        assert ids[part] == texts[part]
        if -len(texts) <= i < len(texts):
            assert ids[i] == ids[np.int64(i)] == texts[i]
            assert texts[i] in ids
            assert ids.index(texts[i]) == texts.index(texts[i])
        else:
            with pytest.raises(IndexError):
                ids[i]
        if texts:
            positions = np.array(data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1)))
            chosen = [texts[position] for position in positions]
            T = max(map(len, chosen))
            assert ids.select(positions) == chosen
            assert ids.pad(positions).tolist() == [text + [0] * (T - len(text)) for text in chosen]


def test_four_bytes_hold_a_token_and_packing_again_copies_nothing():
    ids = pack([[1, 2, 50_256], [3]])
    assert (ids.ids.dtype, ids.ids.nbytes) == (np.int32, 4 * 4)
    assert pack(ids) is ids


@given(splits=st.lists(TEXTS, min_size=1, max_size=3))
@settings(derandomize=True, deadline=None)
def test_the_tokens_of_splits_are_found_once_each(splits):
    found = find_tokens(pack(texts) for texts in splits)
    assert found.tolist() == sorted({token for texts in splits for text in texts for token in text})


def test_texts_may_begin_beyond_32_bits():
    ids = TokenIds(np.broadcast_to(np.int32(7), 2**33 + 3), np.array([2**32, 2**32, 3]))
    assert ids.starts.tolist() == [0, 2**32, 2**33]
    assert ids[-1] == [7, 7, 7]
    assert ids.pad(np.array([2])).tolist() == [[7, 7, 7]]


def test_only_many_texts_go_to_the_disk(monkeypatch):
    files = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: files.append(make()) or files[-1])
    store([[1, 2]] * 9_999)
    assert files == []
    assert store([[i, 2] for i in range(25_000)])[24_999] == [24_999, 2]
    assert [file.closed for file in files] == [True]


def test_the_file_has_no_name_and_is_gone_even_after_a_kill(tmp_path):
    code = (
        "import os, signal; from data.token_ids import store; ids = store([[i, 2] for i in range(25_000)])\n"
        "print(ids[24_999], os.listdir(os.environ['TMPDIR']), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment, root = os.environ | {"TMPDIR": str(tmp_path)}, Path(token_ids.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, "[24999, 2] []\n")
    assert os.listdir(tmp_path) == []


def test_a_fork_reads_the_same_file():
    ids = stored([[1, 2], [3], [4, 5]], 1)
    if (child := os.fork()) == 0:
        os._exit(23 if ids == [[1, 2], [3], [4, 5]] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 23


def test_a_full_disk_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes of a file: then EFBIG
    try:
        message = line_of(store, [[1, 2, 3]] * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    expected = "expected space for a temporary file of token ids: File too large"
    assert message == f"{tmp_path}: {expected}; make room, or set TMPDIR to another folder"


def test_a_folder_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    message = line_of(store, [[1]] * 10_000)
    assert message.startswith(f"{tmp_path / 'nothing'}: expected space for a temporary file of token ids: No such file")
