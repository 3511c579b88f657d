"""torch.compile, on machines where it works and where it does not."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from model import InputError

from .device import Compile
from .progress import console

T = TypeVar("T")


def compile_function(function: Callable[..., T], choice: Compile, **options: Any) -> Callable[..., T]:
    """Return the function as torch.compile makes it, or unchanged where `choice` is off. options: of torch.compile.

    What is compiled first runs when it is called. If that fails, as without a C compiler, `auto` goes on with the
    function as it is and says so, and `on` raises InputError. What the function raises by itself stays as it is."""
    if choice == "off":
        return function
    run: Callable[..., T] | None = None

    def call(*arguments: Any, **named: Any) -> T:
        nonlocal run
        try:
            if run is None:  # what is compiled may have no truth value
                run = torch.compile(function, **options)  # which refuses where Python is too new for it
            return run(*arguments, **named)
        except Exception as error:
            if run is function or isinstance(error, torch.OutOfMemoryError | InputError):
                raise
            cause = getattr(error, "inner_exception", error)
            reason = f"--compile {choice}: torch.compile failed ({type(cause).__name__}: {first_line(cause)})"
        result = function(*arguments, **named)  # raises its own errors, which are no fault of the compiler
        if choice == "on":
            raise InputError(f"{reason}; install what it misses, or take --compile off")
        console.print(f"{reason}; going on without it, as with --compile off", soft_wrap=True)
        run = function
        return result

    return call


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")
