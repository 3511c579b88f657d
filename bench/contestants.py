"""Who is measured: headgate, `transformers` and TransformerLens, each doing the same job in its own way.

A contestant takes a job and `turn`. It gets ready, calls `turn()`, then does the job chunk by chunk and calls `turn()`
after each; what it returns can be compared. Libraries are imported inside, for every one runs in a process of its own,
whose memory is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from slices import Index, Split
from torch import Tensor

from data.batches import Batch
from lab.device import Device
from lab.optim import adamw, linear_schedule
from model import GPT2Config, load_classifier

LR, WEIGHT_DECAY, WARMUP, CLIP = 1e-4, 0.01, 0.1, 1.0
Turn = Callable[[], None]
Head = tuple[int, int]  # (layer, head)


@dataclass(frozen=True)
class Job:
    """Fine-tune a classifier, or close its heads one by one, with these batches."""

    folder: str  # the checkpoint, with its vocabulary
    device: Device
    split: Split
    chunks: Sequence[Sequence[Index]]  # of each chunk its batches, of each batch the positions of its texts
    heads: tuple[Head, ...] = ()  # which are closed, in order; none to fine-tune
    dropout: float = 0.1  # in fine-tuning

    @property
    def batches(self) -> list[list[Batch]]:
        """Those of each chunk, padded on the CPU."""
        return [[self.split.batch(index) for index in chunk] for chunk in self.chunks]


def headgate_training(job: Job, turn: Turn) -> NDArray[np.floating]:
    """The step of train.py -> the loss of every step."""
    from experiments.train.steps import Step

    device = job.device
    clf = load_classifier(job.folder, dropout=job.dropout).to(device.device).train()
    optimizer = adamw(clf.parameters(), LR, WEIGHT_DECAY)
    chunks = job.batches
    schedule = linear_schedule(optimizer, sum(map(len, chunks)), WARMUP)
    step = Step(clf, optimizer, CLIP, torch.ones(len(clf.labels)), device, device.compiles("auto"), False)
    told = []
    turn()
    for chunk in chunks:
        for batch in chunk:
            told.append(step(batch) / len(batch.ids))
            schedule.step()
        turn()
    return torch.stack(told)[:, 0].cpu().numpy()


def trainer(job: Job, turn: Turn, compiled: bool = False) -> NDArray[np.floating]:
    """The Trainer of transformers, which is given the batches ready made -> the loss of every step."""
    from transformers import GPT2ForSequenceClassification, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), job.dropout)
    hf: Any = from_pretrained(GPT2ForSequenceClassification, job, **rates)
    batches = [as_hf(batch, hf.config.pad_token_id) for chunk in job.batches for batch in chunk]
    ends = set(np.cumsum([len(chunk) for chunk in job.chunks]).tolist())  # steps after which a chunk is done
    losses: list[Tensor] = []
    hf.register_forward_hook(lambda module, inputs, output: losses.append(output.loss.detach()))

    class Pauses(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            turn()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in ends:
                turn()

    arguments = TrainingArguments(**settings(job, len(batches)), torch_compile=compiled)
    optimizer = adamw(hf.parameters(), LR, WEIGHT_DECAY)
    optimizers = optimizer, linear_schedule(optimizer, len(batches), WARMUP)
    one = Trainer(hf, arguments, itemgetter(0), batches, callbacks=[Pauses()], optimizers=optimizers)
    one.remove_callback(PrinterCallback)
    one.train()
    return torch.stack(losses).float().cpu().numpy()


def settings(job: Job, steps: int) -> dict[str, Any]:
    """The Trainer's, for speed: nothing is logged or saved, and nothing waits for the GPU."""
    return {
        "output_dir": f"{job.folder}/trainer",
        "max_steps": steps,
        "per_device_train_batch_size": 1,  # a batch of ours
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


def as_hf(batch: Batch, pad: int) -> dict[str, Tensor]:
    """A batch as transformers takes it; it finds the last token by what pads."""
    real = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]  # (B, T)
    return {"input_ids": batch.ids.masked_fill(~real, pad), "attention_mask": real.long(), "labels": batch.targets}


def headgate_sweep(job: Job, turn: Turn) -> NDArray[np.floating]:
    """The sweep of ablate.py, which batches the texts of a chunk by itself -> logits (n, U, K), texts as in chunks."""
    from lab.sweep import fill_zeros, sweep
    from lab.units import each_head

    device = job.device
    clf = load_classifier(job.folder).to(device.device)
    ablations = [ablation for ablation in each_head(clf.config) if (ablation.layer, ablation.head) in job.heads]
    logits = np.empty((len(job.split.sequences), len(ablations), len(clf.labels)), np.float32)
    turn()
    for chunk in job.chunks:
        for index, own in sweep(clf, job.split.sequences, ablations, [fill_zeros], device, np.concatenate(chunk)):
            logits[index] = own[:, :, 0]
        turn()
    return logits[np.concatenate([index for chunk in job.chunks for index in chunk])]


def hook_sweep(job: Job, turn: Turn) -> NDArray[np.floating]:
    """A forward pre-hook on the `c_proj` of transformers, once per head -> logits (n, U, K), texts as in chunks."""
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

    return one_by_one(job, turn, close)


def lens_sweep(job: Job, turn: Turn) -> NDArray[np.floating]:
    """A hook of TransformerLens on `hook_z`, once per head -> logits (n, U, K), texts as in chunks."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2LMHeadModel

    hf: Any = from_pretrained(GPT2LMHeadModel, job)
    # It knows no classifier: ours stands where the unembedding was, which is asked for the last token only.
    hf.lm_head = load_classifier(job.folder).score.to(job.device.device)
    bridge: Any = TransformerBridge.boot_transformers(job.folder, hf_model=hf, device=job.device.device.type)

    def close(ids: Tensor, layer: int, head: int) -> Tensor:
        def zero(z: Tensor, hook: object) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0  # (B, T, H, D)
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", zero)]
        return bridge.run_with_hooks(ids, fwd_hooks=hooks, logits_to_keep=1)[:, -1]

    return one_by_one(job, turn, close)


def from_pretrained(architecture: Any, job: Job, **config: float) -> Any:
    """A model of transformers in eval mode, read without a progress bar."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return architecture.from_pretrained(job.folder, **config).to(job.device.device).eval()


def one_by_one(job: Job, turn: Turn, close: Callable[[Tensor, int, int], Tensor]) -> NDArray[np.floating]:
    """Every head with every batch; close(ids (B, T), layer, head) -> logits (B, K). Batches hold no padding."""
    chunks = [[batch.ids.to(job.device.device) for batch in chunk] for chunk in job.batches]
    logits = []
    turn()
    for chunk in chunks:
        with torch.inference_mode(), job.device.autocast():
            closed = [torch.cat([close(ids, *head) for ids in chunk]) for head in job.heads]
        logits.append(torch.stack(closed, dim=1).float().cpu())  # (n, U, K)
        turn()
    return torch.cat(logits).numpy()


def every_head(config: GPT2Config) -> tuple[Head, ...]:
    return tuple((layer, head) for layer in range(config.n_layer) for head in range(config.n_head))


def one_per_layer(config: GPT2Config) -> tuple[Head, ...]:
    """For those who need equally long for every head."""
    return tuple((layer, layer % config.n_head) for layer in range(config.n_layer))
