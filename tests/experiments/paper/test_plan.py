"""How corpora are read is passed on to each run of train.py."""

import pytest
import tyro

import paper
import train
from data import ReadOptions
from data.reading import USUAL
from experiments.paper.plan import write_options

READINGS = {
    "columns by name": ReadOptions(text_column="what was said", label_column="-x"),
    "columns by numbers": ReadOptions(text_column="3", label_column="1", header=False),
    "an encoding": ReadOptions(encoding="cp1252"),
    "names of classes": ReadOptions(label_names=("no", "yes, please", "-1")),
    "rows": ReadOptions(single_label=True, skip_bad_rows=True),
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
@pytest.mark.parametrize("script", [train, paper])
def test_what_is_passed_on_is_read_as_it_was(reading, script):
    words = write_options(reading)
    for line in (["--run", "x", *words, "--truncate"], ["--truncate", *words]):
        options = tyro.cli(script.Options, args=line)
        assert options.read == reading
        assert options.truncate


def test_of_the_usual_way_nothing_is_passed_on():
    assert write_options(USUAL) == []
    assert write_options(ReadOptions(label_column="tag")) == ["--label-column=tag"]
