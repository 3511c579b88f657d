"""What is studied: a network, and pairs of texts that it tells apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from lab import manifest, runs
from lab.device import Device
from lab.kept import Identity
from lab.study import Study
from model import GPT2LM, GPT2Classifier, GPT2Config, InputError, Tokenizer, load_lm
from model.names import find
from model.weights import hash_weights

from .pairs import Answers, Pair, check_texts, pair_ioi_prompts, pair_prompts, pair_test_texts, pair_texts

EXAMPLES = 6  # pairs of which there is a picture


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode on its device, and the pairs of texts to patch between."""

    run: Path  # results land in its folder `patch`
    model: GPT2Classifier | GPT2LM
    tokenizer: Tokenizer
    pairs: Sequence[Pair]
    table: pd.DataFrame  # pairs.csv
    device: Device
    identity: Identity  # what all results depend on: weights, seed, precision
    about: Sequence[str]  # lines of the report that say where its numbers come from
    study: Study | None = None  # of a classifier

    @property
    def config(self) -> GPT2Config:
        return self.model.config

    @property
    def folder(self) -> Path:
        """Where results are kept for the next call."""
        return self.run / "patch" / "results"

    @property
    def title(self) -> str:
        return (
            f"run {self.run.name}: {len(self.pairs)} pairs of texts" if len(self.pairs) > 1 else f"run {self.run.name}"
        )

    @cached_property
    def tokens(self) -> dict[int, list[str]]:
        """The tokens of the clean text of each pair, by its number."""
        return {pair.number: [self.tokenizer.decode([i]) for i in pair.clean_ids] for pair in self.pairs}

    def choose_examples(self) -> list[Pair]:
        """Return the first pair of each clean answer, at most EXAMPLES."""
        first = {pair.names[0]: pair for pair in reversed(self.pairs)}
        return sorted(first.values(), key=lambda pair: pair.number)[:EXAMPLES]


def open_classifier(
    study: Study,
    seed: int,
    *,
    most: int,
    clean: str | None,
    corrupt: str | None,
    answers: Answers | None,
) -> Subject:
    """Pair the test texts of a study (at most `most` pairs), or the two texts of the user."""
    check_texts(clean, corrupt, answers)
    if clean is not None and corrupt is not None:
        pairs, table = pair_texts(study, clean, corrupt, answers)
        about = study.provenance("none of its texts, but two from the command line", seed)
    else:
        pairs, table = pair_test_texts(study, most, seed)
        about = study.provenance(f"{len(pairs)} pairs, each a text of test and the same with another word", seed)
    identity = {
        "weights": study.weights,
        "seed": seed,
        "precision": study.device.precision,
        "shape": study.clf.config.describe(),
    }
    return Subject(study.run, study.clf, study.tokenizer, pairs, table, study.device, identity, about, study)


def open_language_model(
    model: str,
    run: str | None,
    device: Device,
    seed: int,
    *,
    clean: str | None,
    corrupt: str | None,
    answers: Answers | None,
) -> Subject:
    """Open a language model, and pair IOI prompts or the two texts of the user. `run` names its folder in runs/, None:
    the model's name. Raises InputError where that is the folder of a training."""
    check_texts(clean, corrupt, answers)
    checkpoint = find(model)
    lm, tokenizer = load_lm(checkpoint), Tokenizer.load(checkpoint)
    lm = lm.to(device.device).eval().requires_grad_(False)
    if clean is not None and corrupt is not None:
        pairs, table = pair_prompts(lm, tokenizer, clean, corrupt, answers, device)
    else:
        pairs, table = pair_ioi_prompts(lm, tokenizer, device)
    name = run or Path(model).resolve().name
    runs.check_name(name)
    folder = runs.RUNS / name
    if (folder / "run.json").exists():
        raise InputError(
            f"{folder}: expected a free name or a folder of make patch, got a run; name another with --run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    weights = hash_weights(checkpoint)
    identity = {"weights": weights, "seed": seed, "precision": device.precision, "shape": lm.config.describe()}
    about = [
        f"language model: {model}",
        f"SHA-256 of the weights: {weights}",
        "each text comes after `<|endoftext|>`",
        *manifest.describe_call(seed, device),
    ]
    return Subject(folder, lm, tokenizer, pairs, table, device, identity, about)
