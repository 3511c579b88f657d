"""The same numbers as `transformers`, from the same files; and mutants, which show that the comparison would notice."""

import math
import shutil
import types
from dataclasses import replace

import pytest
import torch
from parity import check_parity
from tiny import C, D, H, V, real, texts
from torch.nn import functional as F

import model.gpt2
import model.readout
from model import GPT2Config, Trace, load_lm
from model.layouts import LAYOUTS, config_to_hf


@pytest.mark.parametrize("kind", ["lm_reference", "clf_reference"])
@pytest.mark.parametrize("lengths", [(1,), (13,), (7, 11), (5, 1, 13)], ids=str)
def test_logits_equal_those_of_transformers(request, kind, lengths):
    hf, ours, _ = request.getfixturevalue(kind)
    check_parity(ours, hf, *texts(*lengths))


@pytest.mark.parametrize(
    "sizes",
    [dict(n_layer=1, n_head=1, n_embd=3), dict(n_layer=5, n_head=2, n_embd=22), dict(scale_attn_weights=False)],
    ids=str,
)
def test_other_shapes_equal_transformers(reference, sizes):
    hf, ours, _ = reference("GPT2LMHeadModel", seed=1, **sizes)
    check_parity(ours, hf, *texts(7, 11))


@pytest.fixture(scope="module")
def full_size(reference):
    """The 124M shape with random weights, once: a classifier and a language model from one folder, ours and HF's."""
    import transformers

    full = config_to_hf(GPT2Config.preset("gpt2")) | {"initializer_range": 0.1, "num_labels": 6}
    hf, ours, folder = reference("GPT2ForSequenceClassification", **full)
    hf_lm = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    lm = load_lm(folder)
    shutil.rmtree(folder)  # 0.5 GB
    return {"classifier": (ours, hf), "language model": (lm, hf_lm)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "language model"])
def test_full_size_equals_transformers(full_size, kind):
    ours, hf = full_size[kind]
    assert sum(p.numel() for p in ours.trunk.parameters()) == 124_439_808
    generator = torch.Generator().manual_seed(0)
    ids, lengths = torch.randint(0, 50256, (3, 17), generator=generator), torch.tensor([17, 5, 11])
    check_parity(ours, hf, ids.masked_fill(~real(ids, lengths), 50256), lengths)


def test_attention_weights_equal_transformers(lm_reference):
    (ids, lengths), trace = texts(11, 7), Trace("weights")
    lm_reference.ours(ids, lengths, trace=trace)
    hf = lm_reference.hf(ids, attention_mask=real(ids, lengths).long(), output_attentions=True).attentions
    for got, expected in zip(trace.weights, hf, strict=True):
        tokens = real(ids, lengths)
        assert (got - expected).transpose(1, 2)[tokens].abs().max() <= 1e-5


# Mutants: each is a mistake that people make, made in our model; the comparison must fail and say where.


def substitute(monkeypatch, **functions) -> None:
    """Other functions in place of torch.nn.functional's, for model/gpt2.py alone."""
    monkeypatch.setattr(model.gpt2, "F", types.SimpleNamespace(**vars(F) | functions))


def erf_gelu(ours, monkeypatch):
    monkeypatch.setattr(model.gpt2, "linear_gelu", lambda linear, x: F.gelu(linear(x)))


def no_causal_mask(ours, monkeypatch):
    attention = F.scaled_dot_product_attention
    substitute(monkeypatch, scaled_dot_product_attention=lambda q, k, v, **kw: attention(q, k, v))


def swapped_query_and_value_bias(ours, monkeypatch):
    bias = ours.trunk.h[1].attn.c_attn.bias
    bias.copy_(torch.cat([bias[2 * C :], bias[C : 2 * C], bias[:C]]))


def swapped_layer_norm_bias(ours, monkeypatch):
    block = ours.trunk.h[2]
    block.ln_1.bias, block.ln_2.bias = block.ln_2.bias, block.ln_1.bias


def swapped_layer_norm_weight(ours, monkeypatch):
    ours.trunk.h[0].ln_1.weight.copy_(ours.trunk.h[1].ln_1.weight)


def square_weight_not_transposed(ours, monkeypatch):
    weight = ours.trunk.h[1].attn.c_proj.weight
    weight.copy_(weight.T.clone())


def positions_from_one(ours, monkeypatch):
    ours.trunk.wpe.weight.copy_(ours.trunk.wpe.weight.roll(-1, dims=0))


def default_epsilon(ours, monkeypatch):
    ours.trunk.h[0].ln_1.eps = 1e-5


def unscaled_scores(ours, monkeypatch):
    attention = ours.trunk.h[0].attn.c_attn
    attention.weight[:C] *= math.sqrt(D)
    attention.bias[:C] *= math.sqrt(D)


def heads_interleaved(ours, monkeypatch):
    """The columns of c_proj read as (D, H) instead of (H, D)."""
    weight = ours.trunk.h[1].attn.c_proj.weight
    weight.copy_(weight.reshape(C, H, D).transpose(1, 2).reshape(C, C))


def no_final_layer_norm(ours, monkeypatch):
    ours.trunk.ln_f = torch.nn.Identity()


def token_before_the_last(ours, monkeypatch):
    last_real = model.readout.last_real
    monkeypatch.setattr(model.readout, "last_real", lambda x, lengths: last_real(x, lengths) - 1)


MUTANTS = {
    erf_gelu: "block 0",
    no_causal_mask: "block 0",
    swapped_query_and_value_bias: "block 1",
    swapped_layer_norm_bias: "block 2 or ln_f",
    swapped_layer_norm_weight: "block 0",
    square_weight_not_transposed: "block 1",
    positions_from_one: "the embeddings",
    default_epsilon: "block 0",
    unscaled_scores: "block 0",
    heads_interleaved: "block 1",
    no_final_layer_norm: "block 2 or ln_f",
    token_before_the_last: "None",
}


EVERY_MUTANT = [(kind, mutate) for mutate in MUTANTS for kind in ("lm", "clf")]
EVERY_MUTANT.remove(("lm", token_before_the_last))  # a language model reads every token


@pytest.mark.parametrize(("kind", "mutate"), EVERY_MUTANT, ids=lambda value: getattr(value, "__name__", value))
def test_parity_notices_and_locates(request, kind, mutate, monkeypatch):
    ours, hf = request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_reference").hf
    with torch.no_grad():
        mutate(ours, monkeypatch)
    with pytest.raises(AssertionError, match=f"first in {MUTANTS[mutate]}$"):
        check_parity(ours, hf, *texts(7, 11))


def test_loading_notices_a_square_weight_that_was_not_transposed(lm_reference, monkeypatch):
    layout = replace(LAYOUTS["gpt2"], transposed=("c_attn.weight", "mlp.c_proj.weight", "c_fc.weight"))
    monkeypatch.setitem(LAYOUTS, "gpt2", layout)
    with pytest.raises(AssertionError, match=r"first in block 0$"):
        check_parity(load_lm(lm_reference.folder), lm_reference.hf, *texts(7, 11))


# Generation.


def continued(hf, ids, new, **settings):
    """What HF's own greedy search writes."""
    full = dict(do_sample=False, eos_token_id=None, pad_token_id=0) | settings
    return hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **full)


@pytest.mark.filterwarnings("error")  # what fits into the context says nothing
def test_greedy_generation_equals_transformers(lm_reference):
    ids, _ = texts(4, 4, 4)
    got = lm_reference.ours.generate(ids, max_new_tokens=9)
    assert got.tolist() == continued(lm_reference.hf, ids, 9).tolist()
    assert got.shape == (3, 13)


def test_generation_stops_like_transformers(lm_reference):
    ids, _ = texts(4, 4, 4)
    free = continued(lm_reference.hf, ids, 9)
    stop = free[0, 6].item()
    expected = continued(lm_reference.hf, ids, 9, eos_token_id=stop, pad_token_id=stop)
    assert expected.tolist() != free.tolist()
    assert lm_reference.ours.generate(ids, 9, stop=stop).tolist() == expected.tolist()


def test_generation_ends_when_every_row_has_stopped(lm_reference):
    ids, _ = texts(4)
    stop = continued(lm_reference.hf, ids, 1)[0, 4].item()
    assert lm_reference.ours.generate(ids, 9, stop=stop).tolist() == [[*ids[0].tolist(), stop]]


def test_a_prompt_may_hold_the_stop_token(lm_reference):
    ids, _ = texts(4)
    got = lm_reference.ours.generate(ids, 2, stop=ids[0, 1].item())
    assert got.tolist() == continued(lm_reference.hf, ids, 2).tolist()


def test_generation_says_when_the_context_is_full(lm_reference):
    ids, _ = texts(4, 4)
    with pytest.warns(UserWarning, match="n_ctx = 13"):
        got = lm_reference.ours.generate(ids, max_new_tokens=10)
    assert got.shape == (2, 13)


def test_no_new_tokens_leave_the_prompt(lm_reference):
    ids, _ = texts(4, 4)
    assert torch.equal(lm_reference.ours.generate(ids, max_new_tokens=0), ids)


@pytest.mark.parametrize("arguments", [dict(max_new_tokens=-1), dict(max_new_tokens=1, temperature=-0.5)], ids=str)
def test_generation_refuses_negative_numbers(lm_reference, arguments):
    with pytest.raises(ValueError, match="negative"):
        lm_reference.ours.generate(texts(4)[0], **arguments)


def test_drawn_tokens_follow_the_temperature(lm_reference):
    ids, n, temperature = texts(4)[0], 20_000, 2.5
    torch.manual_seed(0)
    drawn = lm_reference.ours.generate(ids.expand(n, -1), 1, temperature=temperature)[:, -1]
    with torch.no_grad():
        p = (lm_reference.hf(ids).logits[0, -1] / temperature).softmax(-1)
    deviation = (drawn.bincount(minlength=V) / n - p).abs() / (p * (1 - p) / n).sqrt()
    assert p.max() < 0.9  # or there would be nothing to draw
    assert deviation[p > 1e-3].max() < 4.5


def test_drawing_is_repeated_by_its_seed(lm_reference):
    def draw(seed):
        torch.manual_seed(seed)
        return lm_reference.ours.generate(texts(4, 4)[0], 9, temperature=3.0).tolist()

    assert draw(0) == draw(0) != draw(1)


def test_a_low_temperature_is_greedy(lm_reference):
    ids, _ = texts(4, 4)
    cold = lm_reference.ours.generate(ids, 5, temperature=1e-6)
    assert cold.tolist() == continued(lm_reference.hf, ids, 5).tolist()
