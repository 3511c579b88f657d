"""Checkpoints that are damaged, absurd or malicious: the right model, or one line that a terminal can print."""

import json
import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import line_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated, mutations
from safetensors.torch import load_file, save_file
from tiny import random_classifier, set_config

from model import GPT2Classifier, GPT2Config, InputError, Tokenizer, load_classifier, load_lm, save
from model.checkpoint import read_labels
from model.tokenizer import BYTE_OF

ROOT = Path(__file__).parents[2]
LABELS = ("joy", "très 🙂", "غضب")
TINY = GPT2Config(n_layer=2, n_head=1, n_embd=3, n_ctx=5, vocab_size=261, dropout=0.0, attn_dropout=0.0)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def classifier(seed=0, labels=LABELS):
    return random_classifier(TINY, labels, seed)


def tiny_tokenizer():
    """Every byte, three merges and <|endoftext|>."""
    merges = [("h", "e"), ("l", "l"), ("he", "ll")]
    tokens = [*BYTE_OF, *(a + b for a, b in merges), "<|endoftext|>"]
    vocab = json.dumps({token: i for i, token in enumerate(tokens)}).encode()
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    return Tokenizer({"vocab.json": vocab, "merges.txt": "\n".join(lines).encode()})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What one of our checkpoints holds, by name: bytes."""
    folder = tmp_path_factory.mktemp("ours")
    save(classifier(), folder, tiny_tokenizer())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def ours(files, tmp_path):
    return written(tmp_path / "ours", files)


@pytest.fixture
def foreign(ours):
    """Without a SHA-256, as others write them."""
    save_file(load_file(ours / WEIGHTS), ours / WEIGHTS)
    return ours


def flipped(content, step):
    """The content with one bit flipped, again and again at every `step` bytes."""
    for at in range(0, len(content), step):
        yield content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


def written(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def is_saved_one(model):
    saved = classifier()
    values = saved.state_dict()
    same = all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    return same and (model.labels, model.config) == (saved.labels, saved.config)


def works(loaded):
    if isinstance(loaded, Tokenizer):
        text = "hello 🙂 \xa1"
        return loaded.decode(loaded.encode(text)) == text
    return all(value.isfinite().all() and value.dtype == torch.float32 for value in loaded.parameters())


def same_or_refused(load, folder, is_same):
    """Whether it was refused, in one line; assert that it is the same one otherwise."""
    try:
        loaded = load(folder)
    except InputError:
        assert str(folder) in line_of(load, folder)
        return True
    assert is_same(loaded)
    return False


# Damage


def test_a_flipped_bit_in_our_weights_is_refused_or_changes_nothing(ours, files):
    refused = []
    for content in flipped(files[WEIGHTS], len(files[WEIGHTS]) // 97):
        (ours / WEIGHTS).write_bytes(content)
        refused.append(same_or_refused(load_classifier, ours, is_saved_one))
    assert sum(refused) > 0.9 * len(refused)  # the others are in the names of our keys, or of what nobody reads


def test_a_flipped_bit_in_our_config_is_refused_or_told(ours, files, caplog):
    for content in flipped(files["config.json"], len(files["config.json"]) // 97):
        (ours / "config.json").write_bytes(content)
        caplog.clear()
        if not same_or_refused(load_classifier, ours, works):
            assert "config.json was changed since model.safetensors was saved with it" in caplog.text


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_flipped_bit_in_a_vocabulary_is_refused_or_changes_nothing(ours, files, name):

    def ids(tokenizer):
        return tokenizer.encoding._mergeable_ranks, [*tokenizer.to_ids([*range(259)])]

    for content in flipped(files[name], 37):
        (ours / name).write_bytes(content)
        same_or_refused(Tokenizer.load, ours, lambda loaded: ids(loaded) == ids(tiny_tokenizer()))


@pytest.mark.parametrize("load", [load_lm, load_classifier, Tokenizer.load], ids=["lm", "classifier", "tokenizer"])
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["ours", "foreign"])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(name=st.sampled_from([WEIGHTS, "config.json", "vocab.json", "merges.txt"]), changes=mutations())
def test_a_mutated_file_is_read_right_or_refused_in_one_line(files, load, metadata, name, changes):
    with tempfile.TemporaryDirectory() as parent:
        folder = written(Path(parent) / "mutated", files)
        if metadata:
            save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata)
        (folder / name).write_bytes(mutated((folder / name).read_bytes(), changes))
        same_or_refused(load, folder, works)
        assert {path.name for path in Path(parent).iterdir()} == {"mutated"}
        assert {path.name for path in folder.iterdir()} == files.keys()


def in_shards(folder):
    """Put the weights into two shards, and return the text of their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    halves = {f"model-0000{i}-of-00002.safetensors": sorted(tensors)[i - 1 :: 2] for i in (1, 2)}
    for name, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, folder / name)
    index = json.dumps({"weight_map": {key: name for name, keys in halves.items() for key in keys}})
    (folder / INDEX).write_text(index)
    return index


@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations())
def test_a_mutated_index_of_shards_is_read_right_or_refused_in_one_line(files, changes):
    with tempfile.TemporaryDirectory() as parent:
        folder = written(Path(parent) / "mutated", files)
        index = in_shards(folder)
        assert is_saved_one(load_classifier(folder))
        (folder / INDEX).write_bytes(mutated(index.encode(), changes))
        same_or_refused(load_classifier, folder, is_saved_one)


PLACES = ["../x.safetensors", "/etc/x.safetensors", "a\\x.safetensors", "\0.safetensors", "x" * 300 + ".safetensors",
          "\ud800.safetensors", "", ".", "..", "config.json", INDEX, None, 7, ["x.safetensors"], {}]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
def test_an_index_that_leads_elsewhere_is_refused(ours, place):
    index = json.loads(in_shards(ours))
    index["weight_map"]["score.weight"] = place
    (ours / INDEX).write_text(json.dumps(index))
    assert str(ours) in line_of(load_classifier, ours)


@pytest.mark.parametrize("weight_map", [None, {}, [], "x.safetensors", 3], ids=str)
def test_an_index_that_names_no_file_is_refused(ours, weight_map):
    in_shards(ours)
    (ours / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert "expected a weight_map" in line_of(load_classifier, ours)


# Headers and configs that promise too much


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


TWICE = b'{"score.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"score.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'  # noqa: E501
HEADERS = {
    "twice": TWICE,
    "names": {"../../x": tensor(), "/etc/x\n\x1b[2J\u202e": tensor(offsets=(4, 8))},
    "no name": {"": tensor(offsets=(0, 8), shape=[2])},
    "negative": {"a": tensor(shape=[-2])},
    "overlapping": {"a": tensor(), "b": tensor()},
    "beyond the file": {"a": tensor(shape=[2**58], offsets=(0, 2**60))},
    "product beyond 64 bits": {"a": tensor(shape=[2**33, 2**33], offsets=(0, 0))},
    "beyond 64 bits": {"score.weight": tensor(shape=[2**64, 0], offsets=(0, 0))},
    "beyond 63 bits": {"score.weight": tensor(shape=[2**63, 0], offsets=(0, 0))},
    "many of nothing": {"score.weight": tensor(shape=[2**40, 0], offsets=(0, 0))},
    "a number for a head": {"score.weight": tensor(shape=[], offsets=(0, 4))},
    "10,000 axes": {"score.weight": tensor(shape=[1] * 10_000)},
    "a dtype of no use": {"score.weight": tensor("F8_E5M2", [4, 2], (0, 8))},
    "half a byte": {"score.weight": tensor("F4", [4, 4], (0, 8))},
    "no dtype": {"a": tensor("F31")},
    "deep": b'{"a":' * 100_000,
    "an array": b"[" * 100_000,
    "not UTF-8": b'{"\xff":1}',
    "half a pair": b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "empty": b"",
    "no tensors": {},
    "metadata": {"__metadata__": {"format": 1}},
}


def with_header(folder, header, size=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(header) if size is None else size
    (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + header + bytes(8))


@pytest.mark.parametrize("load", [load_lm, load_classifier], ids=["lm", "classifier"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_is_refused_in_one_line(ours, name, load):
    with_header(ours, HEADERS[name])
    before = sorted(ours.parent.rglob("*"))
    assert str(ours) in line_of(load, ours)
    assert sorted(ours.parent.rglob("*")) == before


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**8, 9, 0])
def test_a_header_of_another_size_is_refused(ours, size):
    with_header(ours, {"a": tensor()}, size)
    assert "truncated or damaged" in line_of(load_lm, ours)


@pytest.mark.parametrize("extra", ["score.weight", "lm_head.weight", "h.0.attn.bias"])
@pytest.mark.parametrize("shape", [[2**63, 0], [2**40, 0], [0]], ids=str)
def test_a_tensor_that_may_be_dropped_has_numbers_too(foreign, extra, shape):
    content = (foreign / WEIGHTS).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size]) | {extra: tensor(shape=shape, offsets=(0, 0))}
    header.pop("score.weight") if extra != "score.weight" else None
    end = 0
    for entry in header.values():  # without gaps again
        length = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"], end = [end, end + length], end + length
    header = json.dumps(header).encode()
    (foreign / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    assert "without numbers" in line_of(load_lm, foreign)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_fp32_cannot_hold_are_refused(foreign, value):
    tensors = load_file(foreign / WEIGHTS)
    for large in (value, 1e300):
        tensors["transformer.ln_f.bias"] = torch.tensor([0.0, large, 0.0], dtype=torch.float64)
        save_file(tensors, foreign / WEIGHTS)
        assert "transformer.ln_f.bias holds numbers that are not finite" in line_of(load_lm, foreign)


ABSURD = [
    {"n_layer": 10**7}, {"n_layer": 10**30}, {"n_embd": 10**9}, {"n_embd": 10**4000}, {"vocab_size": 10**18},
    {"n_positions": 2**62}, {"n_layer": 10**9, "n_embd": 1}, {"n_head": 2**70}, {"n_layer": -1}, {"n_embd": 1e300},
    {"layer_norm_epsilon": float("nan")}, {"layer_norm_epsilon": False}, {"attn_pdrop": 10**400}, {"n_layer": [2]},
]  # fmt: skip


@pytest.mark.parametrize("load", [load_lm, load_classifier], ids=["lm", "classifier"])
@pytest.mark.parametrize("change", ABSURD, ids=range(len(ABSURD)))
def test_sizes_that_no_memory_holds_are_refused_beforehand(foreign, change, load):
    """None of these returns within a test's patience where it is taken seriously."""
    set_config(foreign, **change)
    line_of(load, foreign)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"n_layer": 2, "n_layer": 3}', '{"a": ' + "9" * 5000 + "}", '"\\ud800"'],
    ids=["arrays", "objects", "twice", "digits", "half a pair"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.json", "vocab.json", "tokenizer.json"])
def test_json_that_is_none_for_us_is_refused(ours, name, text):
    (ours / name).write_text(text)
    load = load_classifier if name == "config.json" else Tokenizer.load
    assert name in line_of(load, ours)


BAD_NAMES = [
    ["joy", "joy", "fear"], ["joy", "", "fear"], ["joy", " ", "fear"], ["joy", "a\nb", "fear"], ["joy", "a\0", "fear"],
    ["joy", "\x1b[2J", "fear"], ["joy", "\ud800", "fear"], ["joy", 3, "fear"], ["joy", None, "fear"],
    ["joy", ["x"], "fear"], ["joy", "fear"], [str(i) for i in range(10_000)],
]  # fmt: skip


ID2LABELS = [*(dict(enumerate(names)) for names in BAD_NAMES), dict(zip("123", "abc", strict=True)), ["a", "b", "c"]]


@pytest.mark.parametrize("id2label", ID2LABELS, ids=range(len(ID2LABELS)))
def test_names_that_do_not_fit_the_heads_rows_are_refused(foreign, id2label):
    set_config(foreign, id2label=id2label)
    assert "expected a name of its own for each of 3 classes" in line_of(load_classifier, foreign)


@pytest.mark.parametrize("names", [*BAD_NAMES[:-2], ["one"], [], "ab"], ids=range(len(BAD_NAMES) + 1))
def test_no_classifier_is_made_with_names_that_could_not_be_read_again(names):
    with pytest.raises(InputError, match="labels: expected at least two different names"):
        GPT2Classifier(TINY, names)


def test_names_in_any_script_are_kept_apart(foreign):
    names = ("Joy", "joy", "jo\u0301y", "j\u00f3y", "👩‍👩‍👧", "شادی")[:3]
    set_config(foreign, id2label=dict(enumerate(names)))
    assert read_labels(foreign) == names
    save(load_classifier(foreign), foreign)
    assert load_classifier(foreign).labels == names


IDS = [[0.0, 1], [True, 0], ["0", "1"], [None, 0], [[0], 1], [-1, 0], [2**70, 0], [1, 1]]


@pytest.mark.parametrize("ids", IDS, ids=str)
@pytest.mark.parametrize("tokens", [("!", '"'), ("!", "<|endoftext|>")], ids=["two bytes", "the special token"])
def test_ids_that_no_token_can_have_are_refused(ours, ids, tokens):
    vocab = json.loads((ours / "vocab.json").read_text()) | dict(zip(tokens, ids, strict=True))
    (ours / "vocab.json").write_text(json.dumps(vocab))
    assert "vocab.json and merges.txt" in line_of(Tokenizer.load, ours)


# A full disk, and a kill


def in_a_child(act):
    """Do it in a process of its own, that may be limited or killed."""
    if (child := os.fork()) == 0:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("limit", [100, 2000, 5000])
def test_a_full_disk_is_one_line_and_the_former_checkpoint_stays(ours, files, tmp_path, limit):
    """The files are written for real, and break off in the config, in the vocabulary, and in the weights."""
    assert 100 < len(files["config.json"]) < 2000 < len(files["vocab.json"]) < 5000 < len(files[WEIGHTS])
    said = tmp_path / "said"

    def save_on_a_full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))  # bytes of a file: then EFBIG
        try:
            save(classifier(seed=1), ours, tiny_tokenizer())
        except OSError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            said.write_text(str(error))

    in_a_child(save_on_a_full_disk)
    line = rf"{re.escape(str(ours))}: the model could not be saved, is the disk full\? \(.*File too large.*\)"
    assert re.fullmatch(line, said.read_text())
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == files


@pytest.mark.parametrize("replaced", range(6))
def test_a_kill_in_the_middle_of_a_save_leaves_no_mixture_unsaid(ours, replaced, caplog):
    """Between any two of the files: the former model, the new one, or a warning."""
    replace, calls = os.replace, []

    def killed(*paths):
        if len(calls) == replaced:
            os._exit(9)
        calls.append(paths)
        replace(*paths)

    def save_and_be_killed():
        os.replace = killed
        save(other, ours, tiny_tokenizer())

    other = classifier(1, LABELS[::-1])
    in_a_child(save_and_be_killed)
    loaded, expected = load_classifier(ours), classifier() if replaced == 0 else other
    assert torch.equal(loaded.trunk.wte.weight, expected.trunk.wte.weight)
    assert (loaded.labels == expected.labels) is (replaced != 1)
    assert ("config.json was changed since" in caplog.text) is (replaced == 1)


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(ours):
    """In a container every process may be number 1."""
    for name in ("config.json", WEIGHTS):
        os.link(ours / name, ours / f".{name}.{os.getpid()}.old")
        (ours / f".{name}.{os.getpid()}.tmp").write_bytes(b"half")
    save(classifier(1), ours)
    assert torch.equal(load_classifier(ours).score.weight, classifier(1).score.weight)
    assert not list(ours.glob(".*"))


# Pickles

NO_PICKLE = """
import pickle, sys
sys.path[:0] = [{root!r}]
import torch, pyarrow.parquet
from data import read_corpus
from model import InputError, Tokenizer, load_classifier, load_lm

def refuse(*arguments, **options):
    raise SystemExit("a pickle was opened")

def hook(event, arguments):
    if event == "pickle.find_class":
        refuse()

sys.addaudithook(hook)
for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")]:
    setattr(module, name, refuse)
load_lm({ours!r}), load_classifier({ours!r}), Tokenizer.load({ours!r})
for call in (load_lm, load_classifier, Tokenizer.load):
    try:
        call({pickled!r})
    except InputError as error:
        print(error)
read_corpus("sample")
try:
    read_corpus({parquet!r})
except InputError as error:
    print(error)
"""


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.slow
def test_no_pickle_is_ever_opened(ours, tmp_path):
    """Not the one in place of weights or vocabulary, nor that of an extension type, which old pyarrow did open."""
    payload = pickle.dumps(Payload(tmp_path / "written"))
    pickled = written(tmp_path / "pickled", {"config.json": (ours / "config.json").read_bytes()})
    for name in ("pytorch_model.bin", "vocab.json", "merges.txt"):
        (pickled / name).write_bytes(payload)
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": payload}
    schema = pa.schema([pa.field("text", pa.string(), metadata=extension), pa.field("label", pa.binary())])
    pq.write_table(pa.table({"text": ["a"], "label": [payload]}, schema=schema), tmp_path / "a.parquet")
    code = NO_PICKLE.format(root=str(ROOT), ours=str(ours), pickled=str(pickled), parquet=str(tmp_path / "a.parquet"))
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.count("\n") == 4, run.stderr
    assert run.returncode == 0, (run.returncode, run.stderr)
    assert run.stdout.count("pytorch_model.bin, vocab.json; a pickle is never opened here") == 2
    assert not (tmp_path / "written").exists()
    pickle.loads(payload).close()
    assert (tmp_path / "written").exists()  # it would have been
