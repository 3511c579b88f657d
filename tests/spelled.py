"""Token ids as texts of words, one word a token, for what reads words."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from planted import learnt, texts_of

from lab.device import Device
from lab.study import Study
from model import GPT2Classifier

CPU = Device(torch.device("cpu"), "fp32")
learn_once = cache(learnt)  # it is trained


class Speller:
    """A tokenizer of texts of the words `worda`, `wordb`, ...: tokens 0, 1, ..., 25."""

    def __len__(self) -> int:
        return 26

    @staticmethod
    def encode(text: str) -> list[int]:
        return [ord(word[4:]) - ord("a") for word in text.lower().split()]

    @staticmethod
    def pieces(text: str) -> list[tuple[str, int, int]]:
        pieces, start = [], 0
        for word in text.split(" "):
            end = start + len(word) + bool(start)
            pieces.append((text[start:end], start, end))
            start = end
        return pieces


def spell(ids: list[int]) -> str:
    """The text of these tokens; its first word has a capital."""
    return " ".join(f"word{chr(ord('a') + token)}" for token in ids).capitalize()


def study_of(clf: GPT2Classifier, sequences: dict[str, list[list[int]]], targets: dict, folder: Path) -> Study:
    """A study of these texts, spelled out."""
    texts = {
        split: replace(texts_of(split, sequences[split], targets[split]), strings=[*map(spell, sequences[split])])
        for split in sequences
    }
    return Study(folder, {}, clf.eval(), Speller(), SimpleNamespace(files={}), texts, CPU, "0123")


def learnt_study(folder: Path) -> Study:
    """Class k stands in the words k and k + 4, of which each text has one; words 8 .. 22 say nothing."""
    return study_of(*deepcopy(learn_once()), folder)
