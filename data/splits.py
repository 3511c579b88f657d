"""Which texts belong to train, val and test: as the names of files say, as on the hub, or drawn by a seed."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from model import InputError

from .formats import Table

log = logging.getLogger("headgate")

SPLITS = {"train": ["train", "training"], "val": ["val", "validation", "valid", "dev"], "test": ["test"]}
P = TypeVar("P", bound=PurePath)
SHARD = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-f]{8,64})?$")  # some carry a hash


def group_by_split(files: Sequence[P]) -> dict[str, list[P]]:
    """Return the files of each split, by the beginnings of their names; files of no split are left out."""
    return {split: [file for file in files if file.stem.split("-")[0] in stems] for split, stems in SPLITS.items()}


def is_whole(files: Sequence[PurePath]) -> bool:
    """Return whether these are one file, or all the shards of one: train-00000-of-00002, train-00001-of-00002."""
    shards = [(int(match[1]), int(match[2])) for file in files if (match := SHARD.search(file.stem))]
    if not shards:
        return len(files) == 1
    return shards == [(number, len(files)) for number in range(len(files))]


def set_val_aside(rows: pd.DataFrame, folder: Path, seed: int) -> pd.DataFrame:
    """Move a tenth of the texts of each class from train to val, with all their copies, and log a warning."""
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    log.warning(
        "%s has no val split: a tenth of its train split is set aside for it; train.py --split-seed draws another",
        folder,
    )
    texts = _distinct_texts(train, folder)
    _, val = train_test_split(texts, test_size=0.1, stratify=texts["label"], random_state=seed)
    split = train["text"].isin(val["text"]).map({True: "val", False: "train"})
    return pd.concat([train.assign(split=split), test])


def split_by_class(rows: pd.DataFrame, path: Path, seed: int) -> pd.DataFrame:
    """Split the texts of each class 80/10/10, all copies of a text into one split."""
    texts = _distinct_texts(rows, path)
    rng = np.random.RandomState(seed)  # one generator for both draws: the second must not repeat the first
    train, rest = train_test_split(texts, test_size=0.2, stratify=texts["label"], random_state=rng)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest["label"], random_state=rng)
    split = {text: name for name, part in zip(SPLITS, (train, val, test), strict=True) for text in part["text"]}
    return rows.assign(split=rows["text"].map(split))


def split_polarity(table: Table) -> pd.DataFrame:
    """Split one of the two raw Rotten Tomatoes files as the hub's copy is split; InputError if it is not complete."""
    if len(table.rows) != 5331:
        raise InputError(f"{table.file}: expected the 5331 lines of the original, got {len(table.rows)}; get it again")
    return table.rows.assign(split=["train"] * 4265 + ["val"] * 533 + ["test"] * 533)


def _distinct_texts(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return one row per text; InputError if a class has too few texts to be split."""
    texts = rows.drop_duplicates("text")
    counts = texts["label"].value_counts().reindex(rows["label"].unique(), fill_value=0)
    if counts.min() < 10:  # with 10, 80/10/10 still puts a text of the class into each split
        few = f"only {counts.min()} different texts are labelled {counts.idxmin()!r}"
        line = rows.loc[rows["label"] == counts.idxmin(), "line"].iloc[0]
        raise InputError(
            f"{path}: expected at least 10 per class to split it, {few} (line {line}); add some, or give all three "
            "splits"
        )
    return texts
