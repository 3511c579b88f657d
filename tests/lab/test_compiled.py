"""torch.compile where it works, and what is said and done where it does not."""

import pytest
import torch
from commands import line_of

from lab.compiled import compile_function


class CompilerError(RuntimeError):
    """As torch wraps what its compiler runs into."""

    def __init__(self, inner):
        super().__init__(f"backend='inductor' raised:\n{inner}")
        self.inner_exception = inner


BROKEN = {
    "no compiler": (
        CompilerError(RuntimeError("Failed to find C compiler.\n\nSet X")),
        "RuntimeError: Failed to find C",
    ),
    "no triton": (ImportError("cannot find triton"), "ImportError: cannot find triton"),
    "no user": (KeyError("getpwuid(): uid not found: 1000"), "KeyError: 'getpwuid(): uid not found: 1000'"),
    "no word": (AssertionError(), "AssertionError: no reason given"),
}


@pytest.fixture(params=BROKEN)
def broken(request, monkeypatch):
    """A compiler that fails when its function is called first; what is said then; and the options it got."""
    error, said = BROKEN[request.param]
    options = []

    def compile_(function, **how):
        options.append(how)

        def fail(*arguments, **named):
            raise error

        return fail

    monkeypatch.setattr(torch, "compile", compile_)
    return said, options


def plus(a, b=0):
    return a + b


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_a_module_is_compiled_once_and_called_often(monkeypatch, capsys, choice):
    compile_, compiled = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda *what, **how: compiled.append(how) or compile_(*what, **how))
    module = torch.nn.Linear(3, 2)
    function = compile_function(module, choice, backend="eager")
    for n in (5, 7, 11):
        x = torch.randn(n, 3)
        assert torch.equal(function(x), module(x))
    assert compiled == [{"backend": "eager"}]
    assert capsys.readouterr().out == ""
    torch._dynamo.reset()


def test_where_the_compiler_fails_auto_goes_on_without_it_and_says_so_once(broken, capsys):
    said, options = broken
    function = compile_function(plus, "auto", dynamic=True)
    assert [function(2, b=3), function(5), function(7, 11)] == [5, 5, 18]
    assert options == [{"dynamic": True}]
    line = capsys.readouterr().out
    assert line.startswith(f"--compile auto: torch.compile failed ({said}")
    assert line.endswith("; going on without it, as with --compile off\n")
    assert line.count("\n") == 1


def test_where_the_compiler_fails_on_is_one_line(broken, capsys):
    said, _ = broken
    line = line_of(compile_function(plus, "on"), 2)
    assert f"--compile on: torch.compile failed ({said}" in line
    assert line.endswith("; install what it misses, or take --compile off")
    assert capsys.readouterr().out == ""


def test_a_python_that_torch_cannot_compile_for_is_no_end_either(monkeypatch, capsys):
    def refuse_to_compile(function, **how):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", refuse_to_compile)
    assert compile_function(plus, "auto")(2, 3) == 5
    assert "not supported on Python 3.99+" in capsys.readouterr().out
    assert "not supported on Python 3.99+" in line_of(compile_function(plus, "on"), 2)
    assert compile_function(plus, "off") is plus


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_a_gpu_that_is_full_is_left_to_whoever_takes_smaller_pieces(monkeypatch, capsys, choice):
    full = iter([torch.OutOfMemoryError("CUDA out of memory"), None])

    def compiled(*arguments):
        if error := next(full):
            raise error
        return "in smaller pieces"

    monkeypatch.setattr(torch, "compile", lambda function, **how: compiled)
    function = compile_function(plus, choice)
    with pytest.raises(torch.OutOfMemoryError):
        function(2)
    assert function(2) == "in smaller pieces"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_an_error_of_the_function_itself_is_that_of_the_function(monkeypatch, capsys, choice):
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)
    with pytest.raises(TypeError, match="unsupported operand"):
        compile_function(plus, choice)(2, "3")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_a_cpu_that_is_full_is_left_to_whoever_says_so(monkeypatch, capsys, choice):
    def fill(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "compile", lambda function, **how: function)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        compile_function(fill, choice)(2)
    assert capsys.readouterr().out == ""
