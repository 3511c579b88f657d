"""A labelled corpus: files in, from here or from the hub, and three splits of checked texts out."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

import numpy as np
import pandas as pd
from huggingface_hub import metadata_load
from sklearn.model_selection import train_test_split
from yaml import YAMLError

from model import InputError, hub
from model.readout import are_names

from .formats import READERS, Table, read_polarity, read_table

log = logging.getLogger("headgate")

SPLITS = {"train": ["train"], "val": ["val", "validation", "valid", "dev"], "test": ["test"]}
POLARITY = {"rt-polarity.pos": "pos", "rt-polarity.neg": "neg"}  # in the order of the hub's rows
CARDS = [("sadness", "joy", "love", "anger", "fear", "surprise")]  # class orders of the hub that are not sorted
SAMPLE = Path(__file__).parent / "sample"
HUB = {"emotion": "dair-ai/emotion", "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes"}
P = TypeVar("P", bound=PurePath)
ON_HUB = re.compile(rf"({hub.NAME.pattern})(?:/(.+))?")  # owner/name, or owner/name/folder
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
ADVICE = "give one as CORPUS=path/to/folder with train, val and test files, or as one file, " + ", ".join(READERS)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Labelled texts in three splits.

    `labels` are the classes in the order of their numbers. `examples` has one row per text and the columns split
    (train, val, test), index (from 0 within the split), text, label, file (all else str) and line (from 1; in a
    .parquet file the row). `files` maps each file read to its SHA-256. `revision` is the commit of one from the hub.
    """

    name: str
    labels: tuple[str, ...]
    examples: pd.DataFrame
    files: dict[str, str]
    revision: str | None = None

    def split(self, name: str) -> pd.DataFrame:
        """The examples of `train`, `val` or `test`, in the order of `index`."""
        return self.examples.groupby("split").get_group(name).reset_index(drop=True)

    def targets(self, name: str) -> np.ndarray:
        """int64 (N,): the class numbers of that split."""
        return pd.Categorical(self.split(name)["label"], categories=self.labels).codes.astype(np.int64)


def read_corpus(source: str | Path, text_column: str = "text", label_column: str = "label", seed: int = 0) -> Corpus:
    """The corpus in a folder or in a single file, see `read_table` for the formats, or on the Hugging Face hub.

    A folder holds files for train, val (or validation, valid, dev) and test, a split in one file or in numbered
    shards; without val, a tenth of train is set aside for it. Or it holds the raw pair rt-polarity.pos and
    rt-polarity.neg, which is split as on the hub. A single file is split 80/10/10. Splits made here go by `seed`, with
    the same shares of each class, all copies of a text in one split. `sample` is the embedded corpus; `emotion`,
    `rotten_tomatoes` and owner/name[/folder] stand for parquet files on the hub, which are kept in its cache.
    The columns matter where the format names them.
    Labels stand in the order that the hub gives them, else sorted, numbers by value. Raises InputError.
    """
    path = SAMPLE if str(source) == "sample" and not Path(source).exists() else Path(source)
    if path.is_dir():
        return _corpus(path.resolve().name, *_read_folder(path, text_column, label_column, seed), path)
    if path.exists():
        table = read_table(path, text_column, label_column)
        return _corpus(path.name, [table], _split_by_class(table.rows, path, seed), path)
    repository, snapshot, folder = fetch(str(source))
    classes = _card_classes(snapshot / "README.md", label_column)
    read = _read_folder(snapshot / folder, text_column, label_column, seed, classes)
    return replace(_corpus(str(PurePath(repository, folder)), *read, snapshot), revision=snapshot.name)


def _corpus(name: str, tables: list[Table], examples: pd.DataFrame, path: Path) -> Corpus:
    examples["index"] = examples.groupby("split").cumcount()
    _check_classes(examples, path)
    return Corpus(
        name=name,
        labels=_class_order(set(examples["label"]), tables[0].labels),
        examples=examples[["split", "index", "text", "label", "file", "line"]].reset_index(drop=True),
        files={table.file: table.sha256 for table in tables},
    )


def fetch(source: str) -> tuple[str, Path, str]:
    """Fetch a corpus from the hub; return its repository, its snapshot in the cache, and its folder in the snapshot."""
    match = ON_HUB.fullmatch(HUB.get(source, source))
    if not match or Path(source).suffix in READERS:
        raise InputError(f"{source}: expected a corpus, there is no such file or folder; {ADVICE}")
    repository, folder = match.groups()

    def choose(names: list[str]) -> list[str]:
        card = ["README.md"] if "README.md" in names else []
        return _parquet_files(names, folder) + card

    try:
        snapshot = hub.fetch("dataset", repository, choose)
    except hub.UnavailableError as error:
        not_local = "" if source in HUB else f"{source}: no such file or folder here; "
        raise hub.UnavailableError(f"{not_local}{error}; {ADVICE}") from None
    files = _parquet_files(hub.list_names(snapshot), folder)
    return repository, snapshot, str(PurePosixPath(files[0]).parent)


def _parquet_files(names: list[str], only: str | None) -> list[str]:
    """Return the parquet files with train and test among `names`, from a folder with val too if there is one.

    `only` is the folder to look in, None any. Raises InputError unless exactly one folder has such files.
    """
    folders: dict[str, list[PurePath]] = {}
    for path in map(PurePosixPath, names):
        if path.suffix == ".parquet" and only in (None, str(path.parent)):
            folders.setdefault(str(path.parent), []).append(path)
    splits = {folder: _by_split(files) for folder, files in folders.items()}
    with_val = {folder: split for folder, split in splits.items() if all(map(_is_whole, split.values()))}
    usable = with_val or {
        folder: split for folder, split in splits.items() if _is_whole(split["train"]) and _is_whole(split["test"])
    }
    if len(usable) > 1:
        raise InputError(f"several corpora in it: add one of {', '.join(sorted(usable))} as owner/name/FOLDER")
    if not usable:
        listed = ", ".join(names[:20]) or "nothing"
        where = f" in {only}" if only else ""
        raise InputError(f"expected parquet files for train, val and test{where}, there are {listed}")
    return [str(file) for split in usable.values() for files in split.values() for file in files]


def _card_classes(readme: Path, column: str) -> tuple[str, ...]:
    """The class names that a dataset's card on the hub gives for a column, where all its configurations agree."""
    try:
        infos = (metadata_load(readme) or {})["dataset_info"]
        features = [feature for info in ([infos] if isinstance(infos, dict) else infos) for feature in info["features"]]
        types = [feature["dtype"] for feature in features if feature["name"] == column]
        (names,) = {_in_order(type_["class_label"]["names"]) for type_ in types}
        return names if are_names(names) else ()
    except (OSError, YAMLError, LookupError, TypeError, ValueError, RecursionError):  # people write as they like
        return ()


def _in_order(names: list[str] | dict[str, str]) -> tuple[str, ...]:
    """The names of classes by their numbers, in which a card may have written them anyhow."""
    return tuple(names) if isinstance(names, list) else tuple(names[number] for number in sorted(names, key=int))


def _read_folder(
    folder: Path, text_column: str, label_column: str, seed: int, classes: tuple[str, ...] = ()
) -> tuple[list[Table], pd.DataFrame]:
    if all((folder / name).is_file() for name in POLARITY):
        tables = [read_polarity(folder / name, label) for name, label in POLARITY.items()]
        return tables, pd.concat([_split_as_hub(table) for table in tables])
    tables, examples = [], []
    splits = _split_files(folder)
    for split, files in splits.items():
        for file in files:
            tables.append(read_table(file, text_column, label_column, classes))
            examples.append(tables[-1].rows.assign(split=split))
    rows = pd.concat(examples)
    return tables, rows if splits["val"] else _set_val_aside(rows, folder, seed)


def _split_files(folder: Path) -> dict[str, list[Path]]:
    there = sorted(file for file in folder.iterdir() if file.is_file())
    found = _by_split([file for file in there if file.suffix.lower() in READERS])
    if not all(_is_whole(files) or (split == "val" and not files) for split, files in found.items()):
        got = "; ".join(f"{split}: {', '.join(f.name for f in files) or 'none'}" for split, files in found.items())
        names = ", ".join(file.name for file in there[:10]) or "nothing"
        raise InputError(
            f"{folder}: expected one file each for train, val (or validation, valid, dev) and test, ending in "
            f"{', '.join(READERS)}, or {' and '.join(POLARITY)}; got {got} (there: {names}); rename or remove files"
        )
    return found


def _by_split(files: Sequence[P]) -> dict[str, list[P]]:
    return {split: [file for file in files if file.stem.split("-")[0] in stems] for split, stems in SPLITS.items()}


def _is_whole(files: Sequence[PurePath]) -> bool:
    """Whether these are one file, or all the shards of one: train-00000-of-00002, train-00001-of-00002."""
    shards = [(int(match[1]), int(match[2])) for file in files if (match := SHARD.search(file.stem))]
    if not shards:
        return len(files) == 1
    return shards == [(number, len(files)) for number in range(len(files))]


def _set_val_aside(rows: pd.DataFrame, folder: Path, seed: int) -> pd.DataFrame:
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    log.warning("%s has no val split: a tenth of its train split is set aside for it, by --split-seed", folder)
    unique = _unique(train, folder)
    _, val = train_test_split(unique, test_size=0.1, stratify=unique["label"], random_state=seed)
    split = train["text"].isin(val["text"]).map({True: "val", False: "train"})
    return pd.concat([train.assign(split=split), test])


def _split_as_hub(table: Table) -> pd.DataFrame:
    if len(table.rows) != 5331:
        raise InputError(f"{table.file}: expected the 5331 lines of the original, got {len(table.rows)}; get it again")
    return table.rows.assign(split=["train"] * 4265 + ["val"] * 533 + ["test"] * 533)


def _split_by_class(rows: pd.DataFrame, path: Path, seed: int) -> pd.DataFrame:
    unique = _unique(rows, path)
    rng = np.random.RandomState(seed)  # goes on from draw to draw, where a number would begin anew
    train, rest = train_test_split(unique, test_size=0.2, stratify=unique["label"], random_state=rng)
    val, test = train_test_split(rest, test_size=0.5, stratify=rest["label"], random_state=rng)
    split = {text: name for name, part in zip(SPLITS, (train, val, test), strict=True) for text in part["text"]}
    return rows.assign(split=rows["text"].map(split))


def _unique(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """One row per text; InputError where a class has too few to be split."""
    unique = rows.drop_duplicates("text")
    counts = unique["label"].value_counts().reindex(rows["label"].unique(), fill_value=0)
    if counts.min() < 10:  # with 10, 80/10/10 still puts a text of the class into each split
        few = f"only {counts.min()} different texts are labelled {counts.idxmin()!r}"
        raise InputError(
            f"{path}: expected at least 10 per class to split it, {few}; add some, or give all three splits"
        )
    return unique


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
