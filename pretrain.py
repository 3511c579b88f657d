"""Train a GPT-2 language model from scratch on a long text: `make mini`, or `python pretrain.py --help`."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from data.books import Books, consecutive_blocks, read_books
from experiments.pretrain import figures
from experiments.pretrain.training import Options, Pretraining
from lab import heads, manifest, output, runs
from lab.cli import command
from lab.device import Device
from lab.language import held_out_loss
from lab.progress import console
from lab.state import STATE
from lab.texts import check_pair
from model import GPT2LM, Tokenizer, load_lm
from model.checkpoint import read_config

PROMPTS = ("I feel", "She looked at him and", "The old house")


def main(options: Options) -> int:
    options.check()
    device = Device.choose(options.device, options.precision)
    config, tokenizer = read_config(options.model), Tokenizer.load(options.model)
    check_pair(tokenizer, config)
    options = options.resolved(device.device.type != "cpu", config.vocab_size)
    with console.status(f"reading {options.corpus}"):
        books = read_books(options.corpus, tokenizer)
    torch.manual_seed(options.seed)
    lm = GPT2LM(read_config(options.model, options.dropout)).to(device.device)
    lm.config = config  # the checkpoint keeps the dropout of its shape, for whoever fine-tunes it
    training = Pretraining(lm, books, options, device)
    record = manifest.make_manifest(
        options, manifest.describe_weights(options.model, "random"), books.description, device
    )
    with runs.open_run(record, options.resume, device) as (run, record):
        try:
            training.fit(run, tokenizer)
            finish(run, record, training, books, tokenizer)
        except KeyboardInterrupt:
            console.print(f"{run} is unfinished; the same command with --resume goes on with it.")
            raise
    return 0


def finish(run: Path, record: dict[str, Any], training: Pretraining, books: Books, tokenizer: Tokenizer) -> None:
    """Measure the kept weights in fp32, let them write a sample, and complete the manifest."""
    log, device = pd.DataFrame(training.log), Device(training.device.device, "fp32")
    drawn = f"train, by {training.options.sampled:,} drawn tokens" if training.softmax else "train"
    figures.draw_loss_curves(log.replace({"split": {"train": drawn}}), run / "learning_curves.png", run.name)
    lm = load_lm(run).to(device.device)
    measure(run, lm, books, device)
    torch.manual_seed(training.options.seed)
    texts = [continue_text(lm, tokenizer, prompt) for prompt in PROMPTS]
    output.write_text(run / "sample.txt", "\n\n".join(texts) + "\n")
    console.print(*texts, sep="\n\n", soft_wrap=True)
    models = {"trained": lm, "random": GPT2LM(lm.config).to(device.device)}
    scores = pd.concat(
        heads.score_heads(model, training.closed_on, device).assign(weights=weights)
        for weights, model in models.items()
    )
    output.write_csv(run / "heads.csv", scores)
    figures.draw_heads(scores, run / "heads.png")
    seconds, memory = {"training": float(log["seconds"].sum())}, {"all": device.peak_memory()}
    record = record | {"status": "finished", "seconds": seconds, "peak_memory_bytes": memory}
    output.write_json(run / "run.json", record)
    (run / STATE).unlink()
    console.print(f"{run}: finished")


def measure(run: Path, lm: GPT2LM, books: Books, device: Device) -> None:
    """Write the loss and perplexity on all held-out books to metrics.json."""
    blocks = consecutive_blocks(books.held_out, lm.config.n_ctx)
    loss = held_out_loss(lm, blocks, device)
    scores = {"loss": loss, "perplexity": math.exp(loss), "tokens": blocks[:, 1:].numel()}
    output.write_json(run / "metrics.json", {"held_out": scores})
    console.print(f"held-out loss {loss:.3f}, perplexity {scores['perplexity']:.1f}")


def continue_text(lm: GPT2LM, tokenizer: Tokenizer, prompt: str) -> str:
    """Return a prompt and its continuation: 100 tokens drawn at temperature 0.8, or as many as fit into n_ctx."""
    ids = torch.tensor([tokenizer.encode(prompt)], device=lm.trunk.wte.weight.device)
    new = min(100, lm.config.n_ctx - ids.shape[1])
    return tokenizer.decode(lm.generate(ids, new, temperature=0.8)[0].tolist())


if __name__ == "__main__":
    command(main, Options)
