"""Imports point one way, and never in a circle, also where only a type checker would follow them."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("model", "data", "lab")  # each may import itself and those before it


def modules() -> dict[str, Path]:
    """The project's modules by their dotted names; a package goes by the name of its folder."""
    files = [*ROOT.glob("*.py"), *(file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))]
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
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            parts = {f"{module}.{alias.name}" for alias in node.names}
            names |= parts & known or {module}
    return names & known


def graph() -> dict[str, set[str]]:
    files = modules()
    return {name: imported(name, file, set(files)) for name, file in files.items()}


def test_no_module_imports_itself_through_others():
    edges = graph()
    assert "model.config" in edges["model.tokenizer"]  # or the test would see nothing
    assert "lab.device" in edges["train"]
    assert "model" in edges["lab.finetuning"]
    graphlib.TopologicalSorter(edges).prepare()  # raises CycleError


def test_each_floor_stands_on_those_below():
    for name, others in graph().items():
        floor = name.partition(".")[0]
        below = FLOORS[: FLOORS.index(floor)] if floor in FLOORS else FLOORS
        allowed = {floor, *below} if floor != "paper" else {*below, "train"}  # whose command paper.py calls
        assert {other.partition(".")[0] for other in others} <= allowed, name
