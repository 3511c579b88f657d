"""What is kept of a sweep: it is used again for the same, and never for anything else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import planted, planted_texts, sweeps_of

from lab import fills
from lab.device import Device
from lab.sweeps import AGREEMENT, Plan, Sweeps
from lab.units import each_head
from model import InputError


@pytest.fixture
def sweeps(tmp_path):
    return sweeps_of(planted(), *planted_texts(), tmp_path)


def plan(fill="zero", made_of="", heads=3):
    return Plan("heads", fill, {"test": each_head(planted().config)[:heads]}, made_of)


def run(sweeps, own):
    return sweeps.run([own])["heads", own.fill, "test"]


def corrupt(sweeps, fill):
    """Write other logits into what is kept, to see whether they are used."""
    path = sweeps.folder / f"test-{fill}-heads.npy"
    np.save(path, np.load(path) + 1)


@pytest.mark.parametrize("fill", ["zero", "mean", "resample", "class_mean"])
def test_what_is_kept_is_used_again_for_the_same(sweeps, fill):
    before = np.array(run(sweeps, plan(fill)))
    corrupt(sweeps, fill)
    np.testing.assert_allclose(run(sweeps, plan(fill)), before + 1)


def test_what_is_kept_of_other_weights_texts_seeds_ablations_or_words_is_swept_anew(sweeps):
    before = np.array(run(sweeps, plan()))
    for other in (plan(made_of="other words"), plan(heads=2)):
        corrupt(sweeps, "zero")
        np.testing.assert_allclose(run(sweeps, other), before[:, : len(other.ablations["test"])], atol=1e-6)
    corrupt(sweeps, "zero")
    sweeps.seed = 1
    np.testing.assert_allclose(run(sweeps, plan(heads=2)), before[:, :2], atol=1e-6)
    corrupt(sweeps, "zero")
    sweeps.study = replace(sweeps.study, weights="of another network")
    np.testing.assert_allclose(run(sweeps, plan(heads=2)), before[:, :2], atol=1e-6)
    corrupt(sweeps, "zero")
    texts = sweeps.texts["test"]
    sweeps.texts["test"] = replace(texts, sequences=texts.sequences[::-1])
    np.testing.assert_allclose(run(sweeps, plan(heads=2)), before[::-1, :2], atol=1e-6)


def test_other_donors_or_other_predictions_are_swept_anew(sweeps, monkeypatch):
    before = {fill: np.array(run(sweeps, plan(fill))) for fill in ("resample", "class_mean")}
    choose_donors = fills.choose_donors
    monkeypatch.setattr(fills, "choose_donors", lambda *given: choose_donors(*given)[:, ::-1].copy())
    assert np.abs(run(sweeps, plan("resample")) - before["resample"]).max() > 1e-3
    predicted = sweeps.predicted("test")
    monkeypatch.setattr(type(sweeps), "predicted", lambda self, split: (predicted + 1) % 4)
    assert np.abs(run(sweeps, plan("class_mean")) - before["class_mean"]).max() > 1e-3


def test_the_most_frequent_class_is_that_of_train(sweeps):
    """Not the one of the texts that are measured, which nobody knows beforehand."""
    targets = {"train": np.array([1, 1, 2, 0]), "val": np.array([2, 2, 2, 1]), "test": np.array([0, 0, 0, 0])}
    texts = {split: replace(sweeps.texts["test"], targets=targets[split]) for split in targets}
    study = replace(sweeps.study, texts=texts)
    assert {split: study.majority(own) for split, own in texts.items()} == {"train": 0.5, "val": 0.25, "test": 0.0}


def test_the_work_of_a_plan_by_hand(sweeps):
    """Three heads of layer 0 pass two layers, three of layer 1 one; ten donors are ten times the work."""
    tokens = {split: sum(map(len, texts.sequences)) for split, texts in sweeps.texts.items()}
    both = {"val": each_head(sweeps.study.clf.config)[:3], "test": each_head(sweeps.study.clf.config)}
    plans = [Plan("heads", fill, both) for fill in ("mean", "resample")]
    work = 6 * tokens["val"] + 9 * tokens["test"]
    assert [sweeps.work([own]) for own in plans] == [work, 10 * work]
    assert sweeps.work(plans) == 11 * work


def test_a_sweep_that_ends_between_its_two_files_is_taken_for_no_other(sweeps, monkeypatch):
    before = np.array(run(sweeps, plan()))

    def fail(path, content):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lab.kept.write_json", fail)
        with pytest.raises(OSError, match="no space"):
            run(sweeps, plan(heads=2))
    np.testing.assert_array_equal(run(sweeps, plan()), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_device_that_computes_other_logits_is_refused(sweeps, monkeypatch, precision):
    """Against the CPU, in shares of the largest logit; `meta` stands for a GPU."""
    heads, most = [], AGREEMENT[precision]
    errors = {"meta": 0.9 * most, "cpu": 0.0}  # shares of 4

    def ablate_batch(batch, ablations, clf, device):
        heads.append(len(ablations))
        return torch.tensor([[4.0, -1.0], [2.0, 4 * errors[device.device.type] - 3.0]])

    monkeypatch.setattr(Sweeps, "ablate_batch", staticmethod(ablate_batch))
    sweeps.study = replace(sweeps.study, device=Device(torch.device("meta"), precision))
    sweeps.check_device()
    assert heads == [7, 7]  # six heads and the whole network
    for errors["meta"] in (1.1 * most, -1.1 * most, np.nan):
        with pytest.raises(InputError, match=r"meta.* computes other logits than the CPU, off by .*--device cpu"):
            sweeps.check_device()
    sweeps.study = replace(sweeps.study, device=Device(torch.device("cpu"), precision))
    sweeps.check_device()  # there is nothing to compare
    assert len(heads) == 8


def test_what_neutral_texts_say_is_taken_out_under_the_same_ablation_and_draw(sweeps, tmp_path):
    """Of val, per ablation and draw; the file has the logits as the network gives them."""
    both = Plan("heads", "resample", dict.fromkeys(("val", "test"), each_head(planted().config)))
    raw = {split: np.array(logits) for (_, _, split), logits in sweeps.run([both]).items()}
    corrected = Sweeps(sweeps.study, tmp_path / "logits", 0, 0, neutral="val")
    logits = corrected.run([both])
    log_probs = {split: raw[split] - np.logaddexp.reduce(raw[split], axis=-1, keepdims=True) for split in raw}
    b = sum(log_probs["val"]) / len(log_probs["val"])  # (U, R, K)
    assert b.shape == (6, 10, 4)
    assert b.std(axis=1).max() > 1e-3  # draws differ
    assert b.std(axis=0).max() > 1e-3  # ablations, too
    for split in raw:
        np.testing.assert_allclose(logits["heads", "resample", split], log_probs[split] - b, atol=1e-5)
        np.testing.assert_array_equal(np.load(tmp_path / "logits" / f"{split}-resample-heads.npy"), raw[split])


def test_a_plan_of_test_alone_also_runs_on_the_neutral_texts(sweeps, tmp_path):
    texts = sweeps.study.texts
    study = replace(sweeps.study, texts=texts | {"domain": replace(texts["val"].select(np.arange(1)), split="domain")})
    corrected = Sweeps(study, tmp_path / "logits", 0, 0, neutral="domain")
    plain, without_domain = np.array(run(sweeps, plan())), run(corrected, plan())
    domain = np.array(sweeps.run([Plan("heads", "zero", {"val": plan().ablations["test"]})])["heads", "zero", "val"])[0]
    b = domain - np.logaddexp.reduce(domain, axis=-1, keepdims=True)
    expected = plain - np.logaddexp.reduce(plain, axis=-1, keepdims=True) - b
    np.testing.assert_allclose(without_domain, expected, atol=1e-5)
    assert corrected.work([plan()]) == sweeps.work([plan()]) + 2 * 3 * len(study.texts["domain"].sequences[0])
    assert corrected.splits == ["val", "test", "domain"]
    whole = corrected.baseline("test")
    raw = sweeps.baseline("test")
    b = sweeps.baseline("val")[0]
    difference = whole - (raw - b)
    np.testing.assert_allclose(difference - difference.mean(axis=1, keepdims=True), 0, atol=1e-5)
    np.testing.assert_allclose(corrected.baseline_b, b - np.logaddexp.reduce(b), atol=1e-5)


def test_a_prior_of_a_single_text_is_refused(sweeps, tmp_path):
    with pytest.raises(InputError, match="at least 2 texts of val"):
        Sweeps(sweeps.study, tmp_path, 1, 0, neutral="val")
