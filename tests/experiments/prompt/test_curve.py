"""What labelled texts give without a prompt: on texts of which it is known what can be learnt."""

from dataclasses import replace

import numpy as np
import planted_lm
import pytest
import torch
from torch.nn import functional as F

from experiments.prompt import curve
from experiments.prompt.curve import fine_tune, fit_probe, list_portions, measure_curve
from lab.defaults import TrainOptions
from lab.demonstrations import draw_demonstrations
from lab.prompts import Demonstration

TRAIN, TEST = planted_lm.write_texts("train", 51), planted_lm.write_texts("test", 90)
POOL = [
    Demonstration(2 * i, text, int(k)) for i, (text, k) in enumerate(zip(TRAIN.strings, TRAIN.targets, strict=True))
]
PROMPTED = planted_lm.open_planted()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return folder, measure_curve(POOL, TEST, PROMPTED, folder, 0)


def test_it_has_a_row_for_each_way_number_and_draw(measured):
    _, table = measured
    assert list(table) == ["method", "shots", "draw", "n_train", "n", "accuracy", "macro_f1"]
    counted = table.groupby(["method", "shots"])["draw"].agg(list).to_dict()
    draws = {"probe": ["0", "1", "2", "3", "4"], "fine_tuned": ["0", "1", "2"]}
    expected = {(method, shots): draws[method] for method in draws for shots in (1, 4, 16)}
    assert counted == expected | {("probe", 17): ["full"]}
    assert table["n_train"].tolist() == [3 * shots for shots in table["shots"]]
    assert set(table["n"]) == {90}


def test_what_can_be_learnt_is_learnt(measured):
    _, table = measured
    scores = table.groupby(["method", "shots"])[["accuracy", "macro_f1"]].mean()
    for method in ("probe", "fine_tuned"):
        assert (scores.loc[(method, 16)] > 0.9).all()
    assert (scores.loc[("probe", 17)] > 0.95).all()


def test_labels_at_random_teach_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(curve, "DRAWS", {"probe": 5, "fine_tuned": 1})
    rng = np.random.default_rng(0)
    shuffled = [replace(each, target=int(k)) for each, k in zip(POOL, rng.permutation(TRAIN.targets), strict=True)]
    table = measure_curve(shuffled, TEST, PROMPTED, tmp_path, 0)
    assert table["accuracy"].mean() == pytest.approx(1 / 3, abs=0.08)
    assert table["macro_f1"].max() < 0.6


def test_what_is_on_disk_is_not_computed_again(measured, monkeypatch):
    folder, table = measured
    computed = []

    def note(*arguments):
        computed.append(arguments)
        return np.zeros(90, dtype=int)

    monkeypatch.setattr(curve, "fit_probe", note)
    monkeypatch.setattr(curve, "fine_tune", note)
    assert measure_curve(POOL, TEST, PROMPTED, folder, 0).equals(table)
    assert not computed
    fewer = measure_curve(POOL, TEST.select(np.arange(90)[::-1]), PROMPTED, folder, 0)
    assert len(computed) == len(fewer) == len(table)
    # all are given class 0, of which there are 30 texts: 1/3 right, F1 1/2 for it and 0 for the others
    assert set(fewer["accuracy"]) == {1 / 3}
    assert set(fewer["macro_f1"].round(9)) == {round(0.5 / 3, 9)}


def test_a_portion_has_the_texts_that_a_prompt_has_as_examples():
    portions = {(each.method, each.shots, each.draw): each for each in list_portions(POOL, PROMPTED.words, 3)}
    for method, draw in (("probe", 4), ("fine_tuned", 2)):
        drawn = draw_demonstrations(POOL, 4, draw, PROMPTED.words, 3)
        assert portions[method, 4, str(draw)].texts == drawn
    assert portions["probe", 17, "full"].texts == tuple(POOL)


def test_fine_tuning_stops_at_64_shots_and_the_probe_does_not(monkeypatch):
    monkeypatch.setattr(curve, "MOST", 4)
    shots = {
        method: {e.shots for e in list_portions(POOL, PROMPTED.words, 0) if e.method == method}
        for method in curve.DRAWS
    }
    assert shots == {"probe": {1, 4, 16, 17}, "fine_tuned": {1, 4}}


def test_a_probe_is_a_logistic_regression_of_standardised_features():
    rng = np.random.default_rng(0)
    x, asked = rng.normal(5, 3, (40, 7)), rng.normal(5, 3, (200, 7))
    y = (x[:, 2] > x[:, 4]).astype(int)
    z, z_asked = ((each - x.mean(0)) / x.std(0) for each in (x, asked))
    w = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    design, targets = torch.tensor(np.hstack([z, np.ones((40, 1))])), torch.tensor(y, dtype=torch.float64)

    def loss():
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(design @ w, targets, reduction="sum")
        (value := fit * curve.STRENGTH + (w[:-1] ** 2).sum() / 2).backward()
        return value

    optimizer.step(loss)
    scores = np.hstack([z_asked, np.ones((200, 1))]) @ w.detach().numpy()
    np.testing.assert_array_equal(fit_probe(x, y, asked), scores > 0)


def test_fine_tuning_takes_the_steps_that_it_says_and_leaves_the_language_model_alone(monkeypatch):
    portions = {(each.method, each.shots): each for each in list_portions(POOL, PROMPTED.words, 0)}
    before = {name: value.clone() for name, value in PROMPTED.lm.state_dict().items()}
    sizes, compute_loss = [], curve.compute_loss

    def note(clf, batch, prompted):
        assert clf.training
        sizes.append(len(batch.ids))
        return compute_loss(clf, batch, prompted)

    monkeypatch.setattr(curve, "compute_loss", note)
    for shots, expected in ((1, [3] * 60), (16, [16, 32] * 30)):
        predicted = fine_tune(portions["fine_tuned", shots], TEST.sequences[:5], PROMPTED, 0)
        assert predicted.shape == (5,)
        assert sorted(sizes) == sorted(expected)
        sizes.clear()
    assert TrainOptions().batch_size == 32
    for name, value in PROMPTED.lm.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in PROMPTED.lm.parameters())


def test_the_seed_decides_a_fine_tuning_and_nothing_else_does():
    portion = next(each for each in list_portions(POOL, PROMPTED.words, 0) if each.method == "fine_tuned")

    def tune(seed):
        return fine_tune(portion, TEST.sequences, PROMPTED, seed).tolist()

    torch.manual_seed(1)
    state, one = torch.get_rng_state(), tune(0)
    assert torch.equal(torch.get_rng_state(), state)  # others draw as if nothing had been
    torch.manual_seed(2)
    assert tune(0) == one
    assert any(tune(seed) != one for seed in (1, 2, 3))
