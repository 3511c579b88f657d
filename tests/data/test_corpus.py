import csv
import hashlib
import io
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import line_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.model_selection import train_test_split

from data import ReadOptions, describe_corpus, read_corpus, render_description
from data.formats import read_table

SHARED = Path(__file__).parents[3] / "shared"
GOOD = "good film;pos\nbad film;neg\n"


def needs(name):
    return pytest.mark.skipif(not (SHARED / name).is_dir(), reason=f"the real corpus ../shared/{name} is not here")


def folder(path, train=GOOD, val=GOOD, test=GOOD, ending=".txt"):
    for name, content in (("train", train), ("val", val), ("test", test)):
        (path / f"{name}{ending}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(path, columns, schema=None):
    pq.write_table(pa.table(columns, schema=schema), path)
    return path


# Reading back what was written

LABELS = st.sampled_from(["joy", "1.0", "01", "NA", "null", "très bon", "🙂", "a;b"])


def texts(exclude):
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff" + exclude)
    odd = st.sampled_from(
        [c for c in " ;\"',\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029شכ👩‍👩‍👧é\\" if c not in exclude]
    )
    return st.text(alphabet | odd, min_size=1).filter(str.strip)


def rows(exclude="", labels=LABELS):
    return st.lists(st.tuples(texts(exclude), labels), min_size=1, max_size=8)


def read_back(content, ending):
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / f"corpus{ending}"
        path.write_bytes(content)
        read = read_table(path).rows
    return list(zip(read["text"], read["label"], strict=True)), read["line"].tolist()


@settings(deadline=None)
@given(
    rows("\n\r", LABELS.filter(lambda label: ";" not in label)),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.booleans(),
)
@example([("\x1b[31mred\x1b[0m; \u202eright\u202c \x07 \u200b🙂\ufe0f", "x")], "\n", "utf-8", True)
def test_txt_reads_back(rows, newline, encoding, ends_with_newline):
    content = newline.join(f"{text};{label}" for text, label in rows) + newline * ends_with_newline
    assert read_back(content.encode(encoding), ".txt") == (rows, list(range(1, len(rows) + 1)))


@settings(deadline=None)
@given(rows(), st.sampled_from([(".csv", ","), (".tsv", "\t")]), st.sampled_from(["\n", "\r\n"]))
def test_csv_and_tsv_read_back_with_the_line_where_each_row_starts(rows, kind, newline):
    ending, delimiter = kind
    stream, lines = io.StringIO(newline=""), []
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=newline)
    writer.writerow(["id", "label", "text"])
    for number, (text, label) in enumerate(rows):
        lines.append(stream.getvalue().count("\n") + 1)
        writer.writerow([number, label, text])
    assert read_back(stream.getvalue().encode("utf-8-sig"), ending) == (rows, lines)


@settings(deadline=None)
@given(rows(), st.booleans(), st.sampled_from([".jsonl", ".json", ".JSONL"]))
def test_jsonl_reads_back(rows, ascii, ending):
    lines = [json.dumps({"text": text, "id": 1, "label": label}, ensure_ascii=ascii) for text, label in rows]
    assert read_back("\n".join(lines).encode(), ending) == (rows, list(range(1, len(rows) + 1)))


@settings(max_examples=30, deadline=None)
@given(rows())
def test_parquet_reads_back(rows):
    stream = io.BytesIO()
    pd.DataFrame(rows, columns=["text", "label"]).assign(id=1).to_parquet(stream)
    assert read_back(stream.getvalue(), ".parquet") == (rows, list(range(1, len(rows) + 1)))


def test_whole_numbers_as_labels_become_their_digits(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": [10, -2]})
    assert read_table(path).rows["label"].tolist() == ["10", "-2"]
    assert read_back(b'{"text": "a", "label": 3}', ".jsonl")[0] == [("a", "3")]


def test_other_columns_can_be_named(tmp_path):
    (tmp_path / "a.csv").write_text("tweet,text,mood\nhello,x,joy\n")
    read = read_table(tmp_path / "a.csv", ReadOptions("tweet", "mood")).rows
    assert read[["text", "label"]].values.tolist() == [["hello", "joy"]]


# Folders

HUB = pa.schema([("text", pa.string()), ("label", pa.int64())])


def class_label(*names):
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    return HUB.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_hub_parquet_gives_the_names_and_their_order(tmp_path):
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "test-00000-of-00001"):
        columns = {"text": ["a", "b", "c"], "label": [1, 0, 1]}
        parquet(tmp_path / f"{name}.parquet", columns, class_label("world", "business", "sports"))
    corpus = read_corpus(tmp_path)
    assert corpus.labels == ("world", "business")
    assert corpus.split("val")["label"].tolist() == ["business", "world", "business"]


@pytest.mark.parametrize("number", [-1, 2])
def test_a_class_number_without_a_name_is_refused(tmp_path, number):
    path = parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": [1, number]}, class_label("neg", "pos"))
    assert f"{path}:2: class number {number} has no name; there are neg, pos" in line_of(read_corpus, path)


@pytest.mark.parametrize("val", ["val", "validation", "valid", "dev"])
def test_folder(tmp_path, val):
    folder(tmp_path, train="good;pos\nfine;pos\r\nbad;neg", val="so;neg\n")
    (tmp_path / "val.txt").rename(tmp_path / f"{val}.txt")
    (tmp_path / "README.md").write_text("about")
    corpus = read_corpus(str(tmp_path))
    assert corpus.name == tmp_path.name
    assert corpus.labels == ("neg", "pos")
    assert corpus.examples.columns.tolist() == ["split", "index", "text", "label", "file", "line"]
    assert corpus.examples["split"].tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert corpus.split("train")["index"].tolist() == corpus.split("train").index.tolist() == [0, 1, 2]
    assert corpus.split("val")[["text", "file", "line"]].values.tolist() == [["so", str(tmp_path / f"{val}.txt"), 1]]
    assert corpus.targets("train").tolist() == [1, 1, 0]
    assert corpus.targets("train").dtype == np.int64
    digest = hashlib.sha256(b"good;pos\nfine;pos\r\nbad;neg").hexdigest()
    assert corpus.files[str(tmp_path / "train.txt")] == digest
    assert len(corpus.files) == 3


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ("surprise love joy sadness fear anger", "sadness joy love anger fear surprise"),
        ("love joy anger", "anger joy love"),
        ("10 9 -1 2.5", "-1 2.5 9 10"),
        ("10 9 x", "10 9 x"),
    ],
)
def test_order_of_labels(tmp_path, labels, order):
    content = "".join(f"a text;{label}\n" for label in labels.split())
    assert read_corpus(folder(tmp_path, content, content, content)).labels == tuple(order.split())


def test_missing_and_doubled_splits_are_named(tmp_path):
    (tmp_path / "train.txt").write_text(GOOD)
    (tmp_path / "notes.md").write_text("x")
    message = line_of(read_corpus, tmp_path)
    assert "val: none; test: none" in message
    assert "validation, valid, dev" in message
    assert "there: notes.md, train.txt" in message
    folder(tmp_path)
    (tmp_path / "dev.csv").write_text("text,label\na,b\n")
    assert "val: dev.csv, val.txt" in line_of(read_corpus, tmp_path)


def test_shards_may_carry_a_hash(tmp_path):
    names = ["train-00000-of-00002-3f1c9a0b7d2e4f56", "train-00001-of-00002-9e8d7c6b5a493827"]
    for name in (*names, "test-00000-of-00001-0a1b2c3d4e5f6071"):
        rows = {"text": [f"{name} {i}" for i in range(40)], "label": ["x", "y"] * 20}
        parquet(tmp_path / f"{name}.parquet", rows)
    assert len(read_corpus(tmp_path).examples) == 120
    (tmp_path / f"{names[0]}.parquet").rename(tmp_path / "train-00001-of-00002-ffffffffffffffff.parquet")
    assert "expected one file each" in line_of(read_corpus, tmp_path)


@pytest.mark.parametrize("names", [("training", "validation", "test"), ("train", "dev", "test")])
def test_splits_have_the_names_that_people_give_them(tmp_path, names):
    for name in names:
        (tmp_path / f"{name}.csv").write_text("text;label\na b;x\nc d;y\n")
    assert sorted(corpus_split.split("/")[-1] for corpus_split in read_corpus(tmp_path).files) == sorted(
        f"{name}.csv" for name in names
    )


def test_texts_and_labels_in_two_files_are_refused_with_what_joins_them(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}_text.txt").write_text("a; b\nc\n")
        (tmp_path / f"{split}_labels.txt").write_text("0\n1\n")
    (tmp_path / "mapping.txt").write_text("0\tanger\n1\tjoy\n")
    advised = line_of(read_corpus, tmp_path).partition("e.g. ")[2]
    assert advised == "paste -d';' train_text.txt train_labels.txt > train.txt"
    for split in ("train", "val", "test"):
        subprocess.run(advised.replace("train", split), shell=True, cwd=tmp_path, check=True)
    corpus = read_corpus(tmp_path, ReadOptions(label_names=(str(tmp_path / "mapping.txt"),)))
    assert corpus.split("val")[["text", "label"]].values.tolist() == [["a; b", "anger"], ["c", "joy"]]


def test_an_array_of_json_is_a_table_as_pandas_writes_it(tmp_path):
    rows = pd.DataFrame({"text": ["a\n", "é"], "id": [1, 2], "label": ["x", "y"]})
    for indent in (None, 2):
        rows.to_json(tmp_path / "a.json", orient="records", indent=indent)
        read = read_table(tmp_path / "a.json").rows
        assert read[["line", "text", "label"]].values.tolist() == [[1, "a\n", "x"], [2, "é", "y"]]
    (tmp_path / "a.json").write_text('[{"text": "a", "label": "x"}, 3, {"text": "b"}, {"text": "", "label": "x"}]')
    assert read_table(tmp_path / "a.json").bad_rows["line"].tolist() == [2, 3, 4]
    (tmp_path / "a.json").write_text('[{"text": "a", "label": "x"},\n{"text"]')
    assert "expected an array of JSON objects: Expecting ':' delimiter: line 2" in line_of(
        read_corpus, tmp_path / "a.json"
    )
    for orient in ("columns", "split", "index", "table"):
        rows.to_json(tmp_path / "a.json", orient=orient)
        assert line_of(read_corpus, tmp_path / "a.json").startswith(f"{tmp_path / 'a.json'}:1: ")


@pytest.mark.parametrize(
    ("ending", "options", "said"),
    [
        (".txt", {"header": False}, "--no-header is for .csv and .tsv"),
        (".jsonl", {"header": False}, "--no-header is for .csv and .tsv"),
        (".txt", {"text_column": "said"}, "--text-column and --label-column are for tables"),
        (".parquet", {"encoding": "cp1252"}, "--encoding is for text files"),
    ],
)
def test_options_that_a_format_does_not_have_are_refused(tmp_path, ending, options, said):
    (tmp_path / f"a{ending}").write_text(GOOD)
    assert said in line_of(read_corpus, tmp_path / f"a{ending}", ReadOptions(**options))


# The raw Rotten Tomatoes pair


def polarity(path, pos=5331, neg=5331):
    (path / "rt-polarity.pos").write_bytes("".join(f"good café {i} \n" for i in range(pos)).encode("latin-1"))
    (path / "rt-polarity.neg").write_bytes("".join(f" bad\x85 {i}\n" for i in range(neg)).encode("latin-1"))
    return path


def test_polarity_files_are_latin1_and_split_as_on_the_hub(tmp_path):
    corpus = read_corpus(polarity(tmp_path))
    assert corpus.labels == ("neg", "pos")
    assert corpus.examples.groupby(["split", "label"]).size().to_dict() == {
        (split, label): n for split, n in (("train", 4265), ("val", 533), ("test", 533)) for label in ("neg", "pos")
    }
    assert corpus.split("train")["text"][0] == "good café 0"
    assert corpus.split("val")[["text", "line"]].iloc[-1].tolist() == ["bad\x85 4797", 4798]
    assert corpus.split("test")["text"].iloc[-1] == "bad\x85 5330"


def test_polarity_files_of_another_length_are_refused(tmp_path):
    message = line_of(read_corpus, polarity(tmp_path, neg=5330))
    assert "rt-polarity.neg: expected the 5331 lines" in message
    assert "got 5330" in message


# One file


def single(path, **counts):
    lines = [f"{label} text {i};{label}\n" for label, n in counts.items() for i in range(n)]
    (path / "all.txt").write_text("".join(lines))
    return path / "all.txt"


def test_single_file_is_split_80_10_10_within_each_class(tmp_path):
    path = single(tmp_path, pos=300, neg=100)
    corpus = read_corpus(path, seed=3)
    assert corpus.name == "all.txt"
    assert corpus.examples.groupby(["split", "label"]).size().to_dict() == {
        ("train", "pos"): 240, ("train", "neg"): 80, ("val", "pos"): 30, ("val", "neg"): 10,
        ("test", "pos"): 30, ("test", "neg"): 10,
    }  # fmt: skip
    assert sorted(corpus.examples["line"]) == list(range(1, 401))
    pd.testing.assert_frame_equal(corpus.examples, read_corpus(path, seed=3).examples)
    assert not corpus.examples["split"].equals(read_corpus(path, seed=4).examples["split"])


def test_the_second_draw_of_a_split_does_not_repeat_the_first(tmp_path):
    """200 texts of one class, then a tenth of them: by one seed begun anew, both would take the same positions."""
    path = single(tmp_path, pos=200, neg=200)
    rows = read_table(path).rows
    splits = read_corpus(path, seed=3).examples["split"].to_numpy()
    train, rest = train_test_split(rows, test_size=0.2, stratify=rows["label"], random_state=3)
    _, again = train_test_split(rest, test_size=0.5, stratify=rest["label"], random_state=3)
    assert set(np.flatnonzero(splits == "train")) == set(train.index)
    assert set(np.flatnonzero(splits == "test")) != set(again.index)


@given(st.lists(st.integers(10, 40), min_size=2, max_size=7), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_ten_texts_put_a_class_into_every_split(counts, seed):
    with tempfile.TemporaryDirectory() as parent:
        path = single(Path(parent), **{f"c{i}": n for i, n in enumerate(counts)})
        examples = read_corpus(path, seed=seed).examples
    assert len(examples.groupby(["split", "label"])) == 3 * len(counts)


def test_copies_of_a_text_stay_in_one_split(tmp_path):
    path = single(tmp_path, pos=40, neg=40)
    path.write_text(path.read_text() * 3 + "pos text 1;neg\n")
    examples = read_corpus(path).examples
    assert len(examples) == 241
    assert (examples.groupby("text")["split"].nunique() == 1).all()


def test_too_few_texts_of_a_class_are_named(tmp_path):
    path = single(tmp_path, pos=20, neg=9)
    assert f"{path}: expected at least 10 per class to split it, only 9 different texts are labelled 'neg'" in line_of(
        read_corpus, path
    )
    path = single(tmp_path, pos=20, neg=20)
    path.write_text(path.read_text() + "pos text 1;odd\n" * 12)
    assert "only 0 different texts are labelled 'odd' (line 41);" in line_of(read_corpus, path)


# Refusals

ROW = b'{"text": "a", "label": "x"}\n'
REFUSED = [
    (".txt", b"a;x\nno label\n", ":2: expected text;label", "'no label'"),
    (".txt", b"a;x\nb;\n", ":2: the label is empty", "correct or remove"),
    (".txt", b"a;x\n ;y\n", ":2: the text is empty", "correct or remove"),
    (".txt", b"a;x\n\nb;y\n", ":2: expected a labelled text, got a blank line", "remove"),
    (".txt", b"a;x\n \t\n", ":2: expected a labelled text, got a blank line", "remove"),
    (".txt", b"a;x\nb; y\n", ":2: the label ' y' has white space around it", "remove"),
    (".txt", b"a;x\nb\0b;y\n", ":2: the text holds a NUL", "correct"),
    (".txt", b"a;x\n\xe9t\xe9;y\n", ":2: expected UTF-8", "--encoding latin-1"),
    (".txt", b"\xef\xbb\xbfa;x\nb;y\n\xff", ":3: expected UTF-8, got other bytes", "correct"),
    (".txt", b"", ": expected labelled texts, the file is empty", "give another"),
    (".txt", b"\xef\xbb\xbf", ": expected labelled texts, the file is empty", "give another"),
    (".csv", b"text,label\n", ": expected labelled texts, there are no rows", "give another"),
    (".csv", b"tweet,label\na,x\n", ":1: expected one column 'text', there are 'tweet', 'label'", "--text-column"),
    (".csv", b"text,label,text\na,x,b\n", ":1: expected one column 'text'", "--text-column"),
    (".csv", b"text,label\n\"a\nb\",x\nc,d,y\n", ":4: expected 2 fields as in the header, got 3", "quote"),
    (".csv", b"text,label,\"a\nb\"\n,y,1\n", ":3: the text is empty", "correct"),
    (".csv", b"text,label\n\"a\rb\",x\n,y\n", ":3: the text is empty", "correct"),
    (".csv", b"text,label\na\n", ":2: expected 2 fields as in the header, got 1", "quote"),
    (".csv", b"text,label\na,x\n\nb,y\n", ":3: expected a labelled text, got a blank line", "remove"),
    (".csv", b"text,label\na,x\n\"b,y\nc,x\n", ":3: not a valid row", "quotes"),
    (".csv", b"text,label\na,x\n,y\n", ":3: the text is empty", "correct"),
    (".csv", b"text,label\n\"a\n\",x\n\xe9,y\n", ":4: expected UTF-8", "--encoding latin-1"),
    (".jsonl", ROW + b"{\n", ":2: expected one JSON object per line", "correct"),
    (".jsonl", ROW + b"[1]\n", ":2: expected a JSON object, got '[1]'", "one object for each row"),
    (".jsonl", ROW + b"[" * 100_000, ":2: expected one JSON object per line", "correct"),
    (".jsonl", ROW + b"\n" + ROW, ":2: expected a labelled text, got a blank line", "remove"),
    (".jsonl", ROW + b'{"text": "a"}', ":2: expected one column 'label', there are 'text'", "--label-column"),
    (".jsonl", ROW + b'{"text": "\\ud83d", "label": "x"}', ":2: the text is not valid Unicode", "surrogate"),
    (".jsonl", ROW + b'{"text": "a", "label": "\\udc00"}', ":2: the label is not valid Unicode", "surrogate"),
    (".jsonl", ROW + b'{"text": null, "label": "x"}', ":2: the text is null", "correct"),
    (".jsonl", ROW + b'{"text": 3, "label": "x"}', ":2: the text should be a string", "int"),
    (".jsonl", ROW + b'{"text": "a", "label": 1.5}', ":2: the label should be a string", "float"),
    (".jsonl", ROW + b'{"text": "a", "label": true}', ":2: the label should be a string", "bool"),
    (".jsonl", ROW + b'{"text": "a", "label": "x", "text": "b"}', ":2: expected one JSON object per line", "duplicate"),
    (".jsonl", ROW + b'{"text": "a", "label": "x", "c": {"a": 1, "a": 2}}', ":2: expected one JSON object", "key 'a'"),
    (".jsonl", ROW + b'{"text": "a", "label": 1e999}', ":2: the label should be a string", "float"),
    (".jsonl", ROW + b'{"text": "a", "label": ' + b"9" * 5000 + b"}", ":2: expected one JSON object", "digits"),
    (".jsonl", ROW + b'{"a":' * 100_000, ":2: expected one JSON object per line", "too many brackets"),
    (".jsonl", ROW + b"\xef\xbb\xbf" + ROW, ":2: expected one JSON object per line", "correct"),
    (".jsonl", ROW + b'{"text": "a", "label": "x\\u001b[2J"}', ":2: the label 'x\\x1b[2J' has control", "remove"),
    (".jsonl", ROW + b'{"text": "a", "label": "x\\u2028y"}', ":2: the label 'x\\u2028y' has control", "remove"),
    (".jsonl", ROW + b'{"text": "a", "label": ["x"]}', ":2: the label should be a string", "list"),
    (".csv", "text,label\na,x\n".encode("utf-16"), ":1: expected UTF-8", "--encoding utf-16"),
    (".parquet", b"PAR1 is not enough", ": not a readable parquet file", "write it anew"),
    (".xlsx", b"x", ": cannot read files ending in '.xlsx'", ".txt, .csv, .tsv, .jsonl, .json, .parquet"),
]  # fmt: skip


@pytest.mark.parametrize(("ending", "content", "where", "advice"), REFUSED)
def test_refusals_say_where_and_what_next(tmp_path, ending, content, where, advice):
    path = tmp_path / f"corpus{ending}"
    path.write_bytes(content)
    message = line_of(read_corpus, path)
    assert message.startswith(f"{path}{where}")
    assert advice in message


def test_parquet_refusals(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"text": ["a", None], "label": ["x", "y"]})
    assert line_of(read_corpus, path).startswith(f"{path}:2: the text is null")
    parquet(path, {"text": ["a", "b"], "label": [1, None]})
    assert line_of(read_corpus, path).startswith(f"{path}:2: the label is null")
    parquet(path, {"text": ["a"], "class": ["x"]})
    assert "expected one column 'label', there are 'text', 'class'" in line_of(read_corpus, path)
    parquet(path, {"text": pa.array([], pa.string()), "label": pa.array([], pa.string())})
    assert "there are no rows" in line_of(read_corpus, path)
    latin1 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9")])
    parquet(path, {"text": latin1, "label": ["x"]})
    assert "not a readable parquet file" in line_of(read_corpus, path)


def test_unreadable_file(tmp_path, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "train.txt: cannot be read: Permission denied" in line_of(read_corpus, folder(tmp_path))


def test_one_class_only(tmp_path):
    message = line_of(read_corpus, folder(tmp_path, *["a;x\nb;x\n"] * 3))
    assert "expected at least two classes, every label is 'x'" in message
    assert "at least two classes" in line_of(read_corpus, single(tmp_path, pos=20))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_training_never_sees(tmp_path, split):
    message = line_of(read_corpus, folder(tmp_path, **{split: GOOD + "so so;mixed\n"}))
    assert message.startswith(f"{tmp_path / split}.txt:3: ")
    assert "'mixed'" in message
    assert "the first of" not in message
    several = folder(tmp_path, **{split: GOOD + "so so;mixed\nso;mixed\nodd;other\n"})
    assert f"got 'mixed' in {split} (the first of 3 such rows); correct" in line_of(read_corpus, several)


# Describing


def words(corpus):
    return {split: corpus.split(split)["text"].str.split().str.len().tolist() for split in ("train", "val", "test")}


def test_describe_counts(tmp_path):
    train = "a;x\na;x\na;y\nb b;x\nb b;x\nc c c c;y\nd d d;x\n"
    corpus = read_corpus(folder(tmp_path, train, "c c c c;x\nd d d;x\n", "e;y\n"))
    description = describe_corpus(corpus, words(corpus))
    at = {split: str(tmp_path / f"{split}.txt") for split in ("train", "val", "test")}
    assert description["splits"]["train"] == {
        "texts": 7,
        "classes": {"x": 5, "y": 2},
        "tokens": {"mean": 2.0, "median": 2.0, "p95": 3.7, "max": 4},
        "duplicates": {
            "count": 2,
            "examples": [[f"{at['train']}:{i}" for i in (1, 2, 3)], [f"{at['train']}:{i}" for i in (4, 5)]],
        },
    }
    assert description["splits"]["test"]["classes"] == {"x": 0, "y": 1}
    assert description["splits"]["val"]["duplicates"] == {"count": 0, "examples": []}
    c, d = ([f"{at['train']}:{i}", f"{at['val']}:{j}"] for i, j in ((6, 1), (7, 2)))
    assert description["in_two_splits"] == {"count": 2, "examples": [c, d], "relabelled": 1}
    assert description["under_two_labels"] == {"count": 2, "examples": [[f"{at['train']}:{i}" for i in (1, 2, 3)], c]}
    assert json.loads(json.dumps(description)) == description


def test_describe_shows_five_examples_and_wants_every_length(tmp_path):
    corpus = read_corpus(folder(tmp_path, "".join(f"{i};pos\n{i};neg\n" for i in range(9))))
    description = describe_corpus(corpus, words(corpus))
    assert description["under_two_labels"]["count"] == 9
    assert len(description["under_two_labels"]["examples"]) == 5
    with pytest.raises(ValueError, match="Length of values"):
        describe_corpus(corpus, words(corpus) | {"train": [1, 2]})


def test_report_prints_every_number_and_labels_as_they_are(tmp_path):
    corpus = read_corpus(folder(tmp_path, *["a b;[bold]\nc;x\nc;[bold]\n"] * 3))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_description(describe_corpus(corpus, words(corpus))))
    printed = console.export_text()
    assert [line.split() for line in printed.splitlines() if "[bold]" in line] == [["[bold]", "2", "2", "2"]]
    assert "2 texts in two splits, 1 of them relabelled" in printed
    assert f"{tmp_path / 'train.txt'}:2 = " in printed


# The real ones


@needs("emotion")
def test_emotion():
    corpus = read_corpus(SHARED / "emotion")
    assert corpus.labels == ("sadness", "joy", "love", "anger", "fear", "surprise")
    description = describe_corpus(corpus, words(corpus))
    assert [part["texts"] for part in description["splits"].values()] == [16000, 2000, 2000]
    assert list(description["splits"]["train"]["classes"].values()) == [4666, 5362, 1304, 2159, 1937, 572]
    assert list(description["splits"]["test"]["classes"].values()) == [581, 695, 159, 275, 224, 66]
    assert [part["duplicates"]["count"] for part in description["splits"].values()] == [31, 2, 0]
    train = set(corpus.split("train")["text"])
    assert corpus.split("val")["text"].isin(train).sum() == 5
    assert corpus.split("test")["text"].isin(train).sum() == 11
    assert (description["in_two_splits"]["count"], description["in_two_splits"]["relabelled"]) == (19, 19)
    assert description["under_two_labels"]["count"] == 51


@needs("rotten_tomatoes")
def test_rotten_tomatoes():
    corpus = read_corpus(SHARED / "rotten_tomatoes")
    assert [len(corpus.split(split)) for split in ("train", "val", "test")] == [8530, 1066, 1066]
    assert np.bincount(corpus.targets("test")).tolist() == [533, 533]
    assert corpus.split("train")["text"][0].startswith("the rock is destined to be the 21st century's new")
    assert (corpus.examples["text"] == corpus.examples["text"].str.strip()).all()
