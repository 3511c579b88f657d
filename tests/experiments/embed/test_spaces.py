"""The networks of a run side by side, and what they make of its texts."""

import gc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from nltk_files import nltk_files
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from experiments.embed.spaces import PRETRAINED, RANDOM, TUNED, Site, Spaces, open_spaces
from lab.device import Device
from lab.study import open_study
from lab.vectors import POOLINGS

CPU = Device(torch.device("cpu"), "fp32")


@pytest.fixture
def spaces(here, tmp_path):
    return Spaces(open_study("one", CPU), tmp_path, limit=17, seed=0)


def test_a_run_from_random_weights_has_no_pretrained_network(spaces):
    assert [*spaces.networks] == [TUNED, RANDOM]
    called = f"which is called {TUNED} all the same"
    assert spaces.left_out == [
        f"no {PRETRAINED} network beside the run's, {called}: runs/one began with random weights"
    ]


def test_corrections_are_fitted_on_train_and_applied_to_test(spaces):
    raw, corrected = (spaces.read(Site(TUNED, 3, "mean", name)) for name in ("none", "standardise"))
    mean, deviation = raw["train"].mean(0), raw["train"].std(0)
    for split in ("train", "test"):
        assert corrected[split].shape == (17, 12)
        assert corrected[split].dtype == np.float32
        np.testing.assert_allclose(corrected[split], (raw[split] - mean) / deviation, atol=1e-4)


def test_the_last_vector_after_ln_f_is_what_the_classifier_reads(spaces):
    x = torch.from_numpy(spaces.read(Site(TUNED, spaces.n_sites - 1, "last"))["test"])
    clf, texts = spaces.study.clf, spaces.texts["test"]
    for i, ids in enumerate(texts.sequences):
        torch.testing.assert_close(clf.score(x[i]), clf(torch.tensor([ids]))[0], atol=1e-5, rtol=1e-5)


def test_each_network_gives_other_vectors_and_keeps_them(spaces):
    site = Site(TUNED, 1, "last")
    first = spaces.read(site)["test"]
    assert (first != spaces.read(Site(RANDOM, 1, "last"))["test"]).any()
    np.load(spaces.vectors(TUNED, "test").files[1], mmap_mode="r+")[[*POOLINGS].index("last")] = 7
    assert (spaces.read(site)["test"] == 7).all()  # taken from disk


def test_a_table_is_computed_once_and_again_where_something_changes(spaces, here, tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return pd.DataFrame(
            {"word": ["nan", "1", "é"], "n": [1, 2, 3], "x": [1 / 3, np.nan, -2.5], "none": [np.nan] * 3}
        )

    first, again = (spaces.keep("table", compute, k=(3, 4)) for _ in range(2))
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first, compute(), check_dtype=False)
    assert first["word"].tolist() == ["nan", "1", "é"]
    spaces.keep("table", compute, k=4)
    Spaces(spaces.study, tmp_path, limit=17, seed=1).keep("table", compute, k=4)
    assert len(calls) == 4


def test_stop_words_are_those_of_nltk_where_it_has_them(spaces, tmp_path, monkeypatch):
    with nltk_files({"corpora/stopwords/english": "the\nof\n"}, tmp_path / "nltk", monkeypatch):
        assert spaces.stop_words == {"the", "of"}
    assert not spaces.left_out
    other = Spaces(spaces.study, tmp_path, limit=17, seed=0)
    with nltk_files({}, tmp_path, monkeypatch):
        assert other.stop_words == ENGLISH_STOP_WORDS
    assert "nltk has no list of stop words" in other.left_out[0]


def test_the_identity_names_texts_networks_seed_and_corrections(spaces, tmp_path, monkeypatch):
    """Each by itself: all texts are taken, so another seed does not choose others."""
    whole = Spaces(spaces.study, tmp_path, limit=0, seed=0)
    about = whole.identity()

    def differ(other):
        return [name for name, value in other.identity().items() if value != about[name]]

    assert differ(Spaces(spaces.study, tmp_path, limit=17, seed=0)) == ["texts of train", "texts of test"]
    assert differ(Spaces(spaces.study, tmp_path, limit=0, seed=1)) == ["networks", "seed"]
    other = Spaces(spaces.study, tmp_path, limit=0, seed=0)
    other.__dict__["networks"] = {name: replace(each, weights="other") for name, each in whole.networks.items()}
    assert differ(other) == ["networks"]
    monkeypatch.setattr("experiments.embed.spaces.SHARE_OF_TOP", 7)
    assert differ(whole) == ["corrections"]


def test_a_temporary_folder_holds_the_vectors_as_long_as_the_spaces_are_held(spaces, here):
    site, opened = Site(TUNED, 1, "mean", "centre"), open_spaces(spaces.study, 17, 0)
    np.testing.assert_array_equal(opened.read(site)["test"], spaces.read(site)["test"])
    folder = opened.folder
    assert [*folder.glob("*.npy")]
    del opened
    gc.collect()
    assert not folder.exists()
