"""What identifies the texts and the network under study, and what their classes are called."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lab.device import Device
from lab.study import Study, rename_overall
from lab.texts import Texts
from model import InputError

CPU = Device(torch.device("cpu"), "fp32")
TEXTS = Texts("test", np.arange(3), ["a", "b", "c"], [[1, 2], [3], [4]], np.array([0, 1, 1]))


def study(labels=("no", "yes"), n=101):
    """Of texts that are told apart by their one token."""
    texts = {
        split: Texts(split, np.arange(n), [f"{split} {i}" for i in range(n)], [[i] for i in range(n)], np.arange(n) % 2)
        for split in ("train", "val", "test")
    }
    corpus = SimpleNamespace(files={"x": "12"}, labels=labels)
    clf = SimpleNamespace(labels=rename_overall(labels))
    return Study("runs/one", {}, clf, None, corpus, texts, CPU, "34")


OTHERS = {
    "weights": lambda own: replace(own, weights="35"),
    "corpus": lambda own: replace(own, corpus=SimpleNamespace(files={"x": "13"})),
    "classes": lambda own: replace(own, clf=SimpleNamespace(labels=("yes", "no"))),
    "precision": lambda own: replace(own, device=Device(CPU.device, "bf16")),
}


@pytest.mark.parametrize("what", OTHERS)
def test_the_identity_is_another_where_one_thing_is(what):
    own, other = study().identity(TEXTS), OTHERS[what](study()).identity(TEXTS)
    assert own == study().identity(TEXTS)
    assert [name for name in own if own[name] != other[name]] == [what]


@pytest.mark.parametrize(
    "texts",
    [
        replace(TEXTS, sequences=[[1, 2], [3, 4], []]),  # the same tokens, parted in another way
        replace(TEXTS, sequences=[[1, 2], [4], [3]]),
        replace(TEXTS, targets=np.array([0, 1, 0])),
    ],
)
def test_the_identity_is_another_where_texts_are(texts):
    own, other = study().identity(TEXTS), study().identity(texts)
    assert [name for name in own if own[name] != other[name]] == ["texts of test"]
    assert "texts of test" not in study().identity()


def test_a_sample_is_the_same_for_a_seed_and_another_for_each_split():
    own = study()
    drawn = {split: own.draw_texts(split, 13, 5).positions for split in ("train", "val", "test")}
    assert all(len(set(positions)) == 13 and (np.diff(positions) > 0).all() for positions in drawn.values())
    assert len({tuple(positions) for positions in drawn.values()}) == 3
    assert (own.draw_texts("val", 13, 5).positions == drawn["val"]).all()
    assert (own.draw_texts("val", 13, 6).positions != drawn["val"]).any()
    texts = own.draw_texts("test", 13, 5)
    assert texts.strings == [f"test {i}" for i in texts.positions]
    assert texts.sequences == [[i] for i in texts.positions]
    assert own.draw_texts("test", 101).sequences == own.draw_texts("test").sequences == own.texts["test"].sequences


def test_a_class_called_all_gets_another_name_and_a_line_says_so(capsys):
    assert rename_overall(["no", "yes"]) == ("no", "yes")
    assert capsys.readouterr().out == ""
    own = study(("no", "all", "all (class)"))
    assert own.clf.labels == ("no", "all (class) (class)", "all (class)")
    assert "'all' is called 'all (class) (class)'" in " ".join(capsys.readouterr().out.split())
    assert [own.find_class(label) for label in own.corpus.labels] == [*own.clf.labels]
    with pytest.raises(InputError, match="--class hope: expected one of no, all, all"):
        own.find_class("hope")


def test_classes_without_texts_are_named():
    own = study(("a", "b", "c", "d"))
    val, test = replace(TEXTS, split="val", targets=np.array([0, 1, 2])), replace(TEXTS, targets=np.array([3, 3, 1]))
    assert own.absent_classes(replace(TEXTS, targets=np.array([0, 1, 2, 3]))) == []
    [first, second] = own.absent_classes(val, test)
    assert first.startswith("no val text has the class d: ")
    assert second.startswith("no test text has the class a, c: ")
