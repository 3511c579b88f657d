"""Pairs of texts to patch between: test texts with a word replaced, IOI prompts for language models, or any two texts.

Patching goes position by position, so both texts of a pair have as many tokens. Each function `pair_...` returns the
pairs that are kept, and pairs.csv, the table of all candidates: see `tabulate`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, product, zip_longest

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from torch import Tensor

from data.batches import Batch
from data.words import label_words, words
from lab.device import Device
from lab.memory import map_texts
from lab.progress import console
from lab.study import Study
from model import GPT2LM, GPT2Classifier, InputError, Tokenizer
from model.config import END_OF_TEXT

GAP = 0.5  # nats: effects are divided by the gap, and a small one makes large numbers of nothing
BOS = 50256  # <|endoftext|>, put before the text by hand: the tokenizer never makes it from text
IOI = (  # one of two people gives, the other one comes next: indirect object identification (Wang et al. 2022)
    ("When John and Mary went to the shops, {} gave the bag to", "John", "Mary"),
    ("When Tom and James went to the park, {} gave the ball to", "James", "Tom"),
    ("When Dan and Sid went to the shops, {} gave an apple to", "Sid", "Dan"),
    ("After Martin and Amy went to the park, {} gave a drink to", "Amy", "Martin"),
)
PASS_TEXTS = 'pass two texts with --clean "..." --corrupt "..."'
Answers = tuple[str, str]  # of the clean and the corrupt text


@dataclass(frozen=True)
class Pair:
    """Two texts of T tokens that differ, and the two answers whose logits are compared: classes, or next tokens."""

    number: int  # its row in pairs.csv
    split: str  # "test"; "" for texts from outside the corpus
    clean: str
    corrupt: str
    clean_ids: list[int]  # T tokens
    corrupt_ids: list[int]  # T tokens
    answers: tuple[int, int]  # what the clean text asks for, and the corrupt one: numbers of classes, or token ids
    names: Answers  # what tables call these answers

    @property
    def positions(self) -> list[int]:
        """The positions at which the two texts differ."""
        return find_differences(self.clean_ids, self.corrupt_ids)


def pair_test_texts(study: Study, most: int, seed: int) -> tuple[list[Pair], pd.DataFrame]:
    """Pair test texts with copies in which a word of their class is one of another class; keep at most `most` pairs.

    Kept are pairs of which the network reads both texts right, with a gap of at least GAP. Raises InputError where
    there is none."""
    pairs, labels, advice = replace_words(study), study.clf.labels, f"{PASS_TEXTS}, or another --corpus"
    if not pairs:
        lists = "; ".join(f"{label}: {' '.join(label_words(label)[:3])} ..." for label in study.corpus.labels)
        expected = "expected test texts with a word of their class, and one as long, in tokens, of another class"
        raise InputError(f"{study.corpus.name}: {expected} ({lists}), got none; {advice}")
    logits = read_pairs(study.clf, pairs, study.device)
    differences = compare_answers(logits, pairs)
    read = [(labels[clean], labels[corrupt]) for clean, corrupt in logits.argmax(axis=2)]
    why = judge(pairs, differences, read, "is read as", advice)
    for number, reason in choose_balanced([pair for pair in pairs if not why[pair.number]], most, seed).items():
        why[number] = reason
    return tabulate(pairs, differences, why)


def pair_ioi_prompts(lm: GPT2LM, tokenizer: Tokenizer, device: Device) -> tuple[list[Pair], pd.DataFrame]:
    """Pair each of the eight IOI prompts with its neighbour, in which the other person gives.

    Kept are pairs of which each text prefers its answer to the other one, with a gap of at least GAP. Raises InputError
    where there is none."""
    pairs: list[Pair] = []
    for template, *people in IOI:
        for giver, other in (people, people[::-1]):
            texts = template.format(giver), template.format(other)
            pairs.append(make_prompts(lm, tokenizer, *texts, (f" {other}", f" {giver}"), len(pairs)))
    differences = compare_answers(read_pairs(lm, pairs, device), pairs)
    second = (differences <= 0).astype(int)  # the number of the answer that each text prefers
    preferred = [(pair.names[clean], pair.names[corrupt]) for pair, (clean, corrupt) in zip(pairs, second, strict=True)]
    why = judge(pairs, differences, preferred, "prefers", f"{PASS_TEXTS}, or another --model")
    return tabulate(pairs, differences, why)


def pair_texts(study: Study, clean: str, corrupt: str, answers: Answers | None) -> tuple[list[Pair], pd.DataFrame]:
    """Pair two texts for a classifier. answers: classes of the corpus; None: those that the texts are read as.

    Raises InputError where there are no two classes to compare, and as `encode_both` does."""
    labels, names = study.corpus.labels, study.clf.labels
    clean, corrupt = study.fill(clean), study.fill(corrupt)
    if unknown := ", ".join(sorted({*(answers or ())} - {*labels})):
        raise InputError(f"--answers: expected two of {', '.join(labels)}, got {unknown}")
    clean_ids, corrupt_ids = encode_both(study.tokenizer, clean, corrupt, study.clf.config.n_ctx)
    logits = last_logits(study.clf, [clean_ids, corrupt_ids], study.device)  # (2, K)
    first, second = map(labels.index, answers) if answers else logits.argmax(axis=1).tolist()
    if first == second:
        came = f"both texts are read as {labels[first]}"
        raise InputError(f"--clean and --corrupt: {came}; name the two classes to compare with --answers A B")
    pair = Pair(0, "", clean, corrupt, clean_ids, corrupt_ids, (first, second), (names[first], names[second]))
    return tabulate([pair], compare_answers(logits[None], [pair]), [""])


def pair_prompts(
    lm: GPT2LM, tokenizer: Tokenizer, clean: str, corrupt: str, answers: Answers | None, device: Device
) -> tuple[list[Pair], pd.DataFrame]:
    """Pair two texts for a language model. answers: next tokens. Raises InputError as `make_prompts` does."""
    if not answers:
        raise InputError('--answers: expected two next tokens to compare, as " Mary" " John", got none')
    pairs = [make_prompts(lm, tokenizer, clean, corrupt, answers)]
    return tabulate(pairs, compare_answers(read_pairs(lm, pairs, device), pairs), [""])


def check_texts(clean: str | None, corrupt: str | None, answers: Answers | None) -> None:
    """Raise InputError unless there are two texts or none, and two different answers to them or none."""
    if (clean is None) != (corrupt is None):
        raise InputError(f"--clean and --corrupt: expected both, got --{'corrupt' if clean is None else 'clean'} alone")
    if "" in (clean, corrupt):
        raise InputError("--clean and --corrupt: expected two texts, got an empty one")
    if answers and clean is None:
        raise InputError(f"--answers: expected two texts beside it, got none; {PASS_TEXTS}")
    if answers and answers[0] == answers[1]:
        raise InputError(f"--answers: expected two different ones, got {answers[0]!r} twice")


def replace_words(study: Study) -> list[Pair]:
    """Return each test text that has a word of its class with each word of the other classes in that place, in which
    nothing else changes, token by token; no pair twice. Texts of which the network reads only the end are left out."""
    texts, encode, labels = study.texts["test"], study.tokenizer.encode, study.clf.labels
    lists = [label_words(label) for label in study.corpus.labels]
    pairs: dict[tuple[str, str], Pair] = {}
    for text, ids, k in zip(texts.strings, texts.sequences, texts.targets.tolist(), strict=True):
        if encode(text) != ids:
            continue
        of_class = [word for word in words(text, study.tokenizer) if word.text.lower() in lists[k]]
        others = [(other, new) for other in range(len(lists)) if other != k for new in lists[other]]
        for word, (other, new) in product(of_class, others):
            corrupt = text[: word.start] + copy_case(word.text, new) + text[word.end :]
            corrupt_ids, names = encode(corrupt), (labels[k], labels[other])
            changed = {*find_differences(ids, corrupt_ids)}
            if len(corrupt_ids) == len(ids) and changed and changed <= {*word.tokens}:
                pair = Pair(len(pairs), "test", text, corrupt, ids, corrupt_ids, (k, other), names)
                pairs.setdefault((text, corrupt), pair)
    return list(pairs.values())


def copy_case(word: str, new: str) -> str:
    """Return the new word, in capitals where the other one is, with a capital first letter where that has one."""
    if len(word) > 1 and word.isupper():
        return new.upper()
    return new.capitalize() if word[0].isupper() else new


def make_prompts(lm: GPT2LM, tokenizer: Tokenizer, clean: str, corrupt: str, answers: Answers, number: int = 0) -> Pair:
    """Return a pair of texts after BOS. Raises InputError where an answer is not one token, or the model has no BOS."""
    if lm.config.vocab_size <= BOS or tokenizer.end_of_text != BOS:
        came = f"{lm.config.vocab_size} tokens, and {END_OF_TEXT} has the id {tokenizer.end_of_text}"
        raise InputError(f"--model: expected one with GPT-2's token {BOS}, got {came}")
    for answer in answers:
        if len(pieces := tokenizer.pieces(answer)) != 1:
            came = f"{answer!r}, which is {' '.join(repr(piece) for piece, _, _ in pieces) or 'none'}"
            raise InputError(
                f'--answers: expected one token each, got {came}; take short words, with a space, as " Mary"'
            )
    clean_ids, corrupt_ids = encode_both(tokenizer, clean, corrupt, lm.config.n_ctx - 1)
    (first,), (second,) = map(tokenizer.encode, answers)
    return Pair(number, "", clean, corrupt, [BOS, *clean_ids], [BOS, *corrupt_ids], (first, second), answers)


def encode_both(tokenizer: Tokenizer, clean: str, corrupt: str, most: int) -> tuple[list[int], list[int]]:
    """Return the token ids of two texts. Raises InputError unless these differ, are as many, and at most `most`; where
    they are not as many, print both texts token by token."""
    clean_ids, corrupt_ids, options = tokenizer.encode(clean), tokenizer.encode(corrupt), "--clean and --corrupt"
    n, m = len(clean_ids), len(corrupt_ids)
    if clean_ids == corrupt_ids:
        raise InputError(f"{options}: expected two texts that differ, got the same twice")
    if max(n, m) > most:
        raise InputError(f"{options}: expected at most {most} tokens, got {max(n, m)}; shorten the texts")
    if n != m:
        first = [*find_differences(clean_ids, corrupt_ids), min(n, m)][0]
        rows = [[repr(piece) for piece, _, _ in tokenizer.pieces(text)] for text in (clean, corrupt)]
        print_columns([["clean  ", *rows[0]], ["corrupt", *rows[1]], [""] * (first + 1) + ["^"]])
        came = f"got {n} and {m}, shown above with ^ under the first difference"
        raise InputError(f"{options}: expected as many tokens in both, {came}; replace words by some of as many tokens")
    return clean_ids, corrupt_ids


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns, in as many blocks as the width of the console asks for."""
    blocks = [[""] * len(rows)]
    for column in zip_longest(*rows, fillvalue=""):
        width = max(map(cell_len, column)) + 1
        if cell_len(blocks[-1][0]) + width > console.width:
            blocks.append([""] * len(rows))
        blocks[-1] = [line + set_cell_size(cell, width) for line, cell in zip(blocks[-1], column, strict=True)]
    for line in chain(*blocks):
        console.print(line.rstrip(), soft_wrap=True)


def find_differences(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Return the positions at which two sequences differ, as far as both go."""
    return [i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b]


def read_pairs(model: GPT2Classifier | GPT2LM, pairs: Sequence[Pair], device: Device) -> NDArray[np.float32]:
    """Return the logits of N pairs, clean before corrupt: (N, 2, K or V), see `last_logits`."""
    sequences = [ids for pair in pairs for ids in (pair.clean_ids, pair.corrupt_ids)]
    return last_logits(model, sequences, device).reshape(len(pairs), 2, -1)


@torch.inference_mode()
def last_logits(model: GPT2Classifier | GPT2LM, sequences: Sequence[list[int]], device: Device) -> NDArray[np.float32]:
    """Return the logits at the last tokens of N texts, in fp32: (N, K) of classes, or (N, V) of next tokens."""
    unique = [[*ids] for ids in {tuple(ids): None for ids in sequences}]  # a text may be in many pairs
    logits: dict[tuple[int, ...], NDArray[np.float32]] = {}

    def logits_of(batch: Batch) -> Tensor:
        ids, lengths = batch.ids.to(device.device), batch.lengths.to(device.device)
        if isinstance(model, GPT2Classifier):
            return model(ids, lengths).cpu()
        rows = torch.arange(len(ids), device=ids.device)
        return model.read(model.trunk(ids, lengths)[rows, lengths - 1]).cpu()

    for batch, read in map_texts(logits_of, unique, device, "logits of whole texts"):
        logits |= {tuple(unique[i]): row for i, row in zip(batch.index, read.numpy(), strict=True)}
    return np.stack([logits[tuple(ids)] for ids in sequences])


def compare_answers(logits: NDArray[np.float32], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Return the logit of the clean text's answer minus that of the corrupt text's, in nats: (N, 2), a column for each
    text. logits: (N, 2, K or V)."""
    answers = np.array([pair.answers for pair in pairs])[:, None]  # (N, 1, 2)
    return np.take_along_axis(logits, answers, axis=2) @ [1, -1]


def judge(
    pairs: Sequence[Pair], differences: NDArray[np.float64], read: Sequence[Answers], verb: str, advice: str
) -> list[str]:
    """Return for each pair why it is not to be kept, or "". Raises InputError where all have reasons.

    differences: (N, 2), as `compare_answers` has them; read: what the network answers; verb: how to call that."""
    why = []
    for pair, (clean, corrupt), answers in zip(pairs, differences, read, strict=True):
        if answers[0] != pair.names[0]:
            why.append(f"the clean text {verb} {answers[0].strip()}, not {pair.names[0].strip()}")
        elif answers[1] != pair.names[1]:
            why.append(f"the corrupt text {verb} {answers[1].strip()}, not {pair.names[1].strip()}")
        else:
            why.append("" if clean - corrupt >= GAP else f"gap below {GAP:g}")
    if all(why):
        a, b, small = (sum(reason.startswith(start) for reason in why) for start in ("the clean", "the corrupt", "gap"))
        counts = (
            f"{a:,} times it misreads the clean text, {b:,} times the corrupt one, {small:,} gaps are below {GAP:g}"
        )
        raise InputError(f"the network tells apart none of {len(why):,} pairs of texts: {counts}; {advice}")
    return why


def choose_balanced(pairs: Sequence[Pair], most: int, seed: int) -> dict[int, str]:
    """Choose at most `most` pairs; return by number why a pair is not chosen, "" where it is.

    One after the other, that of the text chosen least so far, then of the clean class, then of the corrupt class, then
    at random: by a hash, so that the order of `pairs` does not matter. Of a text and a corrupt class comes one pair."""
    why = {pair.number: f"--pairs {most} is reached" for pair in pairs}
    draws = {pair.number: sha256(repr((seed, pair.clean, pair.corrupt)).encode()).digest() for pair in pairs}
    parts = {p.number: (("text", p.clean), ("clean", p.answers[0]), ("corrupt", p.answers[1])) for p in pairs}
    used, left = Counter[tuple[str, str | int]](), list(pairs)
    for _ in range(min(most, len(pairs))):
        if not left:
            break
        best = min(left, key=lambda pair: ([used[part] for part in parts[pair.number]], draws[pair.number]))
        used.update(parts[best.number])
        alike = {p.number for p in left if (p.clean, p.answers[1]) == (best.clean, best.answers[1])}
        why |= dict.fromkeys(alike, "another pair of this text and class is kept") | {best.number: ""}
        left = [pair for pair in left if pair.number not in alike]
    return why


def tabulate(
    pairs: Sequence[Pair], differences: NDArray[np.float64], why: Sequence[str]
) -> tuple[list[Pair], pd.DataFrame]:
    """Return the pairs without a reason, and all in a table: `pair, split, clean, corrupt, clean_class, corrupt_class,
    position, gap, kept, why`. position: of the first token that differs; gap: of the differences (N, 2), in nats."""
    rows = [
        {
            "pair": pair.number,
            "split": pair.split,
            "clean": pair.clean,
            "corrupt": pair.corrupt,
            "clean_class": pair.names[0],
            "corrupt_class": pair.names[1],
            "position": pair.positions[0],
            "gap": clean - corrupt,
            "kept": not reason,
            "why": reason,
        }
        for pair, (clean, corrupt), reason in zip(pairs, differences.tolist(), why, strict=True)
    ]
    return [pair for pair in pairs if not why[pair.number]], pd.DataFrame(rows)
