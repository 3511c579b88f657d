"""The faults of a tiny project, with tests that miss some of them."""

import subprocess
import sys

import pandas as pd
import pytest

from bench import mutants
from bench.points import Mutant

FILES = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "lab/__init__.py": "",
    "lab/numbers.py": """
LIMIT = 3


def small(values):
    return [value for value in values if value < LIMIT]


def unnoticed(x):
    return x + 1
""",
    "data/__init__.py": "",
    "data/letters.py": "def first(word):\n    return word[0]\n",
    "tests/lab/test_numbers.py": """
from lab.numbers import small, unnoticed


def test_small():
    assert small([1, 2, 3, 4]) == [1, 2]


def test_unnoticed():
    unnoticed(2)


def test_that_fails():
    assert unnoticed(2) == 0
""",
    "tests/test_first.py": """
import pytest
from data.letters import first


@pytest.fixture(scope="module")
def letter():
    return first("ab")


def test_other():
    pass


def test_letter(letter):
    assert letter == "a"
""",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(project, out, *arguments):
    command = [sys.executable, "-m", "bench.mutants", "--tree", project, "--out", out, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=mutants.ROOT)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(out / "mutants.csv", keep_default_na=False)
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:]}
    return table, rows


def test_faults_are_drawn_and_those_that_no_test_notices_are_found(project, tmp_path):
    table, rows = run(project, tmp_path / "out", "--draw", "20", "--jobs", "2")
    by = {(row.before, row.after): row.by for row in table.itertuples()}
    small, condition = "tests/lab/test_numbers.py::test_small", "return [value for value in values if {}]"
    assert by == {
        ("LIMIT = 3", "LIMIT = 4"): small,
        (condition.format("value < LIMIT"), condition.format("value <= LIMIT")): small,
        (condition.format("value < LIMIT"), condition.format("value >= LIMIT")): small,
        (condition.format("value < LIMIT"), condition.format("not value < LIMIT")): small,
        ("return x + 1", "return x - 1"): "",
        ("return x + 1", "return x + 2"): "",
        ("return word[0]", "return word[1]"): "tests/test_first.py::test_letter",
    }
    assert (table["noticed"] == (table["by"] != "")).all()
    tests = table.set_index("before")["tests"].to_dict()
    assert tests == {"LIMIT = 3": 2, condition.format("value < LIMIT"): 1, "return x + 1": 1, "return word[0]": 1}
    assert rows["lab/numbers.py"] == ["6", "0", "4", "0.67"]
    assert rows["data/letters.py"] == ["1", "0", "1", "1.00"]
    assert rows["all"] == ["7", "0", "5", "0.71"]
    assert {f"{path.relative_to(project)}": path.read_text() for path in project.rglob("*.*")} == FILES

    (tmp_path / "out" / "mutants.csv").write_text(table.iloc[:4].to_csv(index=False))
    again, _ = run(project, tmp_path / "out", "--draw", "20")
    assert again.iloc[:4].equals(table.iloc[:4])  # with their seconds
    assert set(again[mutants.IDENTITY].itertuples(index=False)) == set(table[mutants.IDENTITY].itertuples(index=False))
    assert len(again) == 7


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"files": ("lab/numbers.py", "lab/nothing.py")}, "has no lab/nothing.py"),
        ({"draw": 0}, "expected at least 1, got 0 and 1"),
        ({"jobs": -1}, "expected at least 1, got 300 and -1"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(project, tmp_path, capsys, options, line):
    assert mutants.main(mutants.Options(tree=project, out=tmp_path / "out", **options)) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.endswith(line)
    assert not (tmp_path / "out").exists()


def test_the_seed_decides_what_is_drawn(project):
    every, first, same, other = (
        mutants.draw(project, mutants.Options(draw=draw, seed=seed)) for draw, seed in ((99, 0), (3, 0), (3, 0), (3, 1))
    )
    assert first == same == every[:3] != other
    assert {mutant.file for mutant in every} == {"lab/numbers.py", "data/letters.py"}
    one = mutants.draw(project, mutants.Options(files=("data/letters.py",)))
    assert [mutant.after for mutant in one] == ["return word[1]"]


def mutant(function, before="a", after="b"):
    return Mutant("lab/x.py", function, 1, "constant", before, after, "")


def test_the_mirror_comes_first_then_the_cheapest_file_and_the_costly_are_left_out():
    place = {"lab/x.py::f", "lab/x.py::"}
    tests = {
        "tests/test_long.py::a": (2.0, place),
        "tests/test_long.py::b": (7.0, place),
        "tests/lab/test_x.py::slow": (4.0, place),
        "tests/lab/test_x.py::quick": (1.0, place),
        "tests/test_cheap.py::a": (3.0, place),
        "tests/test_cheap.py::another": (0.1, {"lab/y.py::f", "lab/y.py::"}),
        "tests/test_cheap.py::g": (0.5, {"lab/x.py::g", "lab/x.py::"}),
    }
    chosen, left_out, seconds = mutants.choose_tests(mutant("f"), tests, 10)
    assert chosen == [
        "tests/lab/test_x.py::quick", "tests/lab/test_x.py::slow", "tests/test_cheap.py::a", "tests/test_long.py::a",
    ]  # fmt: skip
    assert (left_out, seconds) == (1, 10.0)
    for nowhere in ("", "called_when_imported"):
        assert len(mutants.choose_tests(mutant(nowhere), tests, 99)[0]) == 6
    assert mutants.choose_tests(mutant("g"), tests, 0.1) == ([], 1, 0.0)


def test_equivalent_ones_count_neither_way(tmp_path, monkeypatch):
    drawn = [mutant("f", after=after) for after in "bcde"]
    columns = [*mutants.IDENTITY, "noticed"]
    rows = [("lab/x.py", "f", "constant", "a", after, noticed) for after, noticed in {"b": 1, "c": 0, "d": 0}.items()]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "mutants.csv", index=False)
    pd.DataFrame([rows[2]], columns=columns).to_csv(tmp_path / "equivalent.csv", index=False)
    monkeypatch.setattr(mutants, "EQUIVALENT", tmp_path / "equivalent.csv")
    counts = mutants.summarise(drawn, tmp_path / "mutants.csv")
    assert counts.loc["all"].tolist() == counts.loc["lab/x.py"].tolist() == [4, 1, 1, 0.33]


def test_each_equivalent_fault_is_known_by_all_columns_and_has_a_reason():
    listed = pd.read_csv(mutants.EQUIVALENT, keep_default_na=False)
    assert listed.columns.tolist() == [*mutants.IDENTITY, "reason"]
    assert (listed["reason"].str.len() > 10).all()
    assert not listed.duplicated(mutants.IDENTITY).any()
