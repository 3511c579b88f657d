"""What ablations and numbers are called in reports."""

import pandas as pd

from experiments.ablate.wording import KINDS, named, title


def test_every_kind_of_ablation_has_a_name_of_its_own():
    rows = [
        ("head", 2, 5, ""),
        ("heads", 2, None, ""),
        ("mlp", 2, None, ""),
        ("layer", 2, None, ""),
        ("pair", None, None, "0.3 & 1.5"),
        ("mask", None, None, "self"),
        ("cut", 1, None, "all but self"),
        ("words", None, None, "negation"),
        ("words", None, None, "random, as many as negation"),
    ]
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "region"]).astype({"layer": "Int64", "head": "Int64"})
    assert set(table["kind"]) == set(KINDS)
    table = named(table.assign(**{"class": "a|b"}))
    assert table["done"].tolist() == [
        "Closing head 2.5",
        "Closing all heads of layer 2",
        "Closing the MLP of layer 2",
        "Closing all of layer 2",
        "Closing heads 0.3 & 1.5",
        "Masking self in all layers",
        "Cutting all but self in layer 1",
        "Hiding words: negation",
        "Hiding random tokens, as many as negation",
    ]
    assert table["done"].str.endswith(tuple(table["unit"])).all()
    assert set(table["class"]) == {r"a\|b"}


def test_only_what_is_closed_has_a_fill_in_its_title():
    assert title("mlp", "mean") == "MLPs, fill mean"
    assert title("cut", "zero") == "Attention cut after the softmax"
