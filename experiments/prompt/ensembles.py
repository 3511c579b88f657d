"""Ensembles of prompts, fixed beforehand: all templates without examples, and all draws of a template's examples."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .scoring import Answers


def add_ensembles(answers: Sequence[Answers]) -> list[Answers]:
    """Return these answers, and behind them those of each ensemble, by verbalizer, correction and split.

    Its members are the templates without examples (its template is `all`), or the draws of a number of examples in
    their first order (its draw is `all`). Other orders and nearest examples are no members, and one is no ensemble."""
    ensembles: dict[tuple[object, ...], dict[str, Answers]] = {}
    for each in answers:
        about = each.verbalizer, each.correction, each.split, each.shots
        if not each.shots:
            ensembles.setdefault((*about, "all"), {})[each.template] = each
        elif each.draw.isdigit():
            ensembles.setdefault((*about, each.template), {})[each.draw] = each
    several = [list(members.values()) for members in ensembles.values() if len(members) > 1]
    return [*answers, *map(average_answers, several)]


def average_answers(members: Sequence[Answers]) -> Answers:
    """Return the answers of an ensemble: the mean of the log-probabilities that its members correct each by its own
    prior (a product of experts). Corrections subtract, so it is that of the means."""
    log_probs, b = np.mean([each.log_probs for each in members], axis=0), np.mean([each.b for each in members], axis=0)
    ensemble = replace(members[0], order="", last_class="", log_probs=log_probs, b=b)
    return replace(ensemble, draw="all") if ensemble.shots else replace(ensemble, template="all")
