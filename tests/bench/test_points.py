"""Where a file can be changed, by hand."""

import pytest

from bench.points import find_points, make_mutant


def mutants_of(folder, source):
    (folder / "file.py").write_text(source)
    return [make_mutant(point) for point in find_points(folder, "file.py")]


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a == b != c", {"a != b != c", "a == b == c"}),
        ("a - b * c", {"a + b * c", "a - b / c"}),
        ("x = not a", {"x = not not a"}),
        ("x = -a", {"x = --a"}),
        ("a and b and c", {"a or b or c"}),
        ("x[0]", {"x[1]"}),
        ("x = 0.25", {"x = 0.5"}),
        ("x = 0.0", {"x = 1.0"}),
        ("x = True", {"x = False"}),
        ("x = 'text'", set()),
        ("x: Literal[3] = y", set()),
        ("x = a if b else c", {"x = a if not b else c"}),
        ("[a for a in b if c]", {"[a for a in b if not c]"}),
        ("x = f'{a + b}'", {"x = f'{a - b}'"}),
        ("x = max(a)", {"x = min(a)"}),
        ("x = sum(a)", set()),  # there is no `mean`
        ("x = a.mean(axis=1)", {"x = a.sum(axis=1)", "x = a.mean(axis=0)", "x = a.mean(axis=2)", "x = a.mean()"}),
        ("x = f(a=b, **c)", {"x = f(**c)"}),
        ("x = zip(a, b, strict=True)", set()),
        ("f(a)", {"pass"}),
        ("x += a", {"x -= a", "pass"}),
        ("x.a = b", {"pass"}),
        ("x = f(x)", {"pass"}),
        ("x = f(y)", set()),
    ],
)
def test_each_step(tmp_path, line, changed):
    found = mutants_of(tmp_path, f"{line}\n")
    assert {mutant.after for mutant in found} == changed
    assert len(found) == len(changed)
    assert {mutant.before for mutant in found} <= {line}


SOURCE = '''"""A file."""

import os

LIMIT = 3  # a comment


@lru_cache(maxsize=5)
def outer(a, b: Annotated[int, 7] = 1):
    """Of 2."""
    def inner():
        return a < b
    if a:
        raise ValueError
    return inner


class Counter:
    step = 1

    def count(self):
        self.n = os
'''


def test_a_mutant_says_where_it_is_and_is_the_whole_file_with_one_change(tmp_path):
    found = mutants_of(tmp_path, SOURCE)
    assert [(mutant.function, mutant.line, mutant.mutation, mutant.before, mutant.after) for mutant in found] == [
        ("", 5, "constant", "LIMIT = 3", "LIMIT = 4"),
        ("outer", 9, "constant", "def outer(a, b: Annotated[int, 7]=1):", "def outer(a, b: Annotated[int, 7]=2):"),
        ("outer", 12, "comparison", "return a < b", "return a <= b"),
        ("outer", 12, "comparison", "return a < b", "return a >= b"),
        ("outer", 13, "condition", "if a:", "if not a:"),
        ("outer", 13, "statement", "raise ValueError", "pass"),
        ("", 19, "constant", "step = 1", "step = 2"),
        ("Counter.count", 21, "statement", "self.n = os", "pass"),
    ]
    unchanged = mutants_of(tmp_path, "x = 1")[0].source
    assert unchanged == "x = 2"
    lines = [mutant.source.splitlines() for mutant in found]
    for i, mutant in enumerate(found):
        others = lines[(i + 1) % len(found)]
        assert sum(a != b for a, b in zip(lines[i], others, strict=True)) in (1, 2), mutant
        compile(mutant.source, "file.py", "exec")
