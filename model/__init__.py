"""The network, and its checkpoints, masks and tokenizer. Imports nothing else of the project.

The project also takes from it files that appear whole or not at all (`files.py`) and access to the Hugging Face hub
(`hub.py`). It knows one path outside: data/gpt2-mini, the embedded checkpoint (`names.py`).
"""

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
