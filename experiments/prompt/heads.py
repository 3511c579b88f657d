"""Which heads does a prompt need, and are they the heads that the classifier needs?

Each head is closed in turn, behind the prompts of the texts and behind inputs without content, so that each correction
takes out the label prior of the network without this head: else a head that only favours a class would seem to read the
text. The same is done to the run's classifier, on the same texts without a prompt.

Letters: U heads, N texts, K classes, S resamples of the texts. The unit 0 is the network as it is."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import rankdata

from lab.compared import Compared, measure_networks, name_units
from lab.effects import read_logits
from lab.progress import console, forecast
from lab.prompted import DOMAIN, REFERENCE, Prompted, make_prompt_study
from lab.shares import measure_margins
from lab.stats import resamples
from lab.study import Study
from lab.sweep import BASELINE
from lab.sweeps import Plan, Sweeps
from lab.texts import OVERALL, Texts
from lab.units import each_head
from model import GPT2Config

from .priors import CONTENT_FREE, average_probabilities, average_texts
from .scoring import Setting

TEXTS = 150  # at most, of val and of test
CLASSIFIER = "classifier"  # stands in the column `correction` of the run's own classifier
HALVES = 200  # random halves of the texts
PERMUTATIONS = 9_999  # of the heads
SPLITS = ("val", "test")
COLUMNS = ["correction", "class", "n_heads", "spearman", "ci_low", "ci_high", "p"]  # of the correlations
COLUMNS += ["reliability_prompt", "reliability_classifier"]
NOTHING, RANDOM_WORDS = "content_free", "contexts"  # names of inputs without content
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Heads:
    """What each head does to the answers, and how alike the heads of prompt and classifier are.

    effects: the columns of ablate's effects.csv without p-values, kind `head` and fill `mean`, then `correction` and
    `template`; the rows of the run's classifier have CLASSIFIER and an empty template.
    correlations: `correction, class, n_heads, spearman, ci_low, ci_high, p, reliability_prompt,
    reliability_classifier`, of test; see `correlate`."""

    effects: pd.DataFrame
    correlations: pd.DataFrame


def measure_heads(
    study: Study,
    prompted: Prompted,
    setting: Setting,
    texts: Mapping[str, Texts],
    contexts: Sequence[str],
    folder: Path,
    seed: int,
) -> Heads:
    """Close each head of the language model behind the prompts of a setting, and each of the run's classifier.

    texts: texts of val and test as the corpus has them, of which TEXTS each are taken; contexts: texts of random words;
    folder: keeps the logits. The classifier reads the texts as it was trained to. A closed head emits its mean over
    REFERENCE texts of train, in the same form. Heads of networks of different shapes are not correlated. Raises
    InputError for label words of several tokens."""
    bare = study.without_template()
    bare = replace(bare, texts={**texts, "train": bare.draw_texts("train", REFERENCE, seed)})
    run = replace(study, texts={split: study.texts[split].select(each.positions) for split, each in bare.texts.items()})
    neutral = {NOTHING: CONTENT_FREE, RANDOM_WORDS: contexts}
    asked = make_prompt_study(bare, prompted, setting.template, setting.demonstrations, seed, neutral)
    without_content = (DOMAIN, *neutral)
    answers = correct_heads(close_heads(asked, f"heads-{setting.name}", (*SPLITS, *without_content), folder, seed))
    classified = close_heads(run, f"heads-{CLASSIFIER}", SPLITS, folder, seed)
    targets = {split: bare.draw_texts(split, TEXTS, seed).targets for split in SPLITS}
    tabulate = partial(tabulate_effects, targets=targets, labels=study.clf.labels)
    with console.status("effects of heads, and their correlations"):
        config, of_run = prompted.lm.config, study.clf.config
        tables = [
            tabulate(networks, config).assign(correction=name, template=setting.template.name)
            for name, networks in answers.items()
        ]
        tables.append(tabulate(classified, of_run).assign(correction=CLASSIFIER, template=""))
        correlations = pd.DataFrame(columns=COLUMNS)
        if (config.n_layer, config.n_head) == (of_run.n_layer, of_run.n_head):
            correlations = correlate_answers(answers, classified, targets["test"], study.clf.labels, seed)
    return Heads(pd.concat(tables, ignore_index=True), correlations)


def correlate_answers(
    answers: Mapping[str, Mapping[str, Floats]],
    classified: Mapping[str, Floats],
    targets: Ints,
    labels: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Return the rows of correlations.csv: effects on the answers beside those on the classifier, by correction."""

    def read(networks: Mapping[str, Floats]) -> Floats:
        return read_logits(networks["test"]).log_odds

    rows = [
        correlate(read(networks), read(classified), targets, labels, seed).assign(correction=name)
        for name, networks in answers.items()
    ]
    return pd.concat(rows, ignore_index=True)[COLUMNS]


def tabulate_effects(
    networks: Mapping[str, Floats], config: GPT2Config, targets: Mapping[str, Ints], labels: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of effects.csv of the heads of a network; networks: by split, (1 + U, N, 1, K), see above."""
    compared = {split: Compared(networks[split][0, :, 0], networks[split][1:], targets[split]) for split in SPLITS}
    effects, heads = measure_networks(compared, labels, test=False), each_head(config)
    named = pd.concat(name_units(effects[split], heads, "mean", split) for split in SPLITS)
    return named.fillna({"verdict": ""})


def close_heads(study: Study, name: str, splits: Sequence[str], folder: Path, seed: int) -> dict[str, Floats]:
    """Return the logits (1 + U, N, 1, K) of the network as it is, and with each head closed, by split."""
    sweeps = Sweeps(study, folder, TEXTS, seed)
    ablations = [BASELINE, *each_head(study.clf.config)]
    plan = Plan(name, "mean", dict.fromkeys(splits, ablations))
    take = f"{name}: {len(ablations):,} ablations of each text take"
    console.print(forecast(take, sweeps.work([plan]), sweeps.rate(), study.device))
    logits = sweeps.run([plan])
    return {split: np.moveaxis(logits[name, "mean", split], 0, 1).astype(np.float64) for split in splits}


def correct_heads(logits: Mapping[str, Floats]) -> dict[str, dict[str, Floats]]:
    """Return the log-probabilities of val and test without b, by correction and split: (1 + U, N, 1, K) each.

    logits: of val and test, and of inputs without content. The b (K,) of each unit is that of the network without it.
    """
    log_probs = {name: log_softmax(values, axis=-1) for name, values in logits.items()}

    def average(name: str, rule: Callable[[Any], Any]) -> Floats:
        return np.stack([rule(unit[:, 0]) for unit in log_probs[name]])[:, None, None]  # (1 + U, 1, 1, K)

    priors = {
        "direct": np.zeros(1),
        "contextual": average(NOTHING, average_probabilities),
        "domain_pmi": average(DOMAIN, average_probabilities),
        "domain_context": average(RANDOM_WORDS, average_probabilities),
        "batch": average("val", average_texts),
    }
    return {name: {split: log_probs[split] - b for split in SPLITS} for name, b in priors.items()}


def correlate(prompt: Floats, classifier: Floats, targets: Ints, labels: Sequence[str], seed: int) -> pd.DataFrame:
    """Return whether two networks rank their heads alike: `class, n_heads, spearman, ci_low, ci_high, p,
    reliability_prompt, reliability_classifier`, one row for all classes and one for each.

    prompt, classifier: log-odds of each class (1 + U, N, K) on the same texts; targets: (N,). Spearman's correlation of
    the effects on the specific margin of the class (`measure_margins`); class `all`: the mean over classes. (Absolute
    effects would correlate in any two networks in which the same heads move most, whatever they read.)

    The limits lie 1.96 standard deviations of the bootstrap over texts away, in Fisher's z; both networks share each
    resample. Percentiles would lie too low: effects of resamples are noisier, so their ranks agree less. p: the share
    of PERMUTATIONS of the heads with a correlation as far from 0. NaN where a class has no text.

    Noise lowers a correlation. How much it may is in the reliabilities: what effects on one random half of the texts
    say of those on the other half (Spearman and Brown 1910, for all texts), 0 where nothing. Two networks with the same
    heads would reach about the root of their product."""

    def rank(network: Floats, weights: Floats) -> Floats:
        return rank_heads(measure_head_effects(network, targets, weights))

    whole = np.ones((1, len(targets)))
    ranks = rank(prompt, whole), rank(classifier, whole)
    spearman, draws = correlate_ranks(*ranks)[0], resamples(len(targets))
    drawn = to_z(np.concatenate([correlate_ranks(rank(prompt, each), rank(classifier, each)) for each in draws]))
    z, reach = to_z(spearman), 1.96 * np.sqrt(average_defined((drawn - average_defined(drawn)) ** 2))
    columns = {
        "class": [OVERALL, *labels],
        "n_heads": len(prompt) - 1,
        "spearman": spearman,
        "ci_low": np.tanh(z - reach),
        "ci_high": np.tanh(z + reach),
        "p": permute_heads(*ranks, seed),
        "reliability_prompt": measure_reliability(prompt, targets, seed),
        "reliability_classifier": measure_reliability(classifier, targets, seed),
    }
    return pd.DataFrame(columns)


def measure_head_effects(log_odds: Floats, targets: Ints, weights: Floats) -> Floats:
    """Return what closing each head does to the specific margins: (S, U, K).

    log_odds: (1 + U, N, K); weights: (S, N), how often each text counts."""
    margins = measure_margins(log_odds, targets, weights)
    return np.asarray(margins[:, 1:] - margins[:, :1])


def average_defined(values: Floats) -> Floats:
    """Return the mean over the first axis, of what is not NaN; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))


def rank_heads(effects: Floats) -> Floats:
    """Return the ranks of U heads around 0, for each resample and class: (S, U, K)."""
    return np.asarray(rankdata(effects, axis=1) - (effects.shape[1] + 1) / 2)


def correlate_ranks(one: Floats, other: Floats) -> Floats:
    """Return Spearman's correlation over the heads, (S, U, K) -> (S, 1 + K), the mean over the classes first.

    NaN where all heads are alike."""
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        by_class = (one * other).sum(axis=1) / spread
    return np.column_stack([average_defined(by_class.T), by_class])


def to_z(correlation: Floats) -> Floats:
    """Return Fisher's z of correlations; it is finite also for 1."""
    return np.asarray(np.arctanh(np.clip(correlation, -0.9999, 0.9999)))


def permute_heads(one: Floats, other: Floats, seed: int) -> Floats:
    """Return the two-sided p of `correlate_ranks` (1, U, K): (1 + K,), NaN where that is."""
    rng, true = np.random.default_rng((seed, *b"permuted heads")), correlate_ranks(one, other)[0]
    extreme = np.zeros(len(true))
    for _ in range(PERMUTATIONS):
        permuted = correlate_ranks(one, other[:, rng.permutation(one.shape[1])])[0]
        extreme += np.abs(permuted) >= np.abs(true) - 1e-9  # or rounding decides between equals
    return np.where(np.isnan(true), np.nan, (1 + extreme) / (1 + PERMUTATIONS))


def measure_reliability(log_odds: Floats, targets: Ints, seed: int) -> Floats:
    """Return how well effects on N texts are known: (1 + K,), NaN for a class of fewer than 2 texts.

    It follows from HALVES random halves, with as many texts of each class, or one more."""
    rng, order = np.random.default_rng((seed, *b"halves of the texts")), np.empty((HALVES, len(targets)))
    for k in np.unique(targets):
        n = (targets == k).sum()
        order[:, targets == k] = rng.permuted(np.tile(np.arange(n), (HALVES, 1)), axis=1)
    first = order % 2
    halves = (rank_heads(measure_head_effects(log_odds, targets, weights)) for weights in (first, 1 - first))
    half = average_defined(correlate_ranks(*halves)).clip(0)
    return np.asarray(2 * half / (1 + half))
