"""attention.html: where every head looks in a few texts, in one file; and `attend`, the same page in a notebook."""

import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lab.attention import MOST_TOKENS, Recording, list_tokens, pack, record_attention
from lab.output import write_text
from lab.page.bundle import PANEL, STYLE, bundle
from lab.progress import console
from lab.texts import check_pair, name_next_tokens
from lab.units import Head
from model import GPT2LM, GPT2Classifier, InputError, Tokenizer

FOLDER = Path(__file__).parent / "page"
MOST_BYTES = 4_700_000  # of all recordings, so that a page stays below 5 MB
LARGE = 5_000_000  # bytes of a page that a notebook is warned of
NEXT_TOKENS = 8  # how many are shown of a language model
FRAME = 'width="100%" height="780" style="border: 0" sandbox="allow-scripts allow-downloads"'
Predicts = Literal["class", "next token"]


@dataclass(frozen=True, eq=False)
class ShownText:
    """A text of the page, with what a network makes of it."""

    recording: Recording
    text: str
    probabilities: Mapping[str, float]  # by class, or by next token
    predicted: str
    label: str | None = None  # the true one, if it has one
    note: str = ""  # such as "right" or "wrong"


def write_page(path: Path, texts: Sequence[ShownText], about: Sequence[str], predicts: Predicts = "class") -> None:
    """Write `render_page` to a file, whole or not at all, and print how many texts it leaves out."""
    if line := count_left_out(texts, fit_texts(texts)):
        console.print(line)
    write_text(path, render_page(texts, about, predicts))


def render_page(texts: Sequence[ShownText], about: Sequence[str], predicts: Predicts = "class") -> str:
    """Return the page of one or more texts as HTML, below 5 MB unless the first text alone takes more.

    about: lines on run, corpus and weights. Later texts are left out where they do not fit in; the page says how many.
    Raises InputError for a text of more than MOST_TOKENS tokens."""
    for text in texts:
        check_tokens(len(text.recording.tokens), MOST_TOKENS)
    shown = fit_texts(texts)
    rest = MOST_BYTES - sum(count_map_bytes(text.recording) for text in shown)
    packed = []
    for number, text in enumerate(shown):
        heads = fit_neurons(text.recording, rest, partly=number == 0)
        rest -= len(heads) * count_neuron_bytes(text.recording)
        packed.append(describe(text, heads))
    data = {"predicts": predicts, "texts": packed, "left_out": count_left_out(texts, shown), "about": list(about)}
    return bundle(FOLDER / "attend.html", [*PANEL, FOLDER / "attend.js"], [STYLE, FOLDER / "attend.css"], data)


def describe(text: ShownText, neurons: Sequence[Head]) -> dict[str, Any]:
    """Return a text as attend.js takes it, with q and k of these heads."""
    return {
        "text": text.text,
        "label": text.label,
        "predicted": text.predicted,
        "probabilities": list(text.probabilities.items()),
        "note": text.note,
        "look": order_heads(text.recording)[0],
        "recording": pack(text.recording, neurons=neurons),
    }


def fit_texts(texts: Sequence[ShownText]) -> list[ShownText]:
    """Return the first text, and those of the others whose maps fit into the page with those before them."""
    shown: list[ShownText] = []
    size = 0
    for text in texts:
        if not shown or size + count_map_bytes(text.recording) <= MOST_BYTES:
            shown.append(text)
            size += count_map_bytes(text.recording)
    return shown


def count_left_out(texts: Sequence[ShownText], shown: Sequence[ShownText]) -> str:
    """Say how many texts a page leaves out, and how many of these have no label: a user's; nothing where it has all."""
    left = [text for text in texts if text not in shown]
    users = sum(text.label is None for text in left)
    if not left:
        return ""
    line = f"{len(left)} of {len(texts)} texts are left out, as the page would be too large"
    return f"{line}; {users} of them without a label: shorten them, or show them one at a time" if users else line


def fit_neurons(recording: Recording, size: int, partly: bool) -> list[Head]:
    """Return the heads whose q and k fit into `size` bytes: all or none; `partly`: those that look around most."""
    heads = order_heads(recording)
    n = max(size, 0) // count_neuron_bytes(recording)
    return sorted(heads[:n]) if partly or n >= len(heads) else []


def order_heads(recording: Recording) -> list[Head]:
    """Return all heads, those first whose last query attends most to other tokens than the first and itself."""
    T, H = len(recording.tokens), recording.weights.shape[1]
    around = recording.weights[:, :, -1, 1 : T - 1].sum(dim=-1).flatten()
    return [divmod(index, H) for index in around.argsort(descending=True, stable=True).tolist()]


def count_map_bytes(recording: Recording) -> int:
    """Return the bytes that the packed weights and shares of all heads take: four for three in base64."""
    L, H, T, _ = recording.q.shape
    return 2 * L * H * T * (T + 1) // 2 * 4 // 3


def count_neuron_bytes(recording: Recording) -> int:
    """Return the bytes that the packed q and k of one head take."""
    return 2 * recording.q[0, 0].numel() * 4 * 4 // 3 + 8


def check_tokens(n: int, most: int) -> None:
    """Raise InputError for a text without tokens, or with too many to draw."""
    if n == 0:
        raise InputError("text: expected at least one token, got none; write a word")
    if n > most:
        raise InputError(f"text: expected at most {most} tokens, whose heads a page can draw, got {n}; shorten it")


@dataclass(frozen=True, eq=False)
class Page:
    """A page as HTML. A notebook shows it; `save` writes it to a file."""

    content: str

    def _repr_html_(self) -> str:
        # A page of its own inside the notebook's: it cannot reach the notebook, nor the notebook's style it.
        return f'<iframe title="attention" {FRAME} srcdoc="{html.escape(self.content)}"></iframe>'

    def save(self, path: str | Path) -> None:
        """Write the page to a file, whole or not at all."""
        write_text(Path(path), self.content)


def attend(model: GPT2Classifier | GPT2LM, tokenizer: Tokenizer, text: str) -> Page:
    """Return the page of one text, to be the last line of a notebook's cell: where the heads of a network look.

    The network stays as it is, and may lie on any device. A line warns of a page that would bloat the notebook. Raises
    InputError for a text without tokens, or with too many to draw."""
    predicts: Predicts = "class" if isinstance(model, GPT2Classifier) else "next token"
    page = Page(render_page([record_text(model, tokenizer, text)], describe_model(model), predicts))
    if len(page.content) > LARGE:
        size = f"This page adds {len(page.content) / 1e6:.0f} MB to the notebook"
        console.print(f"{size}; to write it to a file instead: attend(...).save('attention.html')")
    return page


def record_text(model: GPT2Classifier | GPT2LM, tokenizer: Tokenizer, text: str, label: str | None = None) -> ShownText:
    """Return a text with its recording and prediction. Raises InputError as `attend` does."""
    check_pair(tokenizer, model.config)
    ids = tokenizer.encode(text)
    check_tokens(len(ids), min(MOST_TOKENS, model.config.n_ctx))
    x = torch.tensor([ids], device=next(model.parameters()).device)
    with evaluating(model), torch.inference_mode():
        recording = record_attention(model.trunk, model.trunk.embed(x), list_tokens(tokenizer.pieces(text)), {})
        logits = model(x) if isinstance(model, GPT2Classifier) else model(x)[:, -1]  # (1, K) or (1, V)
    p = logits[0].cpu().double().softmax(dim=-1)
    if isinstance(model, GPT2Classifier):
        probabilities = dict(zip(model.labels, p.tolist(), strict=True))
    else:
        values, tokens = p[: len(tokenizer)].topk(min(NEXT_TOKENS, len(tokenizer)))
        probabilities = dict(zip(name_next_tokens(tokenizer, tokens.tolist()), values.tolist(), strict=True))
    predicted = max(probabilities, key=lambda name: probabilities[name])
    note = "" if label is None else "right" if label == predicted else "wrong"
    return ShownText(recording, text, probabilities, predicted, label, note)


def describe_model(model: GPT2Classifier | GPT2LM) -> list[str]:
    """Return a line on the shape of a network."""
    config = model.config
    return [f"{config.n_layer} layers of {config.n_head} heads, each {config.head_width} wide"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside, and leave every part of the network in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
