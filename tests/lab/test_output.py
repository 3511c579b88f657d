import numpy as np
import pandas as pd
import pytest

from lab.output import read_csv, write_csv

NAMES = [
    "nan",
    "NA",
    "null",
    "None",
    "",
    "1",
    "1.0",
    "1e3",
    "-inf",
    "True",
    "all",
    'a "b", c',
    "a\rb",
    " joy",
    "#",
    "喜悦",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_read_as_it_was_written(tmp_path, name):
    """Text stays text, whatever a class is called; numbers are numbers, and empty ones NaN."""
    table = pd.DataFrame({"class": [name, "joy"], "effect": [np.nan, -0.25], "p": [np.nan, np.nan], "n": [13, 0]})
    table[f"p_{name}"] = [np.inf, 1e-9]
    write_csv(tmp_path / "x.csv", table)
    read = read_csv(tmp_path / "x.csv", ["class", "not in this table"])
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert read["class"].tolist() == [name, "joy"]
    assert [read[column].dtype for column in table.columns[1:]] == [np.float64, np.float64, np.int64, np.float64]


@pytest.mark.parametrize("name", NAMES)
def test_text_stays_text_where_every_class_is_called_so(tmp_path, name):
    write_csv(tmp_path / "x.csv", pd.DataFrame({"class": [name] * 3, "n": [1, 2, 3]}))
    assert read_csv(tmp_path / "x.csv", ["class"])["class"].tolist() == [name] * 3
