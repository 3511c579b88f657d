"""What is counted, against what PyTorch counts while it runs, and by hand."""

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from planted import texts_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench import arithmetic, contestants, prompts, recording
from bench.arithmetic import Work
from experiments.patch.cells import Cell
from lab.device import Device
from model import GPT2Classifier, GPT2Config, Tokenizer, save
from model.layouts import config_to_hf

CPU = Device(torch.device("cpu"), "fp32")
TINY = GPT2Config(3, 5, 35, n_ctx=29)
LENGTHS = (7, 11, 7, 11, 7)


@contextmanager
def products_counted():
    """Yield a function that tells the multiply-adds so far, attention's among them: the plain kernel shows them all."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() / 2


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save(GPT2Classifier(TINY, list("abcd")), tmp_path, Tokenizer.load("gpt2-mini"))
    return str(tmp_path)


def make_job(folder, chunks, lengths=LENGTHS, **options):
    rng = np.random.default_rng(0)
    texts = texts_of("test", [rng.integers(50_000, size=n).tolist() for n in lengths], np.arange(len(lengths)) % 4)
    batches = [[np.array(positions) for positions in chunk] for chunk in chunks]
    return contestants.Job(folder, CPU, texts, batches, **options)


def of_classes(rows):
    """Return the multiply-adds of the scores of 4 classes for so many rows, which the module leaves out."""
    return rows * 4 * 35


def test_a_training_step_of_headgate(checkpoint):
    job = make_job(checkpoint, [[[0, 1, 3]]], dropout=0.0)
    with products_counted() as count:
        contestants.train_headgate(job, lambda: None)
    assert arithmetic.count_training(TINY, job, job.chunks[0]).products == count() - 3 * of_classes(3)


def test_a_training_step_of_transformers():
    import transformers

    config = transformers.GPT2Config(**config_to_hf(TINY), num_labels=4, attn_implementation="eager")
    hf = transformers.GPT2ForSequenceClassification(config)
    with products_counted() as count:
        cross_entropy(hf(torch.ones(3, 11, dtype=torch.int64)).logits, torch.tensor([0, 1, 2])).backward()
    job = make_job("", [[[0, 1, 3]]])
    counted = arithmetic.count_peer_training(TINY, job, job.chunks[0]).products
    assert counted == count() - 3 * of_classes(3 * 11)  # it scores every token


@pytest.mark.parametrize("heads", [((0, 1), (0, 4), (1, 3), (2, 0), (2, 2)), ((1, 0),)])
def test_the_sweeps(checkpoint, heads):
    job = make_job(checkpoint, [[[0, 2]], [[1, 3]], [[4]]], heads=heads)
    for sweep, counter, scored in (
        (contestants.sweep_headgate, arithmetic.count_sweep, 5),
        (contestants.sweep_hooks, arithmetic.count_peer_sweep, 3 * 7 + 2 * 11),
    ):
        with products_counted() as count:
            sweep(job, lambda: None)
        counted = sum(counter(TINY, job, chunk).products for chunk in job.chunks)
        assert counted == count() - len(heads) * of_classes(scored)


def test_patching(checkpoint):
    """Token 5 of 7 or 11 differs; the cell before it and the one of the last layer at position 5 cost nothing."""
    places = (0, 1, 6), (1, 3, 5), (2, 4, 5), (2, 0, 6), (1, 2, 3), (0, 0, 5)
    job = make_job(checkpoint, [[[0, 2]]], cells=tuple(Cell("z", *place) for place in places))
    with products_counted() as count:
        contestants.patch_headgate(job, lambda: None)
    counted = arithmetic.count_patching(TINY, job, job.chunks[0]).products
    read = 2 * 35 * (1 + 4)  # of each pair, the difference of two logits: as it is, and for each cell with an effect
    assert counted == pytest.approx(count(), abs=read)
    assert counted <= count()
    with products_counted() as count:
        contestants.patch_hooks(job, lambda: None)
    assert arithmetic.count_peer_patching(TINY, job, job.chunks[0]).products == count() - of_classes(2 * 7 * (6 + 1))


def test_recording(checkpoint):
    job = make_job(checkpoint, [[[0, 2]], [[1]]])
    for record in (recording.record_headgate, recording.record_hf):
        with products_counted() as count:
            record(job, lambda: None)
        assert sum(arithmetic.count_passes(TINY, job, chunk).products for chunk in job.chunks) == count()


@pytest.mark.parametrize(
    ("read", "counter"),
    [
        (prompts.read_sharing, prompts.count_sharing),
        (prompts.read_with_cache, prompts.count_peer_sharing),
        (prompts.read_again, prompts.count_again),
        (prompts.read_hf_again, prompts.count_peer_again),
    ],
)
def test_prompts(checkpoint, monkeypatch, read, counter):
    monkeypatch.setattr(prompts, "TOKENS", 5)
    monkeypatch.setattr(prompts, "BEGINNING", 13)
    job = contestants.Job(checkpoint, CPU, prompts.draw_prompts(3), [[np.arange(3)]])
    with products_counted() as count:
        read(job, lambda: None)
    scored = 35 * 50257 if read is prompts.read_with_cache else 0  # once more, after the examples
    assert counter(TINY, job, job.chunks[0]).products == count() - scored


def test_the_head_alone_runs_the_blocks_once_or_ten_times():
    job = make_job("", [[[0, 2], [1]]])
    once = arithmetic.count_head_alone(TINY, job, job.chunks[0])
    again = arithmetic.count_head_alone_again(TINY, job, job.chunks[0])
    tokens = 2 * 7 + 11
    attention = 2 * 35 * (2 * (2 * 7 * 7 + 7) + 2 * 11 * 11 + 11)
    assert once.products == 35**2 * (2 * 12 * tokens + 2 * tokens + 10 * 3) + attention
    assert again.products == 10 * once.products


class Moved(TorchDispatchMode):
    """Adds up the numbers that elementwise functions read and write: of tensors (B, T, C) or wider, and of attention's
    scores (B, H, T, T)."""

    NAMES = ("add", "native_layer_norm", "gelu", "embedding", "_safe_softmax")

    def __init__(self):
        super().__init__()
        self.numbers = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        name = function.name().removeprefix("aten::").split(".")[0]
        tensors = (x for x in (*arguments, *(result if isinstance(result, tuple) else (result,))) if torch.is_tensor(x))
        dims = 4 if name == "_safe_softmax" else 3
        if name in self.NAMES:
            self.numbers[name] += sum(x.numel() for x in tensors if x.dim() == dims and x.shape[-1] > 1)
        return result


@pytest.mark.parametrize("last", [True, False])
def test_what_a_forward_pass_moves(last):
    trunk = GPT2Classifier(TINY, list("ab")).eval().trunk
    B, T, C = 3, 11, 35
    query = torch.full((B,), T - 1) if last else None
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Moved() as moved:
        trunk.run(trunk.embed(torch.randint(100, (B, T))), query=query)
    embedded = 2 * B * T * C  # read from two matrices
    side_by_side = 2 * C * (B * T * (3 - last) + B * last)  # a copy, among others that attention's plain kernel makes
    seen = sum(moved.numbers.values())
    assert arithmetic.run_network(TINY, B, T, last=last).moved == seen + embedded + side_by_side
    assert set(moved.numbers) == set(Moved.NAMES)


def test_what_a_step_moves_by_hand():
    """One layer, one head, width 2, two texts of 3 tokens, ten tokens in the vocabulary, five positions."""
    config = GPT2Config(1, 1, 2, n_ctx=5, vocab_size=10)
    tokens, weights, C = 6, 18, 2
    forward = tokens * C * (5 + 2 + 2 + 3 + 2 + 8 + 3) + 2 * weights
    backward = tokens * C * (3 + 3 + 2 + 3 + 3 + 12 + 3) + 3 * weights
    dropout = 2 * 2.25 * (tokens * C * (1 + 1 + 1) + weights)
    update = 10 * (12 * 4 + 15 * 2) + 15 * 2
    assert arithmetic.take_step(config, 2, 3, last=False) == Work(
        3 * (tokens * 48 + 2 * weights * C), forward + backward + dropout + update
    )
    assert Work(1, 6).bytes == 24


def test_a_chunk_is_the_sum_of_its_batches_and_padding_counts():
    job = make_job("", [[[0, 1], [2]]])
    assert list(arithmetic.list_sizes(job, job.chunks[0])) == [(2, 11), (1, 7)]
    whole = arithmetic.count_peer_training(TINY, job, job.chunks[0])
    parts = arithmetic.take_step(TINY, 2, 11, last=False) + arithmetic.take_step(TINY, 1, 7, last=False)
    assert whole == parts
    assert job.texts.lengths.tolist() == [*LENGTHS]
