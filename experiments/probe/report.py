"""What the probes of a run found, in plain words: the tables of `probe.py` as a page of Markdown.

It says nothing that the tables do not hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab import report as markdown
from lab.report import label as plain
from lab.report import number
from lab.stats import LEVEL, holm
from lab.texts import OVERALL

from .tables import PLACE, RANDOM, STREAM, best

MAJORITY = "most frequent class"  # the baseline that every property has
READINGS = {"last": ", last token", "mean": ", mean over tokens", "word": ""}
SCORES = {  # besides accuracy
    "macro_f1": "macro-F1",
    "control": "control task",
    "selectivity": "selectivity",
    "compression": "compression",
}
PARTS = {  # kinds of contributions
    "embedding": "embedding",
    "head": "heads",
    "attention bias": "attention biases",
    "mlp": "MLPs",
    "final bias": "final bias",
}
SHARES = (0.5, 0.9)  # of the texts of a class that are decided
FEW = 3  # named of many
A = {"bag of words": "a bag of words", "word type": "the type of the word"}  # baselines that see words
Row = dict[str, Any]  # of a table, by column
Verdicts = dict[tuple[str, ...], dict[str, str]]  # by place and rival
HOW = """\
## How to read this

- A probe is a linear classifier (logistic regression) trained on what one place in the network emits: the residual
  stream before a layer or after the last, one head's z (what it emits before `c_proj`), or an MLP's output. It reads
  the last token of a text, the mean over its tokens, or the last token of a word. Layers and heads are counted from 0.
- High accuracy says that the information is there and can be read by a linear classifier. It does **not** say that the
  network uses it (Hewitt & Liang 2019; Belinkov 2022).
- The **control task** gives each type of word a random class. What a probe gets right there it has memorised.
  **Selectivity** is its accuracy minus that: what is left is not the probe's own doing. Classes of texts have no
  control task: no text occurs twice, so nothing that is memorised of one helps with another.
- **Random weights** are a network of the same shape that never saw a text. What can be read from it lies in the tokens
  and is carried along; only what goes beyond it was learnt.
- A bag of words and the most frequent class of each word's type see no network at all.
- **Above**, **below**, **level with**: two accuracies on the same test rows are compared in pairs. They are level where
  the 95 % bootstrap interval of their difference holds 0. `differences.csv` has all these intervals.
- **Compression** is of the online code (Voita & Titov 2020): how many times shorter the labels become when a probe
  that learns as it goes predicts them, on val and test. 1 is a uniform code. It counts how easily something is read.
- The texts that probes learn from are of the corpus's training split: a fine-tuned network has seen those, but not the
  ones that are measured here. Of words: `negated` is what stands between a negation and the next mark of punctuation
  (in a corpus without any, the end of the text), `sentiment` the opinion lexicon's, `length` counts letters, `position`
  words from the start of the text. Where one class is most of them, read macro-F1.
- The strength of regularisation and the best of many places are chosen on val; numbers are of test. Brackets hold 95 %
  bootstrap intervals. Texts are resampled, each with all its words, for the words of a text are not independent; in
  Brown they are the sentences. The intervals say nothing of other seeds of fine-tuning."""
AGREEMENT = """\
Rank correlation (Spearman) over the heads: accuracy of a head's probe against the size of what closing it changes."""
DIFFER = """\
They ask different things, and may disagree for good reasons: what can be read from a head need not be used; what is
used may stand elsewhere too, so that closing one head changes nothing; the probe reads one token or a mean, where
closing acts at every token; and a head can matter by what it does for other heads, with nothing to read in itself."""
CAVEATS = """\
## What this does not mean

- That something can be read does not mean that it is used, and what no linear probe reads may still be there.
- A place with more numbers is easier to read: a residual stream or an MLP beside one head, many heads beside few.
- The residual stream carries everything on: that a late layer holds something does not mean that it was made there.
- The class lens reads early layers with a head trained for what leaves the last: where it fails, a probe may not.
- Direct contributions leave out what a part does by way of later parts, and depend on a baseline that all texts share.
- Verdicts are not corrected for their number: with nothing to find, one in twenty says above or below.
- Neighbouring layers and heads differ by less than their intervals: look at three seeds before naming one."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown.table(header, rows).split("\n")


def rows_of(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def report(
    provenance: Sequence[str],
    probes: pd.DataFrame,
    baselines: pd.DataFrame,
    differences: pd.DataFrame,
    profiles: pd.DataFrame,
    agreement: pd.DataFrame | str,
    lens: pd.DataFrame | None,
    contributions: pd.DataFrame | None,
) -> str:
    """The page. What is None has no section; where there is no agreement, it is a line that says why.

    Columns that are read: `property, network, reading, kind, layer, head, n, val_accuracy, accuracy, ci_low, ci_high,
    macro_f1, control, selectivity, compression` of probes; `property, baseline, accuracy, ci_low, ci_high` of
    baselines; `property, network, reading, kind, layer, head, rival, verdict` of differences; `property, reading,
    n_heads, heads, accuracy, difference_high` of profiles; `property, reading, class, fill, metric, spearman, p` of
    agreement; `class, layer, n, accuracy, ci_low, ci_high, decided` of lens; all of contributions."""
    sections = [
        ["# Where the network knows what", "", *(f"- {line}" for line in provenance)],
        [HOW, "", "## What was found"],
        *(
            _property(str(name), own, *(table[table["property"] == name] for table in (baselines, differences)))
            for name, own in probes.groupby("property", sort=False)
        ),
        [] if profiles.empty else _profiles(profiles),
        [] if lens is None else _lens(lens),
        [] if contributions is None else _contributions(contributions),
        _agreement(agreement),
        [CAVEATS],
    ]
    return "\n".join(line for section in sections if section for line in [*section, ""])


def toward(contributions: pd.DataFrame) -> pd.DataFrame:
    """By part and class: what the part adds to the logit of that class, minus the mean of what it adds to the others'.

    contributions: columns `kind, layer, head, class, logit, mean`, rows of class `all` are not read -> `kind, layer,
    head, class, own, others`: `own` is over the texts of the class, `others` the mean over all other classes."""
    part = ["kind", "layer", "head"]
    rows, K = contributions[contributions["class"] != OVERALL], contributions["logit"].nunique()
    total = rows.groupby([*part, "class"], dropna=False)["mean"].transform("sum")
    rows = rows.assign(own=(K * rows["mean"] - total) / (K - 1))
    same = rows["class"] == rows["logit"]
    others = rows[~same].groupby([*part, "logit"], dropna=False)["own"].mean().rename("others").reset_index()
    own = rows.loc[same, [*part, "class", "own"]]
    return own.merge(others.rename(columns={"logit": "class"}), on=[*part, "class"], how="left")


def _property(name: str, probes: pd.DataFrame, baselines: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Where one property is read best, and how that stands to its controls."""
    verdicts: Verdicts = {}
    for row in rows_of(differences):
        verdicts.setdefault(_key(row), {})[row["rival"]] = row["verdict"]
    trained, random = (probes[probes["network"] == network] for network in ("trained", "random"))
    stream = trained[trained["kind"] == "resid"]
    last, top = stream["layer"].max(), _best(trained)
    places = {_place(row, last): row for row in (_best(own) for _, own in trained.groupby("kind", sort=False))}
    said = [
        f"The best place is {_place(top, last)}: {_sure(top)}, {_standing(baselines, verdicts[_key(top)])}.",
        _along(stream, last, verdicts),
    ]
    if not pd.isna(top["control"]):
        reached = f"{top['control']:.3f}: selectivity {top['selectivity']:.3f}"
        said.insert(1, f"On its control task the same probe reaches {reached}.")
    if len(random):
        rival = _best(random)
        places[f"random weights: {_place(rival, last)}"] = rival
        said.append(_random(rival, _place(rival, last), baselines, verdicts[_key(rival)]))
        said[-1] += f" The trained network is {verdicts[_key(top)][RANDOM]} it."
    cells = [
        [place, _sure(row), *("" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in SCORES)]
        for place, row in places.items()
    ]
    cells += [[row["baseline"], _sure(row), *[""] * len(SCORES)] for row in rows_of(baselines)]
    table = markdown_table(["best on val", "accuracy", *SCORES.values()], cells)
    about = f"{top['n']:,} test {'words' if top['reading'] == 'word' else 'texts'}."
    return [f"### {plain(name)}", "", about, "", *table, "", *(f"- {line}" for line in said)]


def _along(stream: pd.DataFrame, last: int, verdicts: Verdicts) -> str:
    """How accuracy goes along the residual stream, in the reading that does best."""
    top = _best(stream)
    own = {row["layer"]: row for row in rows_of(stream[stream["reading"] == top["reading"]])}
    ends = f"from {own[0]['accuracy']:.3f} before layer 0 to {own[last]['accuracy']:.3f} after the last"
    first = min(layer for layer, row in own.items() if verdicts[_key(row)][STREAM] != "below")
    where = f"Along the residual stream{READINGS[top['reading']]}: {ends}. Its best is {_before(top['layer'], last)}"
    if first == top["layer"]:
        return f"{where}, and nothing earlier is level with that."
    return f"{where}; it is level with that from {_before(first, last)}."


def _random(row: Row, place: str, baselines: pd.DataFrame, verdicts: dict[str, str]) -> str:
    """What random weights do beside the baselines that see words, said either way."""
    said = [f"On random weights the best place is {place}: {_sure(row)}, {_standing(baselines, verdicts)}."]
    for other in rows_of(baselines[baselines["baseline"] != MAJORITY]):
        meaning = {
            "below": f"The control does its work: what was not trained knows less than {A[other['baseline']]}.",
            "level with": f"What was not trained is level with {A[other['baseline']]}.",
            "above": f"**This is better than {A[other['baseline']]}**: here accuracy is no sign of what was learnt.",
        }
        said.append(meaning[verdicts[other["baseline"]]])
    return " ".join(said)


def _profiles(profiles: pd.DataFrame) -> list[str]:
    """How many heads it takes."""
    numbers = sorted(profiles["n_heads"].unique())
    cells = []
    for (name, reading), rows in profiles.groupby(["property", "reading"], sort=False):
        rows = rows.sort_values("n_heads")
        enough = rows.loc[rows["difference_high"] >= 0, "n_heads"].min()
        first = ", ".join(rows["heads"].iloc[-1].split()[:FEW])
        accuracy = dict(zip(rows["n_heads"], rows["accuracy"], strict=True))
        scores = (f"{accuracy[n]:.3f}" if n in accuracy else "" for n in numbers)
        cells.append([plain(str(name)) + READINGS[str(reading)], *scores, str(enough), first])
    about = (
        "Heads ranked on val by what each says of the property alone, and the best of them side by side, after Jo & "
        "Myaeng 2020: accuracy by number of heads. Enough: the smallest number that is not below the largest."
    )
    header = ["property", *(f"{n}" for n in numbers), "enough", "first heads"]
    return ["### How many heads it takes", "", about, "", *markdown_table(header, cells)]


def _lens(lens: pd.DataFrame) -> list[str]:
    """From which layer on the predictions stay what they are, by class."""
    measured, last = lens[lens["n"] > 0].sort_values("layer", kind="stable"), lens["layer"].max()
    cells = []
    half: dict[int, list[str]] = {}  # which classes, by the layer where half of their texts are decided
    for label, rows in measured.groupby("class", sort=False):
        reached = [rows.loc[rows["decided"] >= share, "layer"].min() for share in SHARES]
        name = "all texts" if label == OVERALL else plain(str(label))
        if label != OVERALL:
            half.setdefault(reached[0], []).append(name)
        ends = [_sure(row) for row in rows_of(rows)[:: len(rows) - 1]]
        cells.append([name, f"{rows['n'].iloc[-1]:,}", *ends, *(_before(layer, last) for layer in reached)])
    about = (
        "The class lens puts the trained head on the residual stream at the last token, as if no layer followed "
        "(nostalgebraist 2020). A text is decided, rightly or wrongly, where its prediction no longer changes."
    )
    header = ["class", "texts", "accuracy before layer 0", "accuracy after the last"]
    table = markdown_table([*header, *(f"{share:.0%} are decided" for share in SHARES)], cells)
    first, latest = (f"{', '.join(half[layer])} ({_before(layer, last)})" for layer in (min(half), max(half)))
    said = f"in all classes alike: {first}" if len(half) == 1 else f"first in {first}, last in {latest}"
    return ["### Where classes are decided", "", about, "", *table, "", f"Half of the texts are decided {said}."]


def _contributions(contributions: pd.DataFrame) -> list[str]:
    """What the logits are made of: by kind of part, and the parts that do most for each class."""
    added = toward(contributions)
    kinds = added.pivot_table(index="class", columns="kind", values="own", aggfunc="sum", sort=False)
    cells = []
    for label, sums in kinds.iterrows():
        rows = added[(added["class"] == label) & added["kind"].isin(["head", "mlp"])]
        most = rows_of(rows.sort_values("own", ascending=False, kind="stable").head(FEW))
        named = ", ".join(f"{_part(row)} {number(row['own'])} ({number(row['others'])})" for row in most)
        cells.append([plain(str(label)), *(number(sums[kind]) for kind in PARTS), number(sums.sum()), named])
    about = (
        "What a part adds to the logit of a class, minus the mean of what it adds to the others', over the texts of "
        "that class; in brackets over those of other classes: where both are alike it is no sign of the class. The "
        "scale of the final LayerNorm is held at its value, so that all parts add up to the logits."
    )
    header = ["class", *PARTS.values(), "sum", "most"]
    return ["### What the answer is made of", "", about, "", *markdown_table(header, cells)]


def _agreement(agreement: pd.DataFrame | str) -> list[str]:
    """Whether the heads from which a class can be read are those whose closing changes it."""
    heading = ["### Probing beside ablation", ""]
    if isinstance(agreement, str):
        return [*heading, f"Not measured: {agreement}."]
    tested, left = agreement.dropna(subset="p"), agreement[agreement["p"].isna()]
    missing = []
    if len(left):
        of = ", ".join("all texts" if label == OVERALL else plain(label) for label in left["class"].unique())
        why = "there are fewer than three heads, all of them do the same, or the class has no test texts"
        missing = ["", f"{len(left):,} correlations cannot be computed ({of}): {why}."]
    if tested.empty:
        return [*heading, *missing[1:]]
    tested = tested.assign(sign=np.sign(tested["spearman"]).where(holm(tested["p"].to_numpy()) < LEVEL, 0))
    cells = []
    for key, rows in tested.groupby(["property", "reading", "fill", "metric"], sort=False):
        name, reading, fill, metric = map(str, key)
        rho = rows["spearman"]
        cells.append([plain(name) + READINGS[reading], fill, metric.replace("_", " "), f"{rho.median():z.2f}"])
        cells[-1] += [f"{rho.min():z.2f} to {rho.max():z.2f}", f"{len(rows)}"]
        cells[-1] += [f"{(rows['sign'] == sign).sum()}" for sign in (1, -1)]
    agree, oppose = ((tested["sign"] == sign).sum() for sign in (1, -1))
    survive = f"Of {len(tested):,} correlations, {agree + oppose:,} survive Holm's correction (p < {LEVEL})"
    said = f"{survive}: {agree:,} positive, where heads that say more also do more, and {oppose:,} negative."
    header = ["probe", "fill", "ablation", "median", "range", "classes", "positive", "negative"]
    return [*heading, AGREEMENT, "", *markdown_table(header, cells), "", said, *missing, "", DIFFER]


def _best(rows: pd.DataFrame) -> Row:
    """The row that does best on val."""
    return rows_of(best(rows))[0]


def _key(row: Row) -> tuple[str, ...]:
    """Which place a row is about; as text, for an empty head equals nothing."""
    return tuple(str(row[name]) for name in PLACE)


def _standing(baselines: pd.DataFrame, verdicts: dict[str, str]) -> str:
    """A place beside the baselines."""
    named = ((row["baseline"], row["accuracy"]) for row in rows_of(baselines))
    return ", ".join(f"{verdicts[name]} the {name} ({accuracy:.3f})" for name, accuracy in named)


def _place(row: Row, last: int) -> str:
    """Where a probe reads, of a network of `last` layers."""
    if row["kind"] == "resid":
        return f"the residual stream {_before(row['layer'], last)}{READINGS[row['reading']]}"
    return f"{'the ' if row['kind'] == 'mlp' else ''}{_part(row)}{READINGS[row['reading']]}"


def _part(row: Row) -> str:
    return f"head {row['layer']}.{row['head']}" if row["kind"] == "head" else f"MLP of layer {row['layer']}"


def _before(layer: int, last: int) -> str:
    return "after the last layer" if layer == last else f"before layer {layer}"


def _sure(row: Row) -> str:
    """Accuracy with its interval; three decimals, for texts are many."""
    return f"{row['accuracy']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
