"""Who is timed: headgate, `transformers` and TransformerLens, each doing the same job in its own way.

A contestant is a function of a job and `end_turn`. It loads its model and calls `end_turn()`; then it does the job
chunk by chunk and calls `end_turn()` after each. All contestants for one job return the same numbers, up to rounding.
Each imports its library itself, because it runs in a process whose memory is measured.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from experiments.patch.cells import Cell, Metric, patch_cells, record
from lab.allocator import keep_freed_memory
from lab.device import Device
from lab.optim import adamw, linear_schedule
from lab.texts import Texts
from model import GPT2Classifier, GPT2Config, load_classifier

from .slices import TOKENS, Positions, change_token, make_batch

LR, WEIGHT_DECAY, WARMUP, CLIP = 1e-4, 0.01, 0.1, 1.0
EndTurn = Callable[[], None]
Head = tuple[int, int]  # (layer, head)


@dataclass(frozen=True)
class Job:
    """Fine-tune a classifier, close its heads one by one, or patch its cells one by one.

    A patched text gets cells from the text that `change_token` makes of it."""

    folder: str  # the checkpoint, with its vocabulary
    device: Device
    texts: Texts
    chunks: Sequence[Sequence[Positions]]  # a chunk is a list of batches, a batch the positions of its texts
    heads: tuple[Head, ...] = ()  # to close, in this order
    cells: tuple[Cell, ...] = ()  # to patch, in this order; neither heads nor cells: fine-tune
    dropout: float = 0.1  # in fine-tuning

    @property
    def units(self) -> tuple[Head, ...] | tuple[Cell, ...]:
        """What is closed or patched, one by one; empty in fine-tuning."""
        return self.heads or self.cells

    def make_batches(self) -> list[list[Batch]]:
        """Return the batches of each chunk, padded, on the CPU."""
        return [[make_batch(self.texts, positions) for positions in chunk] for chunk in self.chunks]


def train_headgate(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Train with the step of train.py, which makes its batches as it goes. Returns the loss of every step."""
    from experiments.train.steps import Step, make_forward
    from experiments.train.vocabulary import Vocabulary

    device = job.device
    clf = load_headgate(job, dropout=job.dropout).train()
    vocabulary = Vocabulary(clf, [job.texts.sequences])
    optimizer = adamw(clf.parameters(), LR, WEIGHT_DECAY)
    schedule = linear_schedule(optimizer, sum(map(len, job.chunks)), WARMUP)
    forward = vocabulary.translate(make_forward(clf, device.compiles("auto")))
    step = Step(clf, forward, optimizer, CLIP, torch.ones(len(clf.labels)), device)
    totals = []
    end_turn()
    for chunk in job.chunks:
        for positions in chunk:
            totals.append(step(make_batch(job.texts, positions)) / len(positions))  # loss first
            schedule.step()
        end_turn()
    return torch.stack(totals)[:, 0].cpu().numpy()


def train_hf(job: Job, end_turn: EndTurn, compiled: bool = False) -> NDArray[np.floating]:
    """Train with the Trainer of transformers, on batches made beforehand. Returns the loss of every step."""
    hf = load_hf_classifier(job)
    batches = [to_hf(batch, hf.config.pad_token_id) for chunk in job.make_batches() for batch in chunk]
    return run_trainer(job, end_turn, hf, batches, itemgetter(0), 1, compiled)


def train_hf_padding(job: Job, end_turn: EndTurn, compiled: bool = False) -> NDArray[np.floating]:
    """Train with the Trainer as its users do, on a list of texts of which its collator makes batches, all of one size.
    Returns the same as `train_hf`."""
    from transformers import AutoTokenizer, DataCollatorWithPadding

    order = [i for chunk in job.chunks for positions in chunk for i in positions]
    rows = [(job.texts.sequences[i], int(job.texts.targets[i])) for i in order]
    texts = [{"input_ids": [*ids], "attention_mask": [1] * len(ids), "label": target} for ids, target in rows]
    hf = load_hf_classifier(job)
    tokenizer: Any = AutoTokenizer.from_pretrained(job.folder)
    tokenizer.pad_token_id = hf.config.pad_token_id
    return run_trainer(job, end_turn, hf, texts, DataCollatorWithPadding(tokenizer), len(job.chunks[0][0]), compiled)


def load_hf_classifier(job: Job) -> Any:
    """Load a classifier of transformers with the job's dropout."""
    from transformers import GPT2ForSequenceClassification

    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), job.dropout)
    return from_pretrained(GPT2ForSequenceClassification, job, **rates)


def run_trainer(
    job: Job,
    end_turn: EndTurn,
    hf: Any,
    dataset: Sequence[Any],
    collate: Callable[..., Any],
    batch_size: int,
    compiled: bool,
) -> NDArray[np.floating]:
    """Train on the items of a dataset in their order, `batch_size` at once. Returns the loss of every step."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    ends = np.cumsum([len(chunk) for chunk in job.chunks]).tolist()  # last steps of the chunks
    losses: list[Tensor] = []
    hf.register_forward_hook(lambda module, inputs, output: losses.append(output.loss.detach()))

    class TurnEnds(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            end_turn()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in ends:
                end_turn()

    arguments = TrainingArguments(
        **trainer_arguments(job, ends[-1]), per_device_train_batch_size=batch_size, torch_compile=compiled
    )
    optimizer = adamw(hf.parameters(), LR, WEIGHT_DECAY)
    optimizers = optimizer, linear_schedule(optimizer, ends[-1], WARMUP)
    trainer = Trainer(hf, arguments, collate, dataset, callbacks=[TurnEnds()], optimizers=optimizers)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return torch.stack(losses).float().cpu().numpy()


def trainer_arguments(job: Job, steps: int) -> dict[str, Any]:
    """Return the Trainer's arguments for speed: it logs and saves nothing, and never waits for the GPU."""
    return {
        "output_dir": f"{job.folder}/trainer",
        "max_steps": steps,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": CLIP,
        "bf16": job.device.precision == "bf16",
        "use_cpu": job.device.device.type == "cpu",
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def to_hf(batch: Batch, pad: int) -> dict[str, Tensor]:
    """Return a batch as transformers takes it: it finds the last token by the padding, token `pad`."""
    real = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]  # (B, T)
    return {"input_ids": batch.ids.masked_fill(~real, pad), "attention_mask": real.long(), "labels": batch.targets}


def sweep_headgate(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Close the heads with the sweep of ablate.py, which makes its own batches of a chunk's texts.

    Returns logits (n, U, K): n texts in the order of the chunks, U heads."""
    from lab.sweep import collect_logits, fill_zeros
    from lab.units import each_head

    device = job.device
    clf = load_headgate(job)
    ablations = [ablation for ablation in each_head(clf.config) if (ablation.layer, ablation.head) in job.heads]
    logits = []
    end_turn()
    for chunk in job.chunks:
        sequences = job.texts.select(np.concatenate(chunk)).sequences
        logits.append(collect_logits(clf, sequences, ablations, [fill_zeros], device)[:, :, 0])  # (n, U, 1 fill, K)
        end_turn()
    return np.concatenate(logits)


def sweep_hooks(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Close each head with a forward pre-hook on the `c_proj` of transformers. Returns logits as `sweep_headgate`."""
    from transformers import GPT2ForSequenceClassification

    hf: Any = from_pretrained(GPT2ForSequenceClassification, job)
    D = hf.config.n_embd // hf.config.n_head

    def close(ids: Tensor, layer: int, head: int) -> Tensor:
        def zero(module: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            z = inputs[0].clone()
            z[..., head * D : (head + 1) * D] = 0
            return (z,)

        with hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(zero):
            return hf(ids, use_cache=False).logits

    return close_one_by_one(job, end_turn, close)


def sweep_lens(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Close each head with a hook of TransformerLens on `hook_z`. Returns logits as `sweep_headgate`."""
    bridge = boot_bridge(job)

    def close(ids: Tensor, layer: int, head: int) -> Tensor:
        def zero(z: Tensor, hook: object) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0  # (B, T, H, D)
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", zero)]
        return bridge.run_with_hooks(ids, fwd_hooks=hooks, logits_to_keep=1)[:, -1]

    return close_one_by_one(job, end_turn, close)


def patch_headgate(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Patch the cells with `patch_cells` of patch.py, pair by pair.

    Returns the logit of class 0 minus that of class 1, (n, U): n texts in the order of the chunks, U cells."""
    clf = load_headgate(job)
    metric = Metric.between(clf, (0, 1))

    def patch(ids: Tensor) -> Tensor:
        pairs = zip(ids.tolist(), change_token(ids).tolist(), strict=True)
        traces = ((record(clf.trunk, base), record(clf.trunk, source)) for base, source in pairs)
        return torch.stack([patch_cells(metric, *pair, job.cells, job.device.tokens) for pair in traces])

    return run_batches(job, end_turn, patch)


def patch_hooks(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Patch each cell with a forward pre-hook on the `c_proj` of transformers. Returns the same as `patch_headgate`."""
    from transformers import GPT2ForSequenceClassification

    hf: Any = from_pretrained(GPT2ForSequenceClassification, job)
    merges, H = [block.attn.c_proj for block in hf.transformer.h], hf.config.n_head

    def patch_one(ids: Tensor, source: Tensor, cell: Cell) -> Tensor:
        place = slice(None), cell.position, cell.head  # of (B, T, H, D)

        def replace(module: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            z = inputs[0].clone()
            z.unflatten(-1, (H, -1))[place] = source.unflatten(-1, (H, -1))[place]
            return (z,)

        with merges[cell.layer].register_forward_pre_hook(replace):
            return compare_classes(hf(ids, use_cache=False).logits)

    def patch(ids: Tensor) -> Tensor:
        sources: list[Tensor] = []  # of each layer, (B, T, C)
        with ExitStack() as hooks:
            for merge in merges:
                hooks.enter_context(merge.register_forward_pre_hook(lambda _, inputs: sources.append(inputs[0])))
            hf(change_token(ids), use_cache=False)
        return torch.stack([patch_one(ids, sources[cell.layer], cell) for cell in job.cells], dim=1)

    return run_batches(job, end_turn, patch)


def patch_lens(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Patch each cell with the function of TransformerLens for that. Returns the same as `patch_headgate`."""
    from transformer_lens.patching import get_act_patch_attn_head_out_by_pos

    bridge = boot_bridge(job)
    rows = [(cell.layer, cell.position, cell.head) for cell in job.cells]
    some: dict[str, Any] = {"index_axis_names": None, "index_df": pd.DataFrame(rows)}  # without it, all cells

    def patch(ids: Tensor) -> Tensor:
        _, cache = bridge.run_with_cache(change_token(ids), names_filter=lambda name: name.endswith("hook_z"))
        with redirect_stderr(StringIO()):  # where it draws a progress bar
            patched = get_act_patch_attn_head_out_by_pos(
                bridge, ids, cache, lambda logits: compare_classes(logits[:, -1]), reduce="none", **some
            )
        return patched.values.T  # (U, B) -> (B, U)

    return run_batches(job, end_turn, patch)


def compare_classes(logits: Tensor) -> Tensor:
    """Return the logit of class 0 minus that of class 1, (B, K) -> (B,)."""
    return logits[:, 0] - logits[:, 1]


def boot_bridge(job: Job) -> Any:
    """Load a model of TransformerLens."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2LMHeadModel

    hf: Any = from_pretrained(GPT2LMHeadModel, job)
    # TransformerLens has no classifier: our classification head replaces the unembedding; the last token is read.
    hf.lm_head = load_classifier(job.folder).score.to(job.device.device)
    return TransformerBridge.boot_transformers(job.folder, hf_model=hf, device=job.device.device.type)


def load_headgate(job: Job, dropout: float | None = None) -> GPT2Classifier:
    """Load a classifier of headgate in eval mode, and do what each of its commands does first."""
    keep_freed_memory()
    return load_classifier(job.folder, dropout=dropout).to(job.device.device).eval()


def from_pretrained(architecture: Any, job: Job, **config: float) -> Any:
    """Load a model of transformers in eval mode, without a progress bar."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return architecture.from_pretrained(job.folder, **config).to(job.device.device).eval()


def close_one_by_one(job: Job, end_turn: EndTurn, close: Callable[[Tensor, int, int], Tensor]) -> NDArray[np.floating]:
    """Run every batch with every head closed; close(ids (B, T), layer, head) -> logits (B, K).

    Returns logits as `sweep_headgate`."""
    return run_batches(job, end_turn, lambda ids: torch.stack([close(ids, *head) for head in job.heads], dim=1))


def run_batches(job: Job, end_turn: EndTurn, run: Callable[[Tensor], Tensor]) -> NDArray[np.floating]:
    """Call run(ids (B, T)) -> (B, U, ...) for every batch, of which none is padded. Returns the results (n, U, ...)."""
    chunks = [[batch.ids.to(job.device.device) for batch in chunk] for chunk in job.make_batches()]
    results = []
    end_turn()
    for chunk in chunks:
        with torch.inference_mode(), job.device.autocast():
            results += [run(ids).float().cpu() for ids in chunk]
        end_turn()
    return torch.cat(results).numpy()


def list_heads(config: GPT2Config) -> tuple[Head, ...]:
    """Return every head."""
    return tuple((layer, head) for layer in range(config.n_layer) for head in range(config.n_head))


def pick_one_per_layer(config: GPT2Config) -> tuple[Head, ...]:
    """Return one head of each layer, for contestants that take equally long for each head."""
    return tuple((layer, layer % config.n_head) for layer in range(config.n_layer))


def list_cells(config: GPT2Config) -> tuple[Cell, ...]:
    """Return the output of every head at every position of a text to patch."""
    return tuple(Cell("z", *head, position) for head in list_heads(config) for position in range(TOKENS))


def pick_some_cells(config: GPT2Config) -> tuple[Cell, ...]:
    """Return one head of each layer at every second position, for contestants that take equally long for each cell."""
    return tuple(Cell("z", *head, position) for head in pick_one_per_layer(config) for position in range(1, TOKENS, 2))
