import numpy as np
import pandas as pd
import pytest

from experiments.ablate.report import report

KEY = ["kind", "layer", "head", "region", "fill"]


def significance(*rows):
    """kind, layer, head, fill, class, val_effect, test_effect, p_holm; all else follows."""
    columns = ["kind", "layer", "head", "fill", "class", "val_effect", "test_effect", "p_holm"]
    table = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "head": "Int64"})
    ends = {"ci_low": table["test_effect"] - 0.2, "ci_high": table["test_effect"] + 0.1}
    table = table.assign(
        region="", n=66, baseline=5.0, **ends, p_bh=table["p_holm"] / 2, rank=np.arange(len(table)) + 1
    )
    return table.assign(p=table["p_holm"] / len(table))


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


def page(table=FOUND, over=HEADS, **tables):
    return report(["run: one", "seed: 3"], 0.3, over, table, **tables)


def test_what_survives_is_told_in_words_and_in_a_table_largest_first():
    text = page()
    assert text.startswith("# What each class needs\n\n- run: one\n- seed: 3\n\n## How to read this\n")
    assert (
        "### Heads, fill zero\n\nOf 5 tests (4 units x 3 classes), 3 survive; by BH it is 4. Of the 3, 2 have" in text
    )
    first, second, third = (line for line in text.splitlines() if line.startswith("- Closing"))
    assert first == (
        "- Closing head 2.5 lowers the margin of fear on its own texts by 1.31 [1.21, 1.51], relative to other texts."
    )
    assert "head 0.0 raises the margin of joy on its own texts by 0.50 [0.30, 0.60]," in second
    assert "head 0.1 lowers the margin of fear on its own texts by 0.041 [-0.059, 0.24]," in third
    assert "| head 2.5 | fear | 66 | -1.31 [-1.51, -1.21] | -26% | < 0.001 | < 0.001 | -1.00 | 1 |" in text
    assert "| head 0.0 | joy | 66 | 0.50 [0.30, 0.60] | +10% | 0.030 | 0.015 | 0.30 | 3 |" in text
    assert "head 0.2" not in text
    assert "Not significant: the other 2. Nothing survives for love." in text


def test_no_more_than_ten_are_listed():
    rows = [("mlp", layer, None, "mean", "joy", 0.1, 0.1 + layer, 0.001) for layer in range(12)]
    text = page(significance(*rows))
    assert "### MLPs, fill mean" in text
    assert text.count("| the MLP of layer") == 10
    assert "| the MLP of layer 1 |" not in text
    assert "The 10 largest of 12." in text
    assert "Not significant: the other 0. Each class has some that survive." in text


def test_units_that_do_the_same_to_every_class_are_named():
    def of(head, *effects):
        return [("head", 0, head, "zero", f"class {k}", 0.1, effect, 0.001) for k, effect in enumerate(effects)]

    text = page(significance(*of(0, 0.1, 0.2, 0.3), *of(1, -0.1, 0.2, 0.3), *of(2, -0.1, -0.4, -0.3)))
    assert "2 of 3 units survive for every class with the same sign: head 0.2, head 0.0. Where" in text
    assert "same sign:" not in page(significance(*of(0, 0.1, 0.2)))  # two classes share one margin
    assert "same sign:" not in page(significance(*of(0, 0.1, 0.2), *of(1, 0.1, 0.2, 0.3)[2:]))  # not for every class
    assert "-2%" in text
    assert "%" not in page(significance(*of(0, 0.1, 0.2, 0.3)).assign(baseline=0.0)).partition("## What was found")[2]


def test_nothing_survives_and_it_is_said():
    rows = [("head", 0, h, "zero", label, 0.1, 0.2, 0.5 - 0.1 * h) for h in range(2) for label in ("no", "yes", "well")]
    text = page(significance(*rows))
    assert "Of 6 tests (2 units x 3 classes), 0 survive; by BH it is 0.\n" in text
    assert "Nothing survives. The smallest p is 0.400: head 0.1, no." in text
    assert "Closing" not in text
    assert "relative to other texts" not in text
    assert "permutations, no p" not in text


def test_too_many_tests_for_the_permutations_are_told():
    rows = [("head", 0, h, "zero", f"class {k}", 0.1, 0.2, 1.0) for h in range(100) for k in range(60)]
    assert "With 99,999 permutations, no p of so many tests can be below 0.060." in page(significance(*rows))


def test_a_class_that_could_not_be_tested_is_left_out():
    untested = FOUND.assign(p_holm=FOUND["p_holm"].where(FOUND["class"] != "love"))
    text = page(untested)
    assert "Of 4 tests (3 units x 2 classes), 3 survive" in text
    assert "Nothing could be tested" in page(FOUND.assign(p_holm=np.nan))


@pytest.mark.parametrize(("label", "told"), [("a|b", r"a\|b"), ("50 $\nmore", r"50 \$ more"), ("so_*", r"so\_\*")])
def test_labels_appear_as_they_are(label, told):
    table = FOUND.replace({"class": {"fear": label, "love": label}})
    text = page(table)
    assert f"| head 2.5 | {told} | 66 |" in text
    assert f"the margin of {told} on its own texts" in text
    assert all(line.count(" | ") == 8 for line in text.splitlines() if line.startswith("| head"))


def test_what_is_absent_or_empty_has_no_section():
    flips = pd.DataFrame(columns=[*KEY, "split", "class", "before", "after", "share", "n"])
    for text in (page(), page(flips=flips)):
        headings = [line for line in text.splitlines() if line.startswith("#")]
        assert headings == [
            "# What each class needs",
            "## How to read this",
            "## What was found",
            "### Heads, fill zero",
            "## What this does not mean",
        ]


def test_only_what_was_done_is_explained():
    fills = {"zero": "emits zeros", "class_mean": "of all classes but one, the class that the whole network predicts"}
    for fill, told in fills.items():
        over = effects(("head", 0, 0, "", fill, "log_prob", -0.1, -0.2, 0.0))
        text = page(FOUND.assign(fill=fill), over)
        assert told in text
        assert [other in text for other in fills.values()].count(True) == 1
        assert ("Zero is not neutral" in text) == (fill == "zero")
        assert "Masked: " not in text
    over = effects(("mask", None, None, "self", "zero", "log_prob", -0.1, -0.2, 0.0))
    text = page(significance(("mask", None, None, "zero", "joy", 0.1, 0.2, 0.001)).assign(region="self"), over)
    assert "Masked: taken out before the softmax" in text
    assert "### Attention masked before the softmax\n" in text
    assert "Masking self in all layers raises the margin of joy" in text
    assert "emits zeros" not in text
    assert "Zero is not neutral" not in text


def test_two_classes_share_one_margin_and_it_is_said():
    same = [("head", 0, 0, "zero", label, 0.1, 0.2, 0.5) for label in ("no", "yes")]
    assert "one specific margin between them" in page(significance(*same))
    other = ("head", 0, 1, "zero", "yes", 0.1, 0.3, 0.5)
    assert "one specific margin between them" not in page(
        significance(*same, other, ("head", 0, 1, "zero", "no", 0, 0, 1))
    )
    assert "one specific margin between them" not in page()


def test_where_fills_disagree():
    both = [  # head, effects and p with zero, and with mean
        (0, -1.0, 0.01, -0.9, 0.01),
        (1, -0.5, 0.01, -0.4, 0.2),
        (2, -0.3, 0.01, 0.4, 0.01),
        (3, -3.0, 0.30, 3.0, 0.3),
    ]
    rows = []
    for head, zero, p_zero, mean, p_mean in both:
        rows += [
            ("head", 0, head, "zero", "joy", 0.1, zero, p_zero),
            ("head", 0, head, "mean", "joy", 0.1, mean, p_mean),
        ]
    rows.append(("head", 0, 4, "mean", "joy", 0.1, 0.1, 0.01))  # with one fill only
    text = page(significance(*rows))
    section = text.split("### Where fills disagree")[1].split("##")[0]
    assert (
        "Of 4 specific margins measured with several fills, 3 survive with one of them or more: 1 with all and"
        in section
    )
    assert "1 with opposite signs, 1 with some of the fills only." in section
    assert section.strip().splitlines()[-4:] == [
        "| what | class | mean | zero |",
        "| --- | --- | --- | --- |",
        "| Closing head 0.2 | joy | **0.40** | **-0.30** |",
        "| Closing head 0.1 | joy | -0.40 | **-0.50** |",
    ]


def test_words_are_held_against_random_tokens():
    def rows(region, effect):
        unit = ("words", None, None, region, "zero")
        return [(*unit, "log_prob", effect, effect - 0.1, effect + 0.1), (*unit, "accuracy", -0.05, -0.0612, -0.04)]

    names = {"sentiment": -0.84, "feel": -0.3, "pronoun": 0.2, "alone": 0.1}
    random = {"sentiment": -0.22, "feel": -0.22, "pronoun": -0.22}
    table = [row for name, effect in names.items() for row in rows(name, effect)]
    table += [row for name, effect in random.items() for row in rows(f"random, as many as {name}", effect)]
    compared = [  # separate intervals of "feel" overlap: the paired one decides
        *(("sentiment", "all", "log_prob", -0.62, -0.7, -0.5), ("sentiment", "all", "accuracy", 0.0, -0.01, 0.02)),
        *(("feel", "all", "log_prob", -0.08, -0.09, -0.07), ("feel", "all", "accuracy", 0.0, -0.01, 0.02)),
        *(("pronoun", "all", "log_prob", 0.42, -0.1, 0.9), ("pronoun", "all", "accuracy", 0.3, 0.2, 0.4)),
        *(("sentiment", "joy", "log_prob", 9.0, 8.0, 10.0), ("sentiment", "joy", "accuracy", 9.0, 8.0, 10.0)),
    ]
    columns = ["words", "class", "metric", "difference", "ci_low", "ci_high"]
    text = page(over=effects(*table), words=pd.DataFrame(compared, columns=columns))
    section = text.split("### Words against random tokens")[1].split("##")[0]
    accuracy = "-0.050 [-0.061, -0.040]"
    row = "| sentiment | -0.84 [-0.94, -0.74] | -0.22 [-0.32, -0.12] | -0.62 [-0.70, -0.50] |"
    assert f"{row} {accuracy} | {accuracy} | 0.00 [-0.010, 0.020] |" in section
    assert "(paired): sentiment, feel: lowers it more; pronoun: makes no clear difference (the interval" in section
    assert "lowers it less" not in section
    assert "alone" not in section
    assert "random tokens" not in page(over=effects(*table))


def test_regions_the_largest_losses_and_those_without_one():
    rows = [
        ("mask", None, None, "all but self", "zero", "log_prob", -2.0, -2.2, -1.8),
        ("cut", 1, None, "self", "zero", "log_prob", -0.5, -0.6, -0.4),
        ("cut", None, None, "self", "zero", "log_prob", -0.01, -0.02, 0.0),
        ("mask", 0, None, "last query", "zero", "log_prob", 0.3, 0.2, 0.4),
        ("mask", 0, None, "last query", "zero", "accuracy", -0.9, -0.9, -0.9),
    ]
    section = page(over=effects(*rows)).split("### Regions of the attention maps")[1].split("##")[0]
    assert section.strip().splitlines()[2:] == [
        "- Masking all but self in all layers changes it by -2.00 [-2.20, -1.80].",
        "- Cutting self in layer 1 changes it by -0.50 [-0.60, -0.40].",
        "- Cutting self in all layers changes it by -0.010 [-0.020, 0.00].",
        "- The interval of 1 of 4 holds 0: Cutting self in all layers.",
        "- The interval of 1 of 4 is above 0: Masking last query in layer 0.",
    ]


def test_the_largest_flips_of_each_kind():
    flips = pd.DataFrame(
        [("head", 0, h, "", "zero", "test", "fear", "fear", "sad|ness", h / 100, 224) for h in range(8)]
        + [("mlp", 1, pd.NA, "", "mean", "test", "joy", "love", "joy", 0.004, 1000)]
        + [("head", 0, 9, "", "zero", "val", "fear", "fear", "joy", 0.9, 224)],
        columns=[*KEY, "split", "class", "before", "after", "share", "n"],
    )
    section = page(flips=flips).split("### Where predictions go")[1].split("##")[0]
    rows = [line for line in section.splitlines() if line.startswith("| Closing")]
    assert rows[0] == r"| Closing head 0.7 | zero | fear | fear -> sad\|ness | 7.0% of 224 |"
    assert len(rows) == 6
    assert rows[-1] == "| Closing the MLP of layer 1 | mean | joy | love -> joy | 0.4% of 1,000 |"


def curves(values):
    rows = [
        (order, closed, "all", "accuracy", value)
        for order, own in values.items()
        for closed, value in zip((0, 4, 8, 12), own, strict=True)
    ]
    return pd.DataFrame(rows, columns=["order", "closed", "class", "metric", "value"])


def test_how_many_heads_can_be_closed_before_accuracy_falls():
    values = {
        "measured": (0.9, 0.9, 0.8701, 0.3),  # 0.3 + 0.95 * 0.6 = 0.87
        "gradient": (0.9, 0.86, 0.88, 0.3),  # what recovers does not count
        "random 0": (0.9, 0.88, 0.5, 0.3),
        "random 1": (0.9, 0.5, 0.4, 0.3),
    }
    section = page(curves=curves(values)).split("### How many heads can be closed")[1].split("##")[0]
    assert "from 0.300 to 0.900, is left at 0.870" in section
    assert "of 12 heads can be closed before accuracy falls below that, measured at 0, 4, 8, 12:" in section
    assert section.strip().splitlines()[-3:] == [
        "- by measured effect: 8",
        "- by gradient: 0",
        "- at random: 0 to 4, over 2 orders",
    ]
    useless = page(curves=curves({"measured": (0.29, 0.3, 0.3, 0.3)}))
    assert "The whole network (0.290) gains nothing over the most frequent class (0.300)." in useless
    assert "by measured effect" not in useless


def test_estimates_interactions_and_the_smallest_set():
    correlations = pd.DataFrame(
        [("mean", label, estimate, value) for estimate in ("absolute", "normalised", "signed")
         for label, value in (("all", 0.83), ("joy", -0.2), ("fear", 0.5), ("none", np.nan))],
        columns=["fill", "class", "estimate", "spearman"],
    )  # fmt: skip
    columns = ["first", "second", "fill", "class", "n", "pair", "first_effect", "second_effect", "interaction"]
    pairs = pd.DataFrame(
        [
            ("0.3", "1.5", "zero", "joy", 9, -1.2, -0.3, -0.2, -0.7),
            ("0.3", "1.6", "zero", "joy", 9, 0.0, 0.0, 0.0, 0.1),
        ],
        columns=columns,
    )
    pairs = pairs.assign(ci_low=pairs["interaction"] - 0.2, ci_high=pairs["interaction"] + 0.2)
    numbers = {"majority": 0.3, "accuracy": 0.9, "accuracy_test": 0.86, "kept_val": 0.951, "kept_test": 0.933}
    smallest = {"fill": "mean", "open": ["0.3", "2.5"], "n_heads": 48, **numbers}
    text = page(correlations=correlations, interactions=pairs, smallest=smallest)
    assert "on val, with how much closing each raises the loss, fill mean." in text
    assert "| gradient of the gate, with its sign | 0.83 | -0.20 to 0.50 |" in text
    assert "| 0.3 & 1.5 | zero | joy | -1.20 | -0.50 | -0.70 [-0.90, -0.50] |" in text
    assert "The intervals of 1 of 2 leave out 0." in text
    assert "The 2 strongest:" in text
    assert "2 of 48 heads, with fill mean for all others: 0.3, 2.5." in text
    assert "keeps 95.1% of the gain" in text
    assert "On test it keeps 93.3%: its accuracy is 0.860, that of all heads 0.900," in text
