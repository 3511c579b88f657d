import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experiments.pretrain.softmax import SampledSoftmax
from lab.device import Device
from lab.language import held_out_loss, read_next, sum_log_probs
from model import GPT2, masks

V, C, N = 59, 7, 11
CPU = Device(torch.device("cpu"), "fp32")


@pytest.fixture
def inputs():
    """A normed stream (N, C), targets (N,) and an output layer (V, C) whose logits differ widely."""
    torch.manual_seed(0)
    return torch.randn(N, C), torch.randint(V, (N,)), torch.randn(V, C)


@pytest.fixture
def counts():
    return np.array([1000 // (i + 1) if i % 5 else 0 for i in range(V)])  # a few tokens never occur


def test_tokens_are_drawn_as_often_as_the_correction_says(counts):
    softmax = SampledSoftmax(counts, 13)
    torch.manual_seed(0)
    draws = torch.stack([softmax.draw() for _ in range(20_000)])
    assert draws.shape == (20_000, 13)
    assert (draws.sort(dim=1).values.diff() > 0).all()  # none twice
    shares = draws.flatten().bincount(minlength=V) / len(draws)
    assert softmax.log_p.exp().sum().item() == pytest.approx(13, rel=1e-5)
    # the race of exponential clocks makes p_i exact only for many tokens
    torch.testing.assert_close(softmax.log_p.exp(), shares, rtol=0.08, atol=0.01)
    weights = (counts + 1) ** 0.75
    first = draws[:, 0].bincount(minlength=V).numpy() / len(draws)
    np.testing.assert_allclose(first, weights / weights.sum(), rtol=0.3, atol=0.004)


@pytest.mark.slow
def test_the_denominator_is_estimated_without_bias(inputs, counts):
    x, targets, wte = inputs
    softmax = SampledSoftmax(counts, 31)
    torch.manual_seed(0)
    true = (x @ wte.T).gather(1, targets[:, None])[:, 0]
    one_by_one = [
        torch.stack([softmax(x[i : i + 1], targets[i : i + 1], wte, drawn) for i in range(N)])
        for drawn in (softmax.draw() for _ in range(3000))
    ]
    estimated = (torch.stack(one_by_one) + true).exp().mean(dim=0)  # (N,): loss = log denominator - true logit
    torch.testing.assert_close(estimated, (x @ wte.T).exp().sum(dim=1), rtol=0.05, atol=0)


def test_the_loss_is_too_low_on_average_by_less_the_more_tokens_are_drawn(inputs, counts):
    x, targets, wte = inputs
    torch.manual_seed(0)
    full = F.cross_entropy(x @ wte.T, targets).item()
    gaps = []
    for size in (5, 13, 31, 53):
        softmax = SampledSoftmax(counts, size)
        gaps.append(full - np.mean([softmax(x, targets, wte, softmax.draw()).item() for _ in range(500)]))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1
    assert 0 < gaps[-1] < 0.1


def test_with_nearly_all_tokens_drawn_it_is_the_full_softmax(inputs, counts):
    x, targets, wte = (tensor.clone() for tensor in inputs)
    softmax = SampledSoftmax(counts, V - 1)
    softmax.log_p.zero_()
    drawn = torch.arange(V)  # with all of them, exactly
    x.requires_grad_(), wte.requires_grad_()
    sampled, full = softmax(x, targets, wte, drawn), F.cross_entropy(x @ wte.T, targets)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-6)
    for ours, expected in zip(torch.autograd.grad(sampled, (x, wte)), torch.autograd.grad(full, (x, wte)), strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_drawn_target_counts_once(inputs, counts):
    x, targets, wte = inputs
    softmax = SampledSoftmax(counts, 13)
    others = torch.tensor([token for token in range(V) if token not in targets][:12])
    drawn = torch.cat([others, targets[:1]])
    for i in range(N):
        logits = x[i] @ wte.T
        rivals = [j for j in drawn.tolist() if j != targets[i]]
        denominator = logits[targets[i]].exp() + (logits[rivals] - softmax.log_p[rivals]).exp().sum()
        loss = softmax(x[i : i + 1], targets[i : i + 1], wte, drawn)
        assert loss.item() == pytest.approx((denominator.log() - logits[targets[i]]).item(), rel=1e-5)


def test_held_out_loss_is_that_of_transformers(each_lm):
    torch.manual_seed(0)
    blocks = torch.randint(101, (5, 14), dtype=torch.int32)
    with torch.no_grad():
        ids = blocks[:, :-1].long()
        logits = each_lm.hf(ids, attention_mask=torch.ones_like(ids)).logits
    expected = F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten().long()).item()
    assert held_out_loss(each_lm.ours, blocks, CPU) == pytest.approx(expected, rel=1e-5)


def test_held_out_loss_under_an_intervention(lm):
    torch.manual_seed(0)
    blocks = torch.randint(101, (3, 14), dtype=torch.int32)
    gate = masks.close_heads(lm.config, [(1, 2)])
    closed = held_out_loss(lm, blocks, CPU, lambda ids, lengths: {"head_gate": gate})
    whole = held_out_loss(lm, blocks, CPU)
    assert abs(closed - whole) > 1e-4
    D = lm.config.head_width
    lm.trunk.h[1].attn.c_proj.weight.data[:, 2 * D : 3 * D] = 0
    assert held_out_loss(lm, blocks, CPU) == pytest.approx(closed, rel=1e-6)


def test_held_out_loss_is_without_dropout_and_of_the_full_softmax(lm):
    blocks = torch.randint(101, (3, 14), dtype=torch.int32)
    lm.trunk.dropout.p = 0.5
    assert held_out_loss(lm.train(), blocks, CPU) == held_out_loss(lm.train(), blocks, CPU)
    for parameter in lm.parameters():
        parameter.data.zero_()
    assert held_out_loss(lm, blocks, CPU) == pytest.approx(math.log(101))


def draw_sequences(shared: int, *lengths: int) -> list[list[int]]:
    """Return random texts that have their first tokens in common, and then another one each."""
    rng = np.random.default_rng(0)
    beginning = rng.integers(1, 101, shared).tolist()
    return [[*beginning, 7 + i, *rng.integers(1, 101, n).tolist()] for i, n in enumerate(lengths)]


def read_with_transformers(reference, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return reference.hf(torch.tensor([ids])).logits[0].log_softmax(dim=-1)


@pytest.mark.parametrize("shared", [0, 1, 5])
def test_next_tokens_are_those_of_transformers(each_lm, shared):
    sequences, tokens, done = draw_sequences(shared, 3, 0, 6, 1), [5, 0, 100], []
    ours = read_next(each_lm.ours, sequences, tokens, CPU, done.append)
    expected = [read_with_transformers(each_lm, ids)[-1, tokens].tolist() for ids in sequences]
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert sum(done) == 4


def test_one_text_and_texts_that_are_alike(each_lm):
    (ids,) = draw_sequences(5, 3)
    expected = read_with_transformers(each_lm, ids)[-1, [5]].tolist()
    np.testing.assert_allclose(read_next(each_lm.ours, [ids], [5], CPU), [expected], atol=1e-5)
    np.testing.assert_allclose(read_next(each_lm.ours, [ids] * 3, [5], CPU), [expected] * 3, atol=1e-5)
    np.testing.assert_allclose(
        read_next(each_lm.ours, [ids, ids[:-1]], [5], CPU)[1],
        read_with_transformers(each_lm, ids[:-1])[-1, [5]].tolist(),
        atol=1e-5,
    )


@pytest.mark.parametrize("start", [1, 3, 6])
def test_sums_over_tokens_are_those_of_transformers(each_lm, start):
    sequences = draw_sequences(5, 3, 1, 6)
    expected = []
    for ids in sequences:
        log_probs = read_with_transformers(each_lm, ids)
        expected.append(sum(log_probs[t - 1, ids[t]].item() for t in range(start, len(ids))))
    np.testing.assert_allclose(sum_log_probs(each_lm.ours, sequences, start, CPU), expected, atol=2e-5)


def test_a_common_beginning_runs_once(each_lm, monkeypatch):
    run, tokens = GPT2.run, []

    def count(trunk, x, *arguments, **options):
        tokens.append(x.shape[0] * x.shape[1])
        return run(trunk, x, *arguments, **options)

    monkeypatch.setattr(GPT2, "run", count)
    read_next(each_lm.ours, draw_sequences(6, *[2] * 20), [5], CPU)
    assert sum(tokens) == 6 + 20 * 3
