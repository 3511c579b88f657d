import logging
from pathlib import Path

import pandas as pd
import pytest
from commands import line_of

from data import ReadOptions, read_corpus
from data.rows import BadRow, Row, check_rows, refuse_bad_rows

GOOD = "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(40))


def write(path, rows):
    path.write_text("text,label\n" + GOOD + rows)
    return path


def test_all_bad_rows_are_counted_by_kind_and_three_are_shown(tmp_path):
    path = write(tmp_path / "a.csv", ",x\n,y\nonly one\n\nlast, y\n")
    message = line_of(read_corpus, path)
    assert message.startswith(f"{path}:42, 43: the text is empty; {path}:44: expected 2 fields as in the header")
    kinds = "2 empty texts, 1 rows with another number of fields, 1 blank lines, 1 labels with white space around them"
    assert f"5 of 45 rows cannot be used: {kinds}; correct or remove them, or pass --skip-bad-rows" in message


def test_bad_rows_of_all_files_of_a_folder_are_told_at_once(tmp_path):
    for split in ("train", "val", "test"):
        write(tmp_path / f"{split}.csv", f"{split},\n")
    message = line_of(read_corpus, tmp_path)
    assert message.startswith(", ".join(f"{tmp_path / split}.csv:42" for split in ("train", "val", "test")))
    assert "3 of 123 rows cannot be used: 3 empty labels" in message


def test_bad_rows_are_skipped_and_listed(tmp_path):
    path = write(tmp_path / "a.csv", ",x\nlast, y\n" + "long " * 100 + "\n")
    corpus = read_corpus(path, ReadOptions(skip_bad_rows=True))
    assert len(corpus.examples) == 40
    assert corpus.skipped.columns.tolist() == ["file", "line", "kind", "reason", "content"]
    assert corpus.skipped["file"].unique().tolist() == [str(path)]
    assert corpus.skipped["line"].tolist() == [42, 43, 44]
    assert corpus.skipped["content"].tolist() == ["'', 'x'", "'last', ' y'", ("long " * 100)[:200]]


def test_where_nothing_is_left_that_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n,x\n,y\n")
    assert "every row was skipped" in line_of(read_corpus, path, ReadOptions(skip_bad_rows=True))


def test_one_bad_row_is_told_without_counting(tmp_path):
    message = line_of(read_corpus, write(tmp_path / "a.csv", ",x\n"))
    assert message.endswith(
        "a.csv:42: the text is empty; correct or remove it, or pass --skip-bad-rows to go on without it"
    )


@pytest.mark.parametrize("ending", [".csv", ".txt"])
def test_a_label_of_a_megabyte_is_not_printed(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_text({".csv": "text,label\na,", ".txt": "a;"}[ending] + "x" * 1_000_000 + " \n")
    line_of(read_corpus, path)
    path.write_text({".csv": "text,label\na,", ".txt": "a;"}[ending] + "x\0" * 1_000_000 + "\n")
    line_of(read_corpus, path)


def test_a_hundred_thousand_bad_rows_take_seconds(tmp_path):
    """With the square of the rows, they would take minutes."""
    n = 200_000
    good, bad = check_rows((Row(i, "" if i % 2 else "a", "x") for i in range(n)), tmp_path)
    message = line_of(refuse_bad_rows, bad, n)
    assert len(good) == len(bad) == n // 2
    assert "100,000 of 200,000 rows cannot be used: 100,000 empty texts" in message


def test_half_of_a_character_is_written_as_an_escape(tmp_path):
    _, bad = check_rows([BadRow(1, "kind", "reason", "a\udce9")], tmp_path)
    assert bad["content"][0] == "a\\udce9"
    pd.testing.assert_frame_equal(
        bad, bad.map(lambda value: value.encode().decode() if isinstance(value, str) else value)
    )


# Headers of .txt


def txt(folder, header, rows=30, splits=("train", "val", "test")):
    for split in ("train", "val", "test"):
        lines = [f"{split} {i};{'xy'[i % 2]}\n" for i in range(rows)]
        (folder / f"{split}.txt").write_text((header if split in splits else "") + "".join(lines))
    return folder


def test_the_same_first_line_in_all_txt_files_is_a_header(tmp_path):
    message = line_of(read_corpus, txt(tmp_path, "Text;Emotion\n"))
    assert message.startswith(", ".join(f"{tmp_path / split}.txt:1" for split in ("train", "val", "test")))
    assert "got what looks like a header: 'Text;Emotion'" in message
    corpus = read_corpus(tmp_path, ReadOptions(skip_bad_rows=True))
    assert corpus.labels == ("x", "y")
    assert (len(corpus.examples), len(corpus.skipped)) == (90, 3)


@pytest.mark.parametrize("header", ["the same;x\n", ""])
def test_the_same_first_line_with_a_label_of_others_is_a_row(tmp_path, header):
    assert len(read_corpus(txt(tmp_path, header)).examples) == 90 + 3 * bool(header)


def test_notices_name_the_file(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("text;label\n" + GOOD.replace(",", ";"))
    read_corpus(path)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{path}: fields are separated by semicolons"
    ]


@pytest.mark.parametrize("n", [0, 1, 6, 7])
def test_rows_that_are_tabulated_in_parts_make_the_same_table(monkeypatch, n):
    rows = [Row(i + 1, f"text {i}", i) for i in range(n)]
    whole, _ = check_rows([*rows, BadRow(99, "kind", "reason")], Path("a.csv"))
    monkeypatch.setattr("data.rows.CHUNK", 3)
    parts, bad = check_rows([*rows[:2], BadRow(99, "kind", "reason"), *rows[2:]], Path("a.csv"))
    pd.testing.assert_frame_equal(parts, whole)
    assert parts[["line", "text", "label"]].values.tolist() == [[i + 1, f"text {i}", str(i)] for i in range(n)]
    assert bad["line"].tolist() == [99]
