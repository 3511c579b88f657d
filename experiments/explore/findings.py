"""What `make ablate` found over the corpus for the units that are switched off here in one text."""

import json
from typing import Any

import pandas as pd

from lab.effects import read_effects
from lab.shares import METRIC
from lab.texts import OVERALL
from model import InputError
from model.files import read_json

from .subject import Subject

KINDS = ("head", "mlp", "heads", "layer")
UNIT = ["kind", "layer", "head", "fill", "class"]
SHARES = ["share", "share_low", "share_high", "verdict"]


def read_findings(subject: Subject) -> dict[str, Any]:
    """Return `rows`, one for each unit, fill and class on the test texts, or `why` there are none.

    `effect` is the change of recall (of accuracy, for all texts) with its interval; `share`, of heads only, that of the
    class's specific margin, with its verdict. `rank` is the unit's place among `of` such units, by the size of its
    share or, without one, of its effect."""
    if subject.run is None:
        return {"why": "a language model has no corpus to ablate on", "rows": []}
    folder = subject.run / "ablate"
    if not (folder / "effects.csv").is_file() or not (folder / "study.json").is_file():
        return {"why": f"run `make ablate RUN={subject.name}` first, and start this page again", "rows": []}
    advice = f"run `make ablate RUN={subject.name}` once more"
    try:
        if read_json(folder / "study.json").get("weights") != subject.weights:
            return {"why": f"{folder} is of other weights; {advice}", "rows": []}
        effects = read_effects(folder / "effects.csv")
        rows = rank(join(effects[effects["kind"].isin(KINDS) & (effects["split"] == "test")]))
    except InputError as error:
        return {"why": str(error), "rows": []}
    except (KeyError, ValueError):  # columns are missing, or hold something else
        return {"why": f"{folder / 'effects.csv'} is no table that this version reads; {advice}", "rows": []}
    return {"why": None, "rows": json.loads(rows.to_json(orient="records", double_precision=15))}  # NaN becomes null


def join(effects: pd.DataFrame) -> pd.DataFrame:
    """Put the share of each unit beside its effect."""
    recalls = effects[effects["metric"] == "recall"]
    accuracies = effects[(effects["metric"] == "accuracy") & (effects["class"] == OVERALL)]
    columns = [*UNIT, "n", "baseline", "effect", "ci_low", "ci_high"]
    changes = pd.concat([accuracies, recalls])[columns]
    shares = effects[effects["metric"] == METRIC][[*UNIT, *SHARES]]
    return changes.merge(shares, "left", UNIT)


def rank(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `rank`, 1 for the largest, and `of`."""
    size = rows["share"].fillna(rows["effect"]).abs()
    groups = size.groupby([rows["kind"], rows["fill"], rows["class"]])
    return rows.assign(rank=groups.rank(method="min", ascending=False), of=groups.transform("size"))
