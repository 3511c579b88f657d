"""Which runs of train.py make the tables of a paper."""

import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from rich.panel import Panel
from tyro.conf import OmitArgPrefixes

from data import Corpus, ReadOptions, read_corpus
from data.reading import USUAL
from lab import manifest, output
from lab.baselines import measure_on_train
from lab.cli import check_ranges
from lab.defaults import TEMPLATE, Init, TrainOptions, choose_model
from lab.device import Device, DeviceName, Precision
from lab.predict import predict
from lab.progress import console, forecast
from lab.runs import EARLIER
from lab.texts import read_texts
from lab.word_head import choose_word_head, load_network, read_word_head
from model import InputError, Tokenizer
from model.checkpoint import read_config
from model.files import read_json

from . import results
from .names import check_name, find_folder, short_model, short_name

# What is trained, by its part of a run's name, and the options of train.py that do so.
KINDS: dict[str, dict[str, Any]] = {"all": {}, "head": {"tune": "head"}, "2": {"tune": 2}, "words": {"head": "words"}}
FROM_EITHER_START = ("all", "head")  # the others are trained from pretrained weights alone
TRAIN = Path(__file__).parents[2] / "train.py"
# Options of train.py.
PASSED_ON = ("model", "init", "corpus", "tune", "seed", "epochs", "device", "precision", "head", "run")
CODES = {1: "an error in the program", 2: "a mistake", -9: "killed, often for want of memory"}


@dataclass(frozen=True)
class Options:
    """Train on each corpus with all weights tuned, the head alone, two blocks, and label words, and set the results
    side by side with classifiers on frozen features.

    They land in runs/NAME, each run in runs/NAME-CORPUS-INIT-KIND-SEED, with several models in
    runs/NAME-CORPUS-MODEL-INIT-KIND-SEED. After an interruption the same command goes on."""

    model: tuple[str, ...] = ("gpt2",)  # folders, published names (gpt2, distilgpt2, ...), gpt2-mini; or auto alone
    init: tuple[Init, ...] = ("pretrained",)  # the checkpoint's weights, or only its shape; two are compared
    corpus: tuple[str, ...] = ("emotion", "rotten_tomatoes")  # names, folders, or files, split alike for each seed
    run: str = "paper"  # name of the results, with which the names of the runs begin
    seeds: int = 3  # how many runs of each kind, with seeds from 0
    prompt: bool = False  # also ask the network of each corpus without a head, see docs/prompt.md
    epochs: int | None = None  # passes over the texts; None: as train.py chooses them
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32
    truncate: bool = False  # keep the end of texts that are too long for the model, instead of refusing them
    read: OmitArgPrefixes[ReadOptions] = USUAL

    def check(self) -> None:
        """Raise InputError for a number out of its range, a missing choice, or a name that is none."""
        check_ranges(self, epochs=(1, math.inf))
        if self.seeds < 1 or not self.corpus:
            raise InputError(f"--seeds {self.seeds} and {len(self.corpus)} --corpus: expected at least 1 of each")
        if len(set(self.corpus)) < len(self.corpus):
            raise InputError(f"--corpus {' '.join(self.corpus)}: expected each once")
        models = " ".join(self.model) or "(nothing)"
        if not self.model or len(set(self.model)) < len(self.model):
            raise InputError(f"--model {models}: expected at least one model, and each of them once")
        if "auto" in self.model and len(self.model) > 1:
            raise InputError(f"--model {models}: auto chooses one model; name each of several")
        if not self.init or len(set(self.init)) < len(self.init):
            starts = " ".join(self.init) or "(nothing)"
            raise InputError(f"--init {starts}: expected pretrained, random, or each of them once")
        if self.prompt and "pretrained" not in self.init:
            raise InputError("--prompt: random weights know no words; add pretrained to --init")
        check_name(self.run)


@dataclass(frozen=True, eq=False)
class Run:
    """One run of train.py that the results need."""

    folder: Path
    settings: TrainOptions  # as train.py completes them
    corpus: Corpus
    weights: str | None  # SHA-256 of what it starts from; None: random weights
    block_weights: int  # how many its blocks have; training takes about as long as they are many

    @property
    def kind(self) -> str:
        """What is trained, see KINDS."""
        return results.name_kind(self.settings.head, self.settings.tune)

    def read_record(self) -> dict[str, Any] | None:
        """Return run.json, or None where the run is not finished. Raises InputError where another has its name."""
        path, way_out = self.folder / "run.json", "choose another --run, or move it away"
        if not path.is_file():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise InputError(f"{self.folder}: expected a run of train.py, there is no run.json; {way_out}")
            return None
        record = read_json(path)
        try:
            files = sorted(record["corpus"]["sha256"].values())
            recorded = EARLIER | record["settings"] | {"weights": record["model"].get("sha256"), "corpus": files}
            finished = record["status"] == "finished" and record["seconds"]["all"] > 0
        except (KeyError, TypeError):
            raise InputError(f"{path}: not as this train.py writes it; {way_out}") from None
        planned = manifest.describe_settings(self.settings)
        planned |= {"weights": self.weights, "corpus": sorted(self.corpus.files.values())}
        if changed := ", ".join(name for name in planned if name in recorded and planned[name] != recorded[name]):
            raise InputError(f"{self.folder}: made with another {changed}; {way_out}")
        return record if finished else None

    def train(self) -> None:
        """Train in another process. Raises InputError where that fails, KeyboardInterrupt where it was interrupted."""
        options = [word for name in PASSED_ON for word in (f"--{name}", str(getattr(self.settings, name)))]
        options += write_options(self.settings.read) + ["--truncate"] * self.settings.truncate
        run_script(TRAIN, [*options, *["--resume"] * (self.folder / "run.json").is_file()], self.folder)

    def measure(self, device: Device) -> results.MeasuredRun:
        """Read what the run measured, and add ROC AUC on its training texts.

        Predicting these may take minutes: the result is kept in train_metrics.json."""
        path = self.folder / "train_metrics.json"
        if not path.is_file():
            tokenizer = Tokenizer.load(self.folder)
            head = read_word_head(read_json(self.folder / "run.json"), tokenizer)
            model = load_network(self.folder, head).to(device.device)
            template = head.template if head else None
            texts = read_texts(self.corpus, tokenizer, model.config, self.settings.truncate, template)["train"]
            output.write_json(path, measure_on_train(texts.targets, predict(model, texts.sequences, device)))
        metrics = read_json(self.folder / "metrics.json") | {"train": read_json(path)}
        predicted = results.read_predicted(self.folder / "predictions.csv", self.corpus)
        return results.MeasuredRun(read_json(self.folder / "run.json"), metrics, self.corpus.targets("test"), predicted)


def run_script(script: Path, options: Sequence[str], folder: Path) -> None:
    """Run a script that writes into a folder. Raises InputError where it fails, KeyboardInterrupt where it was
    interrupted."""
    arguments = [os.path.relpath(sys.executable), os.path.relpath(script), *options]
    console.print(f"\n{shlex.join(arguments)}", soft_wrap=True)
    code = call(arguments)
    if code in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    if code:
        meaning = CODES.get(code, "ended from outside")
        way_out = "see above; the same command goes on from here"
        raise InputError(f"{folder}: {script.name} failed with exit code {code}, {meaning}; {way_out}")


def write_options(reading: ReadOptions) -> list[str]:
    """Return the words of a command line that say how a corpus is read, as far as it is not the usual way."""
    words: list[str] = []
    for field in fields(reading):
        value, name = getattr(reading, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, tuple):
            words += [f"--{name}", *value]
        else:
            words.append(f"--{name}={value}")  # the name of a column may begin with a dash
    return words


def plan(options: Options) -> list[Run]:
    """Return the runs in their order. Weights and corpora that are not in the cache are fetched.

    Raises InputError where that fails, where a model cannot read a corpus, or where two runs would have one name."""
    shared = TrainOptions(
        epochs=options.epochs,
        device=options.device,
        precision=options.precision,
        truncate=options.truncate,
        read=options.read,
    )
    models = choose_models(options)
    weights = {
        (model, init): manifest.describe_weights(model, init).get("sha256") for model in models for init in options.init
    }
    planned = []
    for (source, corpus), model in product(read_corpora(options.corpus, options.read).items(), models):
        config = read_config(model)
        check_readable(corpus, model, options.truncate)
        for init in options.init:
            kinds = choose_kinds(model, corpus, options.truncate) if init == "pretrained" else FROM_EITHER_START
            for kind, seed in product(kinds, range(options.seeds)):
                start = f"{options.run}-{short_name(corpus)}"
                folder = find_folder(start, f"{init}-{kind}-{seed}", model, several=len(models) > 1)
                own = replace(shared, run=folder.name, model=model, corpus=source, init=init, seed=seed, **KINDS[kind])
                settings = own.resolved(config.n_embd, len(corpus.split("train")))
                planned.append(Run(folder, settings, corpus, weights[model, init], config.block_weights))
    check_names(planned)
    return planned


def choose_models(options: Options) -> list[str]:
    """Return the names of the models. Raises InputError where runs of two would have the same names."""
    models: dict[str, str] = {}
    for name in options.model:
        model, notice = choose_model(name, "pretrained" if "pretrained" in options.init else "random")
        if notice:
            console.print(Panel(notice, style="bold yellow"))
        if other := models.get(short_model(model)):
            raise InputError(f"--model {model}: {other} is called {short_model(model)} too; rename one of them")
        models[short_model(model)] = model
    return [*models.values()]


def check_names(planned: Sequence[Run]) -> None:
    """Raise InputError where two runs have one name, as those of x-y on w and of y on w-x."""
    runs_by_name: dict[str, Run] = {}
    for run in planned:
        other = runs_by_name.setdefault(run.folder.name, run)
        if other is not run:
            both = " and ".join(f"{each.settings.model} on {each.corpus.name}" for each in (other, run))
            raise InputError(f"{run.folder}: the runs of {both} would have this name; rename one of the folders")


def check_readable(corpus: Corpus, model: str, truncate: bool) -> None:
    """Raise InputError where a model cannot read a corpus, before others are trained for hours."""
    try:
        read_texts(corpus, Tokenizer.load(model), read_config(model), truncate)
    except InputError as error:
        raise InputError(f"{model} on {corpus.name}: {error}") from None


def choose_kinds(model: str, corpus: Corpus, truncate: bool) -> list[str]:
    """Return what is trained of a pretrained network on a corpus; say so where it cannot answer in label words."""
    config, tokenizer, kinds = read_config(model), Tokenizer.load(model), [*FROM_EITHER_START]
    if config.n_layer > KINDS["2"]["tune"]:
        kinds.append("2")
    try:
        head = choose_word_head(TEMPLATE, (), corpus.labels, tokenizer)
        if long := ", ".join(head.words.find_long()):
            raise InputError(f"label words of several tokens: {long}")
        head.check(read_texts(corpus, tokenizer, config, truncate, head.template), tokenizer)
    except InputError as error:
        console.print(f"{model} on {corpus.name}: no row of label words: {error}", soft_wrap=True, markup=False)
        return kinds
    return [*kinds, "words"]


def read_corpora(sources: Sequence[str], reading: ReadOptions) -> dict[str, Corpus]:
    """Read the corpus of each source. Raises InputError where runs on two of them would have the same names."""
    corpora: dict[str, Corpus] = {}
    for source in sources:
        corpus = read_corpus(source, reading)
        for other in corpora:
            if short_name(corpora[other]) == short_name(corpus):
                raise InputError(f"--corpus {source}: {other} is called {short_name(corpus)} too; rename one of them")
        corpora[source] = corpus
    return corpora


def call(arguments: list[str]) -> int:
    """Run a command, whose output shows as it comes, and return its exit code."""
    with subprocess.Popen(arguments) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal interrupts the child too, which then measures its best epoch. But the run will be done again.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise


def describe_remaining(planned: list[Run], device: Device) -> str:
    """Say how many runs are to do and how long they take: as long as finished runs of their kind, or else as any, in
    proportion to the weights of their blocks."""
    records = [run.read_record() for run in planned]
    times = pd.DataFrame(
        {
            "kind": [(run.corpus.name, run.settings.model, run.settings.init, run.kind) for run in planned],
            "weights": [run.block_weights for run in planned],
            "seconds": [record["seconds"]["all"] if record else math.nan for record in records],
        }
    )
    of_any = (times["seconds"] / times["weights"]).mean() * times["weights"]
    expected = times.groupby("kind")["seconds"].transform("mean").fillna(of_any)
    remaining = expected[times["seconds"].isna()]
    seconds, number = remaining.sum(skipna=False), f"{len(remaining) or 'none'} to do"
    return forecast(f"{number}, which takes", seconds, 1.0, device) if seconds > 0 else number  # NaN: none is finished
