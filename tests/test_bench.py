"""The benchmarks, at tiny size: that they measure what they say."""

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers

from model import GPT2Config, load_lm

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def loading():
    spec = importlib.util.spec_from_file_location("loading", BENCH / "loading.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_weights_that_loading_writes_are_those_that_both_read(loading, tiny, tmp_path):
    assert loading.write_official(tiny, tmp_path) == 4 * sum(p.numel() for p in load_lm(tmp_path).parameters())
    hf = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_lm(tmp_path)(ids), hf(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_both_loaders_are_measured(loading, tmp_path):
    loading.write_official(GPT2Config(1, 1, 64), tmp_path)  # 13 MB, mostly the embedding
    for loader in ("headgate", "transformers"):
        measured = loading.measure(loader, str(tmp_path))
        assert measured["seconds"] >= 0
        assert measured["peak_bytes"] >= 0
