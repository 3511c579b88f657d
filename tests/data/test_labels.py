import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import line_of

from data import ReadOptions, read_corpus
from data.formats import read_table
from data.labels import find_number, list_labels, read_label_names

NAMES = ("anger", "joy", "sadness")


def write(path, labels, ending=".csv"):
    path = path / f"corpus{ending}"
    path.write_text("text,label\n" + "".join(f'text {i},"{label}"\n' for i, label in enumerate(labels)))
    return path


def labels_of(table):
    return table.rows["label"].tolist()


# Names


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("anger\njoy\nsadness\n", dict(enumerate(NAMES))),
        ("\ufeffanger\r\n\r\n joy \r\nsadness\r\n\n", dict(enumerate(NAMES))),
        ("0\tanger\n1\tjoy\n2\tsadness\n", dict(enumerate(NAMES))),
        ("2: sadness\n0: anger\n", {0: "anger", 2: "sadness"}),
        ("1\tWorld\n2\tSports\n3\tSci/Tech\n", {1: "World", 2: "Sports", 3: "Sci/Tech"}),
        ("1 star\n2 stars\n", {0: "1 star", 1: "2 stars"}),
        ("0\tlow\nhigh\n", None),  # a tab is no part of a name
        ("0\ta\n0\tb\n", None),
        ("a\na\n", None),
        ("a\n", None),
        ("", None),
    ],
)
def test_a_file_gives_the_names_of_classes(tmp_path, content, expected):
    path = tmp_path / "mapping.txt"
    path.write_text(content, newline="")
    if expected is None:
        assert "expected" in line_of(read_label_names, (str(path),))
    else:
        assert read_label_names((str(path),)) == expected


def test_names_may_be_given_as_they_are(tmp_path):
    assert read_label_names(("0:a", "b")) == {0: "0:a", 1: "b"}
    for given in (("a", "a"), ("a", ""), ("a", "b\n"), (str(tmp_path),), ("/dev/zero",), ("a\0",), ("none.txt",)):
        assert line_of(read_label_names, given).startswith("--label-names ")


def test_numbers_get_names_in_every_way_that_tables_write_numbers(tmp_path):
    table = read_table(
        write(tmp_path, ["1", "0", "2.0", "joy", "-1", "3", "happy", "1.5", ""]), ReadOptions(label_names=NAMES)
    )
    assert labels_of(table) == ["joy", "anger", "sadness", "joy"]
    assert table.labels == NAMES
    assert table.bad_rows[["line", "kind"]].values.tolist() == [
        [6, "classes without a name"], [7, "classes without a name"], [8, "labels that are no numbers"],
        [9, "labels that are no numbers"], [10, "empty labels"],
    ]  # fmt: skip
    assert table.bad_rows["reason"][1] == "class number 3 has no name; there are anger, joy, sadness"
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1.0, 2.0]}), path)
    assert labels_of(read_table(path, ReadOptions(label_names=NAMES))) == ["joy", "sadness"]
    assert [find_number("7", False), find_number("nan", True), find_number(True, True)] == [None] * 3


@pytest.mark.parametrize("skip", [False, True])
def test_a_class_whose_number_has_no_name_is_refused_and_a_few_rows_are_not(tmp_path, skip):
    options = ReadOptions(label_names=("bad", "good"), skip_bad_rows=skip)
    path = write(tmp_path, ["0", "4"] * 20)
    message = line_of(read_corpus, path, options)
    assert "expected the class numbers 0 to 1, got 0, 4; give --label-names a file of lines such as 4:NAME" in message
    few = read_table(write(tmp_path, ["0", "1"] * 20 + ["4"]), options)
    assert few.bad_rows["kind"].tolist() == ["classes without a name"]
    (tmp_path / "names").write_text("0 = bad\n4 = good\n")
    named = read_table(write(tmp_path, ["0", "4"] * 20), ReadOptions(label_names=(str(tmp_path / "names"),)))
    assert labels_of(named) == ["bad", "good"] * 20


@pytest.mark.parametrize("skip", [False, True])
def test_numbers_from_one_are_refused_because_each_class_would_get_the_name_of_another(tmp_path, skip):
    path = write(tmp_path, ["1", "2", "3", "-1"])
    message = line_of(read_corpus, path, ReadOptions(label_names=NAMES, skip_bad_rows=skip))
    assert "expected the class numbers 0 to 2, got -1, 1, 2, 3; " in message
    assert "give --label-names a file of lines such as 1:anger" in message
    names = tmp_path / "names"
    names.write_text("1:anger\n2:joy\n3:sadness\n")
    table = read_table(path, ReadOptions(label_names=(str(names),)))
    assert labels_of(table) == list(NAMES)
    assert table.bad_rows["kind"].tolist() == ["classes without a name"]
    assert "a file of lines such as 0:anger" in line_of(
        read_corpus, write(tmp_path, ["0", "1", "2"]), ReadOptions(label_names=(str(names),))
    )


def test_given_names_come_before_those_of_a_file_and_keep_their_order(tmp_path):
    features = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps({"info": {"features": features}})}
    )
    for split in ("train", "val", "test"):
        pq.write_table(pa.table({"text": ["x", "y"], "label": [0, 1]}, schema=schema), tmp_path / f"{split}.parquet")
    assert read_corpus(tmp_path).labels == ("a", "b")
    assert read_corpus(tmp_path, ReadOptions(label_names=("zeal", "awe"))).labels == ("zeal", "awe")


# Lists


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("joy", ["joy"]),
        ("2,5", ["2", "5"]),
        ("2, 5", ["2", "5"]),
        ("[2, 5]", ["2", "5"]),
        (str(np.array([12, 5])), ["12", "5"]),
        (str(np.array(["very sad", "joy"])), ["very sad", "joy"]),
        ("['joy']", ["joy"]),
        ("[\"don't know\", 'joy']", ["don't know", "joy"]),
        ("[very sad]", ["very sad"]),
        ("[very sad, joy]", ["very sad", "joy"]),
        ("[]", []),
        ("", []),
        (None, []),
        (3, [3]),
        ([3], [3]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_lists_of_labels_are_read_in_every_way_that_tables_write_them(label, expected):
    assert list_labels(label) == expected


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
def test_rows_with_one_label_are_used_and_the_others_are_counted_and_no_mistakes(tmp_path, ending):
    labels = [[i % 2] for i in range(40)] + [[0, 1], [], [1, 2], [2, 1]]
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    path = tmp_path / f"corpus{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write(tmp_path, labels)
    corpus = read_corpus(path, ReadOptions(single_label=True, label_names=NAMES))
    assert corpus.labels == NAMES[:2]
    assert len(corpus.examples) == 40
    assert corpus.skipped["kind"].value_counts().to_dict() == {"rows with several labels": 3, "rows without a label": 1}
    assert corpus.skipped["line"].tolist() == [n + (ending == ".csv") for n in (41, 42, 43, 44)]
    assert corpus.skipped["content"].tolist() == [f"text {i}" for i in (40, 41, 42, 43)]


def test_real_mistakes_are_refused_beside_rows_with_several_labels(tmp_path):
    path = write(tmp_path, ["0"] * 20 + ["1"] * 20 + ["0,1", "7"])
    message = line_of(read_corpus, path, ReadOptions(single_label=True, label_names=NAMES))
    assert message.startswith(f"{path}:43: class number 7 has no name")
    assert "several" not in message
    skipped = read_corpus(path, ReadOptions(single_label=True, label_names=NAMES, skip_bad_rows=True)).skipped
    assert skipped["line"].tolist() == [42, 43]


def test_lists_are_refused_with_the_option_that_reads_them(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": ["x"]}\n')
    assert "--single-label takes the rows with one" in line_of(read_corpus, path)
    assert "--single-label takes the rows with one" in line_of(read_corpus, path, ReadOptions(label_names=NAMES))


def test_where_no_row_has_a_single_label_that_is_said(tmp_path):
    message = line_of(read_corpus, write(tmp_path, ["0,1"] * 30), ReadOptions(single_label=True))
    assert "every row was skipped" in message
