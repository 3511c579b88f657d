"""The embedded checkpoint: whole, the same to `transformers`, and a language model of English."""

import json
import logging
import re

import pytest
import torch
import transformers
from torch.nn import functional as F

from lab.heads import score_looking_back
from model import GPT2LM, Tokenizer, load_lm, masks
from model.names import EMBEDDED

CARD = (EMBEDDED / "README.md").read_text(encoding="utf-8")
TEXT = """It was a cold evening, and the old man sat alone by the fire. He had not spoken a word since his daughter
had left the house, and now, when the servant came in with the lamp, he only turned his head to the window."""


@pytest.fixture(scope="module")
def mini():
    return load_lm("gpt2-mini")


@pytest.fixture(scope="module")
def ids():
    return torch.tensor([Tokenizer.load("gpt2-mini").encode(TEXT.replace("\n", " "))])


def loss(lm, ids, **arguments):
    with torch.no_grad():
        return F.cross_entropy(lm(ids, **arguments)[0, :-1], ids[0, 1:]).item()


def test_transformers_opens_it_and_says_the_same(mini, ids):
    hf = transformers.AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(mini(ids), hf(ids).logits, atol=1e-4, rtol=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED)
    assert tokenizer(TEXT)["input_ids"] == Tokenizer.load("gpt2-mini").encode(TEXT)


def test_it_is_stored_in_half_precision_with_its_hash(caplog):
    size = (EMBEDDED / "model.safetensors").stat().st_size
    assert size == pytest.approx(2 * 17_867_008, rel=0.001)
    with caplog.at_level(logging.WARNING):
        load_lm("gpt2-mini")
    assert not caplog.records  # nothing about a missing hash


def test_it_knows_english(mini, ids):
    torch.manual_seed(0)
    shuffled = ids[:, torch.randperm(ids.shape[1])]
    untrained = GPT2LM(mini.config).eval()
    assert loss(mini, ids) < 5
    assert loss(mini, shuffled) > loss(mini, ids) + 1.5
    assert loss(untrained, ids) > 10


def test_some_of_its_heads_look_at_the_previous_token(mini):
    tokens = torch.tensor(Tokenizer.load("gpt2-mini").encode(TEXT)).unique()[None, :32]
    assert score_looking_back(mini, tokens, 1).max() > 0.3
    assert score_looking_back(GPT2LM(mini.config).eval(), tokens, 1).max() < 0.15


@pytest.mark.slow
def test_closing_a_head_costs_something_and_with_random_weights_nothing(mini, ids):
    def costs(lm):
        gates = [masks.close_heads(lm.config, [divmod(i, 8)]) for i in range(48)]
        return [loss(lm, ids, head_gate=gate) - loss(lm, ids) for gate in gates]

    assert max(costs(mini)) > 0.1
    assert max(map(abs, costs(GPT2LM(mini.config).eval()))) < 0.03


def test_the_card_tells_the_numbers_of_the_training():
    run, metrics = (json.loads((EMBEDDED / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "metrics"))
    held_out, corpus = metrics["held_out"], run["corpus"]
    log = [json.loads(line) for line in (EMBEDDED / "log.jsonl").read_text().splitlines()]
    for number in (
        f"{held_out['loss']:.3f}",
        f"{held_out['perplexity']:.1f}",
        f"{held_out['tokens']:,}",
        f"{corpus['tokens']['train']:,}",
        f"{log[-1]['tokens']:,}",
        *corpus["sha256"].values(),
        run["command"],
    ):
        assert number in CARD
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", CARD)
    assert pictures == ["learning_curves.png", "heads.png"]
    assert all((EMBEDDED / picture).is_file() for picture in pictures)
