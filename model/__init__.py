"""The network, and its checkpoints, masks and tokenizer. Imports nothing else of the project."""

from . import masks
from .checkpoint import load_classifier, load_lm, save
from .config import GPT2Config, InputError
from .gpt2 import GPT2, Trace
from .interventions import Intervention, Interventions
from .readout import GPT2LM, GPT2Classifier
from .tokenizer import Tokenizer

__all__ = [
    "GPT2",
    "GPT2LM",
    "GPT2Classifier",
    "GPT2Config",
    "InputError",
    "Intervention",
    "Interventions",
    "Tokenizer",
    "Trace",
    "load_classifier",
    "load_lm",
    "masks",
    "save",
]
