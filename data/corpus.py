"""A labelled corpus: files in, and three splits of checked texts out."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from model import InputError

from .formats import READERS, Table, read_polarity, read_table

SPLITS = {"train": ["train"], "val": ["val", "validation", "valid", "dev"], "test": ["test"]}
POLARITY = {"rt-polarity.pos": "pos", "rt-polarity.neg": "neg"}  # in the order of the hub's rows
CARDS = [("sadness", "joy", "love", "anger", "fear", "surprise")]  # class orders of the hub that are not sorted
ADVICE = "give one as CORPUS=path/to/folder with train, val and test files, or as one file, " + ", ".join(READERS)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Labelled texts in three splits.

    `labels` are the classes in the order of their numbers. `examples` has one row per text and the columns split
    (train, val, test), index (from 0 within the split), text, label, file (all else str) and line (from 1; in a
    .parquet file the row). `files` maps each file read to its SHA-256.
    """

    name: str
    labels: tuple[str, ...]
    examples: pd.DataFrame
    files: dict[str, str]

    def split(self, name: str) -> pd.DataFrame:
        """The examples of `train`, `val` or `test`, in the order of `index`."""
        return self.examples.groupby("split").get_group(name).reset_index(drop=True)

    def targets(self, name: str) -> np.ndarray:
        """int64 (N,): the class numbers of that split."""
        return pd.Categorical(self.split(name)["label"], categories=self.labels).codes.astype(np.int64)


def read_corpus(source: str | Path, text_column: str = "text", label_column: str = "label", seed: int = 0) -> Corpus:
    """The corpus in a folder or in a single file; see `read_table` for the formats.

    A folder holds one file each for train, val (or validation, valid, dev) and test, or the raw pair rt-polarity.pos
    and rt-polarity.neg, which is split as on the hub. A single file is split 80/10/10 here, by `seed`, with the same
    shares of each class, all copies of a text in one split. The columns matter where the format names them.
    Labels stand in the order that the hub gives them, else sorted, numbers by value. Raises InputError.
    """
    path = Path(source)
    if str(source) == "auto":
        raise InputError(f"no corpus is at hand yet; {ADVICE}")
    if not path.exists():
        raise InputError(f"{source}: expected a corpus, there is no such file or folder; {ADVICE}")
    if path.is_dir():
        tables, examples = _read_folder(path, text_column, label_column)
    else:
        tables = [read_table(path, text_column, label_column)]
        examples = _split_by_class(tables[0].rows, path, seed)
    examples["index"] = examples.groupby("split").cumcount()
    _check_classes(examples, path)
    return Corpus(
        name=path.resolve().name,
        labels=_class_order(set(examples["label"]), tables[0].labels),
        examples=examples[["split", "index", "text", "label", "file", "line"]].reset_index(drop=True),
        files={table.file: table.sha256 for table in tables},
    )


def _read_folder(folder: Path, text_column: str, label_column: str) -> tuple[list[Table], pd.DataFrame]:
    if all((folder / name).is_file() for name in POLARITY):
        tables = [read_polarity(folder / name, label) for name, label in POLARITY.items()]
        return tables, pd.concat([_split_as_hub(table) for table in tables])
    files = _split_files(folder)
    tables = [read_table(file, text_column, label_column) for file in files.values()]
    return tables, pd.concat([table.rows.assign(split=split) for split, table in zip(files, tables, strict=True)])


def _split_files(folder: Path) -> dict[str, Path]:
    there = sorted(file for file in folder.iterdir() if file.is_file())
    found = {
        split: [f for f in there if f.suffix.lower() in READERS and f.stem.split("-")[0] in stems]
        for split, stems in SPLITS.items()
    }
    if any(len(files) != 1 for files in found.values()):
        got = "; ".join(f"{split}: {', '.join(f.name for f in files) or 'none'}" for split, files in found.items())
        files = ", ".join(file.name for file in there[:10]) or "nothing"
        raise InputError(
            f"{folder}: expected one file each for train, val (or validation, valid, dev) and test, ending in "
            f"{', '.join(READERS)}, or {' and '.join(POLARITY)}; got {got} (there: {files}); rename or remove files"
        )
    return {split: files[0] for split, files in found.items()}


def _split_as_hub(table: Table) -> pd.DataFrame:
    if len(table.rows) != 5331:
        raise InputError(f"{table.file}: expected the 5331 lines of the original, got {len(table.rows)}; get it again")
    return table.rows.assign(split=["train"] * 4265 + ["val"] * 533 + ["test"] * 533)


def _split_by_class(rows: pd.DataFrame, path: Path, seed: int) -> pd.DataFrame:
    unique = rows.drop_duplicates("text")
    counts = unique["label"].value_counts().reindex(rows["label"].unique(), fill_value=0)
    if counts.min() < 10:  # with 10, 80/10/10 still puts a text of the class into each split
        few = f"only {counts.min()} different texts are labelled {counts.idxmin()!r}"
        raise InputError(f"{path}: expected at least 10 per class to split 80/10/10, {few}; add some, or give a folder")
    train, rest = train_test_split(unique, test_size=0.2, stratify=unique["label"], random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest["label"], random_state=seed)
    split = {text: name for name, part in zip(SPLITS, (train, val, test), strict=True) for text in part["text"]}
    return rows.assign(split=rows["text"].map(split))


def _check_classes(examples: pd.DataFrame, path: Path) -> None:
    if examples["label"].nunique() == 1:
        raise InputError(
            f"{path}: expected at least two classes, every label is {examples['label'].iloc[0]!r}; add one"
        )
    trained = examples.loc[examples["split"] == "train", "label"]
    unseen = examples[~examples["label"].isin(trained)]
    if len(unseen):
        row = unseen.iloc[0]
        expected = f"expected the classes of train, got {row['label']!r} in {row['split']}"
        raise InputError(f"{row['file']}:{row['line']}: {expected}; correct the label or add such texts to train")


def _class_order(found: set[str], declared: tuple[str, ...]) -> tuple[str, ...]:
    for known in (tuple(name for name in declared if name in found), *CARDS):
        if found == set(known):
            return known
    if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", label) for label in found):
        return tuple(sorted(found, key=lambda label: (float(label), label)))
    return tuple(sorted(found))
