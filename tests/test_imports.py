"""Imports point one way: scripts and bench -> experiments -> lab -> data -> model, also where only a type checker would
follow them. No experiment imports another, and no script imports a script."""

import ast
import graphlib
import tomllib
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("model", "data", "lab", "experiments")  # each may import itself and those before it


def modules() -> dict[str, Path]:
    """The project's modules by their dotted names; a package goes by the name of its folder."""
    files = [*ROOT.glob("*.py"), *(file for folder in (*FLOORS, "bench") for file in (ROOT / folder).rglob("*.py"))]
    dotted = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in dotted.items()}


def imported(name: str, file: Path, known: set[str]) -> set[str]:
    """The modules of the project that one of them imports anywhere in its file."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            parts = {f"{module}.{alias.name}" for alias in node.names}
            names |= parts & known or {module}
    return names & known


def points_down(name: str, other: str) -> bool:
    floor, below = name.split(".")[0], other.split(".")[0]
    if below not in FLOORS:  # a script, or bench
        return floor == below == "bench"
    if floor == below == "experiments":
        return name.split(".")[1] == other.split(".")[1]
    return floor not in FLOORS or FLOORS.index(below) <= FLOORS.index(floor)


def test_each_import_points_down_and_no_module_imports_itself_through_others():
    files = modules()
    edges = {name: imported(name, file, set(files)) for name, file in files.items()}
    assert "model.config" in edges["model.tokenizer"]  # or the test would see nothing
    assert "lab.device" in edges["train"]
    assert "model" in edges["experiments.train.training"]
    assert not [(name, other) for name in edges for other in edges[name] if not points_down(name, other)]
    graphlib.TopologicalSorter(edges).prepare()  # raises CycleError


def test_an_import_that_points_up_or_sideways_is_noticed():
    up = [("model.gpt2", "data.words"), ("lab.study", "experiments.ablate.findings"), ("data", "train")]
    sideways = [
        ("experiments.probe.tasks", "experiments.ablate.findings"),
        ("paper", "train"),
        ("train", "bench.speed"),
    ]
    assert not [edge for edge in up + sideways if points_down(*edge)]


def test_every_script_and_floor_is_type_checked():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert {*settings["files"]} == {*FLOORS, "bench", "lessons/checks", *(path.name for path in ROOT.glob("*.py"))}
