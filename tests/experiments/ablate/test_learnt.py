"""Learnt gates: losses and gradients against plain ones, networks of which it is known what they need, and sets."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import learnt as learnt_network
from planted import planted, planted_texts, spread, sweeps_of, texts_of
from sklearn.metrics import log_loss

from data.batches import Batch
from experiments.ablate import findings, learnt, learnt_sets
from experiments.ablate.importance import correlate_estimates
from lab.device import Device
from lab.sweep import fill_zeros
from lab.sweeps import Plan
from lab.units import each_head
from model import masks

CPU = Device(torch.device("cpu"), "fp32")
BORDER = 0.01  # the penalties that the tests on planted networks look at


def test_losses_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(scale=3, size=(13, 5)), rng.integers(0, 5, 13)
    losses = learnt.question_losses(torch.tensor(logits), torch.tensor(targets)).mean(0)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert losses[0].item() == pytest.approx(log_loss(targets, p, labels=range(5)))
    for k in range(5):
        assert losses[1 + k].item() == pytest.approx(log_loss(targets == k, p[:, k], labels=[False, True]))


def test_the_price_is_a_share_of_the_entropy_of_the_answer():
    texts = texts_of("train", [[1]] * 6, np.array([0, 0, 0, 1, 1, 2]))
    frequencies = learnt.guess(texts, 4)
    np.testing.assert_allclose(frequencies, [0.4, 0.3, 0.2, 0.1])
    entropies = learnt.question_entropies(frequencies)
    assert entropies[0] == pytest.approx(-sum(p * np.log(p) for p in (0.4, 0.3, 0.2, 0.1)))
    assert entropies[3] == pytest.approx(-0.2 * np.log(0.2) - 0.8 * np.log(0.8))


def test_the_weighted_texts_of_all_batches_stand_for_all_texts(monkeypatch):
    monkeypatch.setattr(learnt, "STEPS", 3000)
    targets = np.array([0] * 50 + [1] * 5)
    texts = texts_of("val", [[i] for i in range(55)], targets)
    batches = learnt.draw_batches(texts, np.random.default_rng(0))
    drawn = [(batch.targets, weights, batch) for batch, weights in batches]
    classes, weights = torch.cat([row[0] for row in drawn]), torch.cat([row[1] for row in drawn])
    assert len(classes) == 3000 * learnt.TEXTS
    assert (classes == 1).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (weights * (classes == 1)).mean().item() == pytest.approx(5 / 55, rel=0.05)
    for _, _, batch in drawn[:20]:
        assert batch.ids[:, 0].tolist() == batch.index.tolist()


def lesson_of(clf, texts=None, fills=(fill_zeros,), columns=(0,), entropies=(1.0,), b=0.0):
    return learnt.Lesson(clf, texts, fills, columns, np.array(entropies), CPU, b)


def descend_plainly(clf, lesson, emitted, seed):
    """log_alpha (questions, penalties, L, H) as a plain loop over settings and texts has it, with Adam by hand."""
    rng, bound = np.random.default_rng(seed), learnt.BOUND
    L, H, shape = clf.config.n_layer, clf.config.n_head, (len(lesson.columns), len(learnt.PENALTIES))
    log_alpha = torch.full((*shape, L, H), learnt.START, dtype=torch.float64)
    first, second = torch.zeros_like(log_alpha), torch.zeros_like(log_alpha)
    for step, (batch, weights) in enumerate(learnt.draw_batches(lesson.texts, rng)):
        noise = torch.from_numpy(rng.random((len(batch.ids), L, H), dtype=np.float32)).double()
        parameter = log_alpha.clone().requires_grad_()
        total = torch.zeros(())
        for q, p in np.ndindex(shape):
            price = lesson.entropies[q] * learnt.PENALTIES[p] * min(1, (step + 1) / (learnt.STEPS / 3))
            for i, t in enumerate(batch.index.tolist()):
                gate = ((noise[i].logit() + parameter[q, p]) * 1.5).sigmoid() * 1.2 - 0.1
                ids = torch.tensor([lesson.texts.sequences[t]])
                head_fill = emitted[step % len(emitted)][t, None].double()
                logits = clf(ids, head_gate=gate.clamp(0, 1)[None, ..., None], head_fill=head_fill) - torch.tensor(
                    lesson.b
                )
                losses = learnt.question_losses(logits, torch.tensor([lesson.texts.targets[t]]))
                total = total + weights[i].double() * losses[0, lesson.columns[q]] / len(weights)
            total = total + price * (parameter[q, p] - np.log(0.1 / 1.1) / 1.5).sigmoid().sum()
        (slope,) = torch.autograd.grad(total, parameter)
        first, second = 0.9 * first + 0.1 * slope, 0.9 * second + 0.1 * slope**2
        rate = learnt.RATE * min(1, 2 * (learnt.STEPS - step) / learnt.STEPS)
        corrected = 1 - 0.9 ** (step + 1)
        move = rate * (first / corrected) / ((second / corrected).sqrt() + 1e-8)
        log_alpha = (log_alpha - move).clamp(-bound, bound)
    return log_alpha.numpy()


def test_gates_are_learnt_as_by_a_plain_loop(clf, monkeypatch):
    """Of an unbalanced corpus, with two fills that give each text its own values and take turns, and a prior."""
    for name, value in {"STEPS": 5, "TEXTS": 3, "PENALTIES": (0.02, 0.7)}.items():
        monkeypatch.setattr(learnt, name, value)
    rng, K = np.random.default_rng(3), len(clf.labels)
    sequences = [rng.integers(0, 101, n).tolist() for n in (3, 7, 5, 4, 6, 2, 5)]
    texts = texts_of("val", sequences, np.array([0, 0, 0, 0, 0, 1, 2]))
    emitted = torch.randn(2, len(texts), 3, 5, 1, 7, generator=torch.Generator().manual_seed(0))
    fills = [lambda batch, values=values: {"head_fill": values[batch.index]} for values in emitted]
    lesson = lesson_of(clf, texts, fills, [0, 2], [1.3, 0.4], np.linspace(-1, 1, K))
    log_alpha = learnt.learn_gates(lesson, np.random.default_rng(11))
    plain = descend_plainly(clf.double(), lesson, emitted, 11)
    clf.float()
    assert plain.std() > 0.1
    np.testing.assert_allclose(log_alpha, plain, atol=2e-3)


def test_no_gate_is_learnt_beyond_the_bound(clf, monkeypatch):
    for name, value in {"STEPS": 3, "TEXTS": 2, "RATE": 99.0}.items():
        monkeypatch.setattr(learnt, name, value)
    texts = texts_of("val", [[1, 2], [3, 4, 5]], np.array([0, 1]))
    log_alpha = learnt.learn_gates(lesson_of(clf, texts), np.random.default_rng(0))
    assert np.abs(log_alpha).max() == pytest.approx(learnt.BOUND)


def test_gradients_of_gates_are_those_of_finite_differences(clf):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 101, n).tolist() for n in (3, 7, 5)]
    padded = torch.tensor([ids + [0] * (7 - len(ids)) for ids in sequences])
    K = len(clf.labels)
    batch = Batch(padded, torch.tensor([3, 7, 5]), torch.tensor([0, 1, 2]), torch.arange(3))
    gates = torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    fill = {"head_fill": torch.randn(1, 3, 5, 1, 7, generator=torch.Generator().manual_seed(1))}
    column, prior = torch.tensor([0, 2]), np.linspace(-1, 1, K)
    slopes = learnt.differentiate_gates(lesson_of(clf, b=prior), batch, gates, column, lambda batch: fill)
    exact = clf.double()
    for s, i, layer, head in ((0, 0, 0, 1), (0, 1, 2, 4), (1, 2, 1, 0), (1, 0, 2, 2)):
        losses = []
        for sign in (1, -1):
            gate = gates[s, i].double().clone()
            gate[layer, head] += sign * 1e-4
            values = {"head_gate": gate[None, ..., None], "head_fill": fill["head_fill"].double()}
            with torch.no_grad():
                logits = exact(torch.tensor([sequences[i]]), **values) - torch.tensor(prior)
            losses.append(learnt.question_losses(logits, batch.targets[[i]])[0, column[s]].item())
        assert slopes[s, i, layer, head].item() == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=1e-3, abs=1e-6)
    clf.float()


def kept_open(clf, folder, questions=("all", "a")):
    """The heads that more than half of the seeds keep open, by class, at each penalty from BORDER on."""
    sweeps = sweeps_of(clf, *planted_texts(), folder)
    gates = learnt.find_gates(sweeps, "mean", "a")
    sets = learnt_sets.agree_on_sets(gates)
    return {name: [sorted(sets[name][p]) for p in learnt.PENALTIES if p >= BORDER] for name in questions}


@pytest.mark.slow
def test_one_planted_head_stays_open_and_only_it(tmp_path):
    assert kept_open(planted(), tmp_path) == {"all": [[(1, 2)]] * 2, "a": [[(1, 2)]] * 2}


@pytest.mark.slow
def test_of_three_heads_that_carry_a_class_together_all_stay_open(tmp_path):
    of_layer_1 = [(1, 0), (1, 1), (1, 2)]
    sets = kept_open(spread(), tmp_path)
    assert sets["all"][-1] == sets["a"][-1] == of_layer_1


def test_where_no_head_reaches_the_logits_all_are_closed(tmp_path):
    clf = planted()
    for block in clf.trunk.h:
        torch.nn.init.zeros_(block.attn.c_proj.weight)
    assert kept_open(clf, tmp_path) == {"all": [[]] * 2, "a": [[]] * 2}


def test_what_is_kept_is_not_learnt_again(tmp_path, monkeypatch):
    monkeypatch.setattr(learnt, "STEPS", 3)
    sweeps = sweeps_of(planted(), *planted_texts(), tmp_path)
    first = learnt.find_gates(sweeps, "mean", None)
    assert " ".join(first) == "class penalty layer head seed log_alpha probability open"
    assert len(first) == 5 * len(learnt.PENALTIES) * 6 * learnt.SEEDS
    (tmp_path / "logits" / "gates-mean-1.json").unlink()  # as if the call had been interrupted
    calls, plain = [], learnt.learn_gates
    monkeypatch.setattr(learnt, "learn_gates", lambda *arguments: calls.append(arguments[5]) or plain(*arguments))
    torch.manual_seed(99)  # has no say
    pd.testing.assert_frame_equal(learnt.find_gates(sweeps, "mean", None), first)
    assert calls == [1]
    learnt.find_gates(sweeps, "zero", None)
    assert calls == [1, 0, 1, 2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A network, its sweeps, gates of which we say what is open, and `measure_sets` of them."""
    network = learnt_network()
    sweeps = sweeps_of(*network, tmp_path_factory.mktemp("sets"))
    config = network[0].config
    singles = sweeps.run([Plan("heads", "zero", {"val": each_head(config)})])["heads", "zero", "val"]
    importance = findings.estimate_importance(sweeps, singles, "zero")
    log_alpha = np.full((3, 2, len(learnt.PENALTIES), 2, 3), -3, np.float32)
    log_alpha[:, :, :2, :, :2] = 2  # heads 0 and 1 of both layers, at the two lowest penalties
    log_alpha[:2, 1, 2, 0, 2] = 2  # of two of three seeds
    log_alpha[:1, 1, 2, 0, 1] = 2  # of one
    gates = learnt.tabulate_gates(log_alpha, ["all", "b"], 0)
    smallest = {"open": ["0.1", "1.2"]}
    return (
        network,
        sweeps,
        gates,
        singles,
        learnt_sets.measure_sets(sweeps, gates, singles, importance, "zero", smallest),
    )


def test_a_set_has_the_heads_of_most_seeds(measured):
    sets = learnt_sets.agree_on_sets(measured[2])
    assert [sorted(heads) for heads in sets["b"].values()] == [[(0, 0), (0, 1), (1, 0), (1, 1)]] * 2 + [[(0, 2)], []]


def test_sets_are_measured_as_by_plain_calls(measured):
    (clf, sequences, targets), _, _, _, table = measured
    every = [(layer, head) for layer in range(2) for head in range(3)]
    frequencies = learnt.guess(texts_of("train", sequences["train"], targets["train"]), 4)
    for _, row in table.iterrows():
        opened = [tuple(map(int, name.split("."))) for name in row["heads"].split()]
        gate = masks.close_heads(clf.config, [head for head in every if head not in opened])
        y = torch.tensor(targets[row["split"]])
        with torch.no_grad():
            logits = [clf(torch.tensor(sequences[row["split"]]), **a).double() for a in ({"head_gate": gate}, {})]
        column = {"all": 0, "b": 2}[row["class"]]
        logits.append(torch.tensor(frequencies).log().expand(len(y), 4))
        mine, whole, guessed = (learnt.question_losses(x, y)[:, column].mean().item() for x in logits)
        assert row["log_loss"] == pytest.approx(mine, abs=1e-5)
        assert row["kept"] == pytest.approx((guessed - mine) / (guessed - whole), abs=1e-4)
        assert row["kept_low"] <= row["kept"] <= row["kept_high"]
        right = (logits[0].argmax(1) == y).double()
        assert row["accuracy"] == pytest.approx(right.mean().item())
        if row["class"] == "b":
            p = logits[0].softmax(1)[:, 1]
            odds = p.log() - (-p).log1p()
            assert row["recall"] == pytest.approx(right[y == 1].mean().item())
            assert row["specific_margin"] == pytest.approx((odds[y == 1].mean() - odds[y != 1].mean()).item(), abs=1e-4)
        else:
            assert np.isnan(row["recall"])


def test_the_chosen_set_stands_beside_others_of_its_size_on_test(measured):
    *_, table = measured
    for label, rows in table.groupby("class"):
        val, test = (rows[rows["split"] == split] for split in ("val", "test"))
        assert val["penalty"].tolist() == list(learnt.PENALTIES)
        enough = val["penalty"][val["kept"] >= 0.95]
        (chosen,) = val["penalty"][val["chosen"]]
        assert chosen == (enough.max() if len(enough) else min(learnt.PENALTIES))
        assert test["penalty"].eq(chosen).all()
        others = test[test["set"] != "smallest"]
        assert others["open"].nunique() == 1
        assert set(test["set"]) - {"smallest"} == {"learnt", "ranking", *(f"random {i}" for i in range(5))}
        assert ("smallest" in set(test["set"])) == (label == "all")
        own = test.set_index("set").loc["learnt"]
        np.testing.assert_allclose(test["difference"], own["kept"] - test["kept"])
        assert own["difference_low"] == own["difference_high"] == 0


def test_the_ranking_is_by_the_rise_of_the_same_loss(measured):
    (_, _, targets), _, _, singles, table = measured
    rises = learnt.question_losses(
        torch.tensor(singles[:, :, 0]).flatten(0, 1), torch.tensor(targets["val"]).repeat_interleave(6)
    )
    for label, column in (("all", 0), ("b", 2)):
        row = table[(table["class"] == label) & (table["set"] == "ranking")].iloc[0]
        order = np.argsort(-rises[:, column].view(-1, 6).mean(0).numpy(), kind="stable")[: row["open"]]
        assert row["heads"].split() == [f"{u // 3}.{u % 3}" for u in sorted(order)]


def test_importance_gains_the_mean_probability_and_its_correlation(measured):
    _, sweeps, gates, singles, _ = measured
    importance = findings.estimate_importance(sweeps, singles, "zero")
    table = learnt.add_learnt(importance, gates)
    assert table.drop(columns="learnt").equals(importance)
    assert table.loc[table["class"] == "c", "learnt"].isna().all()
    one = table[(table["class"] == "b") & (table["layer"] == 0) & (table["head"] == 1)]["learnt"].item()
    mine = gates[(gates["class"] == "b") & (gates["layer"] == 0) & (gates["head"] == 1)]["probability"]
    assert one == pytest.approx(mine.mean())
    correlations = correlate_estimates(table)
    assert set(correlations.loc[correlations["estimate"] == "learnt", "class"]) == {"all", "b"}


def test_a_network_that_gains_nothing_keeps_nothing():
    question = learnt_sets.Question(0, np.array([0, 1]), np.array([1.0, 1.0]), np.array([0.5, 0.5]))
    assert np.isnan(question.share_kept(np.array([[0.1, 0.2]]), np.ones((1, 2)))).all()


def test_fill_zero_needs_no_head_fill(clf):
    batch = Batch(torch.tensor([[1, 2]]), torch.tensor([2]), torch.tensor([0]), torch.arange(1))
    slopes = learnt.differentiate_gates(lesson_of(clf), batch, torch.ones(1, 1, 3, 5), torch.tensor([0]), fill_zeros)
    assert slopes.abs().sum() > 0
