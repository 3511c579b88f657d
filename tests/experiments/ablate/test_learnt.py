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
from lab.units import each_head, parse_head
from model import masks

CPU = Device(torch.device("cpu"), "fp32")


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
    """The heads that are open in the set that val chooses of the seeds, by class, at each penalty."""
    sweeps = sweeps_of(clf, *planted_texts(), folder)
    gates = learnt.find_gates(sweeps, "mean", "a")
    table = learnt_sets.choose_sets(sweeps, gates, "mean", learnt.find_questions(sweeps, "a"))
    return {
        name: [sorted(map(parse_head, row.split())) for row in table["heads"][table["class"] == name]]
        for name in questions
    }


@pytest.mark.slow
def test_one_planted_head_stays_open_and_only_it(tmp_path):
    assert kept_open(planted(), tmp_path) == {"all": [[(1, 2)]] * 3, "a": [[(1, 2)]] * 3}


@pytest.mark.slow
def test_of_three_heads_that_carry_a_class_together_all_stay_open(tmp_path):
    of_layer_1 = [(1, 0), (1, 1), (1, 2)]
    sets = kept_open(spread(), tmp_path)
    assert sets["all"][1] == sets["a"][1] == of_layer_1


def plant_twins(size):
    """`planted`, but heads (1, 1) and (1, 2) both write the marker, so large that each alone keeps all of the class."""
    clf = planted()
    attn, D, C = clf.trunk.h[1].attn, clf.config.head_width, clf.config.n_embd
    with torch.no_grad():
        attn.c_attn.weight[2 * C + D] = attn.c_attn.weight[2 * C + 2 * D]
        attn.c_proj.weight[:, D] = 0
        attn.c_proj.weight[8, [D, 2 * D]] = size
    return clf


@pytest.mark.slow
@pytest.mark.parametrize("size", [8.0, 40.0])
def test_of_two_heads_that_stand_in_for_one_another_one_or_both_stay_open(tmp_path, size):
    for sets in kept_open(plant_twins(size), tmp_path).values():
        for heads in sets:
            assert {(1, 1), (1, 2)} & {*heads}
        assert {*sets[-1]} <= {(1, 1), (1, 2)}


def test_where_no_head_reaches_the_logits_all_are_closed(tmp_path):
    clf = planted()
    for block in clf.trunk.h:
        torch.nn.init.zeros_(block.attn.c_proj.weight)
    assert kept_open(clf, tmp_path) == {"all": [[]] * 3, "a": [[]] * 3}


def test_what_is_kept_is_not_learnt_again(tmp_path, monkeypatch):
    monkeypatch.setattr(learnt, "STEPS", 3)
    sweeps = sweeps_of(planted(), *planted_texts(), tmp_path)
    first = learnt.find_gates(sweeps, "mean", None)
    assert " ".join(first) == "class penalty price layer head seed log_alpha probability open"
    assert len(first) == 5 * len(learnt.PENALTIES) * 6 * learnt.SEEDS
    (tmp_path / "logits" / "gates-mean-1.json").unlink()  # as if the call had been interrupted
    calls, announced, plain = [], [], learnt.learn_gates
    monkeypatch.setattr(learnt, "learn_gates", lambda *arguments: calls.append(arguments) or plain(*arguments))
    monkeypatch.setattr(learnt, "announce_learning", lambda *arguments: announced.append(arguments[2]))
    torch.manual_seed(99)  # has no say
    pd.testing.assert_frame_equal(learnt.find_gates(sweeps, "mean", None), first)
    assert announced == [len(calls)] == [1]
    learnt.find_gates(sweeps, "mean", None)
    assert announced == [1]
    monkeypatch.setattr(learnt, "RISE", 0.5)  # gates that were learnt in another way are no such gates
    learnt.find_gates(sweeps, "mean", None)
    assert announced == [1, learnt.SEEDS]
    sweeps.seed = 1  # shares no gates with seed 0
    other = learnt.find_gates(sweeps, "mean", None)
    assert announced == [1, learnt.SEEDS, learnt.SEEDS]
    by_seed = [table.groupby("seed")["log_alpha"].sum() for table in (first, other)]
    assert not np.isclose(by_seed[0].to_numpy()[:, None], by_seed[1].to_numpy()).any()


def test_the_texts_of_val_teach_the_gates(tmp_path):
    sequences, targets = planted_texts()
    targets["val"][targets["val"] == 3] = 2  # no text of d
    sweeps = sweeps_of(planted(), sequences, targets, tmp_path)
    questions = learnt.find_questions(sweeps, None)
    assert questions == {"all": 0, "a": 1, "b": 2, "c": 3}
    lesson = learnt.prepare_lesson(sweeps, "zero", [0, 3])
    assert lesson.texts.sequences == sequences["val"]
    p = (np.bincount(targets["train"]) + 1) / 204
    of_c = -(p[2] * np.log(p[2]) + (1 - p[2]) * np.log(1 - p[2]))
    np.testing.assert_allclose(lesson.prices[1], of_c * np.array(learnt.PENALTIES))


SIX = [(layer, head) for layer in range(2) for head in range(3)]
LAYER_0, FIVE = SIX[:3], SIX[:5]
OPENED = {  # by class, penalty and seed
    "all": [[SIX] * 3, [FIVE, LAYER_0, []], [[(1, 0)], [(1, 0)], [(1, 1)]]],
    "b": [[[(1, 0)], [(1, 0)], [(1, 1)]], [[(1, 0)], [(1, 1)], [(1, 2)]], [[], [], []]],
}
FEW = 53


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A network, its sweeps, gates of which we say what is open, and `measure_sets` of them."""
    network = learnt_network()
    sweeps = sweeps_of(*network, tmp_path_factory.mktemp("sets"))
    config = network[0].config
    singles = sweeps.run([Plan("heads", "zero", {"val": each_head(config)})])["heads", "zero", "val"]
    log_alpha = np.full((3, 2, len(learnt.PENALTIES), 2, 3), -3, np.float32)
    for c, paths in enumerate(OPENED.values()):
        for p, sets in enumerate(paths):
            for seed, heads in enumerate(sets):
                for layer, head in heads:
                    log_alpha[seed, c, p, layer, head] = 2
    gates = learnt.tabulate_gates(log_alpha, learnt.prepare_lesson(sweeps, "zero", [0, 2]).prices, ["all", "b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learnt_sets, "FEW", FEW)
        table = learnt_sets.measure_sets(sweeps, gates, singles, "zero", {"open": ["0.1", "1.2"]})
        few = learnt_sets.shorten(sweeps).texts["few"]
    return network, sweeps, gates, singles, table, few


def measure_plainly(measured, heads, split, column):
    """The losses of a set of heads, of the whole network and of the guess, (3, N), and the logits of the first."""
    (clf, sequences, targets), *_ = measured
    closed = [(layer, head) for layer in range(2) for head in range(3) if (layer, head) not in heads]
    ids, y = torch.tensor(sequences[split]), torch.tensor(targets[split])
    with torch.no_grad():
        logits = [clf(ids, **a).double() for a in ({"head_gate": masks.close_heads(clf.config, closed)}, {})]
    frequencies = learnt.guess(texts_of("train", sequences["train"], targets["train"]), 4)
    logits.append(torch.tensor(frequencies).log().expand(len(y), 4))
    return torch.stack([learnt.question_losses(x, y)[:, column] for x in logits]).numpy(), logits[0]


def test_of_the_seeds_the_set_of_the_lowest_loss_and_price_is_taken(measured):
    (_, _, targets), *_, table, _ = measured
    entropies = learnt.question_entropies(learnt.guess(texts_of("train", [[1]] * 151, targets["train"]), 4))
    for label, column in (("all", 0), ("b", 2)):
        rows = table[(table["class"] == label) & (table["split"] == "val")]
        for p, (_, row) in enumerate(rows.iterrows()):
            price = learnt.PENALTIES[p] * entropies[column]
            objectives = [
                measure_plainly(measured, heads, "val", column)[0][0].mean() + price * len(heads)
                for heads in OPENED[label][p]
            ]
            assert row["seed"] == np.argmin(np.round(objectives, 6))
            assert [*map(parse_head, row["heads"].split())] == OPENED[label][p][row["seed"]]
    assert table[(table["class"] == "all") & (table["split"] == "val")]["seed"].tolist()[:2] == [0, 1]


def test_sets_are_measured_as_by_plain_calls(measured):
    (_, _, targets), *_, table, few = measured
    for _, row in table.iterrows():
        opened, column = [*map(parse_head, row["heads"].split())], {"all": 0, "b": 2}[row["class"]]
        is_few, y = row["set"].startswith("random"), targets[row["split"]]
        texts = few.positions if is_few else np.arange(len(y))
        losses, logits = measure_plainly(measured, opened, row["split"], column)
        mine, whole, guessed = losses[:, texts].mean(1)
        assert row["n"] == len(texts) == (FEW if is_few else 151)
        assert row["log_loss"] == pytest.approx(mine, abs=1e-5)
        assert row["kept"] == pytest.approx((guessed - mine) / (guessed - whole), abs=1e-4)
        assert row["kept_low"] <= row["kept"] <= row["kept_high"]
        logits, y = logits[texts], torch.tensor(y)[texts]
        right = (logits.argmax(1) == y).double()
        assert row["accuracy"] == pytest.approx(right.mean().item())
        if row["class"] == "b":
            p = logits.softmax(1)[:, 1]
            odds = p.log() - (-p).log1p()
            assert row["recall"] == pytest.approx(right[y == 1].mean().item())
            assert row["specific_margin"] == pytest.approx((odds[y == 1].mean() - odds[y != 1].mean()).item(), abs=1e-4)
        else:
            assert np.isnan(row["recall"])


def test_the_highest_penalty_with_which_enough_is_kept_is_chosen_else_the_lowest(measured):
    *_, table, _ = measured
    val = table[table["split"] == "val"]
    assert val["penalty"].tolist() == [*learnt.PENALTIES] * 2
    kept = {label: (rows["kept"] >= 0.95).tolist() for label, rows in val.groupby("class")}
    assert kept == {"all": [True, True, False], "b": [False, False, False]}
    assert val["penalty"][val["chosen"]].tolist() == [learnt.PENALTIES[1], learnt.PENALTIES[0]]


def test_the_chosen_set_stands_beside_others_of_its_size_on_test(measured):
    *_, table, _ = measured
    for label, n_random in (("all", 19), ("b", 5)):  # all other sets of 3 and of 1 of 6 heads
        rows = table[table["class"] == label]
        (chosen,) = rows[(rows["split"] == "val") & rows["chosen"]].to_dict("records")
        test = rows[rows["split"] == "test"].set_index("set")
        assert set(test["penalty"]) == {chosen["penalty"]}
        assert set(test["seed"]) == {chosen["seed"]}
        own = test.loc["learnt"]
        assert own["heads"] == chosen["heads"]
        assert test.loc["none", "open"] == 0
        random = test[test.index.str.startswith("random")]
        assert [*random.index] == [f"random {i}" for i in range(n_random)]
        assert len({*random["heads"], own["heads"]}) == n_random + 1
        assert set(random["open"]) == {own["open"]} == {test.loc["ranking", "open"]}
        assert ("smallest" in test.index) == (label == "all")
        on_all = test[test["n"] == 151]
        np.testing.assert_allclose(on_all["difference"], own["kept"] - on_all["kept"])
        assert own["difference_low"] == own["difference_high"] == 0


def test_p_counts_the_random_sets_that_keep_as_much(measured):
    *_, table, few = measured
    p = {}
    for label, column in (("all", 0), ("b", 2)):
        test = table[(table["class"] == label) & (table["split"] == "test")]
        heads = {row["set"]: [*map(parse_head, row["heads"].split())] for _, row in test.iterrows()}
        losses = {
            name: measure_plainly(measured, opened, "test", column)[0][0, few.positions].mean()
            for name, opened in heads.items()
        }
        random = [loss for name, loss in losses.items() if "random" in name]
        p[label] = (1 + sum(loss <= losses["learnt"] + 1e-5 for loss in random)) / (1 + len(random))
        assert test["p"].iloc[0] == pytest.approx(p[label])
        assert test["p"].iloc[1:].isna().all()
    first, second = sorted(p, key=p.get)
    corrected = table[table["set"].eq("learnt") & table["split"].eq("test")].set_index("class")["p_holm"]
    assert corrected[first] == pytest.approx(min(1, 2 * p[first]))
    assert corrected[second] == pytest.approx(min(1, max(2 * p[first], p[second])))


def test_a_set_that_beats_all_its_random_ones_passes_holm_for_any_number_of_classes():
    for m in (1, 2, 7, 29):
        number = round(20 * m)
        few = pd.DataFrame(
            [
                (f"{c}", "learnt" if i == 0 else f"random {i}", 0.1 if i == 0 else 0.2)
                for c in range(m)
                for i in range(number + 1)
            ],
            columns=["class", "set", "log_loss"],
        )
        table = few[few["set"] == "learnt"].assign(n=9)
        assert (learnt_sets.add_random(table, few)["p_holm"][:m] < 0.05).all()
        few.loc[1, "log_loss"] = 0.1  # as good as the learnt one
        one = learnt_sets.add_random(table, few)
        assert one["p"][0] == pytest.approx(2 / (number + 1))
        assert one["p_holm"][0] > 0.05 if m == 1 else one["p_holm"][1] < 0.05


def test_there_is_no_p_where_all_heads_are_open_or_none(measured):
    _, sweeps, *_ = measured
    few = learnt_sets.measure_random(sweeps, {"all": frozenset(), "b": frozenset(SIX)}, "zero", {"all": 0, "b": 2})
    table = pd.DataFrame({"class": ["all", "b"], "set": "learnt"})
    assert learnt_sets.add_random(table, few)[["p", "p_holm"]].isna().all(axis=None)


def test_more_classes_have_more_random_sets(measured, monkeypatch):
    _, sweeps, *_ = measured
    monkeypatch.setattr(learnt_sets, "LEVEL", 0.5)  # so that 6 heads have enough sets
    for labels in ({"all": 0}, {"all": 0, "b": 2}):
        few = learnt_sets.measure_random(sweeps, dict.fromkeys(labels, frozenset(SIX[1:4])), "zero", labels)
        assert (few.groupby("class")["set"].count() - 1 == 2 * len(labels)).all()


def test_random_sets_differ_and_are_all_there_are_where_more_are_asked_for():
    rng = np.random.default_rng(0)
    assert len({*learnt_sets.draw_sets(SIX, 3, 20, rng)}) == len({*learnt_sets.draw_sets(SIX, 3, 99, rng)}) == 20
    drawn = learnt_sets.draw_sets(SIX, 2, 7, rng)
    assert len({*drawn}) == 7
    assert {len(heads) for heads in drawn} == {2}


def test_a_prompts_prior_comes_from_few_texts_too(measured, monkeypatch):
    _, sweeps, *_ = measured
    monkeypatch.setattr(learnt_sets, "FEW", 31)
    monkeypatch.setattr(sweeps, "neutral", "val")
    few = learnt_sets.shorten(sweeps)
    assert {name: len(texts) for name, texts in few.texts.items()} == {"few": 31, "few-val": 31}
    assert few.neutral == "few-val"
    assert sweeps.neutral == "val"
    assert set(sweeps.texts) == {"val", "test"}


def test_the_ranking_is_by_the_rise_of_the_same_loss(measured):
    (_, _, targets), _, _, singles, table, _ = measured
    rises = learnt.question_losses(
        torch.tensor(singles[:, :, 0]).flatten(0, 1), torch.tensor(targets["val"]).repeat_interleave(6)
    )
    for label, column in (("all", 0), ("b", 2)):
        row = table[(table["class"] == label) & (table["set"] == "ranking")].iloc[0]
        order = np.argsort(-rises[:, column].view(-1, 6).mean(0).numpy(), kind="stable")[: row["open"]]
        assert row["heads"].split() == [f"{u // 3}.{u % 3}" for u in sorted(order)]


def test_importance_gains_the_mean_probability_and_its_correlation(measured):
    _, sweeps, gates, singles, *_ = measured
    importance = findings.estimate_importance(sweeps, singles, "zero")
    table = learnt.add_learnt(importance, gates)
    assert table.drop(columns="learnt").equals(importance)
    assert table.loc[table["class"] == "c", "learnt"].isna().all()
    one = table[(table["class"] == "b") & (table["layer"] == 0) & (table["head"] == 1)]["learnt"].item()
    mine = gates[(gates["class"] == "b") & (gates["layer"] == 0) & (gates["head"] == 1)]["probability"]
    assert one == pytest.approx(mine.mean())
    correlations = correlate_estimates(table)
    assert set(correlations.loc[correlations["estimate"] == "learnt", "class"]) == {"all", "b"}


LIMITED = ["kept", "kept_low", "kept_high", "difference", "difference_low", "difference_high"]


@pytest.mark.parametrize(("gain", "measured"), [(-0.5, False), (0.0, False), (0.01, False), (0.5, True)])
def test_nothing_is_measured_where_the_network_is_not_surely_better_than_the_guess(gain, measured):
    rng = np.random.default_rng(0)
    whole, targets = rng.random(40), rng.integers(0, 2, 40)
    question = learnt_sets.Question(0, targets, whole, whole + gain + 0.5 * rng.permutation([-1, 1] * 20))
    logits = {frozenset(heads): rng.normal(size=(40, 1, 2)) for heads in ([(0, 0)], [(0, 1)])}
    table = learnt_sets.tabulate_sets(question, list(logits), logits)
    assert table[LIMITED].notna().all(axis=None) == measured
    assert table[LIMITED].isna().all(axis=None) == (not measured)
    assert table["log_loss"].notna().all()


def test_fill_zero_needs_no_head_fill(clf):
    batch = Batch(torch.tensor([[1, 2]]), torch.tensor([2]), torch.tensor([0]), torch.arange(1))
    slopes = learnt.differentiate_gates(lesson_of(clf), batch, torch.ones(1, 1, 3, 5), torch.tensor([0]), fill_zeros)
    assert slopes.abs().sum() > 0
