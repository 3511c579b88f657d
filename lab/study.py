"""A finished run, opened for an experiment: its classifier, its corpus, and the texts to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import Corpus, read_corpus
from data.prompts import TEXT, Template
from model import GPT2Classifier, InputError, Tokenizer
from model.checkpoint import read_config, read_labels
from model.files import read_json
from model.names import find
from model.weights import hash_weights

from . import manifest, runs
from .defaults import ITS_OWN, StudyOptions
from .device import Device
from .fonts import explain_names
from .foreign import describe_foreign, find_checkpoint, is_foreign, write_run
from .progress import console
from .texts import OVERALL, Texts, describe_skipped, describe_texts, read_texts, write_skipped
from .word_head import load_network, read_word_head


@dataclass(frozen=True, eq=False)
class Study:
    """A run under study; the classifier is in eval mode on the device, and nothing in it is trained.

    Of a run of `train.py --head words`, it is the language model, read with label words, and `texts` are its prompts.

    The labels of `corpus` are as its files have them, in the order of the logits; those of `clf` are as tables and
    pictures name them, where `all` is no class."""

    run: Path
    record: dict[str, Any]
    clf: GPT2Classifier
    tokenizer: Tokenizer
    corpus: Corpus
    texts: dict[str, Texts]  # by split
    device: Device
    weights: str  # SHA-256 of its model.safetensors
    has_classifier: bool = True  # False: the score layer was freshly initialised
    template: Template | None = None  # that makes the prompts; None: the network reads the texts as they are

    def fill(self, text: str) -> str:
        """Return what the network reads of a text: the text itself, or its prompt."""
        return self.template.fill(text) if self.template else text

    def find_text(self, texts: Texts) -> list[NDArray[np.bool_]]:
        """Return which tokens of what the network reads are of the text and not of its template: bool (T,) each."""
        behind = len(self.template.prompt.partition(TEXT)[2]) if self.template else 0
        first, masks = len(self.fill("")) - behind, []
        for string, ids in zip(texts.strings, texts.sequences, strict=True):
            last, pieces = len(string) - behind, self.tokenizer.pieces(string)
            of_text = [end > first and start < last for _, start, end in pieces]
            masks.append(np.array(of_text[-len(ids) :], dtype=bool))  # a long text was truncated to its end
        return masks

    def without_template(self) -> "Study":
        """Return the study with the texts as the corpus has them, to put them into other templates."""
        if not self.template:
            return self
        truncate = self.record["settings"]["truncate"]
        texts = read_texts(self.corpus, self.tokenizer, self.clf.config, truncate)
        return replace(self, texts=texts, template=None)

    def draw_texts(self, split: str, limit: int = 0, seed: int = 0) -> Texts:
        """Return `limit` texts of a split, drawn at random; all of them where there are fewer, or for 0."""
        texts = self.texts[split]
        if not 0 < limit < len(texts):
            return texts
        rng = np.random.default_rng((seed, *f"texts of {split}".encode()))
        return texts.select(np.sort(rng.choice(len(texts), limit, replace=False)))

    def majority(self, texts: Texts) -> float:
        """Return the accuracy on these texts of always naming the most frequent class of train."""
        return float((texts.targets == np.bincount(self.texts["train"].targets).argmax()).mean())

    def find_class(self, label: str) -> str:
        """Return what tables and pictures call a class of the corpus. Raises InputError where it has no such class."""
        if label not in self.corpus.labels:
            raise InputError(f"--class {label}: expected one of {', '.join(self.corpus.labels)}")
        return self.clf.labels[self.corpus.labels.index(label)]

    def identity(self, *texts: Texts) -> dict[str, Any]:
        """Return what numbers that are measured on these texts depend on, as JSON."""
        return {
            "weights": self.weights,
            "corpus": sorted(self.corpus.files.values()),
            "classes": list(self.clf.labels),
            "precision": self.device.precision,
            **{f"texts of {each.split}": each.sha256 for each in texts},
        }

    def absent_classes(self, *texts: Texts) -> list[str]:
        """Return a line for each split that has no text of some classes: nothing can be measured for them there."""
        lines = []
        for each in texts:
            absent = [label for k, label in enumerate(self.clf.labels) if k not in each.targets]
            if absent:
                about = f"no {each.split} text has the class {', '.join(absent)}"
                lines.append(f"{about}: nothing can be measured for it on {each.split}, and its cells are empty")
        return lines

    def provenance(self, texts: str, seed: int) -> list[str]:
        """Return the lines of a report that say where its numbers come from; `texts` says how many were taken."""
        files = ", ".join(f"{Path(name).name} {sha256[:12]}" for name, sha256 in self.corpus.files.items())
        revision = f"revision {self.corpus.revision}" if self.corpus.revision else "local files"
        words = ", ".join(self.record["prompt"]["words"].values()) if self.template else ""
        asked = f"the network reads each text in the prompt {self.fill(TEXT)!r} and answers in label words: {words}"
        skipped = [describe_skipped(self.corpus)] if len(self.corpus.skipped) else []
        origin = f"from {self.record['model']['name']} ({self.record['settings']['init']} weights)"
        if is_foreign(self.record):
            origin = (
                f"which is {self.record['model']['name']} as it is, trained elsewhere; it may have learnt these texts"
            )
        return [
            f"run: {self.run}, {origin}",
            f"SHA-256 of the weights: {self.weights}",
            *([asked] if self.template else []),
            f"corpus: {self.corpus.name}, {revision}: {texts} (SHA-256: {files})",
            *skipped,
            *manifest.describe_call(seed, self.device),
            *explain_names(self.clf.labels),
        ]


def open_study(
    run: str,
    device: Device,
    options: StudyOptions = ITS_OWN,
    model: str | None = None,
    *,
    any_network: bool = False,
) -> Study:
    """Open the run of this name, with the corpus it was trained on or another one of the same classes.

    With `model` and a corpus, open that classifier as it is: it becomes a run without a training. any_network: `model`
    alone puts another checkpoint in the place of the run's, and it may lack a classifier: it gets a fresh score layer
    of random weights or, where the run answers in label words, is asked for these in the run's prompts. Raises
    InputError where there is no finished run, or its corpus has changed since."""
    options.check(model)
    if model and not options.corpus and not any_network:
        raise InputError(f"--model {model}: expected a --corpus beside it, of texts that it classifies")
    if model and options.corpus:
        data = read_corpus(options.corpus, options.read)
        folder, record = describe_foreign(run, options, model, data, device)
    else:
        folder, record = read_run(run)
        data = read_study_corpus(folder, record, options)
    checkpoint = find(model) if model else find_checkpoint(folder, record)
    names = options.labels if model or not is_foreign(record) else record["settings"]["labels"]
    labels = match_labels(checkpoint, names, data, can_rename=model is not None)
    study = load_study(folder, record, data, checkpoint, labels, options.truncate, device)
    if not study.has_classifier and not any_network:
        raise InputError(f"{checkpoint}: expected a classifier, got a language model; train it with `make train`")
    device.run_on_first(lambda: write_opened(study, options, model))
    return study


def load_study(
    folder: Path,
    record: dict[str, Any],
    corpus: Corpus,
    checkpoint: Path,
    labels: Sequence[str] | None,
    truncate: bool,
    device: Device,
) -> Study:
    """Load the network and tokenise the texts; nothing is written. labels: as `match_labels` returns them."""
    settings = record["settings"] | {"truncate": record["settings"]["truncate"] or truncate}
    tokenizer = Tokenizer.load(checkpoint)
    head = read_word_head(record, tokenizer)
    of_logits = head.words.labels if head else labels
    corpus = replace(corpus, labels=tuple(of_logits or corpus.labels))  # in the order of the logits
    template = head.template if head else None
    texts = read_texts(corpus, tokenizer, read_config(checkpoint), settings["truncate"], template)
    describe_texts(corpus, texts)
    clf = load_network(checkpoint, head, corpus.labels, labels or ()).to(device.device).eval().requires_grad_(False)
    clf.labels = rename_overall(corpus.labels)
    record, weights = record | {"settings": settings}, hash_weights(checkpoint)
    return Study(folder, record, clf, tokenizer, corpus, texts, device, weights, of_logits is not None, template)


def write_opened(study: Study, options: StudyOptions, model: str | None) -> None:
    """Write the manifest of a model of others, where it is new, and the rows that were skipped of another corpus."""
    if model and options.corpus:
        write_run(study.run, study.record, study.corpus)
    elif options.corpus:
        console.print(f"{study.run}: results on {study.corpus.name} replace those that are there", soft_wrap=True)
        write_skipped(study.corpus, study.run / f"skipped_{study.corpus.name.replace('/', '_')}.csv")


def read_study_corpus(folder: Path, record: dict[str, Any], options: StudyOptions) -> Corpus:
    """Read the corpus that is studied. Raises InputError where it is the run's and has changed since the training."""
    settings = record["settings"]
    split_seed = settings.get("split_seed", settings["seed"])  # one seed did both in earlier runs
    if options.corpus:
        return read_corpus(options.corpus, options.read, split_seed)
    # Where it is as it was, the training skipped the bad rows, or there were none.
    reading = replace(manifest.restore_reading(settings), skip_bad_rows=True)
    data = read_corpus(settings["corpus"], reading, split_seed)
    if sorted(data.files.values()) != sorted(record["corpus"]["sha256"].values()):
        raise InputError(f"{data.name} is no longer what {folder} was trained on; give the former one with --corpus")
    # An earlier version read some files otherwise.
    if manifest.describe_corpus(data)["texts"] != record["corpus"]["texts"]:
        raise InputError(f"{data.name} is read otherwise than when {folder} was trained on it; train it anew")
    return data


def match_labels(checkpoint: Path, names: Sequence[str], corpus: Corpus, can_rename: bool) -> tuple[str, ...] | None:
    """Return the classes of a checkpoint in its order, as the corpus calls them; None without a classifier.

    names: what they are called in the place of the checkpoint's own names. can_rename: does the command at hand take
    --labels? Raises InputError where the corpus has other classes."""
    stored = read_labels(checkpoint) or ()
    if names and not stored:
        raise InputError(f"--labels: {checkpoint} has no classifier, whose classes these would be; leave it out")
    labels = tuple(names) or stored
    if not stored or (len(labels) == len(stored) and set(corpus.labels) == set(labels)):
        return labels or None
    if names and can_rename:
        expected = f"expected {', '.join(corpus.labels)}, each once, in the order in which {checkpoint} has"
        raise InputError(f"--labels {' '.join(names)}: {expected} {', '.join(stored)}")
    difference = f"expected the classes {', '.join(labels)}, got {', '.join(corpus.labels)}"
    way_out = f"; if they mean the same, say with --labels what {stored[0]} is called, and so on" if can_rename else ""
    raise InputError(f"{corpus.name}: {difference}{way_out}")


def read_run(name: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the manifest of a finished run. Raises InputError where there is none."""
    folder = runs.find_run(name)
    record = read_json(folder / "run.json")
    if record.get("status") not in ("finished", "interrupted") or "settings" not in record:
        raise InputError(f"{folder}: expected a finished run of train.py; make one with `make train`")
    return folder, record


def rename_overall(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels, with another name for a class called `all`, which stands for all texts in tables; say so."""
    if OVERALL not in labels:
        return tuple(labels)
    name = f"{OVERALL} (class)"
    while name in labels:
        name += " (class)"
    console.print(f"The class {OVERALL!r} is called {name!r} below: {OVERALL!r} stands for all texts.")
    return tuple(name if label == OVERALL else label for label in labels)
