"""What a run's manifest says of how its corpus was read, and that it is read so again."""

from dataclasses import fields

import pytest

from data import ReadOptions, read_corpus
from data.reading import USUAL
from lab import manifest
from lab.defaults import TrainOptions
from lab.output import write_json
from model.files import read_json

READINGS = [
    USUAL,
    ReadOptions(text_column="body", label_column="2"),
    ReadOptions(header=False, encoding="cp1252"),
    ReadOptions(label_names=("no", "yes, please")),
    ReadOptions(single_label=True, skip_bad_rows=True),
]


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_comes_back_from_the_file_of_a_run(tmp_path, reading):
    write_json(tmp_path / "run.json", manifest.describe_settings(TrainOptions(read=reading)))
    assert manifest.restore_reading(read_json(tmp_path / "run.json")) == reading


def test_each_way_to_read_is_tried():
    changed = {
        field.name
        for field in fields(ReadOptions)
        for reading in READINGS
        if field.default != getattr(reading, field.name)
    }
    assert changed == {field.name for field in fields(ReadOptions)}


def test_a_run_of_before_these_options_was_read_in_the_usual_way():
    assert manifest.restore_reading({"seed": 0}) == USUAL
    assert manifest.restore_reading({"label_column": "tag"}) == ReadOptions(label_column="tag")


def test_a_corpus_is_the_same_when_it_is_read_again(tmp_path):
    rows = [f"0,caf\u00e9 {n},x" for n in range(20)] + [f"1,th\u00e9 {n},x" for n in range(20)] + [",no label,x"]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n", encoding="cp1252")
    reading = ReadOptions("2", "1", header=False, encoding="cp1252", label_names=("coffee", "tea"), skip_bad_rows=True)
    first = read_corpus(tmp_path / "a.csv", reading)
    again = read_corpus(
        tmp_path / "a.csv", manifest.restore_reading(manifest.describe_settings(TrainOptions(read=reading)))
    )
    assert again.labels == ("coffee", "tea")
    assert again.examples.equals(first.examples)
    assert len(again.skipped) == 1
