"""Find the places where one small change turns a Python file into a mutant, and write the mutant.

The changes are the usual ones of mutation testing: another comparison, operator or constant, `and` for `or`, a negated
condition, `min` for `max` and the like, an argument or a statement left out. Annotations, decorators and strings stay
as they are, and so does zip's `strict`, which only guards."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

COMPARISONS: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
PAIRS = [("min", "max"), ("argmin", "argmax"), ("idxmin", "idxmax"), ("minimum", "maximum"), ("any", "all")]
PAIRS += [("mean", "sum"), ("std", "var"), ("floor", "ceil"), ("zeros", "ones"), ("cumsum", "cumprod")]
COUNTERPARTS = dict(PAIRS) | {second: first for first, second in PAIRS}
UNCHANGED = {"annotation", "returns", "decorator_list"}
Change = tuple[str, str, Any]  # the mutation's name, a field of the node, its new value


class Point(NamedTuple):
    """A field of a node in a file's syntax tree, and another value for it."""

    file: str
    function: str  # or method, around it; "": none
    line: int
    mutation: str
    tree: ast.Module
    node: ast.AST
    field: str
    value: Any


class Mutant(NamedTuple):
    """A file with one change; `before` and `after` are the first line that changes."""

    file: str
    function: str
    line: int
    mutation: str
    before: str
    after: str
    source: str


def find_points(root: Path, file: str) -> list[Point]:
    """Return all points of a file, in its order."""
    tree = ast.parse((root / file).read_bytes())
    return [
        Point(file, function, line, mutation, tree, node, field, value)
        for node, function, line in walk(tree, "", 0, False)
        for change in (change_operators, change_operands, drop_statements)
        for mutation, field, value in change(node)
    ]


def walk(node: ast.AST, name: str, line: int, inside: bool) -> Iterator[tuple[ast.AST, str, int]]:
    """Yield each node that may change, with the function or method around it and its line.

    name: of the class or function that `node` is in; inside: is that a function?"""
    line = getattr(node, "lineno", line)
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and not inside:
        name, inside = f"{name}.{node.name}".lstrip("."), isinstance(node, ast.FunctionDef)
    yield node, name if inside else "", line
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in UNCHANGED and getattr(child, "arg", "") != "strict":
                yield from walk(child, name, line, inside)


def change_operators(node: ast.AST) -> Iterator[Change]:
    """Yield other operators and negated conditions."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield "comparison", "ops", [*ops[:i], other(), *ops[i + 1 :]]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield "operator", "op", OPERATORS[type(op)]()
        case ast.UnaryOp(op=op, operand=operand):
            yield "sign", "operand", ast.UnaryOp(op, operand)  # twice: no sign
        case ast.BoolOp(op=op):
            yield "and/or", "op", ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "condition", "test", ast.UnaryOp(ast.Not(), test)
        case ast.comprehension(ifs=ifs):
            for i, test in enumerate(ifs):
                yield "condition", "ifs", [*ifs[:i], ast.UnaryOp(ast.Not(), test), *ifs[i + 1 :]]


def change_operands(node: ast.AST) -> Iterator[Change]:
    """Yield other constants and names, and calls with an argument left out."""
    match node:
        case ast.Constant(value=bool(value)):
            yield "constant", "value", not value
        case ast.Constant(value=int(value)):
            yield "constant", "value", value + 1
        case ast.Constant(value=float(value)):
            yield "constant", "value", 2 * value or 1.0
        case ast.keyword(arg="axis" | "dim", value=ast.Constant(value=1)):
            yield "axis", "value", ast.Constant(0)
        case ast.Name(id="min" | "max" | "any" | "all" as name):
            yield "counterpart", "id", COUNTERPARTS[name]
        case ast.Attribute(attr=name) if name in COUNTERPARTS:
            yield "counterpart", "attr", COUNTERPARTS[name]
        case ast.Call(keywords=keywords):
            for i, keyword in enumerate(keywords):
                if keyword.arg not in (None, "strict"):
                    yield "argument", "keywords", keywords[:i] + keywords[i + 1 :]


def drop_statements(node: ast.AST) -> Iterator[Change]:
    """Yield the node's bodies with one statement left out."""
    for field in ("body", "orelse", "finalbody"):
        body = getattr(node, field, None)
        if isinstance(body, list):
            for i, statement in enumerate(body):
                if has_effect(statement):
                    yield "statement", field, [*body[:i], ast.Pass(), *body[i + 1 :]]


def has_effect(statement: ast.stmt) -> bool:
    """Does the statement change something that the rest would run without: a call, an update?"""
    match statement:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Break() | ast.Continue():
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value))
    return False


def make_mutant(point: Point) -> Mutant:
    """Write the file with this change; it loses its comments and line breaks."""
    value, original = getattr(point.node, point.field), ast.unparse(point.tree)
    setattr(point.node, point.field, point.value)
    source = ast.unparse(point.tree)
    setattr(point.node, point.field, value)
    lines = zip(original.splitlines(), source.splitlines(), strict=False)
    before, after = next((old.strip(), new.strip()) for old, new in lines if old != new)
    return Mutant(point.file, point.function, point.line, point.mutation, before, after, source)
