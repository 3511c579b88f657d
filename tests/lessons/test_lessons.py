"""Each lesson runs as a notebook in a fresh kernel, its solutions after it; what it says came out comes out."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

import train

ROOT = Path(train.__file__).parent
LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.py"))
HEADINGS = ["What you will know", "The idea", "Predict", "Try it", "What came out"]
HEADINGS += ["What it does not mean", "Exercises"]
ROW = re.compile(r"# \| (?P<name>[^|]+?) \| (?P<value>-?[\d.]+)( ± (?P<tolerance>[\d.]+))? \|")
NUMBER = re.compile(r"(?<![\w.,/])-?(?:\d+\.\d+|\d[\d,]*\d)(?![\w])")  # of two digits or more
SIZES = {"48", "256", "32", "95"}  # of gpt2-mini: heads, numbers in a vector and in a head; % of intervals
QUOTED = {"0.926", "0.886", "16,000", "1,296"}  # from PAGES
PAGES = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("docs/numbers.md", "data/sample/README.md"))
TELL = "import json; print(json.dumps({name: float(value) for name, value in measured.items()}))"
# Several tests run at once, and each kernel would take all processors.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MAKEFLAGS": ""}
lessons = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


def read_table(text: str) -> dict[str, tuple[float, float, str]]:
    """What a lesson says came out: by name the value, its tolerance (0: none), and the value as it is written."""
    rows = [match.groupdict() for match in map(ROW.match, text.splitlines()) if match]
    return {row["name"]: (float(row["value"]), float(row["tolerance"] or 0), row["value"]) for row in rows}


def find_differences(table: dict[str, tuple[float, float, str]], measured: dict[str, float]) -> list[str]:
    """What the table says otherwise than what was measured."""
    differences = [f"{name}: in one only" for name in table.keys() ^ measured.keys()]
    for name in table.keys() & measured.keys():
        value, tolerance, _ = table[name]
        if not abs(measured[name] - value) <= tolerance:
            differences.append(f"{name}: {value} ± {tolerance}, measured {measured[name]}")
    return differences


def find_unmeasured(text: str) -> list[str]:
    """The numbers of the prose before the exercises that are neither in the table nor in the code or in our pages."""
    lines = text.partition("# ## Exercises")[0].splitlines()
    code = {number for line in lines if not line.startswith("#") for number in re.findall(r"[\d.]+", line)}
    known = {number for _, _, number in read_table(text).values()} | code | SIZES | QUOTED
    prose = [line for line in lines if line.startswith("#") and not ROW.match(line)]
    return [number for line in prose for number in NUMBER.findall(line) if number not in known]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A folder in which `make lessons` has made the notebooks, and the runs that they open beside it."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "lessons", folder / "lessons", ignore=shutil.ignore_patterns("*.ipynb"))
    for name in ("train.py", "requirements.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    (folder / ".venv/ready").touch()
    make = ["make", "-f", ROOT / "Makefile", "lessons", f"BIN={Path(sys.executable).parent}"]
    subprocess.run(make, cwd=folder, env=ENVIRONMENT, check=True)
    return folder


def execute(cells: list[nbformat.NotebookNode], folder: Path) -> list[str]:
    """Run cells in a fresh kernel, as a notebook of this folder; return what each prints."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=ENVIRONMENT)
    outputs = [[output for output in cell.get("outputs", []) if output["output_type"] == "stream"] for cell in cells]
    return ["".join(output["text"] for output in of_cell if output["name"] == "stdout") for of_cell in outputs]


@pytest.mark.slow
@lessons
def test_what_it_says_came_out_comes_out_and_its_solutions_are_right(lesson, course, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # else below the home of who runs the tests
        monkeypatch.setitem(ENVIRONMENT, variable, str(course / variable))
        monkeypatch.setenv(variable, str(course / variable))
    cells = nbformat.read(course / "lessons" / f"{lesson.stem}.ipynb", 4).cells
    solutions = jupytext.read(lesson.parent / "solutions" / lesson.name).cells
    *said, measured = execute([*cells, *solutions, nbformat.v4.new_code_cell(TELL)], course / "lessons")
    assert not find_differences(read_table(lesson.read_text()), json.loads(measured))
    assert "".join(said[: len(cells)]).count("Not yet: put your answer in the place of None.") == 2
    assert re.findall("^(?:Right|Not yet).*", "".join(said[len(cells) :]), re.M) == ["Right."] * 2


@lessons
def test_its_text_has_all_parts_and_no_number_that_is_not_measured(lesson):
    text = lesson.read_text()
    assert re.findall("^# ## (.*)", text, re.M) == HEADINGS
    assert len(text.splitlines()) <= 150
    table = read_table(text)
    assert len(table) > 2
    assert not [name for name, (value, tolerance, _) in table.items() if tolerance > max(0.2, abs(value) / 2)]
    assert not find_unmeasured(text)
    titles = [re.search(r"^# # (\d)\. (.*?)(?::.*)?$", path.read_text(), re.M).groups() for path in both(lesson)]
    assert titles[0] == titles[1]
    assert lesson.name.startswith(f"0{titles[0][0]}_")


@lessons
def test_it_takes_public_names_only(lesson):
    for node in ast.walk(ast.parse(lesson.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            known = {"model", "data", "lab", "experiments", "lessons", "torch", "numpy", "pandas", "matplotlib"}
            assert {name.split(".")[0] for name in names} <= known | {"sklearn", "scipy"}
        private = getattr(node, "attr", getattr(node, "name", "")) or ""
        assert not (isinstance(private, str) and private.startswith("_"))


@lessons
def test_each_exercise_has_a_check(lesson):
    checks = importlib.import_module(f"lessons.checks.{lesson.stem[3:]}")
    for path in both(lesson):
        assert re.findall(r"^(check_\d)\(answer_\d\)$", path.read_text(), re.M) == ["check_1", "check_2"]
    assert callable(checks.check_1)
    assert callable(checks.check_2)


def both(lesson: Path) -> tuple[Path, Path]:
    return lesson, lesson.parent / "solutions" / lesson.name


def test_what_lessons_quote_stands_in_our_pages():
    assert set(NUMBER.findall(PAGES)) >= QUOTED


def test_there_are_eight_and_nothing_else():
    assert [path.name[:2] for path in LESSONS] == [f"0{i}" for i in range(1, 9)]
    assert [path.name for path in LESSONS] == sorted(path.name for path in (ROOT / "lessons/solutions").glob("*.py"))
    assert {path.stem for path in (ROOT / "lessons/checks").glob("*.py")} == {
        "__init__",
        *(path.stem[3:] for path in LESSONS),
    }


def test_a_number_that_differs_or_is_missing_is_noticed():
    table = read_table("# | loss | 0.61 ± 0.02 |\n# | rank | 3 |\n# | what | value |\n# |---|---|\n")
    assert table == {"loss": (0.61, 0.02, "0.61"), "rank": (3, 0, "3")}
    assert not find_differences(table, {"loss": 0.629, "rank": 3})
    assert find_differences(table, {"loss": 0.631, "rank": 3}) == ["loss: 0.61 ± 0.02, measured 0.631"]
    assert find_differences(table, {"loss": float("nan"), "rank": 3})
    assert find_differences(table, {"loss": 0.61, "rank": 4}) == ["rank: 3.0 ± 0.0, measured 4"]
    assert find_differences(table, {"loss": 0.61}) == ["rank: in one only"]
    text = (
        "# Of 24 texts, 17, or 0.7.\n# | loss | 0.61 ± 0.02 |\n# The loss is 0.61, not -0.61 or 0.62.\nx = f(24, 0.7)\n"
    )
    assert find_unmeasured(text) == ["17", "-0.61", "0.62"]


def test_a_notebook_finds_the_project_wherever_it_lies(tmp_path):
    """What `make .venv/ready` writes into the environment leads to the folder that holds it."""
    venv.create(tmp_path / ".venv")
    made = subprocess.run(["make", "-n", "-B", ".venv/ready"], cwd=ROOT, capture_output=True, text=True, check=True)
    [line] = [line for line in made.stdout.splitlines() if "headgate.pth" in line]
    subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    (tmp_path / "lab.py").write_text("here = True")
    (tmp_path / "elsewhere").mkdir()
    python, environment = tmp_path / ".venv/bin/python", {"PATH": os.environ["PATH"]}
    subprocess.run([python, "-c", "from lab import here"], cwd=tmp_path / "elsewhere", env=environment, check=True)
