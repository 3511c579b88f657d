"""The language model of a run, opened for prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from model import GPT2LM, InputError, Tokenizer, hub, load_lm
from model.names import WEIGHTS, find

from .device import Device
from .label_words import LabelWords, choose_words
from .prompts import encode_prompts
from .study import Study
from .texts import check_pair


@dataclass(frozen=True, eq=False)
class Prompted:
    """A language model that is asked for classes; it is in eval mode on the device, and nothing in it is trained."""

    name: str
    lm: GPT2LM
    tokenizer: Tokenizer
    words: LabelWords
    device: Device
    weights: str  # SHA-256 of its model.safetensors

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts. Raises InputError as `encode_prompts` does."""
        return encode_prompts(prompts, self.words, self.tokenizer, self.lm.config.n_ctx)


def open_prompted(study: Study, model: str | None, words: Sequence[str]) -> Prompted:
    """Open the language model that a run began with, or its own where it was trained with --head words.

    model: another checkpoint, instead; words: as for `choose_words`. Raises InputError where the run began with random
    weights, which know no words."""
    settings = study.record["settings"]
    own = settings.get("head") == "words"
    if settings["init"] == "random" and not own and not model:
        raise InputError(f"{study.run} began with random weights, which cannot be asked; name a model with --model")
    name = model or (str(study.run) if own else study.record["model"]["name"])
    folder = find(name)
    tokenizer, lm = Tokenizer.load(folder), load_lm(folder)
    check_pair(tokenizer, lm.config)
    lm = lm.to(study.device.device).requires_grad_(False)
    chosen = choose_words(study.clf.labels, words, tokenizer)
    return Prompted(name, lm, tokenizer, chosen, study.device, hub.content_hash(folder / WEIGHTS))
