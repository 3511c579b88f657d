import math
from itertools import pairwise

import pytest
import torch

from lab.optim import adamw, cosine_schedule, linear_schedule, muon
from model import GPT2LM

STEPS = 40


def rates(schedule, warmup=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, seen = schedule(optimizer, STEPS, warmup), []
    for _ in range(STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen, optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])
def test_the_rate_rises_then_falls_to_nothing(schedule):
    seen, after = rates(schedule)
    assert seen[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert all(a > b for a, b in pairwise(seen[4:]))
    assert after == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_without_a_rise_it_begins_at_the_top_and_with_nothing_else_ends_there(schedule, warmup):
    seen, _ = rates(schedule, warmup)
    top = {0.0: 0, 1.0: STEPS - 1}[warmup]
    assert seen[top] == max(seen) == 2.0
    assert seen == sorted(seen, reverse=not top)


def test_the_straight_line_by_hand():
    seen, _ = rates(linear_schedule)
    assert seen[4:] == pytest.approx([2 * (40 - step) / 36 for step in range(4, 40)])


def test_a_training_before_it_rises_and_falls_by_itself():
    seen, _ = rates(lambda *arguments: linear_schedule(*arguments, before=10))
    assert seen[:10] == pytest.approx([2 * (10 - step) / 9 if step else 2 for step in range(10)])
    alone, _ = rates(linear_schedule)
    assert seen[10:] == pytest.approx(alone[:-10])


def test_the_cosine_is_half_way_down_in_the_middle():
    seen, _ = rates(cosine_schedule)
    assert seen[4 + 18] == pytest.approx(1.0)
    assert seen[4 + 9] == pytest.approx(1 + math.cos(math.pi / 4))


def test_muon_takes_the_blocks_matrices_and_adamw_everything_else_once(tiny):
    lm = GPT2LM(tiny)
    names = {id(parameter): name for name, parameter in lm.named_parameters()}
    ours, others = muon(lm.trunk, 0.1, 0.01)
    taken = [[names[id(p)] for group in o.param_groups for p in group["params"]] for o in (ours, others)]
    assert len(taken[0]) == 4 * tiny.n_layer
    assert all(name.startswith("trunk.h.") and name.endswith(".weight") and "ln_" not in name for name in taken[0])
    assert sorted(taken[0] + taken[1]) == sorted(names.values())
    assert {group["betas"] for group in others.param_groups} == {(0.9, 0.95)}
    decays = {names[id(p)]: group["weight_decay"] for group in others.param_groups for p in group["params"]}
    assert {name for name, decay in decays.items() if decay} == {"trunk.wte.weight", "trunk.wpe.weight"}


def test_muons_step_has_singular_values_of_one_size_and_adamws_length(tiny):
    lm = GPT2LM(tiny)
    torch.manual_seed(0)
    for parameter in lm.parameters():
        parameter.grad = torch.randn_like(parameter)
    matrix = lm.trunk.h[1].mlp.c_fc.weight  # (4C, C)
    before = matrix.detach().clone()
    muon(lm.trunk, 0.1, 0.0)[0].step()
    step = before - matrix.detach()
    singular = torch.linalg.svdvals(step)
    assert singular.max() / singular.min() < 2  # the gradient's: about 3
    assert step.square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.25)  # what AdamW's has, Liu et al. 2025


def test_adamw_leaves_out_what_is_not_trained(tiny):
    lm = GPT2LM(tiny)
    lm.requires_grad_(False)
    lm.trunk.ln_f.requires_grad_(True)
    optimizer = adamw(lm.parameters(), 0.1, 0.01)
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 2]
