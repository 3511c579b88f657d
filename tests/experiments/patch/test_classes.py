"""Heads that emit the mean of another class at the last token, against plain runs and a planted network."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import texts_of
from scipy.stats import norm, t
from tiny import random_classifier

import lab.sweep
from experiments.patch import classes
from experiments.patch.classes import average_last_outputs, measure_between, run_between, tabulate_between
from lab.device import Device
from lab.stats import resamples
from lab.study import Study
from model import GPT2Classifier, GPT2Config, Trace

CPU = Device(torch.device("cpu"), "fp32")
L, H, D = 2, 3, 4
LABELS = ["a", "b", "c"]
CONFIG = GPT2Config(L, H, H * D, n_ctx=6, vocab_size=12, dropout=0.0, attn_dropout=0.0)
HEADS = [(layer, head) for layer in range(L) for head in range(H)]
COLUMNS = "layer head from to n gap effect effect_low effect_high share switched"


def study_of(clf, sequences, targets, folder):
    """A study of these texts of train and test."""
    texts = {split: texts_of(split, sequences[split], targets[split]) for split in ("train", "test")}
    folder.mkdir(exist_ok=True)
    return Study(folder, {}, clf.eval(), None, SimpleNamespace(files={}), texts, CPU, "")


def random_network():
    """A classifier that reads some of the texts below as each of the classes."""
    return random_classifier(CONFIG, LABELS, seed=7).requires_grad_(False)


def random_texts(n_test=40):
    """Random token ids of texts of 1 to 6 tokens, and random classes."""
    rng = np.random.default_rng(0)
    sequences = {
        split: [rng.integers(0, 12, rng.integers(1, 7)).tolist() for _ in range(n)]
        for split, n in (("train", 30), ("test", n_test))
    }
    return sequences, {split: rng.integers(0, 3, len(texts)) for split, texts in sequences.items()}


def tabulate(study, path, most=1000):
    return measure_between(study, most, path, 0)


def mean_plainly(clf, texts):
    """What each head emits at the last token, averaged over the texts of each class, by one run for each text."""
    emitted = {k: [] for k in range(len(clf.labels))}
    for ids, k in zip(texts.sequences, texts.targets.tolist(), strict=True):
        trace = Trace("z")
        clf(torch.tensor([ids]), trace=trace)
        emitted[k].append(trace.stacked("z")[0, :, :, -1])  # (L, H, D)
    return {k: sum(rows) / len(rows) for k, rows in emitted.items() if rows}


def emit_plainly(clf, ids, mean, layer, head):
    """The logits of one text with one head emitting this mean at the last token."""
    gate = torch.ones(1, L, H, len(ids))
    gate[0, layer, head, -1] = 0
    return clf(torch.tensor([ids]), head_gate=gate, head_fill=mean[None, :, :, None])[0].detach()


def test_the_mean_outputs_are_those_of_a_plain_loop():
    clf = random_network()
    sequences, targets = random_texts()
    texts = texts_of("train", sequences["train"], np.where(targets["train"] == 1, 2, targets["train"]))
    means = average_last_outputs(clf, texts, CPU)
    assert means.shape == (3, L, H, D)
    assert means[1].isnan().all()
    expected = mean_plainly(clf, texts)
    for k in (0, 2):
        torch.testing.assert_close(means[k], expected[k])


def test_effects_are_those_of_single_runs_with_the_models_own_arguments(tmp_path):
    clf = random_network()
    study = study_of(clf, *random_texts(), tmp_path)
    table = tabulate(study, tmp_path / "between.npy")
    means, sequences = mean_plainly(clf, study.texts["train"]), study.texts["test"].sequences
    assert " ".join(table) == COLUMNS
    assert len(table) == L * H * 6
    whole = [clf(torch.tensor([ids]))[0] for ids in sequences]
    rows = table.set_index(["from", "to", "layer", "head"])
    assert rows.index.is_unique
    assert rows["switched"].max() > 0
    for start in range(3):
        texts = [i for i, logits in enumerate(whole) if logits.argmax() == start]
        assert len(texts) > 2
        for to in {0, 1, 2} - {start}:
            gap = np.mean([(whole[i][start] - whole[i][to]).item() for i in texts])
            for layer, head in HEADS:
                effects, switched = [], []
                for i in texts:
                    towards, control = (emit_plainly(clf, sequences[i], means[k], layer, head) for k in (to, start))
                    effects.append((towards[to] - towards[start] - control[to] + control[start]).item())
                    switched.append(towards.argmax().item() == to)
                row = rows.loc[LABELS[start], LABELS[to], layer, head]
                expected = [len(texts), gap, np.mean(effects), np.mean(effects) / gap, np.mean(switched)]
                got = row[["n", "gap", "effect", "share", "switched"]].tolist()
                assert got == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_limits_are_those_of_a_plain_bootstrap_over_texts_for_all_heads_at_once():
    rng, n = np.random.default_rng(0), 15
    patched = rng.normal(size=(n, len(HEADS), 2, 2)).astype(np.float32)
    whole = np.tile(np.float32([1, 0]), (n, 1))  # all texts are read as a
    table = tabulate_between(whole, patched, ["a", "b"], CONFIG)
    lead = patched[..., 1] - patched[..., 0]
    effects = (lead[:, :, 1] - lead[:, :, 0]).astype(float)  # (n, U)
    draws = []
    for counts in np.concatenate(list(resamples(n))).astype(int):
        drawn = [i for i, times in enumerate(counts) for _ in range(times)]
        draws.append([np.mean([effects[i, u] for i in drawn]) for u in range(len(HEADS))])
    errors = np.std(draws, axis=0, ddof=1)
    largest = [max(abs(draw[u] - effects[:, u].mean()) / errors[u] for u in range(len(HEADS))) for draw in draws]
    p = norm.sf(np.quantile(largest, 0.95))
    reach = t.isf(p, n - 1) * np.sqrt(n / (n - 1)) * errors  # 15 texts spread less than all texts do
    rows = table[table["to"] == "b"]
    np.testing.assert_allclose(rows["effect"], effects.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(rows["effect_low"], effects.mean(axis=0) - reach, rtol=1e-3)
    np.testing.assert_allclose(rows["effect_high"], effects.mean(axis=0) + reach, rtol=1e-3)
    other = table[table["to"] == "a"]  # no text is read as b
    assert set(other["n"]) == {0}
    assert other.drop(columns=["layer", "head", "from", "to", "n"]).isna().all(axis=None)
    few = tabulate_between(whole[:9], patched[:9], ["a", "b"], CONFIG)
    assert few.loc[few["to"] == "b", "effect"].notna().all()
    assert few[["effect_low", "effect_high"]].isna().all(axis=None)


def test_as_many_texts_of_each_predicted_class_are_drawn_as_asked_for(tmp_path, monkeypatch):
    study = study_of(random_network(), *random_texts(), tmp_path)
    test = study.texts["test"]
    read = [LABELS[study.clf(torch.tensor([ids]))[0].argmax()] for ids in test.sequences]
    drawn = []
    monkeypatch.setattr(classes, "run_between", lambda *all_: drawn.append(all_[1].positions) or run_between(*all_))
    for seed, most in ((0, 5), (1, 5), (0, 11), (0, 1000)):
        table = measure_between(study, most, tmp_path / "between.npy", seed)
        expected = {label: min(most, read.count(label)) for label in LABELS}
        assert table.groupby("from")["n"].first().to_dict() == expected
        assert Counter(read[i] for i in drawn[-1]) == expected
        assert sorted(set(drawn[-1])) == list(drawn[-1])
    assert set(drawn[0]) != set(drawn[1])
    assert set(drawn[0]) < set(drawn[2]) < set(drawn[3]) == set(range(len(read)))


def planted_head():
    """A classifier in which head 1.2 reads the class from a word (tokens 1, 2, 3) anywhere in a text; all other heads
    emit things that differ between classes, too, and that nobody reads."""
    clf = GPT2Classifier(CONFIG, LABELS)
    C = CONFIG.n_embd
    with torch.no_grad():
        for name, parameter in clf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        clf.trunk.wte.weight[1:4, :3] = torch.eye(3)
        clf.trunk.wte.weight[4:, 8] = torch.arange(1.0, 9)
        for layer, head in HEADS:
            attn = clf.trunk.h[layer].attn
            attn.c_attn.weight[2 * C + head * D : 2 * C + head * D + 3, :3] = torch.eye(3)
        clf.trunk.h[1].attn.c_proj.weight[4:7, 2 * D : 2 * D + 3] = 4 * torch.eye(3)
        clf.score.weight[:, 4:7] = torch.eye(3)
    return clf.requires_grad_(False)


def planted_texts():
    rng = np.random.default_rng(0)
    targets = {"train": rng.integers(0, 3, 60), "test": rng.integers(0, 3, 60)}
    sequences = {
        split: [rng.permutation([k + 1, *rng.integers(4, 12, 3)]).tolist() for k in classes]
        for split, classes in targets.items()
    }
    return sequences, targets


def test_only_the_head_that_tells_the_class_has_an_effect(tmp_path):
    clf, (sequences, targets) = planted_head(), planted_texts()
    study = study_of(clf, sequences, targets, tmp_path)
    means = average_last_outputs(clf, study.texts["train"], CPU)
    assert (means[0] - means[1]).abs().amax(dim=2).min() > 0.1  # each head's means differ
    table = tabulate(study, tmp_path / "between.npy")
    tells = (table["layer"] == 1) & (table["head"] == 2)
    assert table.loc[~tells, ["effect", "effect_low", "effect_high", "share", "switched"]].abs().max(axis=None) == 0
    assert (table.loc[tells, "effect_low"] > 0).all()
    assert (table.loc[tells, "switched"] == 1).all()
    assert (table.loc[tells, "share"] > 0.9).all()
    expected = {LABELS[k]: (targets["test"] == k).sum() for k in range(3)}
    assert table.groupby("from")["n"].first().to_dict() == expected


def test_labels_of_the_test_texts_play_no_role(tmp_path):
    clf = random_network()
    sequences, targets = random_texts()
    tables = []
    for name, of_test in (("true", targets["test"]), ("permuted", np.roll(targets["test"], 7))):
        study = study_of(clf, sequences, targets | {"test": of_test}, tmp_path)
        tables.append(tabulate(study, tmp_path / f"{name}.npy"))
    assert (targets["test"] != np.roll(targets["test"], 7)).any()
    pd.testing.assert_frame_equal(*tables)


def test_a_class_without_texts_of_train_has_no_effects_and_the_others_keep_theirs(tmp_path):
    clf = random_network()
    sequences, targets = random_texts()
    kept = targets["train"] > 0
    without = (
        sequences | {"train": [ids for ids, keep in zip(sequences["train"], kept, strict=True) if keep]},
        targets | {"train": targets["train"][kept]},
    )
    whole = tabulate(study_of(clf, sequences, targets, tmp_path), tmp_path / "whole.npy")
    table = tabulate(study_of(clf, *without, tmp_path), tmp_path / "without.npy")
    of_a = (table["from"] == "a") | (table["to"] == "a")
    assert table.loc[of_a, ["effect", "effect_low", "effect_high", "share"]].isna().all(axis=None)
    assert table.loc[table["to"] == "a", "switched"].isna().all()
    columns = ["from", "to", "layer", "head", "n", "gap"]
    pd.testing.assert_frame_equal(table[columns], whole[columns])
    pd.testing.assert_frame_equal(table[~of_a], whole[~of_a], rtol=1e-4, atol=1e-6)
    assert len(table[~of_a]) == 2 * L * H


# What is kept.


def test_a_second_call_computes_nothing_and_an_interrupted_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(lab.device, "TOKENS", 16 * 24)  # a few texts at once
    study, path, plain = (
        study_of(planted_head(), *random_texts(), tmp_path),
        tmp_path / "between.npy",
        lab.sweep.run_ablations,
    )
    swept = []

    def count(clf, batch, *arguments):
        if len(swept) == 3:
            raise KeyboardInterrupt
        swept.append(len(batch.ids))
        return plain(clf, batch, *arguments)

    texts = study.texts["test"]
    with monkeypatch.context() as patch:
        patch.setattr(lab.sweep, "run_ablations", count)
        with pytest.raises(KeyboardInterrupt):
            run_between(study, texts, path, 0)
        first = sum(swept)
        swept.clear()
        patch.setattr(lab.sweep, "run_ablations", lambda *all_: swept.append(len(all_[1].ids)) or plain(*all_))
        logits = run_between(study, texts, path, 0)
        assert 0 < sum(swept) == len(texts) - first
        swept.clear()
        np.testing.assert_array_equal(run_between(study, texts, path, 0), logits)
        assert not swept
        np.testing.assert_array_equal(run_between(study, texts, tmp_path / "anew.npy", 0), logits)
        assert sum(swept) == len(texts)


CHANGES = {
    "seed": lambda study: (study, study.texts["test"], 1),
    "texts": lambda study: (study, study.texts["test"].select(np.arange(5)), 0),
    "weights": lambda study: (Study(**vars(study) | {"weights": "0123"}), study.texts["test"], 0),
    "train": lambda study: (Study(**vars(study) | {"texts": {"train": study.texts["test"]}}), study.texts["test"], 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_depends_on_a_change_is_computed_anew(tmp_path, monkeypatch, change):
    study, computed = study_of(planted_head(), *random_texts(20), tmp_path), []
    run_between(study, study.texts["test"], tmp_path / "between.npy", 0)
    sweep = classes.sweep
    monkeypatch.setattr(classes, "sweep", lambda *all_: computed.extend(all_[-1]) or sweep(*all_))
    changed, texts, seed = CHANGES[change](study)
    run_between(changed, texts, tmp_path / "between.npy", seed)
    assert len(computed) == len(texts)
