import numpy as np
import pandas as pd
import pytest

from experiments.probe.report import report


def probes(*rows):
    """property, network, reading, kind, layer, head, val_accuracy, accuracy; all else follows."""
    columns = ["property", "network", "reading", "kind", "layer", "head", "val_accuracy", "accuracy"]
    table = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "head": "Int64"})
    ends = {"ci_low": table["accuracy"] - 0.02, "ci_high": table["accuracy"] + 0.02}
    scores = {"macro_f1": table["accuracy"] - 0.1, "control": 0.25, "selectivity": table["accuracy"] - 0.25}
    return table.assign(n=1234, **ends, **scores, compression=np.nan)


def baselines(*rows):
    table = pd.DataFrame(rows, columns=["property", "baseline", "accuracy"])
    return table.assign(n=1234, ci_low=table["accuracy"] - 0.02, ci_high=table["accuracy"] + 0.02)


EMOTION = [
    ("emotion", "trained", "last", "resid", 0, None, 0.40, 0.40),
    ("emotion", "trained", "last", "resid", 1, None, 0.71, 0.685),
    ("emotion", "trained", "last", "resid", 2, None, 0.70, 0.90),  # better on test, but val decides
    ("emotion", "trained", "mean", "resid", 0, None, 0.60, 0.60),
    ("emotion", "trained", "mean", "resid", 1, None, 0.75, 0.69),
    ("emotion", "trained", "mean", "resid", 2, None, 0.76, 0.70),
    ("emotion", "trained", "last", "head", 1, 3, 0.50, 0.45),
    ("emotion", "trained", "last", "head", 0, 2, 0.40, 0.60),
    ("emotion", "trained", "mean", "mlp", 1, None, 0.65, 0.66),
]
RANDOM = [
    ("emotion", "random", "last", "resid", 2, None, 0.40, 0.55),
    ("emotion", "random", "mean", "mlp", 0, None, 0.50, 0.50),
]
WORDS = baselines(("emotion", "most frequent class", 0.3), ("emotion", "bag of words", 0.68))
NO_PROFILES = pd.DataFrame(columns=["property", "reading", "n_heads", "heads", "accuracy", "ci_low", "ci_high"])


LEVEL = 0.025  # within so much two accuracies are level: not what their intervals say, which overlap up to 0.04


def differences(table, others):
    """Of each place to each rival, by the accuracies."""
    compared = []
    for what, rows in table.groupby("property", sort=False):
        trained, random = (rows[rows["network"] == network] for network in ("trained", "random"))
        known = others[others["property"] == what]
        rivals = [(rows, *pair) for pair in zip(known["baseline"], known["accuracy"], strict=True)]
        if len(random):
            rivals.append((trained, "random weights", random.loc[random["val_accuracy"].idxmax(), "accuracy"]))
        for _, stream in rows[rows["kind"] == "resid"].groupby(["network", "reading"]):
            rivals.append((stream, "best layer", stream.loc[stream["val_accuracy"].idxmax(), "accuracy"]))
        compared += [places.assign(rival=rival, gap=places["accuracy"] - best) for places, rival, best in rivals]
    table = pd.concat(compared)
    return table.assign(
        verdict=np.select([table["gap"] > LEVEL, table["gap"] < -LEVEL], ["above", "below"], "level with")
    )


def page(table=None, others=WORDS, profiles=NO_PROFILES, agreement="run it", lens=None, contributions=None):
    table = probes(*EMOTION, *RANDOM) if table is None else table
    rows = differences(table, others).sample(frac=1, random_state=0)
    return report(["run: one", "seed: 3"], table, others, rows, profiles, agreement, lens, contributions)


def section(text, heading):
    return text.split(f"{heading}\n")[1].split("\n#")[0]


def points(text):
    """Each point of a list on one line."""
    return [" ".join(point.split()) for point in text.split("\n- ")[1:]]


def test_the_best_places_are_chosen_on_val_and_stand_beside_the_baselines():
    text = page()
    assert text.startswith("# Where the network knows what\n\n- run: one\n- seed: 3\n\n## How to read this\n")
    text = section(text, "### emotion")
    assert text.startswith("\n1,234 test texts.\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows == [
        "| best on val | accuracy | macro-F1 | control task | selectivity | compression |",
        "| --- | --- | --- | --- | --- | --- |",
        "| the residual stream after the last layer, mean over tokens "
        "| 0.700 [0.680, 0.720] | 0.600 | 0.250 | 0.450 |  |",
        "| head 1.3, last token | 0.450 [0.430, 0.470] | 0.350 | 0.250 | 0.200 |  |",
        "| the MLP of layer 1, mean over tokens | 0.660 [0.640, 0.680] | 0.560 | 0.250 | 0.410 |  |",
        "| random weights: the MLP of layer 0, mean over tokens | 0.500 [0.480, 0.520] | 0.400 | 0.250 | 0.250 |  |",
        "| most frequent class | 0.300 [0.280, 0.320] |  |  |  |  |",
        "| bag of words | 0.680 [0.660, 0.700] |  |  |  |  |",
    ]
    assert points(text)[:3] == [
        "The best place is the residual stream after the last layer, mean over tokens: 0.700 [0.680, 0.720], "
        "above the most frequent class (0.300) and level with the bag of words (0.680).",
        "On its control task the same probe reaches 0.250: selectivity 0.450.",
        "Along the residual stream, mean over tokens, accuracy goes from 0.600 before layer 0 to 0.700 after the last "
        "layer. The best place on val is after the last layer; the first that is not below it is before layer 1.",
    ]


BELOW = "The control works: an untrained network tells less than the bag of words."
LEVEL_WITH = "The untrained network is level with the bag of words."
ABOVE = "**The untrained network is above the bag of words**: here accuracy is no sign of what was learnt."


@pytest.mark.parametrize(
    ("accuracy", "standing", "verdict", "beside"),
    [
        (0.65, "below", BELOW, "above"),
        (0.66, "level with", LEVEL_WITH, "above"),
        (0.71, "above", ABOVE, "level with"),
        (0.80, "above", ABOVE, "below"),
    ],
)
def test_random_weights_against_the_bag_of_words_are_told_either_way(accuracy, standing, verdict, beside):
    rival = ("emotion", "random", "mean", "resid", 1, None, 0.9, accuracy)
    text = section(page(probes(*EMOTION, *RANDOM, rival)), "### emotion")
    assert points(text)[3:] == [
        "With random weights the best place is the residual stream before layer 1, mean over tokens: "
        f"{accuracy:.3f} [{accuracy - 0.02:.3f}, {accuracy + 0.02:.3f}], above the most frequent class (0.300) and "
        f"{standing} the bag of words (0.680). {verdict} The best place of the trained network is {beside} this one."
    ]


def test_without_a_control_task_nothing_is_said_of_one():
    table = probes(*EMOTION, *RANDOM).assign(control=np.nan, selectivity=np.nan)
    text = section(page(table), "### emotion")
    assert "| head 1.3, last token | 0.450 [0.430, 0.470] | 0.350 |  |  |  |" in text
    assert "nan" not in text
    assert "On its control task" not in text


def test_a_property_of_words_without_random_weights():
    rows = [("negated", "trained", "word", "resid", layer, None, 0.9, 0.9 + layer / 100) for layer in range(3)]
    others = baselines(("negated", "most frequent class", 0.93), ("negated", "word type", 0.95))
    text = section(page(probes(*rows).assign(compression=[3.14, np.nan, np.nan]), others), "### negated")
    assert text.startswith("\n1,234 test words.\n")
    assert "| the residual stream before layer 0 | 0.900 [0.880, 0.920] | 0.800 | 0.250 | 0.650 | 3.140 |" in text
    best, control, stream = points(text)
    assert best.endswith("below the most frequent class (0.930) and below the word type (0.950).")
    assert control.endswith("reaches 0.250: selectivity 0.650.")
    assert stream.startswith("Along the residual stream, accuracy goes from 0.900 before layer 0 to 0.920 after")


@pytest.mark.parametrize(
    ("best", "accuracies", "told"),
    [
        (0, (0.9, 0.8, 0.8), "before layer 0."),
        (1, (0.8, 0.9, 0.9), "before layer 1; all earlier ones are below it."),
        (2, (0.8, 0.9, 0.9), "after the last layer; the first that is not below it is before layer 1."),
        (2, (0.99, 0.9, 0.9), "after the last layer; the first that is not below it is before layer 0."),
    ],
)
def test_the_best_layer_is_told_with_those_that_are_not_below_it(best, accuracies, told):
    rows = [("emotion", "trained", "last", "resid", n, None, n == best, accuracies[n]) for n in range(3)]
    assert points(section(page(probes(*rows)), "### emotion"))[-1].endswith(f" The best place on val is {told}")


def test_what_is_none_or_empty_has_no_section():
    headings = [line for line in page().splitlines() if line.startswith("#")]
    assert headings == [
        "# Where the network knows what",
        "## How to read this",
        "## What was found",
        "### emotion",
        "### Probing beside ablation",
        "## What this does not mean",
    ]
    assert "\nNot measured: run it.\n" in section(page(), "### Probing beside ablation")


def test_how_many_heads_it_takes():
    scores = ((4, 0.6, 0.0), (1, 0.59, -0.001), (2, 0.5, 0.001))  # the last: where the difference to the largest ends
    rows = [("emotion", "last", n, "0.3 1.5 0.1 1.4", *ends) for n, *ends in scores]
    rows += [("negated", "word", 1, "1.2", 0.9, 0.0)]
    table = pd.DataFrame(rows, columns=["property", "reading", "n_heads", "heads", "accuracy", "difference_high"])
    lines = section(page(profiles=table), "### How many heads it takes").splitlines()
    assert lines[-4:] == [
        "| property | 1 | 2 | 4 | enough | first heads |",
        "| --- | --- | --- | --- | --- | --- |",
        "| emotion, last token | 0.590 | 0.500 | 0.600 | 2 | 0.3, 1.5, 0.1 |",
        "| negated | 0.900 |  |  | 1 | 1.2 |",
    ]


def lens_table(decided):
    """By class, the share that is decided at each of four layers."""
    rows = [
        (label, layer, 0 if label == "none" else 66, 0.1 + layer / 5, share)
        for label, shares in decided.items()
        for layer, share in enumerate(shares)
    ]
    table = pd.DataFrame(rows, columns=["class", "layer", "n", "accuracy", "decided"])
    return table.assign(ci_low=table["accuracy"] - 0.1, ci_high=table["accuracy"] + 0.1)


def test_where_classes_are_decided():
    decided = {
        "all": (0.2, 0.5, 0.6, 1),
        "a|b": (0.5, 0.91, 0.95, 1),
        "joy": (0.1, 0.2, 0.49, 1),
        "fear": (0.1, 0.2, 0.7, 1),
        "none": (np.nan,) * 4,
    }
    lines = section(page(lens=lens_table(decided)), "### Where classes are decided").splitlines()
    scores = "66 | 0.100 [0.000, 0.200] | 0.700 [0.600, 0.800]"
    assert lines[-7:] == [
        f"| all texts | {scores} | before layer 1 | after the last layer |",
        rf"| a\|b | {scores} | before layer 0 | before layer 1 |",
        f"| joy | {scores} | after the last layer | after the last layer |",
        f"| fear | {scores} | before layer 2 | after the last layer |",
        "",
        r"Half of the texts are decided earliest in a\|b (before layer 0)",
        "and latest in joy (after the last layer).",
    ]
    alike = page(lens=lens_table({"all": (0, 0, 0, 1), "no": (0, 0.6, 1, 1), "yes": (0, 0.7, 1, 1)}))
    assert "Half of the texts are decided before layer 1 in all classes: no, yes." in alike


PARTS = [
    ("embedding", None, None),
    ("head", 0, 0),
    ("head", 0, 1),
    ("attention bias", 0, None),
    ("mlp", 0, None),
    ("final bias", None, None),
]


def contributions(values):
    """values (parts, classes, logits), of the classes no, yes and so."""
    labels = ["no", "yes", "so"]
    rows = [
        (*part, label, logit, values[i][j][k])
        for i, part in enumerate(PARTS)
        for j, label in enumerate(labels)
        for k, logit in enumerate(labels)
    ]
    rows += [(*part, "all", logit, 99.0) for part in PARTS for logit in labels]
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "class", "logit", "mean"])
    return table.astype({"layer": "Int64", "head": "Int64"})


def test_what_the_answer_is_made_of():
    values = np.zeros((6, 3, 3))
    values[0, 0] = (0.3, 0, 0)  # the embedding says no in texts of no
    values[2] = (2, 0, 0)  # head 0.1 says no whatever the text
    values[4, 0] = (1, 0.5, 0.5)
    values[4, 1] = (0, 1, 0)
    lines = section(page(contributions=contributions(values)), "### What the answer is made of").splitlines()
    assert lines[-3] == (
        "| no | 0.30 | 2.00 | 0.00 | 0.50 | 0.00 | 2.80 | "
        "head 0.1 2.00 (2.00), MLP of layer 0 0.50 (-0.25), head 0.0 0.00 (0.00) |"
    )
    assert lines[-2].startswith("| yes | 0.00 | -1.00 | 0.00 | 1.00 | 0.00 | 0.00 | MLP of layer 0 1.00 (-0.12), head")


def test_agreement_with_ablation_is_corrected_for_all_correlations():
    rows = [
        ("emotion", "last", "all", "zero", "log_prob", 0.5, 0.001),
        ("emotion", "last", "joy", "zero", "specific_margin", 0.4, 0.03),  # the third of 4: 2 x 0.03
        ("emotion", "last", "fear", "zero", "specific_margin", -0.6, 0.0001),
        ("emotion", "last", "none", "zero", "specific_margin", np.nan, np.nan),
        ("emotion", "last", "love", "zero", "specific_margin", 0.1, 0.5),
    ]
    table = pd.DataFrame(rows, columns=["property", "reading", "class", "fill", "metric", "spearman", "p"])
    text = section(page(agreement=table), "### Probing beside ablation").replace("\n", " ")
    assert r"| emotion, last token | zero | log prob | 0.50 | 0.50 to 0.50 | 1 | 1 | 0 |" in text
    assert r"| emotion, last token | zero | specific margin | 0.10 | -0.60 to 0.40 | 3 | 0 | 1 |" in text
    assert "Of 4 correlations, 2 survive Holm's correction (p < 0.05): 1 positive, where" in text
    assert "and 1 negative." in text
    assert "Probing and ablation ask different questions" in text
    assert "1 correlation cannot be computed (none): " in text
    assert "make ablate" not in text
    undefined = pd.concat([table[table["class"] == "none"]] * 2)
    text = section(page(agreement=undefined), "### Probing beside ablation")
    assert text.startswith("\n2 correlations cannot be computed\n(none):")
    assert "survive" not in text


@pytest.mark.parametrize(("label", "told"), [("a|b", r"a\|b"), ("50 $\nmore", r"50 \$ more"), ("so_*", r"so\_\*")])
def test_labels_appear_as_they_are(label, told):
    lens = lens_table({"all": (0, 0, 0, 1), label: (0, 0.6, 1, 1)})
    added = contributions(np.ones((6, 3, 3))).replace({"class": {"no": label}, "logit": {"no": label}})
    text = page(lens=lens, contributions=added)
    assert f"| {told} | 66 |" in text
    assert f"\n| {told} | 0.00 |" in text
