"""What the page says about tables whose content is known."""

import re

import numpy as np
import pandas as pd
import pytest

from experiments.patch.report import report

LEFT, RIGHT = "sad_ness", "joy"  # the first one would be italics in Markdown


def average(direction: str, kind: str, head: int | None, share: float, reach: float | None, **others) -> dict:
    """Return a row of averages.csv: of layer 0, with limits `reach` to either side."""
    low, high = (np.nan, np.nan) if reach is None else (share - reach, share + reach)
    verdict = "open"
    if reach is not None:
        verdict = "matters" if low > 0.05 or high < -0.05 else "negligible" if low > -0.05 and high < 0.05 else "open"
    row = {"direction": direction, "kind": kind, "layer": 0, "head": head, "tokens": "all", "n": 12, "share": share}
    row |= {"share_low": low, "share_high": high, "verdict": verdict, "estimate": share / 2, "integrated": np.nan}
    return row | {"controls": 24.0, "control_share": 0.1 * np.sign(share), "specific": None} | others


def pairs(n: int, gap: float = 7.0) -> pd.DataFrame:
    kept = [("test", f"text {i}", f"other {i}", LEFT, RIGHT, 2, gap, True, "") for i in range(n)]
    dropped = [("test", "x", "y", RIGHT, LEFT, 2, 0.1, False, "gap below 0.5")] * 2 * (n > 1)
    names = ["split", "clean", "corrupt", "clean_class", "corrupt_class", "position", "gap", "kept", "why"]
    return pd.DataFrame(kept + dropped, columns=names).rename_axis("pair").reset_index()


def tables(averages: list[dict], n: int = 12) -> dict[str, pd.DataFrame]:
    estimate = {
        "direction": "denoise",
        "kind": "z",
        "positions": "all",
        "method": "attribution",
        "maps": n,
        "cells": 36,
    }
    estimate |= {"spearman": 0.75, "worst_miss": 0.31, "worst_pair": 3, "worst_cell": "z of head 0.1"}
    edge = {"direction": "denoise", "sender": "head 0.1", "receiver": "logits", "input": "logits", "share": 0.2}
    edge |= {"share_low": 0.1, "share_high": 0.3, "estimate": 0.15, "strong": True}
    frame = pd.DataFrame(averages).astype({"layer": "Int64", "head": "Int64", "specific": "boolean"})
    return {
        "pairs": pairs(n),
        "averages": frame,
        "sums": pd.DataFrame({"direction": ["denoise"], "heads_one_by_one": [1.34], "heads_together": [1.0]}),
        "estimates": pd.DataFrame([estimate]),
        "edges": pd.DataFrame([edge, edge | {"sender": "mlp 0", "share": 0.01, "estimate": 0.02, "strong": False}]),
    }


def page(content: dict[str, pd.DataFrame], **settings) -> str:
    settings = {"estimate_first": None, "layer_norm": "recomputed", "followed": True, "pictures": []} | settings
    return report(["run: runs/one"], content, **settings)


BOTH = [
    average("denoise", "z", 0, 0.4, 0.05, specific=True),  # suffices
    average("noise", "z", 0, -0.01, 0.02),
    average("denoise", "z", 1, 0.02, 0.05),  # is needed; does it suffice?
    average("noise", "z", 1, -0.5, 0.1, specific=False),
    average("denoise", "z", 2, 0.3, 0.1, specific=True),  # both
    average("noise", "z", 2, -0.2, 0.1, specific=True),
]


def test_the_answer_tells_what_suffices_from_what_is_needed():
    text = page(tables(BOTH))
    assert "Of 3 heads, 2 alone restore surely more than 5% of the gap: head 0.0, head 0.2." in text
    assert "Of 3 heads, 2 alone take surely more than 5% of the gap away: head 0.1, head 0.2." in text
    assert "Both restore and take away: head 0.2. Restore and take hardly anything away (as" in text
    assert "others do the same): head 0.0. Take away and restore hardly anything" in text
    assert "must work together): none. Large one way, undecided the other: head 0.1." in text
    assert "The largest effect of a head (noise): head 0.1, -50% [-60%, -40%] of the gap; 95% of 24" in text
    assert "do less in this direction: -10% at most." in text
    assert "The other way round" not in text
    assert "in the same direction: head 0.0, head 0.2." in text
    assert "no limits" not in text


def test_one_direction_is_not_compared_with_another():
    text = page(tables([row for row in BOTH if row["direction"] == "noise"]))
    assert "is needed" in text
    assert "**What suffices**" not in text
    assert "Where the two agree" not in text


def test_what_works_against_the_answer_is_no_part_of_it():
    text = page(tables([*BOTH, average("denoise", "z", 3, -0.3, 0.1), average("noise", "z", 3, 0.2, 0.1)]))
    assert "Of 4 heads, 2 alone restore surely more than 5% of the gap: head 0.0, head 0.2." in text
    assert "by surely more than 5% of the gap: head 0.3." in text


def test_few_texts_have_no_limits_and_the_page_says_so():
    rows = [row | {"share_low": np.nan, "share_high": np.nan, "verdict": "open", "specific": None} for row in BOTH]
    text = page(tables(rows, n=3))
    assert "2 alone restore at least 5% of the gap: head 0.0, head 0.2." in text
    assert "must work together): head 0.1." in text
    assert "they come from 3 clean texts, and with fewer than 10 nothing can be said about other texts" in text
    assert "Specific" not in text


def test_pairs_are_counted_with_the_reasons_of_those_that_were_dropped():
    text = page(tables(BOTH))
    assert "14 pairs of texts were tried, 12 kept, made of 12 clean texts." in text
    assert "gap below 0.5 (2)" in text
    assert r"| sad\_ness | joy | 12 |" in text
    assert "raw effects only" not in text


def test_a_single_pair_is_shown_and_a_small_gap_is_named():
    content = tables(BOTH)
    content["pairs"] = pairs(1, gap=0.3)
    text = page(content)
    assert r"- clean: text 0 (sad\_ness)" in text
    assert "1 pair has a gap below 0.5 nats" in text


def test_the_stream_is_shown_by_layer_and_token():
    rows = [average("denoise", "resid_pre", None, share, 0.1, tokens=name) for name, share in STREAM.items()]
    text = page(tables(BOTH + rows))
    assert "| direction | layer | resid_pre, changed | resid_pre, between | resid_pre, last |" in text
    assert "| denoise | 0 | +100% | +0% | -20% |" in text
    assert "Where the difference is" not in page(tables(BOTH))


STREAM = {"changed": 1.0, "between": -0.001, "last": -0.2}


def test_no_head_was_patched():
    rows = [average("denoise", "resid_pre", None, share, 0.1, tokens=name) for name, share in STREAM.items()]
    content = tables(rows)
    content["sums"] = content["sums"].iloc[:0]
    text = page(content)
    assert "No head's output (kind z) was patched." in text
    assert "one by one" not in text


def test_sums_estimates_and_edges():
    text = page(tables(BOTH), layer_norm="frozen")
    assert "denoise: the heads one by one sum to +134% of the gap; all heads together do +100%." in text
    assert "| denoise | z | all | attribution | 36 | 0.75 | 0.31 | pair 3, z of head 0.1 |" in text
    assert "LayerNorm of the receiver: **frozen**. In all, 2 edges were measured, into logits." in text
    assert re.search(r"^\| denoise \| head 0\.1 \| logits \| logits \| \+20% \[\+10%, \+30%\] \| \+15% \|$", text, re.M)
    assert "mlp 0 |" not in text


@pytest.mark.parametrize("most", [None, 7])
def test_what_may_be_missed_is_said_where_estimates_chose(most):
    assert ("Only the 7 cells of each map" in page(tables(BOTH), estimate_first=most)) == (most is not None)


def test_the_classes_of_single_heads():
    row = {"layer": 0, "head": 1, "from": LEFT, "to": RIGHT, "n": 30, "gap": 4.0, "effect": 1.0, "effect_low": 0.5}
    row |= {"effect_high": 1.5, "share": 0.25, "switched": 0.1}
    unclear = row | {"head": 2, "effect_low": -0.5}
    text = page(tables(BOTH) | {"between": pd.DataFrame([row, unclear])})
    assert "Of 2 combinations of head and two classes, 1 have 95 % limits that exclude 0" in text
    assert r"| joy | sad\_ness | head 0.1 | 1.00 [0.50, 1.50] | +25% | +10% | 30 |" in text
    assert "head 0.2 | 1.00" not in text
    assert "Between classes" not in page(tables(BOTH))
