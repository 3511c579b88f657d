import re

import numpy as np
import pandas as pd

from experiments.ablate.report import report

KEY = ["kind", "layer", "head", "region", "fill"]


def significance(*rows):
    """kind, layer, head, fill, class, val_effect, test_effect, p_holm; all else follows."""
    columns = ["kind", "layer", "head", "fill", "class", "val_effect", "test_effect", "p_holm"]
    table = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "head": "Int64"})
    ends = {"ci_low": table["test_effect"] - 0.2, "ci_high": table["test_effect"] + 0.1}
    rank = np.arange(len(table)) + 1
    return table.assign(region="", n=66, baseline=5.0, **ends, p_bh=table["p_holm"] / 2, rank=rank)


def effects(*rows):
    """kind, layer, head, region, fill, metric, effect, ci_low, ci_high: over all texts, on test; on val all is 9."""
    columns = [*KEY, "metric", "effect", "ci_low", "ci_high"]
    test = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "head": "Int64"})
    test = test.assign(split="test", **{"class": "all"})
    return pd.concat([test.assign(split="val", effect=-9.0, ci_low=-9.1, ci_high=-8.9), test])


HEADS = effects(("head", 0, 0, "", "zero", "log_prob", -0.1, -0.2, 0.0))
FOUND = significance(
    ("head", 2, 5, "zero", "fear", -1.0, -1.312, 0.0001),
    ("head", 0, 1, "zero", "fear", 0.2, -0.041, 0.04),
    ("head", 0, 0, "zero", "joy", 0.3, 0.5, 0.03),
    ("head", 0, 1, "zero", "joy", 0.3, 0.6, 0.05),
    ("head", 0, 2, "zero", "love", 0.3, 0.6, 0.3),
)
FLIPS = pd.DataFrame(
    [("head", 0, h, "", "zero", "test", "fear", "fear", "sad", h / 100, 224) for h in range(8)]
    + [("mlp", 1, pd.NA, "", "mean", "test", "joy", "love", "joy", 0.004, 1000)]
    + [("head", 0, 9, "", "zero", "val", "fear", "fear", "joy", 0.9, 224)],
    columns=[*KEY, "split", "class", "before", "after", "share", "n"],
)
INTERACTIONS = pd.DataFrame(
    [("0.3", "1.5", "zero", "joy", -1.2, -0.3, -0.2, -0.7), ("0.3", "1.6", "zero", "joy", 0.0, 0.0, 0.0, 0.1)],
    columns=["first", "second", "fill", "class", "pair", "first_effect", "second_effect", "interaction"],
).assign(ci_low=lambda table: table["interaction"] - 0.2, ci_high=lambda table: table["interaction"] + 0.2)


def page(table=FOUND, over=HEADS, **tables):
    return report(["run: one", "seed: 3"], 0.3, over, table, **tables)


def section(text, heading):
    """The lines under a heading, which ends where the next begins."""
    return text.split(f"### {heading}\n")[1].split("\n##")[0].strip().splitlines()


def test_what_survives_is_said_in_words_and_in_a_table_largest_first():
    text = page()
    assert text.startswith("# What each class needs\n\n- run: one\n- seed: 3\n\n## How to read this\n")
    lines = section(text, "Heads, fill zero")
    assert lines[0] == "Of 5 tests (4 units x 3 classes), 3 survive; by BH, 4 do."
    assert lines[1] == "Of the 3, 2 have the same sign on val."
    margin = "on its own texts, relative to other texts, by"
    assert lines[3:6] == [
        f"- Closing head 2.5 lowers the margin of fear {margin} 1.31 [1.21, 1.51].",
        f"- Closing head 0.0 raises the margin of joy {margin} 0.50 [0.30, 0.60].",
        f"- Closing head 0.1 lowers the margin of fear {margin} 0.041 [-0.059, 0.24].",
    ]
    assert lines[9:] == [
        "| head 2.5 | fear | 66 | -1.31 [-1.51, -1.21] | -26% | < 0.001 | < 0.001 | -1.00 | 1 |",
        "| head 0.0 | joy | 66 | 0.50 [0.30, 0.60] | +10% | 0.030 | 0.015 | 0.30 | 3 |",
        "| head 0.1 | fear | 66 | -0.041 [-0.24, 0.059] | -1% | 0.040 | 0.020 | 0.20 | 2 |",
        "",
        "Not significant: the other 2. Classes without survivors: love.",
    ]


def test_no_more_than_ten_are_listed():
    rows = [("mlp", layer, None, "mean", "joy", 0.1, 0.1 + layer, 0.001) for layer in range(12)]
    lines = section(page(significance(*rows)), "MLPs, fill mean")
    assert lines[0].startswith("Of 12 tests (12 units x 1 class), 12 survive;")
    units = [line.split(" |")[0] for line in lines if line.startswith("| the")]
    assert units == [f"| the MLP of layer {layer}" for layer in range(11, 1, -1)]
    assert lines[-2] == "The table shows the 10 largest of 12."
    assert lines[-1] == "Not significant: the other 0. Classes without survivors: none."


def test_units_that_do_the_same_to_every_class_are_named():
    def effects_of(head, *effects):
        return [("head", 0, head, "zero", f"class {k}", 0.1, effect, 0.001) for k, effect in enumerate(effects)]

    alike = "Units that survive for every class with the same sign"
    text = page(significance(*effects_of(0, 0.1, 0.2, 0.3), *effects_of(1, -0.1, 0.2, 0.3), *effects_of(2, -1, -4, -3)))
    assert f"\n\n{alike} (2 of the 3 that survive for any): head 0.2, head 0.0.\n" in text
    assert alike not in page(significance(*effects_of(0, 0.1, 0.2)))  # two classes share one margin
    assert alike not in page(significance(*effects_of(0, 0.1, 0.2), *effects_of(1, 0.1, 0.2, 0.3)[2:]))  # not for each
    without = page(significance(*effects_of(0, 0.1, 0.2, 0.3)).assign(baseline=0.0))
    assert "%" not in without.partition("## What was found")[2]


def test_the_report_says_that_nothing_survives():
    rows = [
        ("head", 0, h, fill, label, 0.1, 0.2, 0.5 - 0.1 * h)
        for fill in ("zero", "mean") for h in range(2) for label in ("no", "yes", "well")
    ]  # fmt: skip
    text = page(significance(*rows))
    assert section(text, "Heads, fill zero") == [
        "Of 6 tests (2 units x 3 classes), 0 survive; by BH, 0 do.",
        "Nothing survives: the smallest p is 0.400 (head 0.1, no).",
    ]
    assert section(text, "Where fills disagree") == [
        "6 specific margins were measured with several fills. 0 of them survive with at least one fill:",
        "0 with every fill and the same sign, 0 with opposite signs, 0 with only some of the fills.",
    ]


def test_too_many_tests_for_the_permutations():
    rows = [("head", 0, h, "zero", f"class {k}", 0.1, 0.2, 1.0) for h in range(100) for k in range(60)]
    text = page(significance(*rows))
    assert "With 99,999 permutations and so many tests, no p can be below 0.060." in text
    assert "permutations" not in page().partition("## What was found")[2]


def test_a_class_that_could_not_be_tested_is_left_out():
    untested = FOUND.assign(p_holm=FOUND["p_holm"].where(FOUND["class"] != "love"))
    assert "Of 4 tests (3 units x 2 classes), 3 survive" in page(untested)
    [line] = section(page(FOUND.assign(p_holm=np.nan)), "Heads, fill zero")
    assert line == "Nothing could be tested: no class has texts to compare with others."


def test_labels_are_escaped_wherever_they_stand():
    label, escaped = "so_*\n|$", r"so\_\* \|\$"
    rows = [
        ("head", 2, 5, "zero", label, -1.0, -1.3, 0.0001),
        ("head", 2, 5, "mean", label, -1.0, 1.3, 0.0001),
        ("head", 2, 5, "zero", f"{label} without", 0.3, 0.6, 0.3),
        ("mlp", 2, None, "zero", label, 0.3, 0.6, 0.3),
    ]
    flips = FLIPS.replace({"class": {"joy": label}, "before": {"love": label}, "after": {"joy": label}})
    text = page(significance(*rows), flips=flips, interactions=INTERACTIONS.replace({"class": {"joy": label}}))
    for line in (
        f"the margin of {escaped} on its own texts",
        f"| head 2.5 | {escaped} | 66 |",
        f"Classes without survivors: {escaped} without.",
        f"Nothing survives: the smallest p is 0.300 (the MLP of layer 2, {escaped}).",
        f"| Closing head 2.5 | {escaped} | **1.30** | **-1.30** |",
        f"| Closing the MLP of layer 1 | mean | {escaped} | {escaped} -> {escaped} | 0.4% of 1,000 |",
        f"| 0.3 & 1.5 | zero | {escaped} |",
    ):
        assert line in text
    assert "so_*" not in text


def test_what_is_absent_or_empty_has_no_section():
    for text in (page(), page(flips=FLIPS.head(0), curves=pd.DataFrame())):
        headings = [line for line in text.splitlines() if line.startswith("#")]
        assert headings[:3] == ["# What each class needs", "## How to read this", "## What was found"]
        assert headings[3:] == ["### Heads, fill zero", "## What this does not mean"]


def test_only_what_was_done_is_explained():
    fills = {"zero": "emits zeros", "class_mean": "all classes but one: the class that\n  the whole network predicts"}
    for fill, description in fills.items():
        text = page(FOUND.assign(fill=fill), effects(("head", 0, 0, "", fill, "log_prob", -0.1, -0.2, 0.0)))
        assert [other for other in fills.values() if other in text] == [description]
        assert ("Zero is not neutral" in text) == (fill == "zero")
        assert "Masked: " not in text
    over = effects(("mask", None, None, "self", "zero", "log_prob", -0.1, -0.2, 0.0))
    text = page(significance(("mask", None, None, "zero", "joy", 0.1, 0.2, 0.001)).assign(region="self"), over)
    assert "Masked: taken out before the softmax" in text
    assert "### Attention masked before the softmax\n" in text
    assert "Masking self in all layers raises the margin of joy" in text
    assert not re.search("emits zeros|Zero is not neutral", text)


def test_the_report_says_that_two_classes_share_one_margin():
    same = [("head", 0, 0, "zero", label, 0.1, 0.2, 0.5) for label in ("no", "yes")]
    other = [("head", 0, 1, "zero", label, 0.1, effect, 0.5) for label, effect in (("no", 0), ("yes", 0.3))]
    pages = page(significance(*same)), page(significance(*same, *other)), page()
    assert ["share one specific margin" in text for text in pages] == [True, False, False]


def test_where_fills_disagree():
    measured = [  # head, fill, effect, p
        *((0, "zero", -1.0, 0.01), (0, "mean", -0.9, 0.01)),
        *((1, "zero", -0.5, 0.01), (1, "mean", -0.4, 0.2)),
        *((2, "zero", -0.3, 0.01), (2, "mean", 0.4, 0.01)),
        *((3, "zero", -3.0, 0.3), (3, "mean", 3.0, 0.3)),
        (4, "mean", 0.1, 0.01),  # with one fill only
    ]
    text = page(significance(*(("head", 0, head, fill, "joy", 0.1, effect, p) for head, fill, effect, p in measured)))
    assert section(text, "Where fills disagree") == [
        "4 specific margins were measured with several fills. 3 of them survive with at least one fill:",
        "1 with every fill and the same sign, 1 with opposite signs, 1 with only some of the fills.",
        "",
        "Opposite signs come first, then the largest effects; 10 at most. Bold: survives.",
        "",
        "| what | class | mean | zero |",
        "| --- | --- | --- | --- |",
        "| Closing head 0.2 | joy | **0.40** | **-0.30** |",
        "| Closing head 0.1 | joy | -0.40 | **-0.50** |",
    ]


def test_words_are_held_against_random_tokens():
    def rows(region, effect):
        unit = ("words", None, None, region, "zero")
        return [(*unit, "log_prob", effect, effect - 0.1, effect + 0.1), (*unit, "accuracy", -0.05, -0.0612, -0.04)]

    table = [row for name in ("sentiment", "feel", "pronoun") for row in rows(f"random, as many as {name}", -0.22)]
    for name, effect in (("sentiment", -0.84), ("feel", -0.3), ("pronoun", 0.2), ("alone", 0.1)):
        table += rows(name, effect)
    compared = [  # separate intervals of "feel" overlap: the paired one decides
        *(("sentiment", "all", "log_prob", -0.62, -0.7, -0.5), ("sentiment", "all", "accuracy", 0.0, -0.01, 0.02)),
        *(("feel", "all", "log_prob", -0.08, -0.09, -0.07), ("feel", "all", "accuracy", 0.0, -0.01, 0.02)),
        *(("pronoun", "all", "log_prob", 0.42, -0.1, 0.9), ("pronoun", "all", "accuracy", 0.3, 0.2, 0.4)),
        *(("sentiment", "joy", "log_prob", 9.0, 8.0, 10.0), ("sentiment", "joy", "accuracy", 9.0, 8.0, 10.0)),
    ]
    columns = ["words", "class", "metric", "difference", "ci_low", "ci_high"]
    text = page(over=effects(*table), words=pd.DataFrame(compared, columns=columns))
    lines = section(text, "Words against random tokens")
    accuracy = "-0.050 [-0.061, -0.040]"
    row = "| sentiment | -0.84 [-0.94, -0.74] | -0.22 [-0.32, -0.12] | -0.62 [-0.70, -0.50] |"
    assert lines[2] == f"{row} {accuracy} | {accuracy} | 0.00 [-0.010, 0.020] |"
    assert lines[-3:] == [
        "- falls more: sentiment, feel",
        "- falls less: none",
        "- no clear difference (the interval holds 0): pronoun",
    ]
    assert not any("alone" in line for line in lines)
    assert "random tokens" not in page(over=effects(*table))


def test_regions_the_largest_losses_and_those_without_one():
    rows = [
        ("mask", None, None, "all but self", "zero", "log_prob", -2.0, -2.2, -1.8),
        ("cut", 1, None, "self", "zero", "log_prob", -0.5, -0.6, -0.4),
        ("cut", None, None, "self", "zero", "log_prob", -0.01, -0.02, 0.0),
        ("mask", 0, None, "last query", "zero", "log_prob", 0.3, 0.2, 0.4),
        ("mask", 0, None, "last query", "zero", "accuracy", -0.9, -0.9, -0.9),
    ]
    assert section(page(over=effects(*rows)), "Regions of the attention maps")[2:] == [
        "- Masking all but self in all layers changes it by -2.00 [-2.20, -1.80].",
        "- Cutting self in layer 1 changes it by -0.50 [-0.60, -0.40].",
        "- Cutting self in all layers changes it by -0.010 [-0.020, 0.00].",
        "- The interval holds 0 for 1 of 4: Cutting self in all layers.",
        "- The interval is above 0 for 1 of 4: Masking last query in layer 0.",
    ]


def test_the_largest_flips_of_each_kind():
    rows = section(page(flips=FLIPS), "Where predictions go")[4:]
    assert rows[0] == "| Closing head 0.7 | zero | fear | fear -> sad | 7.0% of 224 |"
    assert len(rows) == 6
    assert rows[-1] == "| Closing the MLP of layer 1 | mean | joy | love -> joy | 0.4% of 1,000 |"


def curves(values):
    rows = [
        (order, closed, "all", "accuracy", value)
        for order, curve in values.items()
        for closed, value in zip((0, 4, 8, 12), curve, strict=True)
    ]
    return pd.DataFrame(rows, columns=["order", "closed", "class", "metric", "value"])


def test_how_many_heads_can_be_closed_before_accuracy_falls():
    values = {
        "measured": (0.9, 0.9, 0.8701, 0.3),  # 0.3 + 0.95 * 0.6 = 0.87
        "gradient": (0.9, 0.86, 0.88, 0.3),  # what recovers does not count
        "random 0": (0.9, 0.88, 0.5, 0.3),
        "random 1": (0.9, 0.5, 0.4, 0.3),
    }
    assert section(page(curves=curves(values)), "How many heads can be closed") == [
        "Accuracy rises from 0.300 (the most frequent class) to 0.900 (all heads); 95% of this gain is left at 0.870.",
        "Of 12 heads, this many can be closed before accuracy falls below that, measured at 0, 4, 8, 12:",
        "",
        "- by measured effect: 8",
        "- by gradient: 0",
        "- at random: 0 to 4, over 2 orders",
    ]
    useless = page(curves=curves({"measured": (0.29, 0.3, 0.3, 0.3)}))
    [line] = section(useless, "How many heads can be closed")
    assert line == "The whole network (0.290) gains nothing over the most frequent class (0.300)."


def test_estimates_interactions_and_the_smallest_set():
    correlations = pd.DataFrame(
        [("mean", label, estimate, value) for estimate in ("absolute", "normalised", "signed")
         for label, value in (("all", 0.83), ("joy", -0.2), ("fear", 0.5), ("none", np.nan))],
        columns=["fill", "class", "estimate", "spearman"],
    )  # fmt: skip
    numbers = {"majority": 0.3, "accuracy": 0.9, "accuracy_test": 0.86, "kept_val": 0.951, "kept_test": 0.933}
    smallest = {"fill": "mean", "open": ["0.3", "2.5"], "n_heads": 48, **numbers}
    text = page(correlations=correlations, interactions=INTERACTIONS, smallest=smallest)
    lines = section(text, "Cheap estimates of a head's importance")
    assert lines[0].endswith("how much closing the head raises the loss, over the heads, on val, with fill mean:")
    assert lines[-1] == "| gradient of the gate, with its sign | 0.83 | -0.20 to 0.50 |"
    lines = section(text, "Heads that interact")
    assert lines[1] == "The interval excludes 0 for 1 of 2 interactions."
    assert lines[2].endswith("The 2 strongest:")
    assert lines[-2] == "| 0.3 & 1.5 | zero | joy | -1.20 | -0.50 | -0.70 [-0.90, -0.50] |"
    smallest_set = " ".join(section(text, "The smallest set of heads found for 95% of the gain"))
    assert "2 of 48 heads, with fill mean for all others: 0.3, 2.5." in smallest_set
    assert "keeps 95.1% of the gain" in smallest_set
    assert "On test it keeps 93.3%: its accuracy is 0.860, that of all heads 0.900," in smallest_set
    starts = "".join((line or "\n")[0] for line in text.splitlines())
    assert not re.search(r"\n\n|[^\n]#|#[^\n]|[^\n|]\||\|[^\n|]", starts)  # one empty line around headings and tables
