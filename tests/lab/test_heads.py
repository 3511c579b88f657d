import pytest
import torch
from commands import line_of
from torch.nn import functional as F

from lab.device import Device
from lab.heads import draw_different_tokens, score_heads
from model import load_lm

CPU = Device(torch.device("cpu"), "fp32")


def test_the_table_has_each_head_once_and_what_is_lost_without_it(each_lm):
    lm = load_lm(each_lm.folder)
    torch.manual_seed(0)
    blocks = torch.randint(101, (3, 14), dtype=torch.int32)
    heads = score_heads(lm, blocks, CPU)
    twice = draw_different_tokens(blocks, lm.config.n_ctx).repeat(1, 2)
    T = twice.shape[1] // 2
    with torch.no_grad():
        maps = torch.stack(each_lm.hf(twice, output_attentions=True).attentions, dim=1)  # (4, L, H, 2T, 2T)
    for name, back in {"previous_token": 1, "induction": T - 1}.items():
        expected = torch.stack([maps[..., t, t - back] for t in range(back, 2 * T)]).mean(dim=(0, 1))  # (L, H)
        assert heads[name].tolist() == pytest.approx(expected.flatten().tolist(), abs=1e-6)
    assert [*zip(heads["layer"], heads["head"], strict=True)] == [divmod(i, 5) for i in range(15)]

    def loss():
        with torch.no_grad():
            return F.cross_entropy(lm(blocks[:, :-1].long()).flatten(0, 1), blocks[:, 1:].flatten().long()).item()

    whole, D = loss(), lm.config.head_width
    for row in heads.itertuples():
        weight = lm.trunk.h[row.layer].attn.c_proj.weight.data[:, row.head * D : (row.head + 1) * D]
        kept = weight.clone()
        weight.zero_()
        assert row.loss_increase == pytest.approx(loss() - whole, abs=1e-5)
        weight.copy_(kept)
    assert heads["loss_increase"].abs().min() > 1e-5


@pytest.mark.parametrize(("kinds", "n_ctx"), [(7, 13), (1, 13), (101, 3)])
def test_a_text_of_too_few_different_tokens_is_refused(kinds, n_ctx):
    blocks = torch.arange(3 * 14, dtype=torch.int32).view(3, 14) % kinds
    assert "at least 8 different tokens" in line_of(draw_different_tokens, blocks, n_ctx)


def test_eight_different_tokens_are_enough(lm):
    blocks = torch.arange(3 * 14, dtype=torch.int32).view(3, 14) % 8
    assert draw_different_tokens(blocks, 13).shape == (4, 2)
    assert score_heads(lm, blocks, CPU).notna().all(axis=None)


def test_the_random_tokens_are_of_the_text_and_none_comes_twice(lm, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lab.heads.score_looking_back", lambda lm, tokens, back: seen.append((tokens, back)) or torch.zeros(3, 5)
    )
    blocks = torch.arange(42, dtype=torch.int32).view(3, 14) * 2
    score_heads(lm, blocks, CPU)
    (tokens, one), (same, back) = seen
    assert torch.equal(tokens, same)
    assert tokens.shape == (4, 6)  # n_ctx 13 holds 6 tokens twice
    assert (one, back) == (1, 5)
    assert len(tokens.unique()) == 24
    assert set(tokens.flatten().tolist()) <= set(blocks.flatten().tolist())
