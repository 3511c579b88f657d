"""Small networks and texts, opened for embed.py."""

from pathlib import Path
from types import SimpleNamespace

import torch

from experiments.embed.spaces import Spaces
from lab.device import Device
from lab.study import Study
from lab.texts import Texts
from model import GPT2Classifier, Tokenizer
from model.names import EMBEDDED


def open_spaces(folder: Path, clf: GPT2Classifier, texts: dict[str, Texts]) -> Spaces:
    """Return the spaces of a classifier that began with random weights, so that there are two networks."""
    record = {"settings": {"init": "random"}, "model": {}}
    corpus, device = SimpleNamespace(files={}), Device(torch.device("cpu"), "fp32")
    study = Study(folder, record, clf.eval(), Tokenizer.load(EMBEDDED), corpus, texts, device, "0123")
    return Spaces(study, folder, 0, 0)
