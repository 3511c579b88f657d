"""All cells of all pairs, against plain forward passes, and what is kept on disk."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from commands import line_of
from planted import subject_of
from tiny import random_classifier

from experiments.patch import measure
from experiments.patch.cells import KINDS, Cell
from experiments.patch.measure import (
    choose_by_estimate,
    estimate_all,
    forecast_patches,
    list_cells,
    measure_edges,
    patch_all,
)
from experiments.patch.pairs import Pair
from experiments.patch.paths import Edge, Node, edges_into
from lab.device import Device
from lab.units import random_subspaces
from model import GPT2LM, GPT2Classifier, GPT2Config, Trace

L, H, D, C = 2, 3, 5, 15
CONFIG = GPT2Config(L, H, C, n_ctx=7, vocab_size=31, dropout=0.0, attn_dropout=0.0)
LABELS, DIRECTIONS = ["a", "b", "c"], ("denoise", "noise")
PAIRS = [  # of different lengths; one token differs, or two, or the last one
    Pair(4, "test", "first", "", [3, 7, 9, 2, 5], [3, 8, 9, 2, 5], (2, 0), ("c", "a")),
    Pair(5, "test", "second", "", [1, 2, 3, 4], [1, 20, 21, 4], (0, 1), ("a", "b")),
    Pair(9, "test", "third", "", [6, 6, 30], [6, 6, 11], (1, 2), ("b", "c")),
]
CORE = ("patch_cells", "patch_subspaces", "patch_all_heads", "patch_edges")  # one call of each for each pair
CORE += ("estimate_cells", "integrate_cells", "estimate_edges")
LOGITS = Node("logits", L)


def random_language_model():
    torch.manual_seed(1)
    lm = GPT2LM(CONFIG).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return lm.requires_grad_(False)


MODELS = {
    "classifier": random_classifier(CONFIG, LABELS).requires_grad_(False),
    "language model": random_language_model(),
}


@pytest.fixture
def subject(tmp_path):
    return subject_of(MODELS["classifier"], PAIRS, [1.0] * len(PAIRS), tmp_path)


@pytest.fixture(params=MODELS)
def each_subject(request, subject):
    return replace(subject, model=MODELS[request.param])


# Plain forward passes.


def read(model, pair, logits):
    """The logit of the clean text's answer minus that of the corrupt text's, after the last token."""
    last = logits[0] if isinstance(model, GPT2Classifier) else logits[0, -1]
    return last[pair.answers[0]] - last[pair.answers[1]]


def run(model, pair, ids, **arguments):
    return read(model, pair, model(torch.tensor([ids]), **arguments))


def read_stream(model, pair, x):
    """The same of the residual stream that leaves the last layer, (1, T, C)."""
    x = model.trunk.norm(x)
    logits = model.read(x, torch.tensor([x.shape[1]])) if isinstance(model, GPT2Classifier) else model.read(x)
    return read(model, pair, logits)


def texts_of(pair, direction):
    """The text that is patched, and the one that gives the cells."""
    return (pair.corrupt_ids, pair.clean_ids) if direction == "denoise" else (pair.clean_ids, pair.corrupt_ids)


def record(model, ids):
    trace = Trace("resid_pre", "z", "mlp")
    model(torch.tensor([ids]), trace=trace)
    return trace


def patch_plainly(model, pair, direction, cell):
    """The metric with one cell from the other text, in one run with the model's own arguments."""
    base_ids, source_ids = texts_of(pair, direction)
    source, T = record(model, source_ids), len(base_ids)
    at = slice(None) if cell.position is None else cell.position
    if cell.kind == "resid_pre":
        x = model.trunk.run(model.trunk.embed(torch.tensor([base_ids])), 0, cell.layer)
        x[:, at] = source.resid_pre[cell.layer][:, at]
        return read_stream(model, pair, model.trunk.run(x, cell.layer)).item()
    if cell.kind == "mlp":
        gate = torch.ones(1, L, T)
        gate[0, cell.layer, at] = 0
        return run(model, pair, base_ids, mlp_gate=gate, mlp_fill=source.stacked("mlp")).item()
    gate = torch.ones(1, L, H, T)
    gate[0, cell.layer, slice(None) if cell.head is None else cell.head, at] = 0
    return run(model, pair, base_ids, head_gate=gate, head_fill=source.stacked("z")).item()


def each_cell(table):
    """Each row of a table with its pair and its cell."""
    by_number = {pair.number: pair for pair in PAIRS}
    for row in table.to_dict("records"):
        head, position = (None if pd.isna(row[name]) else row[name] for name in ("head", "position"))
        yield row, by_number[row["pair"]], Cell(row["kind"], row["layer"], head, position)


def test_the_cells_of_a_text_are_listed_by_hand():
    config = GPT2Config(2, 2, 4)
    assert list_cells(config, 2, ["v", "mlp"], positions=False) == [
        *(Cell("v", 0, 0), Cell("v", 0, 1), Cell("v", 1, 0), Cell("v", 1, 1)),
        *(Cell("mlp", 0, None, 0), Cell("mlp", 0, None, 1), Cell("mlp", 1, None, 0), Cell("mlp", 1, None, 1)),
    ]
    assert list_cells(config, 2, ["pattern"], positions=True)[:4] == [
        *(Cell("pattern", 0, 0), Cell("pattern", 0, 0, 0), Cell("pattern", 0, 0, 1), Cell("pattern", 0, 1)),
    ]
    assert len(list_cells(config, 3, KINDS, positions=False)) == 2 * (4 * 3 + 5 * 2)
    assert len(set(list_cells(config, 3, KINDS, positions=True))) == 2 * (4 * 3 + 5 * 2 * (1 + 3))


def test_patches_are_those_of_plain_runs_with_the_models_own_arguments(each_subject):
    model = each_subject.model
    cells = estimate_all(each_subject, DIRECTIONS, ("resid_pre", "attn", "mlp", "z"), positions=True)
    table, others = patch_all(each_subject, cells, pd.Series(True, cells.index), [])
    assert len(table) == 2 * sum(L * (3 * T + H * (1 + T)) for T in (5, 4, 3))
    scale = table["effect"].abs().max()
    for row, pair, cell in each_cell(table):
        values = [run(model, pair, ids).item() for ids in (pair.clean_ids, pair.corrupt_ids)]
        values.append(patch_plainly(model, pair, row["direction"], cell))
        values.append(values[2] - values[1 if row["direction"] == "denoise" else 0])
        got = [row[name] for name in ("clean", "corrupt", "patched", "effect")]
        assert got == pytest.approx(values, abs=1e-5 * scale), (pair.number, row["direction"], cell)
    assert others["kind"].tolist() == ["all heads"] * 6
    for row in others.to_dict("records"):
        pair = next(pair for pair in PAIRS if pair.number == row["pair"])
        base, source = texts_of(pair, row["direction"])
        fill = record(model, source).stacked("z")
        patched = run(model, pair, base, head_gate=torch.zeros(1, 1, 1, 1), head_fill=fill)
        assert row["effect"] == pytest.approx((patched - run(model, pair, base)).item(), abs=1e-5 * scale)


def gate_gradients(model, pair, direction, name, values):
    """Minus the gradient of the metric with respect to each gate at these values, averaged over them."""
    base_ids, source_ids = texts_of(pair, direction)
    fill = record(model, source_ids).stacked("z" if name == "head" else "mlp")
    shape = (L, H, len(base_ids)) if name == "head" else (L, len(base_ids))
    gates = torch.tensor(values).view(-1, *[1] * len(shape)).repeat(1, *shape).requires_grad_()
    with torch.enable_grad():
        logits = model(torch.tensor([base_ids] * len(values)), **{f"{name}_gate": gates, f"{name}_fill": fill})
        metric = sum(read(model, pair, row[None]) for row in logits)
    return -torch.autograd.grad(metric, gates)[0].mean(dim=0)


def test_estimates_are_gradients_of_the_models_own_gates(each_subject):
    """At gate 1, where the text is as it is, and on average from 1 to 0."""
    cells = estimate_all(each_subject, DIRECTIONS, ("attn", "mlp", "z"), positions=True)
    at, on_the_way = {}, [(i + 0.5) / 100 for i in range(100)]
    for pair in PAIRS:
        for direction in DIRECTIONS:
            for name in ("head", "mlp"):
                about = (each_subject.model, pair, direction, name)
                key = pair.number, direction, name
                at[key] = gate_gradients(*about, [1.0]), gate_gradients(*about, on_the_way)
    scale = cells["estimate"].abs().max()
    for row, pair, cell in each_cell(cells):
        both = at[pair.number, row["direction"], "mlp" if cell.kind == "mlp" else "head"]
        for name, gradients, tolerance in zip(("estimate", "integrated"), both, (1e-5, 1e-3), strict=True):
            values = gradients[cell.layer]
            if cell.kind == "attn":
                values = values.sum(dim=0)
            values = values if cell.head is None else values[cell.head]
            expected = values.sum() if cell.position is None else values[cell.position]
            assert row[name] == pytest.approx(expected.item(), abs=tolerance * scale), (name, cell)


def test_kinds_without_an_integrated_estimate_have_none(subject):
    cells = estimate_all(subject, ["noise"], KINDS, positions=False)
    assert cells["estimate"].notna().all()
    assert set(cells.loc[cells["integrated"].notna(), "kind"]) == {"attn", "mlp", "z"}
    assert cells.groupby("kind")["integrated"].nunique()[["attn", "mlp", "z"]].min() > 1


def test_controls_are_plain_runs_with_part_of_what_the_heads_of_a_layer_emit(each_subject):
    controls = random_subspaces(CONFIG, "head", 2, seed=3)
    cells = estimate_all(each_subject, ["denoise"], ("z",), positions=False)
    _, others = patch_all(each_subject, cells, pd.Series(True, cells.index), controls)
    random = others[others["kind"] == "random subspace"]
    assert random.groupby(["pair", "layer"])["draw"].apply(list).tolist() == [[0, 1]] * (3 * L)
    for row in random.to_dict("records"):
        pair = next(pair for pair in PAIRS if pair.number == row["pair"])
        base_ids, source_ids = texts_of(pair, "denoise")
        basis = controls[2 * row["layer"] + row["draw"]].subspace
        base, source = (
            record(each_subject.model, ids).stacked("z") for ids in (base_ids, source_ids)
        )  # (1, L, H, T, D)
        difference = (source - base).transpose(2, 3).flatten(3) @ basis @ basis.T
        fill = base + difference.unflatten(3, (H, D)).transpose(2, 3)
        gate = torch.ones(1, L, 1, 1)
        gate[0, row["layer"]] = 0
        patched = run(each_subject.model, pair, base_ids, head_gate=gate, head_fill=fill)
        effect = (patched - run(each_subject.model, pair, base_ids)).item()
        assert row["effect"] == pytest.approx(effect, abs=1e-5), row


def test_noise_is_denoise_with_the_texts_swapped(subject):
    swapped = [replace(pair, clean_ids=pair.corrupt_ids, corrupt_ids=pair.clean_ids) for pair in PAIRS]
    results = []
    for pairs, direction in ((PAIRS, "noise"), (swapped, "denoise")):
        each = replace(subject, pairs=pairs)
        cells = estimate_all(each, [direction], KINDS, positions=True)
        results.append(patch_all(each, cells, pd.Series(True, cells.index), random_subspaces(CONFIG, "head", 1, 0)))
    for one, other in zip(*results, strict=True):
        renamed = other.rename(columns={"clean": "corrupt", "corrupt": "clean"}).assign(direction="noise")
        pd.testing.assert_frame_equal(one, renamed[list(one)])
    assert (results[0][0]["effect"] != 0).any()


def test_cells_that_were_not_chosen_are_left_empty_and_the_others_stay_the_same(subject):
    cells = estimate_all(subject, DIRECTIONS, KINDS, positions=False)
    whole, _ = patch_all(subject, cells, pd.Series(True, cells.index), [])
    chosen = pd.Series(np.random.default_rng(0).random(len(cells)) < 0.3, cells.index)
    some, _ = patch_all(subject, cells, chosen, [])
    assert some.loc[~chosen, ["patched", "effect"]].isna().all(axis=None)
    columns = ["patched", "effect"]
    pd.testing.assert_frame_equal(some.loc[chosen, columns], whole.loc[chosen, columns], rtol=1e-4, atol=1e-5)
    pd.testing.assert_frame_equal(some[list(cells)], cells)


# The choice by estimate.


def choose_plainly(cells, most):
    """The rows with the largest estimates of each map."""
    rows, chosen = cells.to_dict("records"), set()
    for row in rows:
        row["everywhere"] = pd.isna(row["position"])
        row["size"] = abs(row["estimate"])
        if row["everywhere"]:
            names = ("direction", "kind", "layer", "head", "everywhere")
            alike = [r for r in rows if pd.isna(r["position"]) and all(r[n] == row[n] for n in names[:-1])]
            row["size"] = abs(sum(r["estimate"] for r in alike))
    for key in {(r["pair"], r["direction"], r["kind"], r["everywhere"]) for r in rows}:
        of_map = [i for i, r in enumerate(rows) if (r["pair"], r["direction"], r["kind"], r["everywhere"]) == key]
        chosen |= set(sorted(of_map, key=lambda i: -rows[i]["size"])[:most])  # of equals, the first
    return [i in chosen for i in range(len(rows))]


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_largest_estimates_are_chosen_as_by_a_plain_loop(subject, most):
    cells = estimate_all(subject, DIRECTIONS, ("mlp", "z", "k"), positions=True)
    chosen = choose_by_estimate(cells, most)
    assert chosen.tolist() == choose_plainly(cells, most)
    everywhere = cells[chosen & cells["position"].isna()]
    heads = everywhere.groupby(["direction", "kind", "pair"])[["layer", "head"]].apply(lambda x: str(x.to_numpy()))
    assert (heads.groupby(["direction", "kind"]).nunique() == 1).all()  # the same heads in all pairs
    assert chosen.all() == (most == 100)


# What is kept, of two pairs.


@pytest.fixture
def small(subject):
    return replace(subject, pairs=PAIRS[1:])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What is measured of them, and the folder in which it is kept."""
    folder = tmp_path_factory.mktemp("whole")
    return measure_all(subject_of(MODELS["classifier"], PAIRS[1:], [1.0] * 2, folder)), folder


@pytest.fixture
def measured(small, whole):
    """The same two pairs, of which all is kept."""
    shutil.copytree(whole[1], small.run, dirs_exist_ok=True)
    return small


class Counts(dict):
    """How often each function of the core was called; at the `fatal`-th call of one it is interrupted."""

    def __init__(self, monkeypatch, fatal=None):
        super().__init__(dict.fromkeys(CORE, 0))
        for name in CORE:
            monkeypatch.setattr(measure, name, self.count(name, getattr(measure, name), fatal))

    def count(self, name, function, fatal):
        def counted(*arguments):
            self[name] += 1
            if fatal == (name, self[name]):
                raise KeyboardInterrupt
            return function(*arguments)

        return counted

    @property
    def total(self):
        return sum(self.values())


def measure_all(subject, kinds=("z", "mlp"), positions=False, seed=0, edges=LOGITS, layer_norm="recomputed"):
    """Estimates, patches with controls, and edges."""
    cells = estimate_all(subject, DIRECTIONS, kinds, positions)
    controls = random_subspaces(CONFIG, "head", 1, seed)
    cells, others = patch_all(subject, cells, pd.Series(True, cells.index), controls)
    into = measure_edges(subject, DIRECTIONS, f"into {edges}", edges_into(edges, CONFIG), layer_norm)
    return cells, others, into


def assert_same(results, expected):
    for one, other in zip(results, expected, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_a_second_call_computes_nothing(measured, whole, monkeypatch):
    counts = Counts(monkeypatch)
    assert_same(measure_all(measured), whole[0])
    assert counts.total == 0


CHANGES = {  # of the subject, of the options; which functions of the core are called again, and for how many pairs
    "other weights": ({"identity": {"weights": "4567", "seed": 0, "precision": "fp32"}}, {}, CORE, 2),
    "seed": ({"identity": {"weights": "0123", "seed": 1, "precision": "fp32"}}, {"seed": 1}, CORE, 2),
    "a text": ({"pairs": [PAIRS[1], replace(PAIRS[2], corrupt_ids=[6, 7, 30])]}, {}, CORE, 1),
    "answers": ({"pairs": [PAIRS[1], replace(PAIRS[2], answers=(2, 1))]}, {}, CORE, 1),
    "kinds": ({}, {"kinds": ("mlp",)}, (*CORE[:3], *CORE[4:6]), 2),
    "positions": ({}, {"positions": True}, (*CORE[:3], *CORE[4:6]), 2),
    "LayerNorm": ({}, {"layer_norm": "frozen"}, (CORE[3], CORE[6]), 2),
    "another receiver": ({}, {"edges": Node("mlp", 1)}, (CORE[3], CORE[6]), 2),
    "fewer pairs": ({"pairs": PAIRS[2:]}, {}, (), 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_depends_on_a_change_is_computed_anew_and_nothing_else(measured, monkeypatch, change):
    changes, options, functions, pairs = CHANGES[change]
    changed = replace(measured, **changes)
    with monkeypatch.context() as patch:
        counts = Counts(patch)
        results = measure_all(changed, **options)
        assert counts == dict.fromkeys(CORE, 0) | dict.fromkeys(functions, 2 * pairs)
    fresh = replace(changed, run=measured.run / "fresh")
    fresh.folder.mkdir(parents=True)
    assert_same(results, measure_all(fresh, **options))


STAGES = [CORE[4:6], CORE[:3], (CORE[3], CORE[6])]  # estimates, patches, edges


@pytest.mark.parametrize("fatal", [(CORE[4], 2), (CORE[5], 4), (CORE[0], 3), (CORE[2], 1), (CORE[6], 4)])
def test_an_interrupted_call_goes_on_where_it_was(small, whole, monkeypatch, fatal):
    with monkeypatch.context() as patch:
        Counts(patch, fatal)
        with pytest.raises(KeyboardInterrupt):
            measure_all(small)
    with monkeypatch.context() as patch:
        counts = Counts(patch)
        results = measure_all(small)
    stopped = next(i for i, stage in enumerate(STAGES) if fatal[0] in stage)
    for i, stage in enumerate(STAGES):
        expected = 0 if i < stopped else 4 - (fatal[1] - 1) if i == stopped else 4
        assert {name: counts[name] for name in stage} == dict.fromkeys(stage, expected)
    assert_same(results, whole[0])


# What is refused, and what is said.


@pytest.mark.parametrize("size", [0, 1e-7])
def test_patches_that_change_nothing_anywhere_are_refused(tmp_path, size):
    """Or by rounding only."""
    clf = random_classifier(CONFIG, LABELS).requires_grad_(False)
    for block in clf.trunk.h:
        block.mlp.c_proj.weight.mul_(size)
    subject = subject_of(clf, PAIRS, [1.0] * 3, tmp_path)
    cells = estimate_all(subject, ["noise"], ("mlp",), positions=False)
    line = line_of(patch_all, subject, cells, pd.Series(True, cells.index), [])
    assert line.startswith("no patch of mlp changes the logits in any pair")
    assert "leave it out with --kinds" in line
    cells = estimate_all(subject, ["noise"], ("mlp", "z"), positions=False)
    assert line_of(patch_all, subject, cells, pd.Series(True, cells.index), []) == line  # beside kinds that do


def test_what_fails_ends_its_progress_bar(small, monkeypatch):
    """Else the thread that draws it goes on, and on a terminal the cursor stays hidden."""
    threads = set(threading.enumerate())
    for fatal in ((CORE[4], 1), (CORE[0], 1), (CORE[3], 1)):
        with monkeypatch.context() as patch:
            Counts(patch, fatal)
            with pytest.raises(KeyboardInterrupt) as interrupt:
                measure_all(small)
        for thread in set(threading.enumerate()) - threads:
            thread.join(5)
            assert not thread.is_alive(), (fatal, interrupt)


def test_edges_of_all_pairs_are_in_order_and_one_of_them_is_that_of_a_plain_run(each_subject):
    edges = edges_into(LOGITS, CONFIG)
    table = measure_edges(each_subject, DIRECTIONS, "into logits", edges, "recomputed")
    assert " ".join(table) == "pair direction sender receiver input layer_norm effect estimate"
    assert list(table["sender"][: len(edges)]) == [
        "embedding", "head 0.0", "head 0.1", "head 0.2", "mlp 0", "head 1.0", "head 1.1", "head 1.2", "mlp 1"
    ]  # fmt: skip
    assert set(table["layer_norm"]) == {"recomputed"}
    for pair in PAIRS:
        for direction in DIRECTIONS:
            rows = table[(table["pair"] == pair.number) & (table["direction"] == direction)].set_index("sender")
            base, source = (record(each_subject.model, ids) for ids in texts_of(pair, direction))
            stream, plain = base.resid_pre[L], read_stream(each_subject.model, pair, base.resid_pre[L])
            moved = read_stream(each_subject.model, pair, stream + source.mlp[0] - base.mlp[0])
            assert rows.loc["mlp 0", "effect"] == pytest.approx((moved - plain).item(), abs=1e-5)
    one = measure_edges(each_subject, ["noise"], "into logits", [Edge(Node("mlp", 0), LOGITS, "logits")], "recomputed")
    expected = table[(table["direction"] == "noise") & (table["sender"] == "mlp 0")].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, expected, rtol=1e-4)


def test_it_says_how_long_patches_take(subject):
    cells = estimate_all(subject, DIRECTIONS, KINDS, positions=False)
    assert forecast_patches(subject, cells, 2).startswith(
        f"{len(cells)} patches, before the edges, take about 1 min on"
    )


def test_heads_that_look_alike_in_both_texts_are_no_reason_to_refuse_them(tmp_path, capsys):
    """With equal weights on all keys, nothing that decides where to look changes anything; values still do."""
    clf = random_classifier(CONFIG, LABELS).requires_grad_(False)
    for block in clf.trunk.h:
        block.attn.c_attn.weight[: 2 * CONFIG.n_embd] = 0
    subject = subject_of(clf, PAIRS, [1.0] * 3, tmp_path)
    cells = estimate_all(subject, ["noise"], ("k", "pattern", "v"), positions=False)
    table, _ = patch_all(subject, cells, pd.Series(True, cells.index), [])
    said = capsys.readouterr().out
    assert said.count("no patch of k changes the logits in any pair") == 1
    assert said.count("no patch of pattern changes the logits in any pair") == 1
    assert "no patch of v" not in said
    assert table.groupby("kind")["effect"].apply(lambda effects: effects.abs().max() > 1e-3).to_dict() == {
        "k": False,
        "pattern": False,
        "v": True,
    }


@pytest.mark.parametrize("off", [1, 1.01])
def test_a_device_that_patches_otherwise_than_the_cpu_is_refused(small, monkeypatch, off):
    patch, calls = measure.patch_cells, []

    def patch_on_a_pretended_device(*arguments):
        calls.append(arguments)
        return patch(*arguments) * (off if len(calls) == 2 else 1)

    monkeypatch.setattr(measure, "patch_cells", patch_on_a_pretended_device)
    measure.check_device(small)
    assert not calls  # the CPU is not compared with itself
    pretended = replace(small, device=Device(torch.device("meta"), "fp32"))
    if off == 1:
        measure.check_device(pretended)
    else:
        assert "patches otherwise than the CPU, off by 1.0%" in line_of(measure.check_device, pretended)
    assert len(calls) == 2
