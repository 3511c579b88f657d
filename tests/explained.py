"""Tables of explanations whose answer is known, in the shape in which explain.py makes them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from experiments.explain.methods import METHODS
from lab.removals import REMOVALS

LABELS = ("glad", "sad_ness")
RANDOM_NETWORK = "random_network"
SIZES = ("1", "2", "3", "5", "10", "1%", "5%", "10%", "20%", "50%", "aopc")
BEST = {"integrated_gradients": 0.8, "shapley": 0.75, "leave_one_out_fill": 0.5, "gradient_x_input": 0.3}
PARTS = ("head", "block 1", "block 0", "embeddings")
STAYING = ("attention", "rollout")


def make_faithfulness(scores: Mapping[str, float], n: int = 40) -> pd.DataFrame:
    """Return a table in which each method reaches this share of the search, others nothing; limits are 0.2 apart."""
    rows = []
    for method in (*METHODS, RANDOM_NETWORK, "greedy"):
        for removal in REMOVALS:
            for kind, sign in (("comprehensiveness", 1), ("sufficiency", -1)):
                for metric, scale in ((kind, 0.1), (f"{kind}_log_odds", 1.0)):
                    for at, size in enumerate(SIZES):
                        reach = 1 if method == "greedy" else scores.get(method, 0)
                        difference = sign * scale * (4 + at % 5) * reach
                        random = scale * (1 + at % 5)
                        circular = method in METHODS and METHODS[method].removal == removal
                        for label in ("all", *LABELS):
                            row = {"method": method, "removal": removal, "metric": metric, "size": size, "class": label}
                            row |= {"n": n if label == "all" else n // 2, "value": random + difference}
                            row |= {"random": random, "difference": difference, "ci_low": difference - 0.1 * scale}
                            rows.append(row | {"ci_high": difference + 0.1 * scale, "circular": circular, "tokens": 3})
    return pd.DataFrame(rows)


def make_judged(scores: Mapping[str, float], tied: Sequence[str] = ()) -> pd.DataFrame:
    """Return the judgement of such a table; `tied`: methods that are not surely worse than the best."""
    best = max(scores, key=lambda method: scores[method]) if scores else ""
    rows = []
    for method in (*METHODS, RANDOM_NETWORK):
        judged_in = 4 if method in METHODS and METHODS[method].removal else 6
        score = scores.get(method, 0.0)
        verdict = "better" if score > 0.4 else "partly" if score else "no better"
        row = {"method": method, "verdict": verdict, "score": score, "comprehensiveness": score, "sufficiency": score}
        row |= {"better_in": {"better": judged_in, "partly": 1, "no better": 0}[verdict], "judged_in": judged_in}
        row |= {"best": method == best, "tied": method in (*tied, best)}
        rows.append(row | {"score_low": score - 1, "score_high": score})
    return pd.DataFrame(rows)


def make_sanity(n: int = 16, labels: bool = False) -> pd.DataFrame:
    """Return a table in which attention and rollout stay as they are, gradient_norm follows partly, the others fall."""
    steps = [(scheme, i, part) for scheme in ("cascading", "independent") for i, part in enumerate(PARTS, start=1)]
    steps += [("labels", 1, "labels")] if labels else []
    rows = []
    for scheme, step, part in steps:
        for similarity in ("spearman", "spearman_absolute", "top5"):
            for method in METHODS:
                verdict = "partly" if method == "gradient_norm" else "follows the network"
                value = 0.7 if verdict == "partly" else 0.1 / step
                if method in STAYING:
                    verdict, value = "stays", 1.0 if part == "head" else 0.6
                row = {"scheme": scheme, "step": step, "part": part, "method": method, "similarity": similarity, "n": n}
                row |= {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "random": 0.05}
                rows.append(row | {"random_low": -0.1, "random_high": 0.2, "verdict": verdict})
    return pd.DataFrame(rows)


def make_words(unseen: bool = True) -> pd.DataFrame:
    """Return words of which the bag of words knows all but `!` and weighs `not` the other way, if `unseen`."""
    rows = []
    for k, label in enumerate(LABELS):
        values = {"happy": 2.0, "grief": -2.0, "not": 0.5, "!": 0.4, "the": 0.01, "table": -0.02}
        for word, value in values.items():
            value, bag = value * (1 - 2 * k), 0.5 * value * (1 - 2 * k)
            if unseen and word in ("not", "!"):
                bag = np.nan if word == "!" else -bag
            row = {"class": label, "word": word, "n": 30, "texts": 25, "value": value, "ci_low": value - 0.1}
            rows.append(row | {"ci_high": value + 0.1, "bag_of_words": bag})
    return pd.DataFrame(rows)


def make_compared(unseen: bool = True, p: float = 0.001) -> pd.DataFrame:
    """Return the comparison of such words with the bag of words."""
    row = {"n": 5, "spearman": 0.9 if p < 0.05 else -0.1, "p": p, "p_corrected": 2 * p, "sure": 4}
    row |= {"seen": 2 if unseen else 4, "other_sign": '["not"]' if unseen else "[]"}
    row |= {"no_weight": '["!"]' if unseen else "[]"}
    return pd.DataFrame([{"class": label, **row} for label in LABELS])


def make_robustness(falls: bool = True) -> pd.DataFrame:
    """Return accuracy that falls from 0.9 to 0.4 without the important words, and to 0.85 without random ones."""
    rows = []
    for label in (*LABELS, "all"):
        for at, k in enumerate((1, 3, 10, 30, 100)):
            value, random = (0.8 - at / 10, 0.89 - at / 100) if falls else (0.9, 0.9)
            row = {"class": label, "k": k, "removal": "hide", "n": 200 if label == "all" else 100}
            row |= {"removed": 0.05 * (at + 1), "whole": 0.9, "value": value, "random": random}
            row |= {"difference": value - random, "ci_low": value - random - 0.03, "ci_high": value - random + 0.03}
            row |= {"hit": 0.2 * (at + 1), "bag_of_words": 0.85 - at / 10, "bag_of_words_whole": 0.88, "words": k}
            rows.append(row | {"short": 0.02 * at})
    return pd.DataFrame(rows)


def make_results(scores: Mapping[str, float]) -> dict[str, pd.DataFrame]:
    """Return all tables that pictures and report take, but those of attributions and completeness."""
    return {
        "faithfulness": make_faithfulness(scores),
        "judged": make_judged(scores, ["shapley"] if scores else []),
        "sanity": make_sanity(),
        "words": make_words(),
        "compared": make_compared(),
        "robustness": make_robustness(),
    }
