"""What is explored: a classifier of a run, or a language model, and the texts that fill what is switched off."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data import Batch, ReadOptions, read_corpus
from lab import fills
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device
from lab.foreign import is_foreign
from lab.predict import predict
from lab.study import open_study
from lab.sweep import Fill
from lab.texts import Texts, read_texts
from model import GPT2LM, GPT2Classifier, Interventions, Tokenizer, load_lm
from model.names import find
from model.weights import hash_weights

DONORS = 512  # training texts that means are taken of, and whose outputs are resampled
EXAMPLES = 400  # test texts among which examples are chosen
EXAMPLE_TOKENS = 24  # of the longest example
CLOSE_CALLS = "Close calls: of each class, the test texts nearest to another prediction"
PROMPTS = (
    "When Mary and John went to the store, John gave a drink to",
    "The capital of France is Paris. The capital of Germany is",
    "I did not like the film at all. It was",
)
FillName = Literal["zero", "mean", "resample", "class_mean", "text"]
FILLS: dict[FillName, str] = {
    "zero": "nothing",
    "mean": f"its mean over {DONORS} training texts",
    "resample": f"what it made of other texts, {fills.DRAWS} in turn",
    "class_mean": f"its mean over those of {DONORS} training texts that have other classes than the predicted one",
    "text": "what it made of a text of yours",
}
Example = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode on its device, fp32, and the texts around it."""

    name: str  # of the run or the model
    source: str | None  # the folder or the name of its checkpoint; None: only `call` knows how to read the classes
    model: GPT2Classifier | GPT2LM
    tokenizer: Tokenizer
    device: Device
    donors: Texts
    examples: Sequence[Example]
    corpus: str
    weights: str  # SHA-256 of its weights
    run: Path | None = None
    prompt: str = ""  # with {text}, of a run of train.py --head words: what all texts here have to look like
    options: StudyOptions = ITS_OWN  # with which the run is opened again

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes; none of a language model."""
        return self.model.labels if isinstance(self.model, GPT2Classifier) else ()

    @property
    def call(self) -> str:
        """The Python call that opens it again."""
        if not self.labels:
            return f"open_language_model({self.source!r})"
        options = "" if self.options == ITS_OWN else f", options={write_options(self.options)}"
        return f"open_run({self.name!r}{options})"

    @property
    def fill_names(self) -> tuple[FillName, ...]:
        return tuple(name for name in FILLS if name != "class_mean" or self.labels)

    @cached_property
    def means(self) -> fills.Means:
        targets = self.donors.targets if self.labels else np.zeros(len(self.donors), dtype=np.int64)
        return fills.measure_means(self.model, self.donors.sequences, targets, self.device)

    def read(self, x: Tensor) -> Tensor:
        """Map the normed stream at one position of each row, (B, 1, C), to logits: (B, K), or (B, V) of next tokens."""
        logits = self.model.read(x)
        return logits if isinstance(self.model, GPT2Classifier) else logits[:, 0]

    @torch.inference_mode()
    def compute_fills(self, name: FillName, ids: Sequence[int], other: Sequence[int] = ()) -> list[Interventions]:
        """Return what switched-off parts emit on the text of these token ids: one `head_fill` and `mlp_fill` for each
        draw. There are several draws for `resample`, whose probabilities are averaged, and one for any other fill.

        other: token ids of the text whose outputs are taken, for `text`."""
        batch = Batch(torch.tensor([ids]), torch.tensor([len(ids)]), torch.tensor([0]), torch.tensor([0]))
        draws = [fill(batch) for fill in self._choose_fills(name, ids, other)]
        return [{key: value.to(self.device.device) for key, value in draw.items()} for draw in draws]  # type: ignore

    def _choose_fills(self, name: FillName, ids: Sequence[int], other: Sequence[int]) -> list[Fill]:
        if name == "zero":
            return [lambda batch: {}]
        if name == "mean":
            return [fills.mean(self.means)]
        if name == "class_mean":
            return [fills.class_mean(self.means, self._predict(ids))]
        if name == "resample":
            return fills.resample(self.model, [list(ids)], self.donors.sequences, self.device, 0)
        return [partial(fills.emit_donors, self.model, [list(other)], np.array([0]), self.device)]

    def _predict(self, ids: Sequence[int]) -> NDArray[np.integer]:
        return self.model(torch.tensor([ids], device=self.device.device)).argmax(dim=1).cpu().numpy()


def open_run(
    run: str = "latest", device: Device | None = None, options: StudyOptions = ITS_OWN, model: str | None = None
) -> Subject:
    """Open the network of a run of train.py or, with a corpus in `options`, a classifier of others as it is.

    Raises InputError where there is none."""
    device = device or Device.choose("auto", "fp32")
    study = open_study(run, device, options, model)
    donors, candidates = study.draw_texts("train", DONORS), study.draw_texts("test", EXAMPLES)
    examples = choose_examples(study.clf, candidates, device)
    is_plain = not is_foreign(study.record) and not study.template  # what `load_classifier` reads from its folder
    return Subject(
        study.run.name,
        str(study.run) if is_plain else None,
        study.clf,
        study.tokenizer,
        device,
        donors,
        examples,
        study.corpus.name,
        study.weights,
        study.run,
        study.template.prompt if study.template else "",
        ITS_OWN if model else options,  # the run of a model of others keeps its options
    )


def open_language_model(model: str, device: Device | None = None) -> Subject:
    """Open a language model, to explore its next tokens; the embedded corpus gives the texts around it.

    Raises InputError where there is no such model."""
    device = device or Device.choose("auto", "fp32")
    checkpoint = find(model)
    lm, tokenizer = load_lm(checkpoint), Tokenizer.load(checkpoint)
    lm = lm.to(device.device).eval().requires_grad_(False)
    corpus = read_corpus("sample")
    train = read_texts(corpus, tokenizer, lm.config, truncate=True)["train"]
    donors = train.select(np.arange(min(DONORS, len(train))))
    examples = [{"text": text, "label": None, "predicted": None} for text in PROMPTS]
    weights = hash_weights(checkpoint)
    return Subject(Path(model).name, model, lm, tokenizer, device, donors, examples, corpus.name, weights)


def write_options(options: StudyOptions | ReadOptions) -> str:
    """Return the Python that makes these options, without what is as by default."""
    arguments = []
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            written = write_options(value) if isinstance(value, ReadOptions) else repr(value)
            arguments.append(f"{field.name}={written}")
    return f"{type(options).__name__}({', '.join(arguments)})"


def choose_examples(clf: GPT2Classifier, texts: Texts, device: Device) -> list[Example]:
    """Return for each class a text that is classified right and one that is not, where there are such: of those with at
    most EXAMPLE_TOKENS tokens the ones closest to another prediction, which a single switch may turn.

    Those classified right come first, the closest of all first: the page starts with it."""
    short = texts.select(np.flatnonzero([len(ids) <= EXAMPLE_TOKENS for ids in texts.sequences]))
    if not len(short):
        return []
    probabilities = predict(clf, short.sequences, device)
    top = np.sort(probabilities, axis=1)
    order, predicted = np.argsort(top[:, -1] - top[:, -2]), probabilities.argmax(axis=1)
    chosen: list[int] = []
    for is_right in (True, False):
        nearest: dict[int, int] = {}  # by class
        for i in order:
            if (predicted[i] == short.targets[i]) == is_right:
                nearest.setdefault(int(short.targets[i]), int(i))
        chosen += nearest.values()
    return [
        {"text": short.strings[i], "label": clf.labels[short.targets[i]], "predicted": clf.labels[predicted[i]]}
        for i in chosen
    ]
