"""Who is timed on prompts with examples: what follows 16 examples and a text, for texts behind the same examples.

headgate runs the examples once for all texts of a chunk, and so does `transformers` with its cache of keys and values.
The other two run them again for every text. All return log-probabilities of the same tokens, up to rounding."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.allocator import keep_freed_memory
from lab.device import Device
from lab.language import read_next
from lab.texts import Texts
from model import GPT2Config, load_lm

from .arithmetic import Work, add_up, embed, list_sizes, read_out, run_blocks, run_network
from .contestants import EndTurn, Job, from_pretrained, run_batches
from .slices import Amount, Positions, draw_texts
from .table import compare
from .turns import take_turns

EXAMPLES, TOKENS = 16, 26  # examples, and tokens of each and of a text, as in tweets with a short template
BEGINNING = EXAMPLES * TOKENS
ASKED = list(range(1000, 1060, 10))  # tokens that are asked for, as label words
SHARING = 100  # texts of a chunk, behind the same examples


def draw_prompts(n: int) -> Texts:
    """Return n texts of random tokens behind the same examples, of random tokens too."""
    texts, beginning = draw_texts(n, TOKENS), draw_texts(1, BEGINNING).sequences[0]
    return replace(texts, sequences=[[*beginning, *ids] for ids in texts.sequences])


def time_prompts(config: GPT2Config, folder: str, amount: Amount, device: Device) -> list[dict[str, Any]]:
    """Return a row for each way to read prompts; those that run the examples again get fewer texts."""
    texts = draw_prompts((1 + amount.rounds) * SHARING)
    starts = range(0, len(texts), SHARING)
    sharing = Job(folder, device, texts, [[np.arange(start, start + SHARING)] for start in starts])
    again = replace(sharing, chunks=[[np.arange(start, start + amount.prompts)] for start in starts])
    jobs = {
        "headgate": sharing,
        "transformers, cache": sharing,
        "headgate, examples again": again,
        "transformers, examples again": again,
    }
    (timed,) = take_turns([read_sharing, read_with_cache, read_again, read_hf_again], [list(jobs.values())])
    alike = np.concatenate([np.arange(start, start + amount.prompts) for start in starts])
    outputs = [outcome.output if len(outcome.output) == len(alike) else outcome.output[alike] for outcome in timed]
    counts = [count_sharing, count_peer_sharing, count_again, count_peer_again]
    return compare("prompts", config, jobs, counts, timed, outputs)


def count_sharing(config: GPT2Config, job: Job, chunk: Sequence[Positions], last: bool = True) -> Work:
    """Count the examples once for a chunk, and what follows them for each text. last: its last block computes the last
    token only."""

    def follow(B: int, T: int) -> Work:
        new = embed(config, B, T - BEGINNING) + run_blocks(config, B, T - BEGINNING, BEGINNING, last=last)
        return new + read_out(config, B)

    return run_network(config, 1, BEGINNING, last=False) + add_up(follow(*size) for size in list_sizes(job, chunk))


def count_peer_sharing(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count the same where every block computes every token."""
    return count_sharing(config, job, chunk, last=False)


def count_again(config: GPT2Config, job: Job, chunk: Sequence[Positions], last: bool = True) -> Work:
    """Count examples and text, for each text."""
    sizes = list_sizes(job, chunk)
    return add_up(run_network(config, B, T, last=last) + read_out(config, B) for B, T in sizes)


def count_peer_again(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count the same where every block computes every token."""
    return count_again(config, job, chunk, last=False)


def read_sharing(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Read what follows each text with `read_next` of prompt.py: log-probabilities (n, W) of the tokens ASKED."""
    keep_freed_memory()
    lm = load_lm(job.folder).to(job.device.device).requires_grad_(False)
    results = []
    end_turn()
    for chunk in job.chunks:
        sequences = [job.texts.sequences[i] for positions in chunk for i in positions]
        results.append(read_next(lm, sequences, ASKED, job.device))
        end_turn()
    return np.concatenate(results)


def read_again(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Read the same by plain forward passes, each over examples and text."""
    keep_freed_memory()
    lm = load_lm(job.folder).to(job.device.device).requires_grad_(False)

    def read(ids: Tensor) -> Tensor:
        last = torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
        return lm.read(lm.trunk.norm(lm.trunk.run(lm.trunk.embed(ids), query=last)))[:, 0]

    return run_batches(job, end_turn, lambda ids: select_asked(read(ids)))


def read_hf_again(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Read the same with `transformers`, each forward pass over examples and text."""
    hf = load_hf(job)
    return run_batches(
        job, end_turn, lambda ids: select_asked(hf(ids, use_cache=False, logits_to_keep=1).logits[:, -1])
    )


def read_with_cache(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Read the same with `transformers`, whose cache keeps keys and values of the examples for a whole chunk."""
    hf = load_hf(job)

    def read(ids: Tensor) -> Tensor:
        cache = hf(ids[:1, :BEGINNING], use_cache=True, logits_to_keep=1).past_key_values
        results = []
        for some in ids[:, BEGINNING:].split(20):  # with all at once, the copies of the cache do not fit into memory
            copies = deepcopy(cache)
            copies.batch_repeat_interleave(len(some))
            results.append(hf(some, past_key_values=copies, logits_to_keep=1).logits[:, -1])
        return torch.cat(results)

    return run_batches(job, end_turn, lambda ids: select_asked(read(ids)))


def load_hf(job: Job) -> Callable[..., Any]:
    """Load the language model of `transformers`."""
    from transformers import GPT2LMHeadModel

    model: Callable[..., Any] = from_pretrained(GPT2LMHeadModel, job)
    return model


def select_asked(logits: Tensor) -> Tensor:
    """Return the log-probabilities of the tokens ASKED, (B, V) -> (B, W)."""
    return logits.float().log_softmax(dim=-1)[:, ASKED]
