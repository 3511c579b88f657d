"""Averages over pairs, their limits, and the rating of estimates, against plain loops and numbers by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, spearmanr, t

from experiments.patch.cells import Cell
from experiments.patch.pairs import Pair
from experiments.patch.tables import (
    FEWEST,
    average,
    average_cells,
    compare_estimates,
    compare_sums,
    compare_with_controls,
    finish_cells,
    name_tokens,
)
from lab.stats import resamples

NAN = float("nan")
LIMITS = ["share_low", "share_high"]
DIRECTIONS = ("denoise", "noise")


def pair_of(number, length, changed, clean=""):
    """A pair of texts of `length` tokens that differ at the positions `changed`."""
    clean_ids = list(range(length))
    corrupt_ids = [50 + i if i in changed else i for i in clean_ids]
    return Pair(number, "test", clean or f"text {number}", "", clean_ids, corrupt_ids, (2, 0), ("joy", "fear"))


def kept_of(pairs, gaps):
    """The rows of pairs.csv that are read: number, clean text and gap."""
    return pd.DataFrame({"pair": [pair.number for pair in pairs], "clean": [p.clean for p in pairs], "gap": gaps})


def cell_rows(pair, direction, cells, **columns):
    """Rows of measured cells: columns of the cells, of the pair, and these."""
    about = {"pair": pair.number, "direction": direction}
    table = pd.DataFrame([vars(cell) | about for cell in cells]).assign(**columns)
    return table.astype({"head": "Int64", "position": "Int64"})


def others_of(kept, shares=(1.0, -1.0), controls=()):
    """What is no cell: all heads together with these shares (denoise, noise), and controls (direction, layer, share)
    numbered by layer."""
    draws = pd.DataFrame(controls, columns=["direction", "layer", "share"])
    draws = draws.assign(kind="random subspace", draw=draws.groupby(["direction", "layer"]).cumcount())
    together = pd.DataFrame({"direction": ["denoise", "noise"], "share": shares, "kind": "all heads"})
    table = pd.concat([draws, together], ignore_index=True).astype({"layer": "Int64", "draw": "Int64"})
    table = table.merge(kept[["pair", "gap"]], how="cross")
    return table.assign(effect=table["share"] * table["gap"]).drop(columns=["share", "gap"])


# patch.csv.


def test_finished_cells_by_hand():
    first, second = pair_of(7, 3, [1]), pair_of(9, 3, [2])
    at_one, head = Cell("mlp", 1, position=1), Cell("z", 0, 2)
    values = {"clean": 3.0, "corrupt": 1.0, "estimate": 0.25, "integrated": NAN}
    small = values | {"clean": 1.375}
    cells = pd.concat(
        [
            cell_rows(first, "denoise", [at_one], patched=2.5, effect=1.5, **values),
            cell_rows(first, "noise", [head], patched=2.5, effect=-0.5, **values),
            cell_rows(second, "denoise", [at_one], patched=1.25, effect=0.25, **small),
            cell_rows(second, "noise", [at_one], patched=NAN, effect=NAN, **values | {"clean": -1.0}),
            cell_rows(second, "noise", [head], patched=-1.5, effect=-0.5, **values | {"clean": -1.0}),
        ],
        ignore_index=True,
    )
    tokens = {7: ["so", " sad", " he"], 9: ["a", " b", " c"]}
    table = finish_cells(cells, [first, second], tokens)
    assert " ".join(table) == (
        "pair direction kind layer head position token metric clean corrupt patched effect normalised estimate "
        "integrated"
    )
    assert table["token"].tolist() == [" sad", "", " b", " b", ""]
    assert set(table["metric"]) == {"joy - fear"}
    np.testing.assert_array_equal(table["normalised"], [0.75, -0.25, NAN, NAN, 0.25])
    np.testing.assert_array_equal(table["effect"], [1.5, -0.5, 0.25, NAN, -0.5])


@pytest.mark.parametrize(("gap", "expected"), [(0.5, 0.5), (0.499, NAN), (-0.5, -0.5), (-0.25, NAN), (0.0, NAN)])
def test_effects_over_a_small_gap_are_not_normalised(gap, expected):
    pair = pair_of(0, 2, [0])
    values = {"clean": gap, "corrupt": 0.0, "patched": 0.25, "effect": 0.25, "estimate": 0.0, "integrated": 0.0}
    table = finish_cells(cell_rows(pair, "denoise", [Cell("v", 0, 0)], **values), [pair], {0: ["a", "b"]})
    np.testing.assert_array_equal(table["normalised"], [expected])


# Averages.


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([2], "before before changed between between last"),
        ([2, 3], "before before changed changed between last"),  # a word of two tokens
        ([5], "before before before before before changed and last"),
        ([0], "changed between between between between last"),
        ([1, 4], "before changed between between changed last"),
        ([4, 5], "before before before before changed changed and last"),
    ],
)
def test_positions_are_put_together_by_what_they_are(changed, expected):
    pair = pair_of(0, 6, changed)
    assert " ".join(name_tokens(pair, at) for at in range(6)) == expected
    assert name_tokens(pair, None) == name_tokens(pair, pd.NA) == "all"


def average_plainly(effects, kept):
    """The mean effects of the rows of one family, {row: {pair: effect}}: {row: (n, share, low, high)}.

    Limits: the largest deviation in standard errors, of all rows that a draw has, is within them in 95 % of draws.
    Rows of fewer than FEWEST texts have none, and do not count among these."""
    gap = dict(zip(kept["pair"], kept["gap"], strict=True))
    by_text = {text: rows["pair"].tolist() for text, rows in kept.groupby("clean", sort=False)}
    shares = {name: sum(row.values()) / sum(gap[pair] for pair in row) for name, row in effects.items()}
    draws = []
    enough = {
        name: row
        for name, row in effects.items()
        if sum(any(n in row for n in some) for some in by_text.values()) >= FEWEST
    }
    for counts in np.concatenate(list(resamples(len(by_text)))).astype(int):
        drawn = [pair for pairs, times in zip(by_text.values(), counts, strict=True) for pair in pairs * times]
        draws.append({})
        for name, row in enough.items():
            if of_row := [pair for pair in drawn if pair in row]:
                draws[-1][name] = sum(row[pair] for pair in of_row) / sum(gap[pair] for pair in of_row)
    error = {name: np.std([draw[name] for draw in draws if name in draw], ddof=1) for name in enough}
    largest = [max(abs(draw[name] - shares[name]) / error[name] for name in draw) for draw in draws]
    p, reach = norm.sf(np.quantile(largest, 0.95)), dict.fromkeys(shares, NAN)
    for name, row in enough.items():
        n = sum(any(pair in row for pair in pairs) for pairs in by_text.values())
        reach[name] = t.isf(p, n - 1) * np.sqrt(n / (n - 1)) * error[name]
    return {
        name: (len(row), shares[name], shares[name] - reach[name], shares[name] + reach[name])
        for name, row in effects.items()
    }


def gather_plainly(cells, pairs):
    """The mean effects of each pair over its tokens: {(direction, kind): {(layer, head, tokens): {pair: effect}}}."""
    families, by_number = {}, {pair.number: pair for pair in pairs}
    for row in cells.to_dict("records"):
        head = None if pd.isna(row["head"]) else row["head"]
        tokens = name_tokens(by_number[row["pair"]], row["position"])
        if tokens != "before":
            family = families.setdefault((row["direction"], row["kind"]), {})
            of_row = family.setdefault((row["layer"], head, tokens), {})
            of_row.setdefault(row["pair"], []).append(row["effect"])
    return {
        key: {row: {pair: np.mean(effects) for pair, effects in of_row.items()} for row, of_row in family.items()}
        for key, family in families.items()
    }


def test_averages_of_cells_are_those_of_plain_loops():
    """Of pairs of different lengths, several of one text, with and without tokens in between."""
    rng = np.random.default_rng(0)
    shapes = [(4, [1]), (5, [1, 2]), (3, [2]), (6, [0]), (4, [2])] * 6
    pairs = [pair_of(3 * i + 1, *shape, clean=f"text {i % 23}") for i, shape in enumerate(shapes)]
    kept = kept_of(pairs, rng.uniform(0.5, 4, len(pairs)))
    tables = []
    for pair in pairs:
        T = len(pair.clean_ids)
        cells = [Cell("attn", layer, None, at) for layer in range(2) for at in range(T)]
        cells += [Cell("z", 1, head, at) for head in range(2) for at in (None, *range(T))]
        for direction in DIRECTIONS:
            values = {name: rng.normal(size=len(cells)) for name in ("effect", "estimate", "integrated")}
            tables.append(cell_rows(pair, direction, cells, **values))
    cells = pd.concat(tables, ignore_index=True)
    table = average_cells(cells, others_of(kept), pairs, kept)
    assert len(table) == 2 * (2 * 4 + 2 * 5)
    heads = table["head"].astype(object).where(table["head"].notna(), None)
    rows = table.set_index(["direction", "kind", "layer", heads, "tokens"])
    for family, effects in gather_plainly(cells, pairs).items():
        for row, expected in average_plainly(effects, kept).items():
            assert rows.loc[[(*family, *row)], ["n", "share", *LIMITS]].to_numpy().tolist() == [
                pytest.approx(expected, nan_ok=True)
            ]
    for name in ("estimate", "integrated"):
        for family, effects in gather_plainly(cells.assign(effect=cells[name]), pairs).items():
            of_head = effects[1, 1, "all"] if family[1] == "z" else effects[0, None, "changed"]
            row = (*family, 1, 1, "all") if family[1] == "z" else (*family, 0, None, "changed")
            gap = kept[kept["pair"].isin(of_head)]["gap"].sum()
            assert rows.loc[[row], name].tolist() == [pytest.approx(sum(of_head.values()) / gap)]


def effects_of(kept, direction="denoise", **shares):
    """Effects that are these shares of the gap in each pair; a list has one for each pair."""
    rows = [pd.DataFrame({"pair": kept["pair"], "row": name, "effect": kept["gap"] * s}) for name, s in shares.items()]
    return pd.concat(rows, ignore_index=True).assign(direction=direction)


def average_rows(effects, kept):
    return average(effects, ["direction", "row"], kept).set_index("row")


def test_the_share_is_the_sum_of_effects_over_the_sum_of_gaps():
    kept = kept_of([pair_of(n, 2, [1]) for n in (4, 2, 9)], [1.0, 2.0, 5.0])
    effects = pd.DataFrame({"pair": [9, 4, 2], "direction": "noise", "row": "a", "effect": [-2.0, 1.0, -1.0]})
    some = pd.DataFrame({"pair": [4, 9], "direction": "noise", "row": "b", "effect": [0.5, 1.0]})
    table = average_rows(pd.concat([effects, some], ignore_index=True).assign(estimate=[1, 0, 3, 3, 0]), kept)
    assert table["n"].to_dict() == {"a": 3, "b": 2}
    assert table["share"].to_dict() == {"a": -2 / 8, "b": 1.5 / 6}
    assert table["estimate"].to_dict() == {"a": 4 / 8, "b": 3 / 6}
    assert "integrated" not in table


def test_a_row_that_was_not_patched_in_some_pair_has_no_share_and_the_others_keep_theirs():
    kept = kept_of([pair_of(n, 2, [1]) for n in range(12)], np.arange(1.0, 13))
    rng = np.random.default_rng(0)
    effects = effects_of(kept, a=rng.normal(size=12), b=[0.5] * 11 + [NAN])
    table = average_rows(effects, kept)
    assert table.loc["b", ["share", *LIMITS]].isna().all()
    assert table.loc["b", "verdict"] == ""
    alone = average_rows(effects[effects["row"] == "a"], kept)
    pd.testing.assert_series_equal(table.loc["a"], alone.loc["a"])
    assert alone.loc["a", LIMITS].notna().all()


def test_a_mean_over_tokens_needs_all_of_them():
    pairs = [pair_of(0, 5, [1]), pair_of(1, 3, [0])]
    kept, known = kept_of(pairs, [1.0, 1.0]), {"estimate": 1.0, "integrated": 1.0}
    cells = [
        cell_rows(pairs[0], "noise", [Cell("v", 0, 0, at) for at in (2, 3)], effect=[1.0, NAN], **known),
        cell_rows(pairs[1], "noise", [Cell("v", 0, 0, 1)], effect=[1.0], **known),
    ]
    table = average_cells(pd.concat(cells, ignore_index=True), others_of(kept), pairs, kept)
    assert table["tokens"].tolist() == ["between"]
    np.testing.assert_array_equal(table[["share", "estimate", "integrated"]], [[NAN, 1, 1]])


def test_a_pair_with_a_small_gap_has_no_share():
    kept = kept_of([pair_of(0, 2, [1])], [0.49])
    assert average_rows(effects_of(kept, a=1), kept)["share"].isna().all()
    assert average_rows(effects_of(kept, a=1), kept.assign(gap=-0.5))["share"].tolist() == [0.49 / -0.5]


def test_fewer_texts_have_no_limits_however_many_pairs():
    rng = np.random.default_rng(0)
    for texts, has_limits in ((FEWEST, True), (FEWEST - 1, False)):
        pairs = [pair_of(n, 2, [1], clean=f"text {n % texts}") for n in range(30)]
        kept = kept_of(pairs, np.ones(30))
        table = average_rows(effects_of(kept, a=rng.normal(3, 0.1, 30)), kept)
        assert table[LIMITS].notna().all(axis=None) == has_limits
        assert table["verdict"].tolist() == ["matters" if has_limits else "open"]


def test_limits_cover_what_other_texts_would_show():
    """Pairs of one text have nearly the same effects: drawn one by one they would look like four times the texts."""
    rng, texts = np.random.default_rng(0), 40
    pairs = [pair_of(n, 2, [1], clean=f"text {n // 4}") for n in range(4 * texts)]
    kept, covered = kept_of(pairs, np.ones(len(pairs))), {}
    trials = [np.repeat(rng.normal(0.3, 1, texts), 4) + rng.normal(0, 0.1, len(pairs)) for _ in range(100)]
    effects = pd.concat([effects_of(kept, f"trial {i}", a=x) for i, x in enumerate(trials)], ignore_index=True)
    for name, clean in (("clustered", kept["clean"]), ("one by one", kept["pair"].astype(str))):
        table = average(effects, ["direction", "row"], kept.assign(clean=clean))
        covered[name] = ((table["share_low"] < 0.3) & (table["share_high"] > 0.3)).sum()
    assert 88 <= covered["clustered"] <= 99
    assert covered["one by one"] < 80


def test_verdicts_by_hand():
    """Where all texts agree, the limits are the share."""
    kept = kept_of([pair_of(n, 2, [1]) for n in range(10)], np.arange(1.0, 11))
    shares = {"more": 0.0501, "less": 0.0499, "loses": -0.0501, "keeps": -0.0499, "nothing": 0.0}
    torn, half = [1, -1] * 5, np.array([0.1, 0.0] * 5)
    spread = {"torn": torn, "sure": np.add(torn, 5), "perhaps more": half, "perhaps less": -half}
    table = average_rows(effects_of(kept, **shares, **spread), kept)
    assert table["verdict"].to_dict() == {
        "more": "matters", "less": "negligible", "loses": "matters", "keeps": "negligible", "nothing": "negligible",
        "torn": "open", "sure": "matters", "perhaps more": "open", "perhaps less": "open",
    }  # fmt: skip
    for name, share in shares.items():
        assert table.loc[name, ["share", *LIMITS]].tolist() == pytest.approx([share] * 3)


def test_limits_hold_for_all_rows_of_a_direction_at_once():
    rng = np.random.default_rng(0)
    kept = kept_of([pair_of(n, 2, [1]) for n in range(20)], np.ones(20))
    rows = {f"row {i}": rng.normal(size=20) for i in range(30)}
    whole = average_rows(effects_of(kept, **rows), kept)
    alone = average_rows(effects_of(kept, **{"row 0": rows["row 0"]}), kept)
    widths = [table.loc["row 0", "share_high"] - table.loc["row 0", "share_low"] for table in (whole, alone)]
    assert widths[0] > 1.3 * widths[1]
    directions = effects_of(kept, **rows), effects_of(kept, "noise", **{"row 0": rows["row 0"]})
    both = average(pd.concat(directions, ignore_index=True), ["direction", "row"], kept)
    assert both.loc[both["direction"] == "noise", LIMITS].to_numpy() == pytest.approx(alone[LIMITS].to_numpy())


# Controls.


def test_heads_are_compared_with_the_controls_of_their_layer_by_hand():
    rows = [  # direction, kind, layer, head, tokens, share, share_low, verdict; what is expected of it
        ("denoise", "z", 0, 0, "all", 0.96, 0.9, "matters", 20, 0.95, True),
        ("denoise", "z", 0, 1, "all", 0.94, 0.9, "matters", 20, 0.95, False),
        ("denoise", "z", 0, 2, "all", 0.96, 0.0, "open", 20, 0.95, False),
        ("denoise", "z", 0, 3, "all", -0.06, -0.1, "matters", 20, 0.05, True),
        ("denoise", "z", 0, 4, "all", 2.0, NAN, "open", 20, 0.95, pd.NA),  # too few texts for limits
        ("denoise", "z", 1, 0, "all", 2.0, 1.9, "matters", NAN, NAN, pd.NA),  # a layer without controls
        ("noise", "z", 0, 0, "all", -1.9, -2.0, "matters", 20, -1.9, False),
        ("noise", "z", 0, 1, "all", -1.91, -2.0, "matters", 20, -1.9, True),
        ("denoise", "z", 0, 0, "last", 0.96, 0.9, "matters", NAN, NAN, pd.NA),
        ("denoise", "q", 0, 0, "all", 0.96, 0.9, "matters", NAN, NAN, pd.NA),
        ("denoise", "mlp", 0, pd.NA, "changed", 0.96, 0.9, "matters", NAN, NAN, pd.NA),
    ]
    columns = ["direction", "kind", "layer", "head", "tokens", "share", "share_low", "verdict"]
    averages = pd.DataFrame([row[:8] for row in rows], columns=columns).astype({"head": "Int64"})
    controls = [("denoise", 0, i / 19) for i in range(20)] + [("noise", 0, -2 * i / 19) for i in range(20)]
    random = pd.DataFrame(controls, columns=["direction", "layer", "share"]).astype({"layer": "Int64"})
    table = compare_with_controls(averages, random)
    pd.testing.assert_frame_equal(table[columns], averages)
    np.testing.assert_array_equal(table["controls"].astype(float), [row[8] for row in rows])
    np.testing.assert_allclose(table["control_share"].astype(float), [row[9] for row in rows])
    assert [value if pd.notna(value) else pd.NA for value in table["specific"]] == [row[10] for row in rows]


def test_controls_reach_the_averages_of_their_direction_and_layer():
    pairs = [pair_of(n, 3, [1]) for n in range(10)]
    kept = kept_of(pairs, np.ones(10))
    cells = [Cell("z", layer, head) for layer in range(2) for head in range(2)]
    effect = [0.5, 0.1, 0.5, 0.1]
    tables = [cell_rows(p, d, cells, effect=effect, estimate=0.0, integrated=NAN) for p in pairs for d in DIRECTIONS]
    controls = [(d, 0, 0.2) for d in DIRECTIONS] + [
        (d, 1, share) for d, share in zip(DIRECTIONS, (0.7, 0.3), strict=True)
    ]
    table = average_cells(pd.concat(tables, ignore_index=True), others_of(kept, controls=controls), pairs, kept)
    assert table["control_share"].tolist() == pytest.approx([0.2, 0.2, 0.7, 0.7, 0.2, 0.2, 0.3, 0.3])
    assert table["specific"].tolist() == [True, False, False, False, True, False, True, False]
    assert table["controls"].tolist() == [1] * 8
    assert table["integrated"].isna().all()
    without = average_cells(pd.concat(tables, ignore_index=True), others_of(kept), pairs, kept)
    assert without[["controls", "control_share", "specific"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(without.iloc[:, :-3], table.iloc[:, :-3])


# Estimates.


def random_maps(rng):
    """Finished cells of three pairs in both directions: MLPs by position and heads at all positions."""
    pairs = [pair_of(n, T, [1]) for n, T in ((3, 4), (5, 5), (8, 3))]
    gaps, tables = {3: 2.0, 5: -4.0, 8: 0.25}, []
    for pair in pairs:
        cells = [Cell("mlp", layer, None, at) for layer in range(2) for at in range(len(pair.clean_ids))]
        cells += [Cell("z", layer, head) for layer in range(2) for head in range(3)]
        for direction in DIRECTIONS:
            effect = rng.normal(size=len(cells))
            effect[[0, 4]] = 0  # before the first difference
            noisy = {name: effect + rng.normal(size=len(cells)) for name in ("estimate", "integrated")}
            table = cell_rows(pair, direction, cells, clean=gaps[pair.number], corrupt=0.0, effect=effect, **noisy)
            tables.append(table.assign(patched=table["effect"]))
    tokens = {pair.number: [f" token{i}" for i in range(len(pair.clean_ids))] for pair in pairs}
    return finish_cells(pd.concat(tables, ignore_index=True), pairs, tokens), gaps


def test_estimates_are_rated_as_by_a_plain_loop():
    cells, gaps = random_maps(np.random.default_rng(0))
    table = compare_estimates(cells)
    assert " ".join(table) == ("direction kind positions method maps cells spearman worst_miss worst_pair worst_cell")
    expected = set()
    for direction in DIRECTIONS:
        for kind, positions in (("mlp", "each"), ("z", "all")):
            for method, column in (("attribution", "estimate"), ("integrated", "integrated")):
                ranked, misses, n = [], {}, 0
                for number, gap in gaps.items():
                    rows = [row for row in cells.to_dict("records") if row["pair"] == number]
                    rows = [row for row in rows if (row["direction"], row["kind"]) == (direction, kind)]
                    rows = [row for row in rows if row["effect"] != 0]
                    n += len(rows)
                    ranked.append(spearmanr([r["effect"] for r in rows], [r[column] for r in rows]).statistic)
                    for row in rows if abs(gap) >= 0.5 else []:
                        place = f"head {row['layer']}.{row['head']}"
                        if kind == "mlp":
                            place = f"layer {row['layer']} at {row['position']} (token{row['position']})"
                        misses[number, f"{kind} of {place}"] = abs((row[column] - row["effect"]) / gap)
                worst = max(misses, key=misses.get)
                miss = round(misses[worst], 9)
                about = (direction, kind, positions, method, 3, n)
                expected.add((*about, round(np.median(ranked), 9), miss, *worst))
    assert {tuple(row) for row in table.round(9).to_numpy().tolist()} == expected


def test_only_what_was_patched_and_estimated_is_rated():
    """Nothing can be said of cells without an exact effect, of kinds without an estimate, nor of two alone."""
    cells, _ = random_maps(np.random.default_rng(1))
    first = cells["pair"] == 3
    cells.loc[first & (cells["kind"] == "z") & (cells["layer"] == 0), "effect"] = NAN
    few = first & (cells["kind"] == "mlp") & ~((cells["layer"] == 0) & cells["position"].isin([1, 2]))
    cells.loc[few, "effect"] = NAN
    cells.loc[cells["kind"] == "z", "integrated"] = NAN
    chosen = cells[(cells["pair"] == 3) & (cells["direction"] == "denoise")]
    table = compare_estimates(chosen).set_index(["kind", "method"])
    assert [*table.index] == [("mlp", "attribution"), ("mlp", "integrated"), ("z", "attribution")]
    assert table["cells"].tolist() == [2, 2, 3]
    assert table["spearman"].isna().tolist() == [True, True, False]
    assert (table["worst_miss"] > 0).all()
    small = compare_estimates(cells[cells["pair"] == 8])
    assert small["worst_miss"].isna().all()
    assert small["worst_pair"].isna().all()
    assert set(small["worst_cell"]) == {""}
    assert small["spearman"].notna().any()


@pytest.mark.filterwarnings("error::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize("column", ["effect", "estimate"])
def test_a_map_of_equal_values_has_no_ranks_and_costs_the_others_none(column):
    """As of the residual stream at a changed token that is the last one: each layer carries all of the gap."""
    cells, _ = random_maps(np.random.default_rng(2))
    cells = cells[(cells["kind"] == "mlp") & (cells["direction"] == "noise") & (cells["pair"] != 8)]
    first = cells["pair"] == 3
    cells.loc[first, column] = 2.0
    alone, both = compare_estimates(cells[~first]), compare_estimates(cells)
    assert alone["spearman"].notna().all()
    assert both["spearman"].tolist()[0] == alone["spearman"].tolist()[0]
    assert both["maps"].tolist() == [2, 2]
    assert compare_estimates(cells[first])["spearman"].isna()[0]


# Sums.


def test_heads_one_by_one_are_summed_by_hand():
    pairs = [pair_of(0, 3, [1]), pair_of(1, 3, [1])]
    kept = kept_of(pairs, [1.0, 3.0])
    cells = [Cell("z", 0, 0), Cell("z", 0, 1), Cell("z", 0, 0, 1), Cell("q", 0, 0), Cell("mlp", 0, None, 2)]
    effects = {("denoise", 0): [0.5, 0.25], ("denoise", 1): [1.0, 2.0], ("noise", 0): [-1, 0.5], ("noise", 1): [NAN, 1]}
    tables = [cell_rows(pairs[n], d, cells, effect=[*first, 9, 9, 9]) for (d, n), first in effects.items()]
    table = compare_sums(pd.concat(tables, ignore_index=True), others_of(kept, (0.75, -0.5)), kept)
    assert list(table) == ["direction", "heads_one_by_one", "heads_together"]
    assert table["direction"].tolist() == ["denoise", "noise"]
    np.testing.assert_array_equal(table["heads_one_by_one"], [3.75 / 4, NAN])  # one was not patched in one pair
    np.testing.assert_array_equal(table["heads_together"], [0.75, -0.5])
    mlps = [cell_rows(pair, "noise", cells[4:], effect=[1.0]) for pair in pairs]
    assert compare_sums(pd.concat(mlps, ignore_index=True), others_of(kept), kept).empty
