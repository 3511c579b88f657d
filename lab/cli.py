"""How every script starts and ends: options from a dataclass, errors in one line, exit codes."""

import logging
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from model import InputError

Config = TypeVar("Config")


def command(main: Callable[[Config], int], config: type[Config]) -> NoReturn:
    """Run `main` on the command line's options and exit: 0 done, 1 a check failed, 2 the user's mistake, 130 Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        sys.exit(main(tyro.cli(config, description=config.__doc__, config=(tyro.conf.FlagCreatePairsOff,))))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
