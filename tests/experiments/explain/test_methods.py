"""Every method on one text of a network of `transformers` with random weights, against captum and plain calls."""

import captum.attr
import numpy as np
import pytest
import torch

from experiments.explain import attributions
from experiments.explain.attributions import MOST_NODES, measure_shapley, sum_groups
from experiments.explain.methods import METHODS, Explanation, Parsed, explain, make_keep, parse
from lab.device import Device
from model import Tokenizer, Trace, load_classifier, masks

CPU = Device(torch.device("cpu"), "fp32")
IDS = [3, 17, 5, 99, 42, 8, 61]
T, K, L, H = len(IDS), 4, 3, 5


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load("gpt2-mini")


@pytest.fixture
def parsed():
    return Parsed("", IDS, [], np.array([0, 0, 1, 2, 3, 3, 4]), [])


@pytest.fixture
def frozen(each_clf):
    return load_classifier(each_clf.folder).eval().requires_grad_(False)


def close(got, want, atol=1e-5):
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def read(clf, x):
    return clf.read(clf.trunk.norm(clf.trunk.run(x)))


def test_gradients_and_left_out_tokens_equal_captums(frozen, parsed, monkeypatch):
    monkeypatch.setattr(attributions, "TOLERANCE", 1e-6)
    monkeypatch.setattr(attributions, "MOST_NODES", 2000)
    values = explain(frozen, parsed, CPU).values
    assert list(values) == list(METHODS)
    assert all(each.shape == (T, K) for each in values.values())
    frozen.double()
    x = frozen.trunk.embed(torch.tensor([IDS]))
    baseline = (frozen.trunk.wte.weight.mean(dim=0) + frozen.trunk.wpe.weight[:T])[None]
    groups = torch.arange(T)[None, :, None].expand(*x.shape)

    n_steps = 150 if frozen.config.scale_scores else 300  # random weights make GPT-Neo's softmaxes steep

    def forward(rows):
        return read(frozen, rows)

    for k in range(K):
        theirs = captum.attr.IntegratedGradients(forward).attribute(x, baseline, target=k, n_steps=n_steps)
        close(values["integrated_gradients"][:, k], theirs[0].sum(-1))
        slope = captum.attr.Saliency(forward).attribute(x.clone().requires_grad_(), target=k, abs=False)[0]
        close(values["gradient_x_input"][:, k], (slope * (x - baseline)[0]).sum(-1))
        close(values["gradient_norm"][:, k], slope.norm(dim=-1))
        theirs = captum.attr.FeatureAblation(forward).attribute(x, baseline, target=k, feature_mask=groups)
        close(values["leave_one_out_fill"][:, k], theirs[0, :, 0])


def test_leave_one_out_equals_plain_calls(frozen, parsed):
    values, ids = explain(frozen, parsed, CPU).values, torch.tensor([IDS])
    with torch.no_grad():
        whole = frozen(ids)[0]
        for i in range(T):
            without = torch.tensor([IDS[:i] + IDS[i + 1 :]])
            close(values["leave_one_out_delete"][i], whole - frozen(without)[0])
            if i < T - 1:
                hidden = masks.hide_tokens(torch.arange(T)[None] == i)
                close(values["leave_one_out_hide"][i], whole - frozen(ids, attn_mask=hidden)[0])
    close(values["leave_one_out_hide"][-1], values["leave_one_out_fill"][-1])  # the last token is read: it is filled


def test_shapley_values_are_those_of_words_shared_by_their_tokens(frozen, parsed):
    explanation = explain(frozen, parsed, CPU)
    values = explanation.values["shapley"]
    close(values[0], values[1])
    close(values[4], values[5])
    x = frozen.trunk.embed(torch.tensor([IDS]))
    baseline = (frozen.trunk.wte.weight.mean(dim=0) + frozen.trunk.wpe.weight[:T])[None]
    groups = torch.tensor(parsed.groups)[None, :, None].repeat(1, 1, x.shape[-1])
    many = captum.attr.ShapleyValues(lambda rows: read(frozen, rows))  # all 5! orders
    for k in range(K):
        theirs = many.attribute(x, baseline, target=k, feature_mask=groups, perturbations_per_eval=5)[0, :, 0]
        close(values[:, k] * np.bincount(parsed.groups)[parsed.groups], theirs)
    assert not explanation.shapley_errors.any()


def test_of_many_words_shapley_values_are_drawn_with_these_pairs_and_this_seed(frozen):
    ids = np.random.default_rng(0).integers(0, 101, 13).tolist()  # more words than are computed exactly
    explanation = explain(frozen, Parsed("", ids, [], np.arange(13), []), CPU, pairs=3, seed=5)
    shapley = measure_shapley(make_keep(frozen, ids, "fill", CPU), np.arange(13), 3, 5)
    close(explanation.values["shapley"], shapley.values)
    close(explanation.shapley_errors, shapley.errors)
    assert (shapley.errors > 0).any()
    assert (
        abs(measure_shapley(make_keep(frozen, ids, "fill", CPU), np.arange(13), 3, 0).values - shapley.values).max()
        > 1e-3
    )


def test_what_should_add_up_does(frozen, parsed):
    explanation = explain(frozen, parsed, CPU)
    with torch.no_grad():
        baseline = frozen.trunk.wte.weight.mean(dim=0) + frozen.trunk.wpe.weight[:T]
        gap = (frozen(torch.tensor([IDS])) - read(frozen, baseline[None]))[0].numpy()
    for method in ("integrated_gradients", "shapley", "gradient_x_input"):
        close(explanation.sums[method][0], gap)
        close(explanation.sums[method][1], explanation.values[method].sum(axis=0))
    close(explanation.sums["shapley"][1], gap)
    close(explanation.sums["integrated_gradients"][1], gap, atol=0.01 * np.maximum(abs(gap), 0.1).max())
    assert (abs(explanation.sums["gradient_x_input"][1] - gap) > 0.05).any()  # it is only the first order
    assert explanation.nodes >= attributions.STRETCHES * attributions.NODES


def test_the_zero_baseline_does_not_add_up(clf, monkeypatch):
    """LayerNorm hides the length of an embedding until it is next to nothing: no fair number of nodes finds the gap."""
    frozen = clf.requires_grad_(False)
    x = frozen.trunk.embed(torch.tensor([IDS]))[0]
    for block in frozen.trunk.h:
        block.ln_1.eps = block.ln_2.eps = 1e-8  # the smaller the epsilon, the nearer to zero all happens

    def measure_miss(baseline):
        integral = attributions.integrate_gradients(lambda rows: read(frozen, rows), x, baseline, 4096)
        shares = abs(integral.values.sum(axis=0) - integral.gap) / np.maximum(abs(integral.gap), 0.1)
        return shares.max(), integral.nodes

    monkeypatch.setattr(attributions, "MOST_NODES", 100)
    kept_miss, kept_nodes = measure_miss(frozen.trunk.wte.weight.mean(dim=0) + frozen.trunk.wpe.weight[:T])
    zero_miss, zero_nodes = measure_miss(torch.zeros_like(x))
    assert kept_miss < 0.01 < 0.1 < zero_miss
    assert kept_nodes <= 100 <= zero_nodes <= MOST_NODES


def test_attention_is_the_mean_of_all_heads_and_is_the_same_for_all_classes(frozen, parsed):
    values = explain(frozen, parsed, CPU).values
    for method in ("attention", "rollout"):
        close(values[method].sum(axis=0), np.ones(K))
        assert (values[method] == values[method][:, :1]).all()
        assert not METHODS[method].of_class
    looks, rolled = np.zeros(T), np.eye(T)
    trace = Trace("weights")
    with torch.no_grad():
        frozen(torch.tensor([IDS]), trace=trace)
    for layer in range(L):
        for head in range(H):
            looks += trace.weights[layer][0, head, -1].numpy() / (L * H)
        rolled = (trace.weights[layer][0].numpy().mean(axis=0) + np.eye(T)) / 2 @ rolled
    close(values["attention"][:, 0], looks)
    close(values["rollout"][:, 0], rolled[-1])


def test_some_classes_are_explained_as_among_all(frozen, parsed):
    everything, one = explain(frozen, parsed, CPU), explain(frozen, parsed, CPU, classes=[2])
    for method, values in one.values.items():
        close(values[:, 0], everything.values[method][:, 2], atol=2e-3 if method == "integrated_gradients" else 1e-5)


def test_a_text_of_one_token_is_explained(frozen):
    explanation = explain(frozen, Parsed("", [17], [], np.array([0]), [""]), CPU)
    assert all(np.isfinite(values).all() and values.shape == (1, K) for values in explanation.values.values())
    close(explanation.values["shapley"][0], explanation.sums["shapley"][0])
    close(explanation.values["leave_one_out_fill"], explanation.values["shapley"])


def test_an_explanation_survives_being_written_as_json(frozen, parsed):
    explanation = explain(frozen, parsed, CPU)
    again = Explanation.from_json(explanation.as_json())
    for method, values in explanation.values.items():
        assert (again.values[method] == values).all()
    assert again.as_json() == explanation.as_json()


def test_no_gradient_and_nothing_else_is_left_behind(frozen, parsed):
    before = [parameter.clone() for parameter in frozen.parameters()]
    explain(frozen, parsed, CPU)
    assert all((parameter == old).all() for parameter, old in zip(frozen.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in frozen.parameters())


@pytest.mark.parametrize(
    ("text", "groups", "words"),
    [
        ("i feel unloved", [0, 1, 2, 2], ["i", "feel", "unloved"]),
        ("don't go", [0, 0, 1], ["don't", "go"]),
        ("a  b", [0, 1, 2], ["a", "", "b"]),
        ("so sad :( \n", None, ["so", "sad", ":(", "", ""]),
        ("🙁 no", None, ["🙁", "no"]),
    ],
)
def test_each_token_belongs_to_its_word_or_stands_alone(tokenizer, text, groups, words):
    parsed = parse(text, tokenizer)
    assert parsed.words == words
    assert parsed.ids == tokenizer.encode(text)
    assert (np.diff(parsed.groups) >= 0).all()
    assert set(parsed.groups.tolist()) == set(range(len(words)))
    if groups is not None:
        assert parsed.groups.tolist() == groups
    total = sum_groups(np.ones((len(parsed.ids), 1)), parsed.groups)
    assert total.sum() == len(parsed.ids)
