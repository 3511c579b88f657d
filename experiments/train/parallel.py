"""A training on several devices, by PyTorch's own engines.

`DistributedDataParallel` (DDP) keeps all weights in every process and adds up the gradients while the backward pass
still runs. FSDP2 (`fully_shard`; Zhao et al. 2023, 2304.11277) keeps in each of N processes an Nth of every weight,
gradient and moment of AdamW, and gathers the weights of a block when it runs. Neither touches an argument of the
forward pass, so gates, masks and fills act as in one process."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from data.batches import Batch
from lab.device import Device
from model import GPT2LM, GPT2Classifier
from model.checkpoint import uninitialised
from model.gpt2 import Block

from .steps import Forward


class Passes(nn.Module):
    """The forward passes over a network as one module, whose calls the engines attend: passes(batch, "train")."""

    def __init__(self, model: GPT2Classifier, forwards: Mapping[str, Forward]) -> None:
        super().__init__()
        self.model, self.forwards = model, forwards

    def forward(self, batch: Batch, name: str = "train") -> Any:
        """Return what the pass of this name makes of a batch that lies on the device."""
        return self.forwards[name](batch)


def spread(model: GPT2Classifier, forwards: Mapping[str, Forward], shard: bool, device: Device) -> dict[str, Forward]:
    """Collective. Spread a training over all processes; the forward passes returned are to be called in their place.

    shard: each process keeps a part of each weight from here on, a `DTensor`, and an optimizer that is made of them
    a part of its state. All processes must then call the pass of train equally often, and that of val within
    `whole_weights`."""
    if device.world == 1:
        return dict(forwards)
    passes = Passes(model, forwards)
    if not shard:
        engine = DistributedDataParallel(passes, forward_sync_buffers=False, gradient_as_bucket_view=True)
        return dict(forwards) | {"train": engine, "adapt": partial(engine, name="adapt")}
    # Autocast decides what is computed in bf16, as in one process: the products. So their weights may travel in bf16.
    # The policy alone would also round what enters a block: the residual stream, gates and fills.
    dtype = torch.bfloat16 if device.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # which nothing changes in place
    mesh = init_device_mesh(device.device.type, (device.world,))  # or it would be of the fastest device there is
    for block in cast(Iterable[Block], model.trunk.h):
        fully_shard([block.attn, block.mlp], mesh=mesh, mp_policy=policy)
    fully_shard(passes, mesh=mesh)  # embeddings, LayerNorms and head
    return {"train": passes} | {name: partial(passes, name=name) for name in ("adapt", "val")}


@contextmanager
def whole_weights(forward: Forward) -> Iterator[None]:
    """Collective. Gather all weights, so that each process may call a forward pass as often as it likes meanwhile.

    forward: the pass of train; nothing happens where its weights are whole anyway."""
    modules = forward.modules() if isinstance(forward, nn.Module) else []
    units = [module for module in modules if isinstance(module, FSDPModule)]
    for unit in units:
        unit.unshard()
        unit.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not forward, recurse=False)
            unit.reshard()


def gather(model: GPT2Classifier | GPT2LM, device: Device) -> GPT2Classifier | GPT2LM:
    """Collective. Return the network with whole weights, on the CPU of the first process; on the others it has none."""
    tensors = model.state_dict()
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return model
    with uninitialised():
        whole = GPT2LM(model.config) if isinstance(model, GPT2LM) else GPT2Classifier(model.config, model.labels)
    for name, shard in tensors.items():
        tensor = shard.full_tensor()
        if device.first:
            whole.load_state_dict({name: tensor.cpu()}, strict=False, assign=True)
    return whole
