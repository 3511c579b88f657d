"""Each formula on functions whose answer is known in closed form, and against captum."""

import itertools
import math

import captum.attr
import numpy as np
import pytest
import torch

from experiments.explain import attributions
from experiments.explain.attributions import (
    integrate_gradients,
    leave_one_out,
    measure_gradient,
    measure_shapley,
    multiply_gradient,
    roll_out,
    spread_groups,
    sum_groups,
)

T, C, K = 5, 7, 3
TOKENS = 2 * T  # at once, so that the work is done in pieces


@pytest.fixture
def x():
    return torch.randn(T, C, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def baseline():
    return torch.randn(T, C, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weight():
    return torch.randn(K, T, C, generator=torch.Generator().manual_seed(2))


def filled(read, x, baseline):
    """The function of the kept tokens, where the others are replaced by the baseline."""

    def keep(kept):
        rows = torch.where(torch.tensor(kept)[..., None], x, baseline)
        with torch.no_grad():
            return read(rows).double().numpy()

    return keep


def read_curved(x):
    """A smooth function of all tokens together, with several logits: (B, T, C) -> (B, K)."""
    total = x.sum(dim=1)
    return torch.stack([total[:, 0].tanh() * total[:, 1], (x[:, 0] * x[:, 1]).sum(-1).sin(), total.square().sum(-1)], 1)


def close(got, want, atol=1e-5):
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def test_of_a_linear_function_all_signed_methods_say_the_same(x, baseline, weight):
    def read(rows):
        return torch.einsum("btc,ktc->bk", rows, weight) + 3

    want = torch.einsum("tc,ktc->tk", x - baseline, weight).numpy()
    keep = filled(read, x, baseline)
    close(multiply_gradient(read, x, baseline), want)
    close(integrate_gradients(read, x, baseline, TOKENS).values, want)
    close(leave_one_out(keep, T), want)
    close(measure_shapley(keep, np.arange(T), 1, 0).values, want)
    close(measure_gradient(read, x), weight.norm(dim=-1).T)


def test_integrated_gradients_and_leave_one_out_equal_captums(x, baseline):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributions, "TOLERANCE", 1e-7)
        ours = integrate_gradients(read_curved, x.double(), baseline.double(), TOKENS).values
    left_out = leave_one_out(filled(read_curved, x, baseline), T)
    gradient = captum.attr.IntegratedGradients(read_curved)
    ablation = captum.attr.FeatureAblation(read_curved)
    for k in range(K):
        theirs = gradient.attribute(x.double()[None], baseline.double()[None], target=k, n_steps=300)[0].sum(-1)
        close(ours[:, k], theirs)
        groups = torch.arange(T)[None, :, None].expand(1, T, C)
        theirs = ablation.attribute(x[None], baseline[None], target=k, feature_mask=groups)[0, :, 0]
        close(left_out[:, k], theirs)


def test_integrated_gradients_add_up_and_spend_more_where_the_way_is_steep(x, baseline):
    flat = integrate_gradients(read_curved, x, baseline, TOKENS)
    close(flat.values.sum(axis=0), (read_curved(x[None]) - read_curved(baseline[None]))[0], atol=0.02)
    assert flat.values.shape == (T, K)

    def read_steep(rows):  # a step of width 1/500, a third of the way along
        along = ((rows - baseline) * (x - baseline)).sum((1, 2)) / (x - baseline).square().sum()
        return torch.stack([torch.sigmoid(500 * (along - 1 / 3)), along], dim=1)

    steep = integrate_gradients(read_steep, x, baseline, TOKENS)
    assert steep.nodes > attributions.STRETCHES * attributions.NODES
    assert steep.nodes < attributions.MOST_NODES
    close(steep.values.sum(axis=0), [1, 1], atol=0.01)
    share = (x - baseline).square().sum(-1) / (x - baseline).square().sum()
    close(steep.values, share[:, None].expand(T, 2), atol=0.01)


def test_the_integration_asks_as_much_of_a_fall_as_of_a_rise_and_little_of_a_small_gap(x, baseline):
    def measure_way(rows):  # 0 at the baseline, 1 at x
        return ((rows - baseline) * (x - baseline)).sum((1, 2)) / (x - baseline).square().sum()

    def rise(rows):
        return torch.sigmoid(60 * (measure_way(rows) - 1 / 3))[:, None]

    up, down = (integrate_gradients(read, x, baseline, TOKENS) for read in (rise, lambda rows: -rise(rows)))
    assert up.nodes == down.nodes
    close(up.values, -down.values)
    there_and_back = integrate_gradients(lambda rows: (7 * measure_way(rows)).sin()[:, None], x, x + 1e-9, TOKENS)
    assert abs(there_and_back.gap) < 1e-5
    assert there_and_back.nodes == attributions.STRETCHES * attributions.NODES


def test_the_integration_ends_where_no_number_of_nodes_would_do(x, baseline):
    def read_rough(rows):  # its slope has nothing to do with its values
        return (rows + 1e3 * (rows.detach() - rows).sin()).sum((1, 2))[:, None]

    integral = integrate_gradients(read_rough, x, baseline, TOKENS)
    assert attributions.MOST_NODES <= integral.nodes <= 2 * attributions.MOST_NODES


def by_definition(keep, n):
    """Shapley values as the mean over all n! orders."""
    values = np.zeros((n, K))
    for order in itertools.permutations(range(n)):
        chosen = np.zeros(n, bool)
        before = keep(chosen[None])[0]
        for player in order:
            chosen[player] = True
            after = keep(chosen[None])[0]
            values[player] += (after - before) / math.factorial(n)
            before = after
    return values


def keep_ends(keep):
    """F(all) - F(none)."""
    none, whole = keep(np.array([[False] * T, [True] * T]))
    return whole - none


def test_exact_shapley_values_are_the_mean_over_all_orders(x, baseline, monkeypatch):
    monkeypatch.setattr(attributions, "EXACT", T)
    keep = filled(read_curved, x, baseline)
    shapley = measure_shapley(keep, np.arange(T), 0, 0)
    close(shapley.values, by_definition(keep, T))
    close(shapley.values.sum(axis=0), shapley.gap)
    assert not shapley.errors.any()


def test_sampled_shapley_values_add_up_exactly_and_come_near_the_exact_ones(x, baseline, monkeypatch):
    keep = filled(read_curved, x, baseline)
    exact = measure_shapley(keep, np.arange(T), 0, 0)
    monkeypatch.setattr(attributions, "EXACT", 2)
    few, many = (measure_shapley(keep, np.arange(T), pairs, 0) for pairs in (2, 2000))
    for sampled in (few, many):
        close(sampled.values.sum(axis=0), exact.gap)
    assert (np.abs(many.values - exact.values) < 4 * many.errors + 1e-6).all()
    assert many.errors.max() < few.errors.max() / 10
    assert (np.abs(few.values - exact.values) > 1e-3).any()  # or the standard errors would mean nothing


def test_standard_errors_are_the_spread_over_seeds(x, baseline, monkeypatch):
    keep = filled(read_curved, x, baseline)
    monkeypatch.setattr(attributions, "EXACT", 2)
    drawn = [measure_shapley(keep, np.arange(T), 4, seed) for seed in range(400)]
    spread = np.var([shapley.values for shapley in drawn], axis=0, ddof=1).sum()
    assert np.mean([np.square(shapley.errors).sum() for shapley in drawn]) == pytest.approx(spread, rel=0.12)
    assert np.array([shapley.gap for shapley in drawn]) == pytest.approx(np.tile(keep_ends(keep), (400, 1)), abs=1e-5)


def test_a_player_may_have_several_tokens_and_equal_players_get_the_same(x, baseline):
    groups = np.array([0, 1, 1, 0, 2])

    def keep_sum(kept):  # sees only how many tokens there are, so all are equal
        return np.repeat((kept.sum(axis=1) ** 2)[:, None], K, axis=1).astype(float)

    close(measure_shapley(keep_sum, np.arange(4), 0, 0).values, np.full((4, K), 4))  # 16 / 4
    grouped = measure_shapley(keep_sum, groups, 0, 0).values[:, 0]
    assert grouped[0] == pytest.approx(grouped[1])  # two tokens each
    assert grouped.sum() == pytest.approx(25)
    keep = filled(read_curved, x, baseline)
    close(measure_shapley(keep, groups, 0, 0).values, by_definition(lambda chosen: keep(chosen[:, groups]), 3))


def test_the_pairs_of_orders_follow_the_seed(x, baseline, monkeypatch):
    monkeypatch.setattr(attributions, "EXACT", 2)
    keep = filled(read_curved, x, baseline)
    first, again, other = (measure_shapley(keep, np.arange(T), 2, seed).values for seed in (0, 0, 1))
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_of_one_order_and_its_reverse_shapley_is_the_mean_by_hand(monkeypatch):
    monkeypatch.setattr(attributions, "EXACT", 2)

    def keep(kept):  # 10 for token 0, and 6 for tokens 1 and 2 together
        return (10.0 * kept[:, 0] + 6.0 * (kept[:, 1] & kept[:, 2]))[:, None]

    values = measure_shapley(keep, np.arange(3), 2, 0).values[:, 0]
    assert values.tolist() == [10, 3, 3]  # forth gives the 6 to one of the two, back to the other


def test_rollout_by_hand():
    eye = np.eye(4)[None, None]
    close(roll_out(np.repeat(eye, 3, axis=0)), np.eye(4))
    uniform = (np.tri(4) / np.arange(1, 5)[:, None])[None, None]  # one layer, one head
    want = [[(1 / (i + 1) * (j <= i) + (i == j)) / 2 for j in range(4)] for i in range(4)]
    close(roll_out(uniform), want)
    heads = np.stack([np.eye(4), uniform[0, 0]])[None]  # the mean over heads comes first
    close(roll_out(heads), (np.array(want) + np.eye(4)) / 2)
    rng = np.random.default_rng(0)
    weights = np.tril(rng.random((3, 2, 6, 6)))
    rolled = roll_out(weights / weights.sum(-1, keepdims=True))
    close(rolled.sum(axis=-1), np.ones(6))
    assert (np.triu(rolled, 1) == 0).all()


def test_rollout_goes_from_the_last_layer_to_the_first():
    first, last = np.eye(3), np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]], float)
    mixed = (last + np.eye(3)) / 2
    looks_back = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    close(roll_out(np.stack([first, last])[:, None]), mixed)
    close(roll_out(np.stack([looks_back, last])[:, None]), mixed @ ((looks_back + np.eye(3)) / 2))
    two_to_one = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], float)  # 2 looks at 1, others at themselves
    one_to_first = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], float)
    late = roll_out(np.stack([two_to_one, one_to_first])[:, None])  # what 1 gets of 0 comes too late for 2
    early = roll_out(np.stack([one_to_first, two_to_one])[:, None])
    close(late[2], [0, 0.5, 0.5])
    close(early[2], [0.25, 0.25, 0.5])


def test_sums_over_groups_and_back():
    values, groups = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([1, 0, 1])
    assert sum_groups(values, groups).tolist() == [[3, 4], [6, 8]]
    assert spread_groups(np.array([[3.0, 4], [6, 8]]), groups).tolist() == [[3, 4], [3, 4], [3, 4]]
    assert sum_groups(values[:, 0], groups).tolist() == [3, 6]
