"""Where a checkpoint's tensors are: our names of them, their files on this machine and on the hub, and their hash."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from commands import line_of
from huggingface_hub import constants
from stand_in import COMMIT
from tiny import texts

from model import hub as client
from model import load_lm
from model.names import INDEX, WEIGHTS, list_weights
from model.weights import find_files, hash_weights, our_name

SOMEONE = "someone/some-gpt2"
IDS = texts(11, 11)[0]


@pytest.fixture
def sharded(lm_reference, tmp_path):
    """A language model in shards, saved by `transformers`."""
    lm_reference.hf.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    return tmp_path / "sharded"


def shards_of(folder):
    return sorted(folder.glob("model-*"))


@pytest.mark.parametrize(
    ("key", "name"),
    [("transformer.h.0.ln_1.bias", "trunk.h.0.ln_1.bias"), ("h.0.ln_1.bias", "trunk.h.0.ln_1.bias"),
     ("module._orig_mod.transformer.wte.weight", "trunk.wte.weight"), ("lm_head.weight", "lm_head.weight"),
     ("_orig_mod.module.lm_head.weight", "lm_head.weight"), ("base_model.model.score.weight", "score.weight"),
     ("transformer._orig_mod.h.1._fsdp_wrapped_module.mlp.c_fc.bias", "trunk.h.1.mlp.c_fc.bias"),
     ("modules.wte.weight", "trunk.modules.wte.weight"), ("", "trunk.")],
)  # fmt: skip
def test_a_tensor_has_one_name_whatever_its_model_was_in(key, name):
    assert our_name(key) == name


def test_the_hash_of_one_file_is_its_own(lm_reference):
    path = lm_reference.folder / WEIGHTS
    assert find_files(lm_reference.folder) == [path]
    assert hash_weights(lm_reference.folder) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_of_shards_is_that_of_their_hashes_in_order(sharded):
    each = [hashlib.sha256(path.read_bytes()).hexdigest() for path in shards_of(sharded)]
    assert find_files(sharded) == shards_of(sharded)
    assert hash_weights(sharded) == hashlib.sha256("".join(each).encode()).hexdigest()


A, B, C = (f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
OLD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("names", "weights"),
    [([WEIGHTS], [WEIGHTS]), ([A, B, C, INDEX, WEIGHTS], [WEIGHTS]), ([C, INDEX, B, A], [INDEX, A, B, C]),
     ([A, B, C], []), ([INDEX], []), ([A, C, INDEX], []), ([A, B, C, OLD, INDEX], [INDEX, A, B, C]),
     (["model-00000-of-00000.safetensors", INDEX], []), ([f"x/{A}", B, C, INDEX], []), ([], [])],
)  # fmt: skip
def test_weights_are_one_file_or_an_index_with_all_its_shards(names, weights):
    assert list_weights(names) == weights


# From the hub.


@pytest.fixture
def published(hub, sharded):
    (sharded / "pytorch_model.bin").write_text("not needed")
    hub.repositories["model", SOMEONE] = sharded
    return sharded


def cached(name):
    return Path(constants.HF_HUB_CACHE, f"models--{SOMEONE.replace('/', '--')}", "snapshots", COMMIT, name)


def test_index_and_shards_are_fetched_and_nothing_else(hub, published, lm_reference):
    assert torch.equal(load_lm(SOMEONE)(IDS), lm_reference.ours(IDS))
    assert {*hub.sent} == {"config.json", INDEX, *(path.name for path in shards_of(published))}


def test_a_shard_that_the_cache_lacks_is_fetched(hub, published, lm_reference):
    load_lm(SOMEONE)
    first, *_ = shards_of(published)
    cached(first.name).resolve().unlink()
    cached(first.name).unlink()
    hub.sent.clear()
    assert torch.equal(load_lm(SOMEONE)(IDS), lm_reference.ours(IDS))
    assert {*hub.sent} == {first.name}


def test_every_shard_is_checked_at_every_use(hub, published, caplog):
    load_lm(SOMEONE)
    assert "no SHA-256" not in caplog.text  # the cache names each by its own
    for path in shards_of(published):
        blob = cached(path.name).resolve()
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        client._content_hash.cache_clear()
        assert f"{path.name} is damaged: its SHA-256 is not {blob.name}" in line_of(load_lm, SOMEONE)
        blob.write_bytes(whole)
        client._content_hash.cache_clear()
    load_lm(SOMEONE)


def test_a_repository_with_a_shard_too_few_is_refused_before_any_download(hub, published):
    shards_of(published)[-1].unlink()
    assert f"shards need {INDEX} and all files that it names" in line_of(load_lm, SOMEONE)
    assert not hub.sent


def test_a_repository_with_an_adapter_beside_the_model_is_refused(hub, published):
    (published / "adapter_config.json").write_text("{}")
    assert "merge_and_unload" in line_of(load_lm, SOMEONE)


def test_whole_weights_need_no_advice_where_the_config_is_missing(hub, published):
    (published / "config.json").unlink()
    assert line_of(load_lm, SOMEONE).endswith(f"{INDEX}, pytorch_model.bin")


def test_shards_from_nowhere_are_said_to_be_unchecked(sharded, caplog):
    load_lm(sharded)
    assert [record.message for record in caplog.records] == [
        f"{sharded} was not saved by headgate: there is no SHA-256 to check its tensors against"
    ]


def test_one_file_goes_before_shards_whose_index_nobody_reads(sharded, lm_reference, tmp_path):
    shutil.copy(lm_reference.folder / WEIGHTS, sharded)
    assert find_files(sharded) == [sharded / WEIGHTS]
    (sharded / INDEX).write_text("{")
    assert torch.equal(load_lm(sharded)(IDS), lm_reference.ours(IDS))
