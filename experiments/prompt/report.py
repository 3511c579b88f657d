"""What the tables say: the numbers that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.prompts import Template
from lab.prompted import Prompted
from lab.report import render
from lab.stats import LEVEL, holm
from lab.texts import OVERALL

from .figures import CORRECTIONS, PROBE, TUNED, choose_correction, name, select_main
from .judge import ABOUT, BAG, CLASSIFIER, DIRECT, DRAWS, FEW_SHOT, MAJORITY, TEMPLATES, ZERO_SHOT
from .scoring import ALL, NEAREST, ORDERED, Answers
from .tables import SEEN_BEFORE, list_orders, list_shots, list_single

TEMPLATE = Path(__file__).with_name("report.md.jinja")
SOURCES = {  # of the corrections: where b comes from, and who wrote so
    "direct": ("nothing: b = 0", "Brown et al. 2020"),
    "contextual": (
        "the prompt about N/A, about nothing and about [MASK]",
        "contextual calibration (CC), Zhao et al. 2021",
    ),
    "domain_pmi": ("the prompt without a text", "domain-conditional PMI (DC-PMI), Holtzman et al. 2021"),
    "domain_context": ("the prompt about random words of train", "domain-context calibration, Fei et al. 2023"),
    "batch": ("the mean over the texts of val, without their labels", "batch calibration (BC), Zhou et al. 2023"),
    SEEN_BEFORE: ("the mean over the test texts themselves", "the same, as published"),
    "channel": ("nothing: log P(text after label word) instead", "noisy channel, Min et al. 2022"),
}
WAYS = {
    DIRECT: "prompt without examples or correction",
    ZERO_SHOT: "prompt without examples",
    FEW_SHOT: "prompt with examples, mean over the draws",
    TEMPLATES: "all templates together",
    DRAWS: "all draws together",
    MAJORITY: "most frequent class",
    BAG: "bag of words",
    CLASSIFIER: "the run's own classifier",
}
LEAST_CEILING = 0.3  # of what two networks with the same heads would reach: below, effects are mostly noise
CONSTANTS = {"sources": SOURCES, "names": WAYS, "level": LEVEL, "name": name, "least_ceiling": LEAST_CEILING}
Section = dict[str, Any]


def report(
    about: Sequence[str],
    labels: Sequence[str],
    first_prompt: Section,
    scores: pd.DataFrame,
    chosen: pd.DataFrame,
    compared: pd.DataFrame,
    predictions: pd.DataFrame,
    curve: pd.DataFrame,
    effects: pd.DataFrame,
    correlations: pd.DataFrame,
    left_out: Sequence[str] = (),
) -> str:
    """Return the page as Markdown, the answer first.

    The tables are those of the files; without rows: not measured. first_prompt: of `describe_prompt`; left_out: a
    sentence for each part that is missing, with the reason."""
    test = scores[scores["split"] == "test"]
    main = select_main(test)
    ways = list_ways(chosen, compared, scores)
    return render(
        TEMPLATE,
        about=about,
        left_out=left_out,
        labels=labels,
        prompt=first_prompt,
        ways=ways,
        zero=next(way for way in ways if way["way"] == ZERO_SHOT),
        others={way["way"]: way for way in ways if way["way"] in (MAJORITY, BAG, CLASSIFIER)},
        spread=[*spread_corrections(test, labels)],
        templates=[*list_templates(main)],
        shares=[*compare_shares(predictions, labels)],
        n_zero_shot=len(list_single(scores[(scores["split"] == "val") & (scores["shots"] == 0)])),
        nearest=main[main["draw"] == NEAREST].to_dict("records"),
        orders=summarise_orders(main, labels),
        curve=[*summarise_curve(curve)],
        heads=summarise_heads(effects, correlations),
        **CONSTANTS,
    )


def describe_prompt(prompted: Prompted, template: Template, text: str, answers: Sequence[Answers]) -> Section:
    """Return what the network reads for a text without examples: the prompt and its token ids, the label words and
    theirs, and how probable all label words are together.

    answers: of test, whose first text it is."""
    prompt, words = template.fill(text), prompted.words
    verbalizer = words.verbalizers[0]
    answer = next(
        each
        for each in answers
        if (each.template, each.shots, each.split) == (template.name, 0, "test")
        and (each.verbalizer, each.correction) == (verbalizer, "direct")
    )
    by_class = zip(words.labels, words.words, words.ids, strict=True)
    return {
        "template": template.name,
        "lines": prompt.split("\n"),
        "ids": prompted.encode([prompt])[0],
        "words": {label: list(zip(each, map(list, ids), strict=True)) for label, each, ids in by_class},
        "mass": float(np.exp(answer.log_probs[0]).sum()),
    }


def list_ways(chosen: pd.DataFrame, compared: pd.DataFrame, scores: pd.DataFrame) -> list[Section]:
    """Return each way that val chose, with its scores by metric, its differences by reference and metric, and whether
    it is better than the most frequent class."""
    ways: list[Section] = []
    for _, rows in chosen.groupby(["way", "shots"], sort=False, dropna=False):
        by_metric = {row["metric"]: row for row in rows.to_dict("records")}
        way = {name: by_metric["macro_f1"][name] for name in ("way", *ABOUT, "draws", "n")} | by_metric
        differences = compared[(compared["way"] == way["way"]) & (compared["shots"] == way["shots"])]
        way["minus"] = {
            reference: {row["metric"]: row for row in of_reference.to_dict("records")}
            for reference, of_reference in differences.groupby("reference")
        }
        way["val"] = find_val(scores, way)
        way["better"] = MAJORITY in way["minus"] and is_better_than_majority(way["minus"][MAJORITY])
        ways.append(way)
    return ways


def is_better_than_majority(minus: Section) -> bool:
    """Return whether macro-F1 and accuracy are both surely larger than those of the most frequent class.

    Macro-F1 alone would praise whoever names all classes at random, accuracy alone whoever names but one."""
    return all(minus[metric]["ci_low"] > 0 for metric in ("macro_f1", "accuracy"))


def find_val(scores: pd.DataFrame, way: Section) -> float:
    """Return the macro-F1 on val that a way was chosen by, mean over its draws; NaN for what reads no prompt."""
    if way["template"] is None or pd.isna(way["template"]):
        return float("nan")
    same = scores["split"] == "val"
    for column in ABOUT:
        same &= scores[column] == way[column]
    rows = scores[same]
    together = (rows["draw"] == ALL) if way["way"] == DRAWS else (rows["draw"] != ALL) & (rows["draw"] != NEAREST)
    return float(rows[together & ~rows["draw"].isin([NEAREST, ORDERED])]["macro_f1"].mean())


def spread_corrections(test: pd.DataFrame, labels: Sequence[str]) -> Iterator[Section]:
    """Yield a row for each number of shots and correction: the spread over templates or draws, means of what else is
    measured, and the class that is named most."""
    together = (test["template"] == ALL) | (test["draw"].isin([ALL, NEAREST]))
    rows = test[~together & ~test["draw"].isin([NEAREST, ORDERED])]
    main, trained = select_main(rows), select_main(rows.assign(prior=rows["prior"].map({"train": "uniform"})))
    for shots in (0, *list_shots(test)):
        for correction in CORRECTIONS:
            part, other = (
                each[(each["shots"] == shots) & (each["correction"] == correction)] for each in (main, trained)
            )
            if part.empty:
                continue
            named = part[[f"predicted_share_{label}" for label in labels]].mean()
            yield {
                "shots": shots,
                "correction": correction,
                "prompts": len(part),
                **spread(part["macro_f1"]),
                **{column: part[column].mean() for column in ("accuracy", "auc", "ece", "label_mass", "entropy")},
                "most": labels[int(named.to_numpy().argmax())],
                "most_share": named.max(),
                "train_f1": other["macro_f1"].mean(),
                "train_accuracy": other["accuracy"].mean(),
            }


def spread(values: pd.Series) -> dict[str, float]:
    return {statistic: float(values.agg(statistic)) for statistic in ("mean", "median", "std", "min", "max")}


def list_templates(main: pd.DataFrame) -> Iterator[Section]:
    """Yield each template with its row of macro-F1 by correction, without examples, and the mass on label words."""
    rows = main[(main["shots"] == 0) & (main["template"] != ALL)]
    for template, part in rows.groupby("template", sort=False):
        f1 = part.drop_duplicates("correction").set_index("correction")["macro_f1"].to_dict()
        yield {"template": template, "f1": f1, "mass": part["label_mass"].mean()}


def compare_shares(predictions: pd.DataFrame, labels: Sequence[str]) -> Iterator[Section]:
    """Yield for each class its share of the test texts, and that of the predictions of the chosen prompt."""
    rows = predictions[predictions["split"] == "test"]
    for label in labels:
        yield {
            "class": label,
            **{column: (rows[column] == label).mean() for column in ("label", "direct", "predicted")},
        }


def summarise_orders(main: pd.DataFrame, labels: Sequence[str]) -> Section | None:
    """Return the spread over the orders of the same examples and, over all draws and orders, what the class of the last
    example does: accuracy, and how often that class is named, beside how often it is when another comes last."""
    studied = list_orders(main)
    if studied.empty:
        return None
    random = main[main["draw"].str.isdigit() | (main["draw"] == ORDERED)]
    by_correction = {each: spread(studied[studied["correction"] == each]["macro_f1"]) for each in ("direct", "batch")}
    by_class = []
    for label in labels:
        row: Section = {
            "class": label,
            "n": int((random["last_class"] == label).sum() / random["correction"].nunique()),
        }
        for correction in by_correction:
            of_correction = random[random["correction"] == correction]
            last = of_correction["last_class"] == label
            share = of_correction[f"predicted_share_{label}"]
            row[correction] = {
                "accuracy": of_correction["accuracy"][last].mean(),
                "share": share[last].mean(),
                "else": share[~last].mean(),
            }
        by_class.append(row)
    n, shots = studied["order"].nunique(), studied["shots"].iloc[0]
    return {"n": n, "shots": shots, "spread": by_correction, "by_class": by_class}


def summarise_curve(curve: pd.DataFrame) -> Iterator[Section]:
    """Yield macro-F1 and accuracy by method and shots: mean, worst and best draw."""
    names = {PROBE: "probe of the frozen network", TUNED: "fine-tuned on these texts"}
    if len(curve):
        for (method, shots), rows in curve.groupby(["method", "shots"], sort=False):
            about = {"method": names.get(str(method), method), "shots": shots, "draws": len(rows)}
            yield (
                about
                | spread(rows["macro_f1"])
                | {"n_train": rows["n_train"].iloc[0], "accuracy": rows["accuracy"].mean()}
            )


def summarise_heads(effects: pd.DataFrame, correlations: pd.DataFrame) -> Section | None:
    """Return the rank correlations of the correction that is drawn, that of all classes and what it could reach, the
    classes whose heads are surely alike, and the correlations of other corrections; None: not measured."""
    if effects.empty or correlations.empty:
        return None
    correction = choose_correction(correlations)
    rows = correlations[correlations["correction"] == correction].to_dict("records")
    overall = correlations[correlations["class"] == OVERALL].to_dict("records")
    whole = next((row for row in rows if row["class"] == OVERALL), rows[0])
    by_class = [row for row in rows if row["class"] != OVERALL]
    corrected = holm(np.array([row["p"] for row in by_class], dtype=float))
    pairs = zip(by_class, corrected, strict=True)
    alike = [row["class"] for row, p in pairs if p < LEVEL and row["spearman"] > 0]
    ceiling = np.sqrt(whole["reliability_prompt"] * whole["reliability_classifier"])
    return {
        "correction": correction,
        "rows": rows,
        "overall": overall,
        "whole": whole,
        "ceiling": ceiling,
        "alike": alike,
    }
