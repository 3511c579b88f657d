"""Blocks that are not trained give each text the same in every epoch: they run once, and the others read from a file.

Where weights are frozen, what they compute is a feature of the text, to be computed once and kept (Peters, Ruder and
Smith 2019, 1903.05987, compare such features with fine-tuning). Only what is drawn anew in every epoch forbids it:
dropout, and masks and gates that regularise. The file is memory-mapped: it may be larger than memory, for a step reads
the rows of its texts and no others."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.batches import Batch, copy_to, token_batches
from data.token_ids import store
from lab.compiled import compile_function
from lab.defaults import TrainOptions
from lab.device import Compile, Device
from lab.memory import map_batches
from lab.progress import progress_bar
from lab.sweep import change_nothing
from lab.texts import Texts
from model import GPT2, GPT2Classifier, GPT2Config, InputError
from model.files import written_whole

from .language import make_joint_forward
from .regularisers import choose_regulariser
from .steps import Forward, make_forward

FROZEN = "frozen.f32"  # in a run's folder, while it trains


@dataclass(frozen=True, eq=False)
class Stream:
    """The residual stream of N texts where it enters block `start`.

    Behind the last block only the last token is read, so a text has one row there; else one for each token."""

    start: int
    rows: NDArray[np.float32]  # (R, C), of all texts, one after the other
    offsets: NDArray[np.integer]  # (N + 1,): text i has the rows offsets[i] .. offsets[i + 1] - 1

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Read the texts at these positions, int64 (B,): float32 (B, T, C), padded with 0, and int64 (B,), how many
        rows each has."""
        places = [slice(*self.offsets[i : i + 2]) for i in index.tolist()]
        texts = [torch.from_numpy(self.rows[place].copy()) for place in places]
        return pad_sequence(texts, batch_first=True), torch.tensor([len(text) for text in texts])


@contextmanager
def open_forwards(
    model: GPT2Classifier, texts: Mapping[str, Texts], options: TrainOptions, run: Path, device: Device
) -> Iterator[dict[str, Forward]]:
    """Collective. Yield how the logits of train and of val are computed: by the whole network or, where some of its
    blocks give the same in every epoch, by the others. The run's folder holds the file meanwhile."""
    start = count_frozen(options, model.config)
    if not start:
        yield make_forwards(model, options, device)
        return
    sequences, n = store(chain(texts["train"].sequences, texts["val"].sequences)), len(texts["train"])
    try:
        model.eval()
        both = record_stream(model.trunk, sequences, start, run / FROZEN, device)
        streams = {
            "train": Stream(start, both.rows, both.offsets[: n + 1]),
            "val": Stream(start, both.rows, both.offsets[n:]),
        }
        yield make_forwards(model, options, device, streams)
    finally:
        if device.first:
            (run / FROZEN).unlink(missing_ok=True)


def count_frozen(options: TrainOptions, config: GPT2Config) -> int:
    """Return how many blocks, from the first on, give a text the same in every epoch: those below the trained ones, or
    none where there is dropout, or a regulariser."""
    drawn = config.dropout or config.attn_dropout or choose_regulariser(options, config) is not change_nothing
    return 0 if drawn else config.n_layer - options.tuned_blocks(config.n_layer)


def make_forwards(
    model: GPT2Classifier, options: TrainOptions, device: Device, streams: Mapping[str, Stream] | None = None
) -> dict[str, Forward]:
    """Return the forward pass of train and of adapting, compiled, recomputed and regularised as the options say, and
    the plain one of val.

    streams: of the texts of both, where only what is behind them shall run."""
    compiled: Compile = "off" if options.shard else device.compiles(options.compile)  # weights come and go in FSDP2
    settings = compiled, options.recompute
    if not streams:
        regulariser = choose_regulariser(options, model.config)
        make_train = make_joint_forward if options.lm_weight else make_forward
        make_val = make_joint_forward if options.learns_language else make_forward
        adapt = {"adapt": make_joint_forward(model, *settings, regulariser)} if options.adapt else {}
        return {"train": make_train(model, *settings, regulariser), "val": make_val(model)} | adapt
    train, val = streams["train"], streams["val"]
    return {"train": make_forward_from(train, model, *settings), "val": make_forward_from(val, model)}


def make_forward_from(
    stream: Stream, model: GPT2Classifier, compiled: Compile = "off", recompute: bool = False
) -> Forward:
    """Return the forward pass of the blocks behind a stream, which it reads at `batch.index`."""

    def run_rest(x: Tensor, lengths: Tensor) -> Tensor:
        x = model.trunk.run(x, stream.start, query=lengths - 1, recompute=recompute)  # (B, T, C) -> (B, 1, C)
        return model.read(model.trunk.norm(x))

    rest = compile_function(run_rest, compiled, dynamic=True)
    return lambda batch: rest(*(copy_to(batch.ids.device, tensor) for tensor in stream.read(batch.index)))


@torch.inference_mode()
def record_stream(trunk: GPT2, sequences: Sequence[list[int]], start: int, path: Path, device: Device) -> Stream:
    """Collective. Run the first `start` blocks on N texts, once, into a file that all processes see, and open it.

    It replaces what a call that was killed has left. Raises InputError where there is too little space."""
    last, C = start == trunk.config.n_layer, trunk.config.n_embd
    offsets = np.cumsum([0, *(1 if last else len(ids) for ids in sequences)])
    shape = (int(offsets[-1]), C)

    def run_frozen(batch: Batch) -> NDArray[np.floating]:
        on_device = batch.to(device.device)
        with device.autocast():
            x = trunk.embed(on_device.ids, on_device.lengths)
            x = trunk.run(x, stop=start, query=on_device.lengths - 1 if last else None)  # (B, T, C), or (B, 1, C)
        return x.float().cpu().numpy()

    device.run_on_first(lambda: make_room(path, 4 * shape[0] * C))
    batches = token_batches(sequences, np.zeros(len(sequences), np.int64), device.tokens, np.arange(len(sequences)))
    computed = map_batches(run_frozen, device.share(batches), device)
    rounds = device.gather_rounds((batch.index.numpy(), x) for batch, x in computed)

    def write() -> None:
        try:
            write_rows(path, rounds, offsets)
        except Exception:
            list(device.gather_rounds([]))  # the others are still sending
            raise

    if not device.first:
        for _ in rounds:  # which it sends to the first process
            pass
    device.run_on_first(write)  # the others wait until the file is whole
    return Stream(start, np.asarray(np.memmap(path, np.float32, "r", shape=shape)), offsets)


def make_room(path: Path, size: int) -> None:
    """Remove an old file. Raises InputError where a new one, of `size` bytes, would not fit."""
    path.unlink(missing_ok=True)
    if size > (free := shutil.disk_usage(path.parent).free):
        missing = f"expected {size / 2**30:.1f} GiB of free space, for what frozen blocks give, got {free / 2**30:.1f}"
        way_out = "make room, or run them in each epoch by train.py --dropout 0.1, which is another training"
        raise InputError(f"{path.parent}: {missing}; {way_out}")


def write_rows(
    path: Path, rounds: Iterable[tuple[NDArray[np.integer], NDArray[np.floating]]], offsets: NDArray[np.integer]
) -> None:
    """Write the rows of N texts to their places: the file appears whole or not at all.

    rounds: positions of some texts (B,), and their rows (B, T, C), padded. offsets: see `Stream`."""
    with written_whole(path) as [temporary], temporary.open("wb") as file, progress_bar("texts") as bar:
        task = bar.add_task("frozen blocks, once", total=len(offsets) - 1, note="")
        for index, x in rounds:
            for i, rows in zip(index, x, strict=True):
                file.seek(4 * int(offsets[i]) * x.shape[-1])
                file.write(rows[: offsets[i + 1] - offsets[i]])
            bar.advance(task, len(index))
