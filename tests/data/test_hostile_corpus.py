"""Corpora that are damaged, absurd or malicious: a checked corpus, or one line that a terminal can print."""

import io
import json
import lzma
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import line_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated, mutations

from data import ReadOptions, read_corpus
from data.books import read_books
from data.formats import READERS, read_table
from model import InputError, Tokenizer

LARGE = 100_000_000  # bytes
TOKENIZER = Tokenizer.load("gpt2-mini")
ROWS = [
    (f"{text} {i} 🙂 שלום", label) for i in range(10) for text, label in (("good, film", "pos"), ('a "bad" one', "neg"))
]


def parquet(table, **options):
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def delimited(delimiter):
    quoted = ([text.replace('"', '""'), label] for text, label in [("text", "label"), *ROWS])
    return "".join(f'"{text}"{delimiter}{label}\n' for text, label in quoted).encode()


TABLE = pa.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS).encode()
VALID = {
    ".txt": "".join(f"{text};{label}\n" for text, label in ROWS).encode(),
    ".csv": delimited(","),
    ".tsv": delimited("\t"),
    ".jsonl": JSONL,
    ".json": JSONL,
    ".parquet": parquet(TABLE, compression="none", use_dictionary=False),
}


def checked(corpus):
    """A corpus that was read is one that every later step can rely on."""
    assert len(corpus.labels) == len(set(corpus.labels)) >= 2
    assert set(corpus.examples["split"]) == {"train", "val", "test"}
    for column in ("text", "label"):
        assert all(type(value) is str and value.strip() and "\0" not in value for value in corpus.examples[column])
        "".join(corpus.examples[column]).encode()  # no half of a surrogate pair
    assert all(label.isprintable() for label in corpus.labels)
    assert set(corpus.examples["label"]) <= set(corpus.labels)


def test_every_format_is_here():
    assert VALID.keys() == READERS.keys()


@pytest.mark.parametrize("ending", VALID)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations())
def test_a_mutated_file_is_read_right_or_refused_in_one_line(ending, changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"corpus{ending}"
        path.write_bytes(mutated(VALID[ending], changes))
        try:
            checked(read_corpus(path))
        except InputError:
            assert line_of(read_corpus, path).startswith(str(path))


@pytest.mark.parametrize("ending", VALID)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(changes=mutations(), split=st.sampled_from(["train", "val", "test"]))
def test_a_mutated_split_of_a_folder_is_read_right_or_refused_in_one_line(ending, changes, split):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("train", "val", "test"):
            content = mutated(VALID[ending], changes) if name == split else VALID[ending]
            (Path(folder) / f"{name}{ending}").write_bytes(content)
        try:
            checked(read_corpus(folder))
        except InputError:
            assert folder in line_of(read_corpus, folder)


# Every way to read a table


def rows_of(template, labels=("pos", "neg"), start="", encoding="utf-8"):
    """The file of these texts, each as the template has it."""
    texts = [(text if encoding == "utf-8" else f"{text[:9]} “été”", labels[label == "neg"]) for text, label in ROWS]
    lines = [template.format(text=text, label=label, i=i) for i, (text, label) in enumerate(texts)]
    return (start + "\n".join(lines) + "\n").encode(encoding)


PLAIN = {  # where marks enclose no field, each line is a row, whatever damage there is: ending, content, options
    "tabs": (".tsv", rows_of("{text}\t{label}", start="text\tlabel\n"), {}),
    "marks": (".tsv", rows_of('"{text}\t{label}', start="text\tlabel\n"), {}),
    "bars": (".csv", rows_of("{i}|{text}|{label}", start="id|text|label\n"), {}),
    "no header": (".tsv", rows_of("{text}\t{label}\t{i}"), {"header": False}),
    "numbers": (".tsv", rows_of("{label}\t{text}"), {"header": False, "text_column": "2", "label_column": "1"}),
    "cp1252": (".tsv", rows_of("{text}\t{label}", encoding="cp1252"), {"header": False, "encoding": "cp1252"}),
    "names": (".tsv", rows_of("{text}\t{label}", "01"), {"header": False, "label_names": ("neg", "pos")}),
    "lists": (".tsv", rows_of("{text}\t{label}", ["1", "2"]), {"header": False, "single_label": True}),
    ".txt": (".txt", VALID[".txt"], {}),
    ".txt, names": (".txt", rows_of("{text};{label}", "01"), {"label_names": ("neg", "pos")}),
    ".jsonl": (".jsonl", JSONL, {}),
}
QUOTED = {
    "commas": (".csv", delimited(","), {}),
    "semicolons": (".csv", delimited(";"), {}),
    "tabs, quoted": (".tsv", delimited("\t"), {}),
    "bars, quoted": (".csv", delimited("|"), {"text_column": "1", "label_column": "2"}),
    "no header, quoted": (
        ".csv",
        rows_of('"{label}","{i}","{i}, {i}"'),
        {"header": False, "text_column": "3", "label_column": "1"},
    ),
    "lists, quoted": (
        ".csv",
        rows_of('"{i}","{label}"', ["['joy']", "[fear]"]),
        {"header": False, "single_label": True},
    ),
    "array": (".json", json.dumps([json.loads(line) for line in JSONL.splitlines()]).encode(), {}),
}


@pytest.mark.parametrize("skip", [False, True], ids=["", "skip"])
@pytest.mark.parametrize("kind", [*PLAIN, *QUOTED])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(changes=mutations())
def test_mutated_files_of_every_kind_are_read_right_or_refused_in_one_line(kind, skip, changes):
    ending, content, options = (PLAIN | QUOTED)[kind]
    with tempfile.TemporaryDirectory() as folder:
        path, options = Path(folder) / f"corpus{ending}", ReadOptions(**options, skip_bad_rows=skip)
        path.write_bytes(mutated(content, changes))
        try:
            corpus = read_corpus(path, options)
        except InputError:
            assert line_of(read_corpus, path, options).startswith(str(path))
            return
        checked(corpus)
        several = {"rows without a label", "rows with several labels"} if options.single_label else set()
        assert skip or set(corpus.skipped["kind"]) <= several


@pytest.mark.parametrize("kind", PLAIN)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations())
def test_each_line_of_a_mutated_file_is_a_row_or_is_listed(kind, changes):
    ending, content, options = PLAIN[kind]
    data = mutated(content, changes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"corpus{ending}"
        path.write_bytes(data)
        try:
            table = read_table(path, ReadOptions(**options))
        except InputError:
            return
    found = sorted([*table.rows["line"], *table.bad_rows["line"]])
    end = b"\n" if b"\n" in data else b"\r"
    lines = data.removesuffix(end).count(end) + 1
    first = 1 if ending != ".tsv" or not options.get("header", True) else 2
    if kind == "bars":
        first = 2
    assert found == list(range(first, lines + 1))


@pytest.mark.parametrize("kind", QUOTED)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations())
def test_rows_of_a_mutated_quoted_file_follow_each_other(kind, changes):
    """Between two rows there are no lines but those that the fields of the first one have."""
    ending, content, options = QUOTED[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"corpus{ending}"
        path.write_bytes(mutated(content, changes))
        try:
            table = read_table(path, ReadOptions(**options))
        except InputError:
            return
    rows = [(line, text.count("\n")) for line, text in zip(table.rows["line"], table.rows["text"], strict=True)]
    starts = sorted(rows + [(line, 0) for line in table.bad_rows["line"]])
    for (line, within), (following, _) in pairwise(starts):
        assert following >= line + 1 + within
        assert following == line + 1 + within or kind != "array"


@pytest.mark.parametrize("name", ["books.txt", "books.txt.xz"])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations())
def test_mutated_books_are_read_right_or_refused_in_one_line(name, changes):
    content = "One\nand “two”\n<|endoftext|>\nthree 🙂\n".encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(mutated(lzma.compress(content) if name.endswith(".xz") else content, changes))
        try:
            assert len(read_books(path, TOKENIZER).train)
        except InputError:
            line_of(read_books, path, TOKENIZER)


# What is no file that can be read to its end


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("make", [pipe, device, loop, Path.mkdir], ids=lambda make: make.__name__)
@pytest.mark.parametrize("read", [read_corpus, lambda path: read_books(path, TOKENIZER)], ids=["corpus", "books"])
def test_what_is_no_file_is_refused_and_never_opened(tmp_path, make, read):
    path = tmp_path / "corpus.txt"
    make(path)
    assert str(path) in line_of(read, path)


@pytest.mark.parametrize("make", [pipe, device, loop, Path.mkdir], ids=lambda make: make.__name__)
def test_a_split_that_is_no_file_is_none(tmp_path, make):
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_bytes(VALID[".txt"])
    make(tmp_path / "val.txt")
    assert len(read_corpus(tmp_path).files) == 2  # val is set aside from train, as where there is none


@pytest.mark.parametrize("name", ["a\0b.txt", "\x1b[2J\n.txt", "\u202egpj.txt", "\udcff.txt"], ids=ascii)
def test_a_name_that_a_terminal_would_obey_is_escaped(name):
    line_of(read_corpus, name)


# A line of 100 MB

LONG_ROWS = {
    ".txt": lambda: b"a" * LARGE + b";x\n",
    ".csv": lambda: b'text,label\n"' + b"a" * LARGE + b'",x\n',
    ".jsonl": lambda: b'{"text": "' + b"a" * LARGE + b'", "label": "x"}\n',
    ".parquet": lambda: parquet(pa.table({"text": ["a" * LARGE], "label": ["x"]})),
}
ENDLESS = {
    ".txt": (b"", "expected text;label, got 'aaa"),
    ".csv": (b'text,label\n"', ":2: not a valid row"),
    ".tsv": (b"", ":1: expected one column 'text', there are 'aaa"),
    ".jsonl": (b'{"text": "', ":1: expected one JSON object per line"),
    ".parquet": (b"PAR1", "not a readable parquet file"),
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", LONG_ROWS)
def test_a_line_of_100_mb_is_read(tmp_path, ending):
    path = tmp_path / f"long{ending}"
    path.write_bytes(LONG_ROWS[ending]())
    rows = read_table(path).rows
    assert rows["label"].tolist() == ["x"]
    assert rows["text"][0].count("a") == len(rows["text"][0]) == LARGE


@pytest.mark.parametrize("ending", ENDLESS)
def test_an_endless_line_is_refused_without_printing_it(tmp_path, ending):
    start, message = ENDLESS[ending]
    path = tmp_path / f"long{ending}"
    path.write_bytes(start + b"a" * LARGE)
    assert message in line_of(read_corpus, path)


def test_a_header_of_a_million_columns_is_refused_without_printing_it(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_bytes(b"," * 1_000_000)
    assert "expected one column 'text', there are '', ''" in line_of(read_corpus, path)


# What parses, and is no corpus

COLUMNS = {
    "lists": pa.array([["x"]]),
    "structs": pa.array([{"a": 1}]),
    "maps": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "bytes": pa.array([b"x"]),
    "dates beyond Python's": pa.array([2**30], pa.date32()),
    "times beyond Python's": pa.array([2**61], pa.timestamp("us")),
    "durations beyond Python's": pa.array([2**61], pa.duration("ms")),
    "no time zone": pa.array([1], pa.timestamp("us", tz="No/Where")),
    "nothing": pa.nulls(1),
}


@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_parquet_column_of_another_type_is_refused(tmp_path, kind, column):
    path = tmp_path / "odd.parquet"
    path.write_bytes(parquet(pa.table({"text": ["a"], "label": ["x"]} | {column: COLUMNS[kind]})))
    assert line_of(read_corpus, path).startswith(str(path))


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_parquet_strings_of_any_kind_are_read(tmp_path, type_):
    path = tmp_path / "odd.parquet"
    path.write_bytes(parquet(pa.table({"text": pa.array(["a"], type_), "label": pa.array(["x"], type_)})))
    assert read_table(path).rows[["text", "label"]].values.tolist() == [["a", "x"]]


def numbered(path, metadata):
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], metadata={"huggingface": metadata})
    path.write_bytes(parquet(pa.table({"text": ["a", "b"], "label": [0, 1]}, schema=schema)))
    return path


METADATA = ["", "3", "null", "[1]", '{"info": 3}', '{"info": {"features": []}}', "[" * 100_000, b"\xff"]


@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
def test_metadata_of_others_say_nothing(tmp_path, metadata):
    assert read_table(numbered(tmp_path / "a.parquet", metadata)).labels == ()


NO_NAMES = [3, None, "ab", ["a", 1], ["a", "a"], [["a"], ["b"]], {"0": "a"}, ["a", "b\0"], ["a", "\ud800"], ["a", ""]]


@pytest.mark.parametrize("names", NO_NAMES, ids=ascii)
def test_names_that_are_none_are_refused(tmp_path, names):
    metadata = json.dumps({"info": {"features": {"label": {"names": names}}}})
    path = numbered(tmp_path / "a.parquet", metadata)
    assert "expected a list of different names" in line_of(read_corpus, path)
