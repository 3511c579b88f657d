"""Does the prediction fall with the tokens that a method calls important, and stay with them alone?

A rationale is the tokens of largest value for the predicted class. Comprehensiveness is what the prediction loses
without it, sufficiency what it loses when nothing else is left (ERASER: DeYoung et al. 2020). A good method has much of
the first and little of the second. Beside each method stand random rationales of the same sizes, a search that sees
the network (`greedy`), and an explanation of another network, whose weights are random (`random_network`): it shows
how far the structure of a text leads without any knowledge. Each text has another such network, as one draw of the
weights could be lucky or unlucky in all texts of a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lab.kept import read_result, write_result
from lab.progress import progress_bar
from lab.removals import REMOVALS
from lab.study import Study

from .attributions import Floats, leave_one_out
from .choose import OF_USER, Explained
from .judge import Losses, judge_methods, tabulate_losses
from .methods import METHODS, make_keep
from .rationales import (
    DRAWS,
    KINDS,
    SHARES,
    STEPS,
    TOKENS,
    Orders,
    average_draws,
    list_counts,
    mark_rationales,
    measure_losses,
    order_tokens,
    search,
    spread_counts,
)
from .sanity import make_fresh


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """`table`: all measurements; `judged`: one row per method."""

    table: pd.DataFrame
    judged: pd.DataFrame


def measure_faithfulness(study: Study, texts: Sequence[Explained], folder: Path, seed: int) -> Faithfulness:
    """Return how much of the predictions of these texts hangs on their rationales; texts of the user do not count.

    What each text loses is kept in `folder`."""
    texts = [text for text in texts if text.split != OF_USER]
    measured = []
    with progress_bar("texts") as bar:
        task = bar.add_task("faithfulness", total=len(texts), note="")
        for text in texts:
            measured.append(measure_text(study, text, folder, seed))
            bar.advance(task)
    lengths = [len(text.parsed.ids) for text in texts]
    losses = Losses(
        np.stack([spread_counts(losses, n) for losses, n in zip(measured, lengths, strict=True)]),
        np.stack([spread_counts(np.array(list_counts(n), dtype=float), n) for n in lengths]),
        np.array([text.predicted for text in texts]),
    )
    table = tabulate_losses(losses, study.clf.labels)
    return Faithfulness(table, judge_methods(losses))


def measure_text(study: Study, text: Explained, folder: Path, seed: int) -> Floats:
    """Return what a prediction loses, (REMOVALS, METRICS, M + 1, counts): by each method in the order of METHODS, by
    a random network, by the search, and last by the mean random rationale. What is on disk is taken from there."""
    ids, device, counts = text.parsed.ids, study.device, list_counts(len(text.parsed.ids))
    values = [text.explanation.values[method][:, text.predicted] for method in METHODS]
    orders = np.stack([order_tokens(each) for each in values])
    identity = {"weights": study.weights, "ids": ids, "seed": seed, "precision": device.precision}
    identity |= {"class": text.predicted, "orders": orders.tolist(), "settings": [*TOKENS, *SHARES, DRAWS, STEPS]}
    path = folder / f"faithfulness_{text.split}_{text.index}.json"
    if (kept := read_result(path, identity)) is not None:
        return np.array(kept)
    fresh = make_fresh(study.clf, seed, f"faithfulness, {text.name}")
    other = leave_one_out(make_keep(fresh, ids, "fill", device), len(ids))[:, text.predicted]
    random = draw_orders(len(ids), np.random.default_rng((seed, *f"random rationales of {text.name}".encode())))
    losses = []
    for removal in REMOVALS:
        keep, rationales = make_keep(study.clf, ids, removal, device), {}
        for kind in KINDS:
            searched = search(keep, text.predicted, len(ids), max(counts), kind)
            all_orders = np.concatenate([orders, [order_tokens(other), searched], random])
            rationales[kind] = mark_rationales(all_orders, counts)
        measured = measure_losses(keep, text.predicted, rationales)  # (METRICS, M + DRAWS, counts)
        mean = average_draws(measured[:, -DRAWS:])
        losses.append(np.concatenate([measured[:, :-DRAWS], mean[:, None]], axis=1))
    write_result(path, identity, np.stack(losses).tolist())
    return np.stack(losses)


def draw_orders(n_tokens: int, rng: np.random.Generator) -> Orders:
    """Return random orders of the tokens: int (DRAWS, T)."""
    return np.stack([rng.permutation(n_tokens) for _ in range(DRAWS)])
