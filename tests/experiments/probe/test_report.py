import numpy as np
import pandas as pd
import pytest

from experiments.probe.report import report, toward


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
    found = []
    for what, rows in table.groupby("property", sort=False):
        known = others[others["property"] == what]
        rivals = [("all", *pair) for pair in zip(known["baseline"], known["accuracy"], strict=True)]
        random = rows[rows["network"] == "random"]
        if len(random):
            rivals.append(("trained", "random weights", random.loc[random["val_accuracy"].idxmax(), "accuracy"]))
        for network, rival, accuracy in rivals:
            own = rows if network == "all" else rows[rows["network"] == network]
            found.append(own.assign(rival=rival, difference=own["accuracy"] - accuracy))
        for _, own in rows[rows["kind"] == "resid"].groupby(["network", "reading"]):
            best = own.loc[own["val_accuracy"].idxmax(), "accuracy"]
            found.append(own.assign(rival="best layer", difference=own["accuracy"] - best))
    one = pd.concat(found)
    verdict = np.select([one["difference"] > LEVEL, one["difference"] < -LEVEL], ["above", "below"], "level with")
    return one.assign(verdict=verdict)


def page(table=None, others=WORDS, profiles=NO_PROFILES, agreement="run it", lens=None, contributions=None):
    table = probes(*EMOTION, *RANDOM) if table is None else table
    rows = differences(table, others).sample(frac=1, random_state=0)
    return report(["run: one", "seed: 3"], table, others, rows, profiles, agreement, lens, contributions)


def section(text, heading):
    return text.split(f"{heading}\n")[1].split("\n#")[0]


def test_the_best_places_are_chosen_on_val_and_stand_beside_the_baselines():
    text = page()
    assert text.startswith("# Where the network knows what\n\n- run: one\n- seed: 3\n\n## How to read this\n")
    own = section(text, "### emotion")
    assert own.startswith("\n1,234 test texts.\n")
    rows = [line for line in own.splitlines() if line.startswith("| ")]
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
    said = [line for line in own.splitlines() if line.startswith("- ")]
    assert said[0] == (
        "- The best place is the residual stream after the last layer, mean over tokens: 0.700 [0.680, 0.720], "
        "above the most frequent class (0.300), level with the bag of words (0.680)."
    )
    assert said[1] == "- On its control task the same probe reaches 0.250: selectivity 0.450."
    assert said[2] == (
        "- Along the residual stream, mean over tokens: from 0.600 before layer 0 to 0.700 after the last. "
        "Its best is after the last layer; it is level with that from before layer 1."
    )


@pytest.mark.parametrize(
    ("accuracy", "standing", "verdict", "beside"),
    [
        (0.60, "below", "The control does its work: what was not trained knows less than a bag of words.", "above"),
        (0.65, "below", "The control does its work: what was not trained knows less than a bag of words.", "above"),
        (0.66, "level with", "What was not trained is level with a bag of words.", "above"),
        (0.71, "above", "**This is better than a bag of words**: here accuracy is no sign", "level with"),
        (0.80, "above", "**This is better than a bag of words**: here accuracy is no sign", "below"),
    ],
)
def test_random_weights_against_the_bag_of_words_are_told_either_way(accuracy, standing, verdict, beside):
    rival = ("emotion", "random", "mean", "resid", 1, None, 0.9, accuracy)
    own = section(page(probes(*EMOTION, *RANDOM, rival)), "### emotion")
    said = [line for line in own.splitlines() if line.startswith("- On random weights")]
    assert len(said) == 1
    assert f"best place is the residual stream before layer 1, mean over tokens: {accuracy:.3f} [" in said[0]
    assert f"above the most frequent class (0.300), {standing} the bag of words (0.680)." in said[0]
    assert verdict in said[0]
    assert said[0].endswith(f"The trained network is {beside} it.")
    assert sum(each in said[0] for each in ("does its work", "is level with a bag", "is better than")) == 1


def test_without_a_control_task_nothing_is_said_of_one():
    table = probes(*EMOTION, *RANDOM).assign(control=np.nan, selectivity=np.nan)
    own = section(page(table), "### emotion")
    assert "| head 1.3, last token | 0.450 [0.430, 0.470] | 0.350 |  |  |  |" in own
    assert "nan" not in own
    assert "On its control task" not in own


def test_a_property_of_words_without_random_weights():
    rows = [("negated", "trained", "word", "resid", layer, None, 0.9, 0.9 + layer / 100) for layer in range(3)]
    others = baselines(("negated", "most frequent class", 0.93), ("negated", "word type", 0.95))
    text = page(probes(*rows).assign(compression=[3.14, np.nan, np.nan]), others)
    own = section(text, "### negated")
    assert own.startswith("\n1,234 test words.\n")
    assert "| the residual stream before layer 0 | 0.900 [0.880, 0.920] | 0.800 | 0.250 | 0.650 | 3.140 |" in own
    assert "below the most frequent class (0.930), below the word type (0.950)." in own
    assert "On its control task the same probe reaches 0.250: selectivity 0.650." in own
    assert "Its best is before layer 0, and nothing earlier is level with that." in own
    assert "random" not in own.lower()


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
    rows = [("emotion", "last", n, "0.3 1.5 0.1 1.4", *own) for n, *own in scores]
    rows += [("negated", "word", 1, "1.2", 0.9, 0.0)]
    table = pd.DataFrame(rows, columns=["property", "reading", "n_heads", "heads", "accuracy", "difference_high"])
    own = section(page(profiles=table), "### How many heads it takes").splitlines()
    assert own[-4:] == [
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
    own = section(page(lens=lens_table(decided)), "### Where classes are decided")
    scores = "66 | 0.100 [0.000, 0.200] | 0.700 [0.600, 0.800]"
    assert own.splitlines()[-6:] == [
        f"| all texts | {scores} | before layer 1 | after the last layer |",
        rf"| a\|b | {scores} | before layer 0 | before layer 1 |",
        f"| joy | {scores} | after the last layer | after the last layer |",
        f"| fear | {scores} | before layer 2 | after the last layer |",
        "",
        r"Half of the texts are decided first in a\|b (before layer 0), last in joy (after the last layer).",
    ]
    alike = page(lens=lens_table({"all": (0, 0, 0, 1), "no": (0, 0.6, 1, 1), "yes": (0, 0.7, 1, 1)}))
    assert "Half of the texts are decided in all classes alike: no, yes (before layer 1)." in alike


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


def test_what_a_part_adds_towards_a_class_on_its_own_texts_and_on_others():
    values = np.random.default_rng(0).normal(size=(6, 3, 3))
    found = toward(contributions(values).sample(frac=1, random_state=0))
    assert len(found) == 6 * 3
    for (i, (kind, layer, head)), (k, label) in zip(
        [pair for pair in enumerate(PARTS) for _ in range(3)], list(enumerate(["no", "yes", "so"])) * 6, strict=True
    ):
        rows = found[(found["kind"] == kind) & (found["class"] == label)]
        row = rows if head is None else rows[(rows["layer"] == layer) & (rows["head"] == head)]
        margins = [values[i, j, k] - np.delete(values[i, j], k).mean() for j in range(3)]
        assert row["own"].item() == pytest.approx(margins[k])
        assert row["others"].item() == pytest.approx(np.delete(margins, k).mean())


def test_what_the_answer_is_made_of():
    values = np.zeros((6, 3, 3))
    values[0, 0] = (0.3, 0, 0)  # the embedding says no in texts of no
    values[2] = (2, 0, 0)  # head 0.1 says no whatever the text
    values[4, 0] = (1, 0.5, 0.5)
    values[4, 1] = (0, 1, 0)
    own = section(page(contributions=contributions(values)), "### What the answer is made of").splitlines()
    assert own[-3] == (
        "| no | 0.30 | 2.00 | 0.00 | 0.50 | 0.00 | 2.80 | "
        "head 0.1 2.00 (2.00), MLP of layer 0 0.50 (-0.25), head 0.0 0.00 (0.00) |"
    )
    assert own[-2].startswith("| yes | 0.00 | -1.00 | 0.00 | 1.00 | 0.00 | 0.00 | MLP of layer 0 1.00 (-0.12), head")


def test_agreement_with_ablation_is_corrected_for_all_correlations():
    rows = [
        ("emotion", "last", "all", "zero", "log_prob", 0.5, 0.001),
        ("emotion", "last", "joy", "zero", "specific_margin", 0.4, 0.03),  # the third of 4: 2 x 0.03
        ("emotion", "last", "fear", "zero", "specific_margin", -0.6, 0.0001),
        ("emotion", "last", "none", "zero", "specific_margin", np.nan, np.nan),
        ("emotion", "last", "love", "zero", "specific_margin", 0.1, 0.5),
    ]
    table = pd.DataFrame(rows, columns=["property", "reading", "class", "fill", "metric", "spearman", "p"])
    text = page(agreement=table)
    own = section(text, "### Probing beside ablation")
    assert r"| emotion, last token | zero | log prob | 0.50 | 0.50 to 0.50 | 1 | 1 | 0 |" in own
    assert r"| emotion, last token | zero | specific margin | 0.10 | -0.60 to 0.40 | 3 | 0 | 1 |" in own
    assert "Of 4 correlations, 2 survive Holm's correction (p < 0.05): 1 positive," in own
    assert "and 1 negative." in own
    assert "They ask different things" in own
    assert "1 correlations cannot be computed (none): " in own
    assert "make ablate" not in own
    nothing = section(page(agreement=table[table["class"] == "none"]), "### Probing beside ablation")
    assert "1 correlations cannot be computed (none): " in nothing
    assert "survive" not in nothing


@pytest.mark.parametrize(("label", "told"), [("a|b", r"a\|b"), ("50 $\nmore", r"50 \$ more"), ("so_*", r"so\_\*")])
def test_labels_appear_as_they_are(label, told):
    lens = lens_table({"all": (0, 0, 0, 1), label: (0, 0.6, 1, 1)})
    added = contributions(np.ones((6, 3, 3))).replace({"class": {"no": label}, "logit": {"no": label}})
    text = page(lens=lens, contributions=added)
    assert f"| {told} | 66 |" in text
    assert f"\n| {told} | 0.00 |" in text
