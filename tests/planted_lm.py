"""A language model of which it is known what prompting has to find: it reads a word of the text, the cue, and expects
the label word of that class, but far more than any of them it expects the first class's. After a label word it expects
the cue of its class."""

import numpy as np
import torch

from lab.device import Device
from lab.label_words import choose_words
from lab.prompted import Prompted
from lab.texts import Texts
from model import GPT2LM, GPT2Config, Tokenizer

LABELS = ("joy", "sadness", "fear")
CUES = ("sun", "rain", "wind")  # of each class; one token each, behind a space
FILLERS = ("the", "day", "was", "long", "and", "we", "saw", "many", "people", "there", "again", "with", "her")
DEVICE = Device(torch.device("cpu"), "fp32")
# Dimensions: a class's cue is read and its words are written; its word is read and its cue written; position; no news.
CUE, WORD, NAME, FOLLOWING, POSITION, CONSTANT = 0, 3, 6, 9, 12, 14
SCALE = 0.4  # of LayerNorm, whose variance the constant dimensions make: 10 and -10 among 32
TOKENIZER = Tokenizer.load("gpt2-mini")


def plant_lm(prior: float = 10.0, effect: float = 3.0) -> GPT2LM:
    """Return the model: a text's last cue adds about `effect` nats to its class's words, `prior` belongs to the first
    class whatever the text is. All other tokens have the logit 0."""
    lm = GPT2LM(GPT2Config(1, 1, 32, n_ctx=256, vocab_size=50257, dropout=0.0, attn_dropout=0.0)).eval()
    for name, parameter in lm.requires_grad_(False).named_parameters():
        parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    trunk, attn = lm.trunk, lm.trunk.h[0].attn
    words = choose_words(LABELS, (), TOKENIZER)
    for k, cue in enumerate(CUES):
        (token,) = TOKENIZER.encode(f" {cue}")
        trunk.wte.weight[token, [CUE + k, FOLLOWING + k]] = 1
        for word in words.ids[k]:
            trunk.wte.weight[word[0], [WORD + k, NAME + k]] = 1
        for n, (read, write) in enumerate(((CUE + k, WORD + k), (NAME + k, FOLLOWING + k))):
            attn.c_attn.weight[1 * 32 + 1, read] = 20  # the key of a cue, or of a label word
            attn.c_attn.weight[2 * 32 + 2 * k + n, read] = 1 / SCALE  # its value
            attn.c_proj.weight[write, 2 * k + n] = effect / SCALE
    trunk.wpe.weight[:, CONSTANT] = 10
    trunk.wpe.weight[:, CONSTANT + 1] = -10
    trunk.wpe.weight[:, POSITION] = torch.arange(256) * 0.01
    trunk.wpe.weight[:, POSITION + 1] = torch.arange(256) * -0.01
    attn.c_attn.bias[0], attn.c_attn.bias[1] = 20, 10  # every query asks for late positions, and for cues
    attn.c_attn.weight[1 * 32, POSITION] = 20
    trunk.ln_f.bias[WORD] = prior
    return lm


def write_texts(split: str, n: int, seed: int = 0) -> Texts:
    """Return n texts of 5 to 10 words, each with the cue of its class; classes take turns."""
    rng = np.random.default_rng((seed, *split.encode()))
    targets, strings = np.arange(n) % len(LABELS), []
    for target in targets:
        words = [*rng.choice(FILLERS, rng.integers(4, 10))]
        words.insert(rng.integers(1, len(words)), CUES[target])
        strings.append(" ".join(words))
    return Texts(split, np.arange(n), strings, [TOKENIZER.encode(text) for text in strings], targets)


def open_planted(lm: GPT2LM | None = None) -> Prompted:
    """Return the model, opened for prompts with our label words."""
    lm = lm or plant_lm()
    return Prompted("planted", lm, TOKENIZER, choose_words(LABELS, (), TOKENIZER), DEVICE, "ab" * 32)
