"""Advice names no option that the command at hand does not have: every message of each command is looked at.

Which messages a command can raise is found in the code: from the functions of its script, by the names that they use,
to all that these can reach. A name may reach more than is ever called, and never less."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import list_options

ROOT = Path(__file__).parent.parent
SCRIPTS = (
    "train ablate attend explain explore rate agreement patch probe prompt embed paper pretrain verify bench.speed"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
NAMED = re.compile(rf"\b({'|'.join(SCRIPTS.split())})\.py\b|\bmake ({'|'.join(SCRIPTS.split())})\b")
OF_ALL = {"--help"}

# Places that other commands reach by the name of a method alone, and the commands that really do.
ONLY = {
    "lab.defaults.TrainOptions.check": "train",  # others make such options to write them down
    "lab.defaults.TrainOptions.check_regulariser": "train",
    "lab.defaults.TrainOptions.check_language": "train",
    "lab.defaults.TrainOptions.tuned_blocks": "train paper",
    "lab.prompts.encode_prompts": "prompt ablate",  # a training gives it no limit
    "lab.label_words.parse_words": "train prompt",  # others give it no words
    "lab.guard.Guard.find_refusal": "explore rate",
    "lab.compiled.compile_function": "train pretrain",
    "experiments.train.steps.Step.in_step": "train",  # benchmarks take steps of one process
    "lab.word_head.choose_word_head": "train",  # the paper takes the template of every training
}


class Piece(NamedTuple):
    """A function, method, class or constant of the project."""

    module: str
    name: str
    nodes: tuple[ast.AST, ...]


def modules() -> dict[str, ast.Module]:
    """The project's modules by name, parsed."""
    paths = [*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
    return {name_module(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


PACKAGES = ("model", "data", "lab", "experiments", "bench")


def name_module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Code:
    """The pieces of the project, and what the names in each module stand for."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[str, str], Piece] = {}
        self.methods: dict[str, list[Piece]] = {}  # by name, of all classes
        self.imported: dict[str, dict[str, tuple[str, str]]] = {}  # by module and name: module, name ("" for the whole)
        trees = modules()
        for module, tree in trees.items():
            self.imported[module] = dict(find_imports(module, tree, trees))
            for node in tree.body:
                self.add(module, node)

    def add(self, module: str, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            self.pieces[module, node.name] = Piece(module, node.name, (node,))
        elif isinstance(node, ast.ClassDef):
            methods = [member for member in node.body if isinstance(member, ast.FunctionDef)]
            for method in methods:
                piece = Piece(module, f"{node.name}.{method.name}", (method,))
                self.methods.setdefault(method.name, []).append(piece)
            own = [member for member in node.body if not isinstance(member, ast.FunctionDef)]
            made = [method for method in methods if method.name.startswith("__")]
            self.pieces[module, node.name] = Piece(module, node.name, (*node.bases, *own, *made))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        self.pieces[module, name.id] = Piece(module, name.id, (node,))

    def resolve(self, module: str, name: str) -> Piece | None:
        """The piece that a name in a module stands for, through what `__init__.py` passes on."""
        for _ in range(5):
            if (module, name) in self.pieces:
                return self.pieces[module, name]
            if name not in self.imported.get(module, {}):
                return None
            module, name = self.imported[module][name]
        return None

    def used_by(self, piece: Piece) -> Iterator[Piece]:
        """The pieces that a piece names."""
        for node in (node for root in piece.nodes for node in ast.walk(root)):
            if isinstance(node, ast.Name) and (found := self.resolve(piece.module, node.id)):
                yield found
            elif isinstance(node, ast.Attribute):
                whole = self.imported[piece.module].get(node.value.id) if isinstance(node.value, ast.Name) else None
                if whole and not whole[1]:
                    found = self.resolve(whole[0], node.attr)
                    yield from [found] if found else []
                elif not whole:
                    yield from self.methods.get(node.attr, [])

    def reach(self, script: str) -> set[Piece]:
        """All pieces that a script can reach. Of methods, those of the classes that it reaches."""
        seen, waiting = set[Piece](), [self.pieces[script, "main"], self.pieces["lab.cli", "command"]]
        held: list[Piece] = []  # methods of classes that are not reached yet
        while waiting:
            piece = waiting.pop()
            if piece in seen:
                continue
            seen.add(piece)
            for used in self.used_by(piece):
                (held if "." in used.name else waiting).append(used)
            classes = {(each.module, each.name) for each in seen}
            ready = {each for each in held if (each.module, each.name.partition(".")[0]) in classes}
            waiting += ready - seen
        return seen


def find_imports(module: str, tree: ast.Module, trees: dict[str, ast.Module]) -> Iterator[tuple[str, tuple[str, str]]]:
    package = module if any(name.startswith(f"{module}.") for name in trees) else module.rpartition(".")[0]
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, (alias.name, "")) for alias in node.names if alias.name in trees)
            continue
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{source}.{alias.name}" if source else alias.name
            yield alias.asname or alias.name, (whole, "") if whole in trees else (source, alias.name)


def find_strings(piece: Piece) -> Iterator[str]:
    """The texts in a piece, with its f-strings put together; no docstrings, and no descriptions of options."""
    skipped: set[int] = set()
    for root in piece.nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                skipped.add(id(node.value))
            elif isinstance(node, ast.JoinedStr) and id(node) not in skipped:
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                skipped |= {id(part) for part in node.values}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                yield node.value


def find_advice(text: str) -> Iterator[tuple[str, str | None]]:
    """The options that a text names, each with the other command that it is said to be of."""
    for match in OPTION.finditer(text):
        clause = re.split("[;:]", text[: match.start()])[-1]
        others = [first or second for first, second in NAMED.findall(clause)]
        yield match[0], others[-1] if others else None


def is_sentence(text: str) -> bool:
    """Whether this is a message, and no word of a command line."""
    return " " in text


@cache
def code() -> Code:
    return Code()


@cache
def options_of(script: str) -> frozenset[str]:
    return frozenset(OF_ALL | {*name_options(importlib.import_module(script).Options)})


def name_options(options: type) -> Iterator[str]:
    for field in list_options(options):
        name = field.name.rstrip("_").replace("_", "-")
        yield from (f"--{name}", f"--no-{name}")


def find_foreign_advice(script: str) -> list[tuple[str, str, str]]:
    """The options that messages of a command name and it does not have: with the place and the text of each."""
    found = []
    for piece in code().reach(script):
        place = f"{piece.module}.{piece.name}"
        if script not in ONLY.get(place, script).split():
            continue
        for text in filter(is_sentence, find_strings(piece)):
            for option, other in find_advice(text):
                if option not in options_of(other or script):
                    found.append((option, place, text))
    return found


@pytest.mark.parametrize("script", ["train", "ablate", "probe", "explore", "paper", "bench.speed"])
def test_an_option_that_is_taken_away_is_missed(monkeypatch, script):
    """The search reaches the messages of all that reads a corpus, in other modules and through methods."""
    missed = {"--skip-bad-rows", "--text-column", "--encoding", "--truncate"}
    has = options_of
    monkeypatch.setitem(globals(), "options_of", lambda name: has(name) - missed if name == script else has(name))
    found = {(option, place.rpartition(".")[0]) for option, place, _ in find_foreign_advice(script)}
    assert found == {
        ("--skip-bad-rows", "data.rows"), ("--text-column", "data.rows"), ("--text-column", "data.delimited"),
        ("--text-column", "data.formats"), ("--encoding", "data.formats"), ("--encoding", "data.decoding"),
        ("--encoding", "data.reading"), ("--truncate", "data.batches"),
    }  # fmt: skip


def test_an_option_of_a_command_that_is_named_counts_for_that_command():
    text = "x; run train.py --seeds 1 2, or --run a; else --model b, or make mini CORPUS=c, or make probe with --words"
    assert [*find_advice(text)] == [("--seeds", "train"), ("--run", "train"), ("--model", None), ("--words", "probe")]


@pytest.mark.parametrize("script", SCRIPTS.split())
def test_no_message_names_an_option_that_the_command_lacks(script):
    assert find_foreign_advice(script) == []
