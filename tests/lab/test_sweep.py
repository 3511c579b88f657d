"""The fast sweep against plain calls, and against surgery on the weights."""

import numpy as np
import pytest
import torch
from tiny import DEVICES

from data.batches import Batch
from lab import fills, units
from lab.device import Device
from lab.sweep import BASELINE, Ablation, collect_logits, fill_zeros, sweep
from lab.units import each_head, each_layer
from model import Trace, load_classifier, masks

CPU = Device(torch.device("cpu"), "fp32")
N, K, V = 23, 4, 101


@pytest.fixture(scope="module")
def texts():
    """Token ids of N texts of 1 to 13 tokens, and their classes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, V, rng.integers(1, 14)).tolist() for _ in range(N)], rng.integers(0, K, N)


@pytest.fixture
def clf(each_clf):
    return load_classifier(each_clf.folder)


def swept(clf, texts, ablations, given=(fill_zeros,), among=None, device=CPU):
    """Logits (N, U, R, K) of the sweep; NaN for the texts that were not asked for."""
    logits = np.full((N, len(ablations), len(given), K), np.nan, np.float32)
    for index, own in sweep(clf, texts[0], ablations, given, device, np.arange(N) if among is None else among):
        logits[index] = own
    return logits


MASKS = {
    "hide_ids": masks.hide_ids(range(0, V, 3)),
    "last_tokens": masks.last_tokens(2),
    "close_query": masks.close_query(1),
    "close_last_query": masks.close_last_query,
    "keys": lambda ids, lengths: {"attn_gate": 1 - masks.keys(ids.shape[1], [0]).float()},
}


def everything(config, texts):
    """Ablations of every kind, and functions of `masks` as they stand."""
    hidden = {"some": [np.random.default_rng(len(ids)).random(len(ids)) < 0.3 for ids in texts[0]]}
    return [
        BASELINE,
        *each_head(config),
        *each_layer(config),
        *units.each_region(config, (0, 2, -3)),
        *units.each_word_class(texts[0], hidden, np.random.default_rng(0)),
        *units.each_pair(config, [((0, 1), (2, 3)), ((1, 0), (1, 4))]),
        *units.closing_one_by_one(config, [(1, 2), (2, 0), (0, 1)], [0, 1, 2, 3]),
        *(Ablation(name, mask) for name, mask in MASKS.items()),
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_every_ablation_with_every_fill_gives_the_logits_of_a_plain_call(clf, texts, device):
    clf, device, tolerance = clf.to(device), Device(torch.device(device), "fp32"), 1e-5 if device == "cpu" else 1e-4
    means = fills.measure_means(clf, *texts, device)
    resampled = fills.resample(clf, texts[0], texts[0][:7], device, 0)[:2]
    ablations = everything(clf.config, texts)
    for given in ([fill_zeros], [fills.mean(means)], [fills.class_mean(means, texts[1])], resampled):
        got = swept(clf, texts, ablations, given, device=device)
        for i in range(0, N, 11):
            ids, target = texts[0][i], texts[1][i]
            alone = Batch(*(torch.tensor([value]) for value in (ids, len(ids), target, i))).to(device.device)
            for u, ablation in enumerate(ablations):
                for r, fill in enumerate(given):
                    arguments = dict(ablation.intervention(alone.ids, alone.lengths))
                    closed = {name: value for name, value in fill(alone).items() if name[:-4] + "gate" in arguments}
                    there = {name: value.to(device.device) for name, value in (arguments | closed).items()}
                    with torch.no_grad():
                        want = clf(alone.ids, alone.lengths, **there)[0].cpu().numpy()
                    np.testing.assert_allclose(
                        got[i, u, r], want, atol=tolerance * np.abs(want).max(), err_msg=ablation.name
                    )


@pytest.mark.parametrize("fill", ["zero", "mean", "resample"])
def test_a_subspace_is_taken_out_and_the_rest_stays(clf, texts, fill):
    """The columns of one head are that head; all columns are all heads, or the MLP; else as z - P (z - fill)."""
    config, C, D = clf.config, clf.config.n_embd, clf.config.head_width
    means = fills.measure_means(clf, *texts, CPU)
    given = {
        "zero": [fill_zeros],
        "mean": [fills.mean(means)],
        "resample": fills.resample(clf, texts[0], texts[0][:7], CPU, 0)[:2],
    }[fill]
    basis = units.random_subspaces(config, "head", 1, 0)[0].subspace
    for layer in range(config.n_layer):
        heads, mlp = (units.find_gates(config, kind, layer) for kind in ("head", "mlp"))

        def take_out(gates, subspace, layer=layer):
            return Ablation("subspace", units.always(gates), layer, layer, None, "", subspace)

        columns = torch.eye(C)[:, D : 2 * D]
        subspaces = [take_out(heads, columns), take_out(heads, torch.eye(C)), take_out(mlp, torch.eye(C))]
        got = swept(clf, texts, [*subspaces, take_out(heads, basis), take_out(mlp, basis)], given)
        whole = [each_head(config)[layer * config.n_head + 1], *each_layer(config)[3 * layer : 3 * layer + 2]]
        np.testing.assert_allclose(got[:, :3], swept(clf, texts, whole, given), atol=1e-5 * np.abs(got).max())
        for i in range(0, N, 11):
            alone = Batch(*(torch.tensor([value]) for value in (texts[0][i], len(texts[0][i]), texts[1][i], i)))
            for r, emit in enumerate(given):
                want = [project_out(clf, alone, layer, name, basis, emit(alone)) for name in ("head", "mlp")]
                np.testing.assert_allclose(got[i, 3:, r], want, atol=1e-5 * np.abs(want).max())


def project_out(clf, text, layer, name, basis, emitted):
    """Logits (K,) of one text without a subspace of what the heads of a layer, or its MLP, emit."""
    trace, gates = Trace("z", "mlp"), units.find_gates(clf.config, name, layer)
    with torch.no_grad():
        clf.trunk(text.ids, trace=trace)
        if name == "mlp":
            x, fill = trace.mlp[layer], emitted.get("mlp_fill", torch.zeros(1, clf.config.n_layer, 1, 1))[:, layer]
            return clf(text.ids, **gates, mlp_fill=(x - (x - fill) @ basis @ basis.T)[:, None])[0].numpy()
        z = trace.z[layer]
        fill = emitted.get("head_fill", torch.zeros(1, clf.config.n_layer, *z.shape[1:]))[:, layer].expand_as(z)
        kept = z.clone()
        for t in range(z.shape[2]):
            removed = (z[0, :, t] - fill[0, :, t]).flatten()
            kept[0, :, t] -= (basis @ (basis.T @ removed)).view(*z.shape[1:2], -1)
        return clf(text.ids, **gates, head_fill=kept[:, None])[0].numpy()


@pytest.mark.parametrize("tokens", [pytest.param(8, marks=pytest.mark.slow), 64, 10**6])
def test_the_batching_changes_nothing(clf, texts, tokens, monkeypatch):
    ablations = everything(clf.config, texts)
    whole = swept(clf, texts, ablations)
    monkeypatch.setattr("lab.device.TOKENS", tokens)
    np.testing.assert_allclose(swept(clf, texts, ablations), whole, atol=1e-5 * np.abs(whole).max())


def test_only_the_texts_asked_for_are_computed(clf, texts):
    among = np.array([3, 11, 19])
    ablations = everything(clf.config, texts)
    got, whole = swept(clf, texts, ablations, among=among), swept(clf, texts, ablations)
    np.testing.assert_allclose(got[among], whole[among], atol=1e-5 * np.abs(whole).max())
    assert np.isnan(np.delete(got, among, axis=0)).all()


def test_all_logits_stand_in_one_array_in_the_order_of_texts_ablations_and_fills(clf, texts):
    ablations, emit_ones = each_head(clf.config)[:2], {"head_fill": torch.ones(1, 1, 1, 1, 1)}
    got = collect_logits(clf, texts[0], ablations, [fill_zeros, lambda batch: emit_ones], CPU)
    assert got.shape == (N, 2, 2, K)
    for i, (ids, u, r) in enumerate([(texts[0][0], 1, 0), (texts[0][1], 0, 1)]):
        with torch.no_grad():
            want = clf(torch.tensor([ids]), head_gate=masks.close_heads(clf.config, [(0, u)]), **[{}, emit_ones][r])
        np.testing.assert_allclose(got[i, u, r], want[0], atol=1e-4)


def test_closing_a_head_is_surgery_on_the_input_columns_of_c_proj(each_clf, clf, texts):
    """Zero: the head's columns are 0. Mean: the bias also takes up what these columns make of the mean."""
    config, D = clf.config, clf.config.head_width
    means = fills.measure_means(clf, *texts, CPU)
    mean = (means.z.sum(0) / means.tokens.sum()).float()  # (L, H, D)
    zeroed = swept(clf, texts, each_head(config))
    shifted = swept(clf, texts, each_head(config), [fills.mean(means)])
    for u, (layer, head) in enumerate(
        (layer, head) for layer in range(config.n_layer) for head in range(config.n_head)
    ):
        columns = slice(head * D, (head + 1) * D)
        for got, value in ((zeroed, torch.zeros(D)), (shifted, mean[layer, head])):
            cut = load_classifier(each_clf.folder)
            with torch.no_grad():
                proj = cut.trunk.h[layer].attn.c_proj
                proj.bias += proj.weight[:, columns] @ value
                proj.weight[:, columns] = 0
                want = np.stack([cut(torch.tensor([ids]))[0].numpy() for ids in texts[0]])
            np.testing.assert_allclose(got[:, u, 0], want, atol=1e-5 * np.abs(want).max())
            assert np.abs(got[:, u, 0] - swept(clf, texts, [BASELINE])[:, 0, 0]).max() > 1e-2  # and it does something


def test_memory_does_not_grow_with_the_number_of_ablations(clf, texts, monkeypatch):
    """The largest batch that the trunk is given stays within the budget of tokens, however many ablations ride."""
    largest = []
    run = clf.trunk.run

    def watched(x, *arguments, **more):
        largest.append(x.shape[0] * x.shape[1])
        return run(x, *arguments, **more)

    monkeypatch.setattr(clf.trunk, "run", watched)
    monkeypatch.setattr("lab.device.TOKENS", 256)
    swept(clf, texts, each_head(clf.config) * 7)
    assert 128 < max(largest) <= 256


def test_what_comes_before_the_first_changed_layer_runs_once_per_batch(clf, texts, monkeypatch):
    calls = []
    run = clf.trunk.run
    monkeypatch.setattr(clf.trunk, "run", lambda x, *a, **k: calls.append((len(x), a, k.get("z"))) or run(x, *a, **k))
    swept(clf, texts, [ablation for ablation in each_head(clf.config) if ablation.layer == 1], among=np.arange(5))
    assert [a for _, a, _ in calls] == [(0, 1), (1, 2), (1,)]  # two layers once, then all five heads ride together
    assert calls[-1][0] == 5 * calls[0][0]
    assert [len(z) if z is not None else None for _, _, z in calls] == [None, None, calls[-1][0]]  # and enter after z
