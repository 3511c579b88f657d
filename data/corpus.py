"""A labelled corpus: reads files from a folder or the hub, and returns three splits of checked texts."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import pandas as pd
from huggingface_hub import metadata_load
from yaml import YAMLError

from model import InputError, hub
from model.readout import are_names

from .formats import READERS, Table, read_polarity, read_table
from .splits import group_by_split, is_whole, set_val_aside, split_by_class, split_polarity

POLARITY = {"rt-polarity.pos": "pos", "rt-polarity.neg": "neg"}  # in the order of the hub's rows
CARDS = [("sadness", "joy", "love", "anger", "fear", "surprise")]  # class orders of the hub that are not sorted
SAMPLE = Path(__file__).parent / "sample"
HUB = {"emotion": "dair-ai/emotion", "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes"}
ON_HUB = re.compile(rf"({hub.NAME.pattern})(?:/(.+))?")  # owner/name, or owner/name/folder
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
        """Return the examples of `train`, `val` or `test`, in the order of `index`."""
        return self.examples.groupby("split").get_group(name).reset_index(drop=True)

    def targets(self, name: str) -> np.ndarray:
        """Return the class numbers of that split, int64 (N,)."""
        return pd.Categorical(self.split(name)["label"], categories=self.labels).codes.astype(np.int64)


def read_corpus(source: str | Path, text_column: str = "text", label_column: str = "label", seed: int = 0) -> Corpus:
    """Read the corpus in a folder, in a single file, or on the Hugging Face hub; `read_table` lists the formats.

    A folder has files for train, val (or validation, valid, dev) and test, each split one file or numbered shards.
    Without val, a tenth of train becomes val. Or the folder has the raw pair rt-polarity.pos and rt-polarity.neg, which
    is split as on the hub. A single file is split 80/10/10. `seed` decides the splits made here, which keep the shares
    of the classes and put all copies of a text into one split. `sample` is the embedded corpus; `emotion`,
    `rotten_tomatoes` and owner/name[/folder] are parquet files on the hub, kept in its cache. The columns matter where
    the format names them. Labels are in the hub's order, else sorted, numbers by value. Raises InputError.
    """
    path = SAMPLE if str(source) == "sample" and not Path(source).exists() else Path(source)
    revision = None
    if path.is_dir():
        name = path.resolve().name
        tables, examples = _read_folder(path, text_column, label_column, seed)
    elif path.exists():
        name = path.name
        tables = [read_table(path, text_column, label_column)]
        examples = split_by_class(tables[0].rows, path, seed)
    else:
        repository, path, folder = fetch(str(source))
        name, revision = str(PurePath(repository, folder)), path.name
        classes = _read_card_classes(path / "README.md", label_column)
        tables, examples = _read_folder(path / folder, text_column, label_column, seed, classes)
    examples["index"] = examples.groupby("split").cumcount()
    _check_classes(examples, path)
    return Corpus(
        name=name,
        labels=_order_labels(set(examples["label"]), tables[0].labels),
        examples=examples[["split", "index", "text", "label", "file", "line"]].reset_index(drop=True),
        files={table.file: table.sha256 for table in tables},
        revision=revision,
    )


def fetch(source: str) -> tuple[str, Path, str]:
    """Fetch a corpus from the hub; return its repository, its snapshot in the cache, and its folder in the snapshot."""
    match = ON_HUB.fullmatch(HUB.get(source, source))
    if not match or Path(source).suffix in READERS:
        raise InputError(f"{source}: expected a corpus, there is no such file or folder; {ADVICE}")
    repository, folder = match.groups()

    def choose(names: list[str]) -> list[str]:
        card = ["README.md"] if "README.md" in names else []
        return _choose_parquet_files(names, folder) + card

    try:
        snapshot = hub.fetch("dataset", repository, choose)
    except hub.UnavailableError as error:
        not_local = "" if source in HUB else f"{source}: no such file or folder here; "
        raise hub.UnavailableError(f"{not_local}{error}; {ADVICE}") from None
    files = _choose_parquet_files(hub.list_names(snapshot), folder)
    return repository, snapshot, str(PurePosixPath(files[0]).parent)


def _choose_parquet_files(names: list[str], only: str | None) -> list[str]:
    """Return the parquet files with train and test among `names`, from a folder with val too if there is one.

    `only` is the folder to look in, None any. Raises InputError unless exactly one folder has such files.
    """
    folders: dict[str, list[PurePath]] = {}
    for path in map(PurePosixPath, names):
        if path.suffix == ".parquet" and only in (None, str(path.parent)):
            folders.setdefault(str(path.parent), []).append(path)
    splits = {folder: group_by_split(files) for folder, files in folders.items()}
    with_val = {folder: split for folder, split in splits.items() if all(map(is_whole, split.values()))}
    usable = with_val or {
        folder: split for folder, split in splits.items() if is_whole(split["train"]) and is_whole(split["test"])
    }
    if len(usable) > 1:
        raise InputError(f"several corpora in it: add one of {', '.join(sorted(usable))} as owner/name/FOLDER")
    if not usable:
        listed = ", ".join(names[:20]) or "nothing"
        where = f" in {only}" if only else ""
        raise InputError(f"expected parquet files for train, val and test{where}, there are {listed}")
    return [str(file) for split in usable.values() for files in split.values() for file in files]


def _read_card_classes(readme: Path, column: str) -> tuple[str, ...]:
    """Return the class names that a dataset's card on the hub gives for a column, if all its configurations agree."""
    try:
        infos = (metadata_load(readme) or {})["dataset_info"]
        features = [feature for info in ([infos] if isinstance(infos, dict) else infos) for feature in info["features"]]
        types = [feature["dtype"] for feature in features if feature["name"] == column]
        (names,) = {_order_by_number(type_["class_label"]["names"]) for type_ in types}
        return names if are_names(names) else ()
    except (OSError, YAMLError, LookupError, TypeError, ValueError, RecursionError):  # cards follow no strict format
        return ()


def _order_by_number(names: list[str] | dict[str, str]) -> tuple[str, ...]:
    """Return class names in the order of their numbers; a card lists the names, or maps numbers to them."""
    return tuple(names) if isinstance(names, list) else tuple(names[number] for number in sorted(names, key=int))


def _read_folder(
    folder: Path, text_column: str, label_column: str, seed: int, classes: tuple[str, ...] = ()
) -> tuple[list[Table], pd.DataFrame]:
    """Return the tables of a folder's files, and all their rows with the column `split`."""
    if all((folder / name).is_file() for name in POLARITY):
        tables = [read_polarity(folder / name, label) for name, label in POLARITY.items()]
        return tables, pd.concat([split_polarity(table) for table in tables])
    tables, rows = [], []
    files_by_split = _find_split_files(folder)
    for split, files in files_by_split.items():
        for file in files:
            table = read_table(file, text_column, label_column, classes)
            tables.append(table)
            rows.append(table.rows.assign(split=split))
    examples = pd.concat(rows)
    return tables, examples if files_by_split["val"] else set_val_aside(examples, folder, seed)


def _find_split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split, of which val may have none; InputError if one is incomplete or comes twice."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    by_split = group_by_split([file for file in files if file.suffix.lower() in READERS])
    if not all(is_whole(part) or (split == "val" and not part) for split, part in by_split.items()):
        got = "; ".join(f"{split}: {', '.join(f.name for f in part) or 'none'}" for split, part in by_split.items())
        names = ", ".join(file.name for file in files[:10]) or "nothing"
        raise InputError(
            f"{folder}: expected one file each for train, val (or validation, valid, dev) and test, ending in "
            f"{', '.join(READERS)}, or {' and '.join(POLARITY)}; got {got} (there: {names}); rename or remove files"
        )
    return by_split


def _check_classes(examples: pd.DataFrame, path: Path) -> None:
    """Raise InputError unless there are two classes, and train has all of them."""
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


def _order_labels(labels: set[str], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels as the files or the hub order them, else numbers by value, else sorted."""
    for known in (tuple(name for name in declared if name in labels), *CARDS):
        if labels == set(known):
            return known
    if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    return tuple(sorted(labels))
