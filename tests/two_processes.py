"""Work in two processes on the CPU: torchrun's own launcher starts them, from the fork server of children.py."""

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from children import ensure_server  # that module says what the server imports beforehand
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

ADDRESS = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}  # a free port, whatever runs beside this


def in_two(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(*arguments)`, which they get by its name, returns in each. ChildFailedError where one is killed."""
    ensure_server()
    with TemporaryDirectory() as folder:
        how = {"start_method": "forkserver", "max_restarts": 0, "logs_specs": DefaultLogsSpecs(folder)}
        returned = elastic_launch(LaunchConfig(1, 1, 2, run_id="two", **how, **ADDRESS), call)(work, *arguments)
    return [returned[rank] for rank in range(2)]


def call(work: Callable[..., Any], *arguments: Any) -> Any:
    torch.set_num_threads(1)  # as in conftest.py
    returned = work(*arguments)
    if distributed.is_initialized():  # as lab.cli does at the end of a command
        distributed.destroy_process_group()
    return returned
