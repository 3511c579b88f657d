"""What ablations are called in reports."""

import pandas as pd

from experiments.ablate.wording import KINDS, NOUNS, add_names


def test_every_kind_of_ablation_has_its_own_name():
    names = {
        ("head", 2, 5, ""): "Closing head 2.5",
        ("heads", 2, None, ""): "Closing all heads of layer 2",
        ("mlp", 2, None, ""): "Closing the MLP of layer 2",
        ("layer", 2, None, ""): "Closing all of layer 2",
        ("pair", None, None, "0.3 & 1.5"): "Closing heads 0.3 & 1.5",
        ("mask", None, None, "self"): "Masking self in all layers",
        ("cut", 1, None, "all but self"): "Cutting all but self in layer 1",
        ("words", None, None, "negation"): "Hiding words: negation",
        ("words", None, None, "random, as many as negation"): "Hiding random tokens, as many as negation",
    }
    table = pd.DataFrame(list(names), columns=["kind", "layer", "head", "region"])
    table = add_names(table.astype({"layer": "Int64", "head": "Int64"}))
    assert set(table["kind"]) == set(KINDS) == set(NOUNS)
    assert table["ablation"].tolist() == list(names.values())
    assert table["unit"].tolist() == [name.partition(" ")[2] for name in names.values()]
