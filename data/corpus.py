"""A labelled corpus: reads files from a folder or the hub, and returns three splits of checked texts."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import metadata_load
from yaml import YAMLError

from model import InputError, hub
from model.readout import are_names

from .formats import READERS, Table, read_polarity, read_table
from .labels import Names
from .reading import USUAL, ReadOptions
from .rows import NAME_COLUMNS, BadRow, refuse_bad_rows
from .splits import group_by_split, is_whole, set_val_aside, split_by_class, split_polarity

POLARITY = {"rt-polarity.pos": "pos", "rt-polarity.neg": "neg"}  # in the order of the hub's rows
CARDS = [("sadness", "joy", "love", "anger", "fear", "surprise")]  # class orders of the hub that are not sorted
SAMPLE = Path(__file__).parent / "sample"
HUB = {"emotion": "dair-ai/emotion", "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes"}
ON_HUB = re.compile(rf"({hub.NAME.pattern})(?:/(.+))?")  # owner/name, or owner/name/folder
FEW = 20  # labels, which a corpus may have however few its texts
ADVICE = "give one as CORPUS=path/to/folder with train, val and test files, or as one file, " + ", ".join(READERS)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Labelled texts in three splits.

    `labels` are the classes in the order of their numbers. `examples` has one row per text and the columns split
    (train, val, test), index (from 0 within the split), text, label, file (all else str) and line (from 1; in a
    .parquet file and in an array of JSON the row). `files` maps each file read to its SHA-256. `revision` is the commit
    of one from the hub.
    `skipped` has the rows that could not be used: file, line, kind, reason, content.
    """

    name: str
    labels: tuple[str, ...]
    examples: pd.DataFrame
    files: dict[str, str]
    revision: str | None = None
    skipped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["file", *BadRow._fields]))

    def split(self, name: str) -> pd.DataFrame:
        """Return the examples of `train`, `val` or `test`, in the order of `index`."""
        return self.examples[self.examples["split"] == name].reset_index(drop=True)

    def targets(self, name: str) -> np.ndarray:
        """Return the class numbers of that split, int64 (N,)."""
        return pd.Categorical(self.split(name)["label"], categories=self.labels).codes.astype(np.int64)


def read_corpus(source: str | Path, options: ReadOptions = USUAL, seed: int = 0) -> Corpus:
    """Read the corpus in a folder, in a single file, or on the Hugging Face hub; `read_table` lists the formats.

    A folder has files for train, val (or validation, valid, dev) and test, each split one file or numbered shards.
    Without val, a tenth of train becomes val. Or the folder has the raw pair rt-polarity.pos and rt-polarity.neg, which
    is split as on the hub. A single file is split 80/10/10. `seed` decides the splits made here, which keep the shares
    of the classes and put all copies of a text into one split. `sample` is the embedded corpus; `emotion`,
    `rotten_tomatoes` and owner/name[/folder] are parquet files on the hub, kept in its cache. Labels are in the hub's
    order, else sorted, numbers by value. Raises InputError, also for rows that cannot be used: all of them in one
    message, unless `options` skip them."""
    path = SAMPLE if str(source) == "sample" and not Path(source).exists() else Path(source)
    revision = None
    if path.is_dir():
        name = path.resolve().name
        tables, examples = _read_folder(path, options, seed)
    elif path.exists():
        name = path.name
        tables = _check_tables([read_table(path, options)], options)
        examples = split_by_class(tables[0].rows, path, seed)
    else:
        repository, path, folder = fetch(str(source))
        name, revision = str(PurePath(repository, folder)), path.name
        names = _read_card_classes(path / "README.md", options.label_column)
        tables, examples = _read_folder(path / folder, options, seed, names)
    examples["index"] = examples.groupby("split").cumcount()
    _check_classes(examples, path)
    return Corpus(
        name=name,
        labels=_order_labels(set(examples["label"].unique()), tables[0].labels),
        examples=examples[["split", "index", "text", "label", "file", "line"]].reset_index(drop=True),
        files={table.file: table.sha256 for table in tables},
        revision=revision,
        skipped=pd.concat([table.bad_rows for table in tables], ignore_index=True),
    )


def _check_tables(tables: list[Table], options: ReadOptions) -> list[Table]:
    """Return the tables. Raises InputError for their bad rows, unless `options` skip them, and where nothing is left or
    the labels are texts."""
    bad, usable = pd.concat([table.bad_rows for table in tables]), pd.concat([table.rows for table in tables])
    if not options.skip_bad_rows:
        refuse_bad_rows(bad, len(bad) + len(usable))
    for table in tables:
        if table.rows.empty:
            raise InputError(f"{table.file}: expected labelled texts, every row was skipped; give another file")
    different = usable["label"].nunique()
    if different > max(FEW, len(usable) / 2):
        example = usable["label"].iloc[0][:40]
        raise InputError(
            f"{tables[0].file}: expected a few classes, the {len(usable):,} rows have {different:,} different labels, "
            f"such as {example!r}; if these are the texts, {NAME_COLUMNS}"
        )
    return tables


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


def _read_card_classes(readme: Path, column: str) -> Names:
    """Return the class names that a dataset's card on the hub gives for a column, if all its configurations agree."""
    try:
        infos = (metadata_load(readme) or {})["dataset_info"]
        features = [feature for info in ([infos] if isinstance(infos, dict) else infos) for feature in info["features"]]
        types = [_find_type(feature) for feature in features if feature["name"] == column]
        (names,) = {_order_by_number(type_["class_label"]["names"]) for type_ in types}
        return dict(enumerate(names)) if are_names(names) else {}
    except (OSError, YAMLError, LookupError, TypeError, ValueError, RecursionError):  # cards follow no strict format
        return {}


def _find_type(feature: dict[str, Any]) -> dict[str, Any]:
    """Return the type of a column, or of the members of its lists, as a card writes it."""
    return next(feature[key] for key in ("dtype", "list", "sequence") if key in feature)


def _order_by_number(names: list[str] | dict[str, str]) -> tuple[str, ...]:
    """Return class names in the order of their numbers; a card lists the names, or maps numbers to them."""
    return tuple(names) if isinstance(names, list) else tuple(names[number] for number in sorted(names, key=int))


def _read_folder(
    folder: Path, options: ReadOptions, seed: int, names: Names | None = None
) -> tuple[list[Table], pd.DataFrame]:
    """Return the tables of a folder's files, and all their rows with the column `split`."""
    if all((folder / name).is_file() for name in POLARITY):
        tables = [read_polarity(folder / name, label) for name, label in POLARITY.items()]
        return _check_tables(tables, options), pd.concat([split_polarity(table) for table in tables])
    files_by_split = _find_split_files(folder)
    splits = [split for split, files in files_by_split.items() for _ in files]
    tables = [read_table(file, options, names) for files in files_by_split.values() for file in files]
    tables = _check_tables(_set_headers_aside(tables), options)
    examples = pd.concat([table.rows.assign(split=split) for split, table in zip(splits, tables, strict=True)])
    return tables, examples if files_by_split["val"] else set_val_aside(examples, folder, seed)


def _set_headers_aside(tables: list[Table]) -> list[Table]:
    """Count the first line of each .txt file as a bad row where it is a header: the same in all files, with a label
    that no other line has."""
    rows = pd.concat([table.rows for table in tables])
    firsts = rows[rows["line"] == 1]
    firsts = firsts[firsts["file"].str.lower().str.endswith(".txt")]
    in_all = len(firsts) == len(tables) and len(firsts[["text", "label"]].drop_duplicates()) == 1
    # By chance, only files of a few lines begin alike with a class that has no other text.
    if (
        len(rows) < 10 * len(tables)
        or not in_all
        or firsts["label"].iloc[0] in rows.loc[rows["line"] > 1, "label"].unique()
    ):
        return tables
    content = ";".join(firsts[["text", "label"]].iloc[0])
    bad = BadRow(1, "headers", f"expected text;label, got what looks like a header: {content!r}", content)
    return [
        table._replace(
            rows=table.rows[table.rows["line"] > 1],
            bad_rows=pd.concat([pd.DataFrame([bad]).assign(file=table.file), table.bad_rows]),
        )
        for table in tables
    ]


def _find_split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split, of which val may have none; InputError if one is incomplete or comes twice."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    by_split = group_by_split([file for file in files if file.suffix.lower() in READERS])
    if not all(is_whole(part) or (split == "val" and not part) for split, part in by_split.items()):
        got = "; ".join(f"{split}: {', '.join(f.name for f in part) or 'none'}" for split, part in by_split.items())
        names = ", ".join(file.name for file in files[:10]) or "nothing"
        if any(file.name == "train_text.txt" for file in files):
            join = "paste -d';' train_text.txt train_labels.txt > train.txt"
            raise InputError(
                f"{folder}: expected text;label in each line, got them apart; join each split, e.g. {join}"
            )
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
    trained = examples.loc[examples["split"] == "train", "label"].unique()
    unseen = examples[~examples["label"].isin(trained)]
    if len(unseen):
        row = unseen.iloc[0]
        expected = f"expected the classes of train, got {row['label']!r} in {row['split']}"
        more = f" (the first of {len(unseen):,} such rows)" if len(unseen) > 1 else ""
        raise InputError(f"{row['file']}:{row['line']}: {expected}{more}; correct the label or add such texts to train")


def _order_labels(labels: set[str], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels as the files or the hub order them, else numbers by value, else sorted."""
    for known in (tuple(name for name in declared if name in labels), *CARDS):
        if labels == set(known):
            return known
    if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    return tuple(sorted(labels))
