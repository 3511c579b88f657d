"""Between classes: a head says at the last token what it says on average in texts of another class.

Pairs of texts show what tells two texts apart. This shows what tells classes apart, without any pair: if a head that
emits the mean of class `to` turns texts that the network reads as `from` towards `to`, the head speaks about these
classes. The control is the same head emitting the mean of `from` itself: what any mean does is taken off.

Letters: N texts, U heads, K classes, and those of the forward pass."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.device import Device
from lab.kept import open_array
from lab.memory import map_texts
from lab.progress import progress_bar
from lab.shares import FEWEST
from lab.stats import resamples, simultaneous_limits
from lab.study import Study
from lab.sweep import Ablation, sweep
from lab.texts import Texts
from model import GPT2Classifier, GPT2Config, Interventions, Trace

from .pairs import last_logits

Floats = NDArray[np.floating]


@torch.inference_mode()
def average_last_outputs(clf: GPT2Classifier, texts: Texts, device: Device) -> Tensor:
    """Return the mean of each head's z at the last token over the texts of each class: (K, L, H, D), NaN for a class
    without texts."""
    config, K = clf.config, len(clf.labels)
    sums = torch.zeros(K, config.n_layer, config.n_head, config.head_width, dtype=torch.float64)

    def record_last(batch: Batch) -> Tensor:
        trace, rows = Trace("z"), torch.arange(len(batch.ids))
        with device.autocast():
            clf.trunk(batch.ids.to(device.device), batch.lengths.to(device.device), trace=trace)
        return torch.stack([z[rows, :, batch.lengths - 1] for z in trace.z], dim=1).cpu().double()  # (B, L, H, D)

    for batch, z in map_texts(record_last, texts.sequences, device, "mean outputs of heads", texts.targets):
        sums.index_add_(0, batch.targets, z)
    counts = torch.from_numpy(np.bincount(texts.targets, minlength=K))
    return (sums / counts[:, None, None, None]).float()


def close_at_last_token(config: GPT2Config) -> list[Ablation]:
    """Return an ablation of each head at the last token, in the order of layers and heads."""

    def close(layer: int, head: int, ids: Tensor, lengths: Tensor) -> Interventions:
        gate = torch.ones(len(ids), config.n_layer, config.n_head, ids.shape[1], device=ids.device)
        gate[torch.arange(len(ids)), layer, head, lengths - 1] = 0
        return {"head_gate": gate}

    heads = [(layer, head) for layer in range(config.n_layer) for head in range(config.n_head)]
    return [Ablation("head", partial(close, layer, head), layer, layer, head) for layer, head in heads]


def measure_between(study: Study, most: int, path: Path, seed: int) -> pd.DataFrame:
    """Return `tabulate_between` of at most so many test texts of each class, as the network predicts them."""
    test = study.texts["test"]
    whole = last_logits(study.clf, test.sequences, study.device)
    chosen = draw_of_each_class(whole.argmax(axis=1), most, seed)
    patched = run_between(study, test.select(chosen), path, seed)
    return tabulate_between(whole[chosen], patched, study.clf.labels, study.clf.config)


def draw_of_each_class(predicted: NDArray[np.integer], most: int, seed: int) -> NDArray[np.integer]:
    """Return the positions of at most so many texts of each class, drawn at random, in their order."""
    order = np.random.default_rng((seed, *b"between classes")).permutation(len(predicted))
    of_each = [order[predicted[order] == k][:most] for k in np.unique(predicted)]
    return np.sort(np.concatenate(of_each))


def run_between(study: Study, texts: Texts, path: Path, seed: int) -> Floats:
    """Return the logits with each head in turn emitting the mean of each class at the last token: (N, U, K means, K),
    NaN for the mean of a class without a text of train.

    They are written to `path` as they come: after an interruption only the rest is computed."""
    clf, device = study.clf, study.device
    ablations, K = close_at_last_token(clf.config), len(clf.labels)
    identity = {**study.identity(texts, study.texts["train"]), "seed": seed}
    logits = open_array(path, identity, (len(texts), len(ablations), K, K), device)
    left = np.flatnonzero(np.isnan(logits).any(axis=(1, 2, 3)))
    means: Iterable[Tensor] = average_last_outputs(clf, study.texts["train"], device) if len(left) else ()
    fills = [partial(emit, mean.nan_to_num()[None, :, :, None]) for mean in means]
    with progress_bar("texts") as bar:
        task = bar.add_task("between classes", total=len(texts), completed=len(texts) - len(left), note="")
        for index, batch_logits in sweep(clf, texts.sequences, ablations, fills, device, left):
            logits[index] = batch_logits
            bar.advance(task, len(index))
    logits.flush()
    measured = np.array(logits)
    measured[:, :, np.bincount(study.texts["train"].targets, minlength=K) == 0] = np.nan
    return measured


def emit(mean: Tensor, batch: Batch) -> Interventions:
    return {"head_fill": mean}


def tabulate_between(whole: Floats, patched: Floats, labels: Sequence[str], config: GPT2Config) -> pd.DataFrame:
    """Return one row per head and two classes: `layer, head, from, to, n, gap, effect, effect_low, effect_high, share,
    switched`.

    The n texts are those that the whole network reads as `from`. effect: by how much the head's emitting the mean of
    `to` instead of the mean of `from` raises the logit of `to` above that of `from`, in nats; with 95 % limits for all
    heads at once, over other texts. share: of the `gap`, the mean lead of `from`. switched: the share of texts that are
    then read as `to`. Texts are chosen by what the network predicts, never by their label."""
    predicted, tables = whole.argmax(axis=1), []
    heads = pd.DataFrame(list(product(range(config.n_layer), range(config.n_head))), columns=["layer", "head"])
    for start, to in permutations(range(len(labels)), 2):
        texts = np.flatnonzero(predicted == start)
        lead = patched[texts][..., to] - patched[texts][..., start]  # (n, U, K means)
        effects = lead[:, :, to] - lead[:, :, start]  # (n, U)
        table = heads.assign(start=labels[start], to=labels[to], n=len(texts)).rename(columns={"start": "from"})
        gap = (whole[texts, start] - whole[texts, to]).mean() if len(texts) else np.nan
        effect = effects.mean(axis=0) if len(texts) else np.full(len(heads), np.nan)
        low, high = limit_means(effects)
        switched = (patched[texts][:, :, to].argmax(-1) == to).mean(axis=0) if len(texts) else np.nan
        switched = np.where(np.isnan(effect), np.nan, switched)  # of NaN, argmax would say the first class
        tables.append(
            table.assign(
                gap=gap, effect=effect, effect_low=low, effect_high=high, share=effect / gap, switched=switched
            )
        )
    return pd.concat(tables, ignore_index=True)


def limit_means(values: Floats) -> tuple[Floats, Floats]:
    """Return simultaneous limits of the means of values (n, U) over n texts, (U,) each; NaN for fewer than FEWEST."""
    if len(values) < FEWEST:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    weights = np.concatenate(list(resamples(len(values))))
    return simultaneous_limits(values.mean(axis=0), weights @ values / len(values), np.array(len(values)))
