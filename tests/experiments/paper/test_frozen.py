"""Classifiers on frozen features, against scikit-learn step by step, on vectors that are planted."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from data import read_corpus
from experiments.paper import frozen
from lab.device import Device
from lab.texts import Texts
from lab.vectors import POOLINGS, Vectors
from model import GPT2, GPT2LM, GPT2Config, InputError, Tokenizer, save

LABELS = ["anger", "fear", "joy"]
N = {"train": 97, "val": 43, "test": 53}
CPU = Device(torch.device("cpu"), "fp32")


def draw_targets(seed=0):
    rng = np.random.default_rng(seed)
    return {split: rng.integers(len(LABELS), size=n) for split, n in N.items()}


def draw_features(targets, signal, seed=0):
    """Features (N, 7) whose first dimensions tell the class the better, the larger `signal` of the split is."""
    rng = np.random.default_rng((seed, 1))
    features = {}
    for split, of_split in targets.items():
        x = rng.normal(size=(len(of_split), 7))
        x[:, : len(LABELS)] += signal[split] * np.eye(len(LABELS))[of_split]
        features[split] = (x * np.logspace(-2, 3, 7) + 5).astype(np.float32)
    return features


def count_pairs(positive, scores):
    won = [np.sign(one - other) / 2 + 0.5 for one in scores[positive] for other in scores[~positive]]
    return np.mean(won)


def test_mean_and_deviation_are_those_of_train():
    features = draw_features(draw_targets(), dict.fromkeys(N, 1))
    standard = frozen.standardise(features)
    mean, deviation = features["train"].mean(axis=0, dtype=float), features["train"].std(axis=0, dtype=float)
    for split, x in features.items():
        np.testing.assert_allclose(standard[split], (x - mean) / deviation, rtol=1e-3, atol=1e-4)
        assert standard[split].dtype == np.float32
    others = frozen.standardise(features | {"val": features["val"] * 100, "test": features["test"][:1]})
    np.testing.assert_array_equal(others["train"], standard["train"])


def test_the_penalty_is_chosen_on_val_and_the_areas_are_counts_of_pairs():
    targets = draw_targets()
    features = frozen.standardise(draw_features(targets, dict.fromkeys(N, 0.7)))
    measured = frozen.measure_best(features, targets, LABELS)
    models = [LogisticRegression(C=C, max_iter=1000).fit(features["train"], targets["train"]) for C in frozen.STRENGTHS]
    on_val = [f1_score(targets["val"], model.predict(features["val"]), average="macro") for model in models]
    best = int(np.argmax(on_val))
    assert len(set(on_val)) > 1
    assert measured["chosen"] == f"C = {frozen.STRENGTHS[best]:g}"
    assert measured["val"]["macro_f1"] == pytest.approx(max(on_val))
    assert measured["train"]["n"] == N["train"]
    for split in ("train", "test"):
        p = models[best].predict_proba(features[split])
        areas = [count_pairs(targets[split] == k, p[:, k]) for k in range(len(LABELS))]
        assert measured[split]["macro_roc_auc"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_the_place_is_chosen_on_val(tmp_path):
    targets, n_sites = draw_targets(), 4
    best_on_val, best_on_test = (2, "weighted"), (3, "last")
    vectors = {}
    planted = {
        (site, pooling): draw_features(
            targets,
            {"train": 2 * ((site, pooling) in (best_on_val, best_on_test))}
            | {"val": 2 * ((site, pooling) == best_on_val), "test": 4 * ((site, pooling) == best_on_test)},
            seed=10 * site + i,
        )
        for site in range(n_sites)
        for i, pooling in enumerate(POOLINGS)
    }
    for split in N:
        files = tuple(tmp_path / f"{split}-{site}.npy" for site in range(n_sites))
        for site, file in enumerate(files):
            np.save(file, np.stack([planted[site, pooling][split] for pooling in POOLINGS]))
        vectors[split] = Vectors(files, tuple(POOLINGS), np.empty(0), np.empty(0, int))
    assert frozen.choose_place(vectors, targets) == best_on_val


def test_the_static_row_is_the_mean_of_wte(tmp_path):
    torch.manual_seed(0)
    trunk = GPT2(GPT2Config(1, 1, 6, n_ctx=7, vocab_size=31)).eval()
    rng, targets = np.random.default_rng(0), draw_targets()
    texts, static = {}, {}
    wte = trunk.wte.weight.detach().numpy()
    for split, of_split in targets.items():
        ids = [[int(k), *rng.integers(3, 31, size=rng.integers(0, 5)).tolist()] for k in of_split]
        texts[split] = Texts(split, np.arange(len(ids)), [""] * len(ids), ids, of_split)
        static[split] = np.array([sum(wte[token] for token in each) / len(each) for each in ids])
    about = {"weights": "drawn", "seed": 0, "precision": "fp32"}
    measured = frozen.measure_features(trunk, texts, LABELS, tmp_path, about, CPU)
    assert list(measured) == ["frozen", "wte"]
    mean, deviation = static["train"].mean(axis=0), static["train"].std(axis=0)
    standard = {split: ((x - mean) / deviation).astype(np.float32) for split, x in static.items()}
    expected = frozen.measure_best(standard, targets, LABELS)
    assert measured["wte"]["chosen"] == expected["chosen"]
    assert measured["wte"]["test"]["macro_roc_auc"] == pytest.approx(expected["test"]["macro_roc_auc"], abs=1e-3)
    assert measured["wte"]["test"]["macro_roc_auc"] > 0.6


@pytest.mark.parametrize(
    ("site", "place"),
    [(0, "before block 0"), (1, "before block 1"), (2, "after the last block"), (3, "after ln_f")],
)
def test_places_have_names(site, place):
    assert frozen.describe_site(site, 2) == place


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What a run on a small corpus would start from."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(GPT2LM(GPT2Config(2, 2, 10, n_ctx=17)), tmp_path / "tiny", Tokenizer.load("gpt2-mini"))
    (tmp_path / "words").mkdir()
    words = {"joy": "happy glad", "fear": "afraid scared"}
    for split, n in {"train": 9, "val": 5, "test": 4}.items():
        lines = [
            f"{split} {i} felt {word};{label}" for label, of in words.items() for word in of.split() for i in range(n)
        ]
        (tmp_path / "words" / f"{split}.txt").write_text("\n".join(lines) + "\n")

    def make(init):
        settings = SimpleNamespace(model="tiny", init=init, truncate=False)
        return SimpleNamespace(settings=settings, corpus=read_corpus("words"), weights="ab" * (init == "pretrained"))

    return make


def test_what_is_measured_is_kept_and_vectors_are_not(run, tmp_path, monkeypatch):
    folder = tmp_path / "fitted"
    first = {init: frozen.fit_features(run(init), folder, CPU) for init in ("pretrained", "random")}
    assert {path.name for path in folder.iterdir()} == {"words-tiny-pretrained.json", "words-tiny-random.json"}
    for init, fitted in first.items():
        assert [(each.init, each.kind, each.seed) for each in fitted] == [
            (init, kind, 0 if init == "random" else None) for kind in ("frozen", "wte")
        ]
        assert {split: fitted[0].metrics[split]["n"] for split in ("train", "val", "test")} == {
            "train": 36, "val": 20, "test": 16
        }  # fmt: skip
    pretrained, random = (first[init][0].metrics["test"]["log_loss"] for init in first)
    assert pretrained != random
    monkeypatch.setattr(frozen, "record_vectors", lambda *given: pytest.fail("computed again"))
    again = frozen.fit_features(run("pretrained"), folder, CPU)
    assert [each.metrics for each in again] == [each.metrics for each in first["pretrained"]]
    (folder / "words-tiny-pretrained.json").rename(folder / "words-pretrained.json")  # as when there was one model
    assert frozen.fit_features(run("pretrained"), folder, CPU)[0].metrics == first["pretrained"][0].metrics
    other = run("pretrained")
    other.weights = "other"
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        frozen.fit_features(other, folder, CPU)


def test_an_interrupted_fit_takes_up_its_vectors(run, tmp_path, monkeypatch):
    folder, choose = tmp_path / "fitted", frozen.choose_place

    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "choose_place", interrupt)
    with pytest.raises(KeyboardInterrupt):
        frozen.fit_features(run("pretrained"), folder, CPU)
    monkeypatch.setattr(frozen, "choose_place", choose)
    monkeypatch.setattr("lab.vectors.map_texts", lambda *given: pytest.fail("read again"))
    assert len(frozen.fit_features(run("pretrained"), folder, CPU)) == 2


def test_vectors_that_a_killed_call_left_are_removed(run, tmp_path, monkeypatch):
    folder = tmp_path / "fitted"
    frozen.fit_features(run("pretrained"), folder, CPU)
    (folder / "vectors-words-tiny-pretrained").mkdir()
    (folder / "vectors-words-tiny-pretrained" / "train-0.npy").touch()
    monkeypatch.setattr(frozen, "record_vectors", lambda *given: pytest.fail("computed again"))
    frozen.fit_features(run("pretrained"), folder, CPU)
    assert [path.name for path in folder.iterdir()] == ["words-tiny-pretrained.json"]


def test_space_for_the_vectors_of_all_splits_is_checked_first(run, tmp_path, monkeypatch):
    """4 sites, 4 poolings, 72 texts, 10 numbers of 4 bytes; of train alone there are 36."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=4 * 4 * 72 * 10 * 4 - 1))
    monkeypatch.setattr(frozen, "record_vectors", lambda *given: pytest.fail("too late"))
    with pytest.raises(InputError, match="make room, or take fewer texts"):
        frozen.fit_features(run("pretrained"), tmp_path / "fitted", CPU)


def test_a_bag_of_words_is_kept_for_its_texts_labels_and_candidates(run, tmp_path, monkeypatch):
    folder, corpus, fitted = tmp_path / "fitted", run("pretrained").corpus, []

    def fit_bags(train, val, test, labels):
        fitted.append(len(fitted))
        return {"bag_of_words": {"name": "bag", "n": len(fitted)}}

    monkeypatch.setattr(frozen, "baselines", fit_bags)
    swapped = corpus.examples.replace({"split": {"train": "test", "test": "train"}})
    other_labels = corpus.examples.assign(label=corpus.examples["label"].to_numpy()[::-1])
    for n, each in enumerate((corpus, replace(corpus, examples=swapped), replace(corpus, examples=other_labels))):
        assert [frozen.fit_bag(each, folder).metrics["n"] for _ in range(2)] == [n + 1] * 2
    monkeypatch.setattr(frozen, "make_candidates", lambda texts: {"one": None})
    assert frozen.fit_bag(each, folder).metrics["n"] == 4
