"""`paper.py`: three real runs of a tiny network, and what it makes of many that are only pretended."""

import json
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import commands
import numpy as np
import odd_corpora
import pandas as pd
import prompted_tables
import pytest
import torch
import tyro
from commands import one_line
from filelock import FileLock
from pictures_on_disk import leave_undrawn
from sklearn.metrics import accuracy_score, roc_auc_score
from small_run import WORDS

import lab.defaults
import paper
import train
from data import read_corpus
from experiments.paper import plan, results
from experiments.prompt.judge import judge
from lab import manifest, output
from lab.report import label
from model import GPT2LM, GPT2Config, Tokenizer, load_classifier, load_lm, save
from model.checkpoint import read_config

FILLERS = ["today", "again", "at", "work", "with", "my", "friend"]
TINY = ("--model", "tiny", "--corpus", "words", "--epochs", "2", "--seeds", "1", "--device", "cpu")
KINDS = ("all", "head", "words")  # of a network with two blocks
RUNS = ALL, HEAD, NAMED = tuple(Path(f"runs/paper-words-pretrained-{kind}-0") for kind in KINDS)
BOTH = ("--init", "pretrained", "random")


def write_corpus(folder):
    rng = np.random.default_rng(3)
    folder.mkdir()
    for split, n in {"train": 23, "val": 11, "test": 13}.items():
        lines = [
            f"i felt {' '.join(rng.choice(FILLERS, size=5))} "
            f"{rng.choice(' '.join(WORDS.values()).split() if rng.random() < 0.3 else words.split())};{label}"
            for k, (label, words) in enumerate(WORDS.items())
            for _ in range(n + 5 * k)
        ]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


def run_paper(monkeypatch, *arguments):
    """The exit code of `python paper.py arguments`."""
    return commands.exit_code(monkeypatch, paper, *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A working folder after `paper.py` with three real runs."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    save(GPT2LM(GPT2Config(2, 2, 10, n_ctx=17)), folder / "tiny", Tokenizer.load("gpt2-mini"))
    write_corpus(folder / "words")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(plan, "call", run_here)
        assert run_paper(patch, *TINY) == 0
    return folder


def run_here(arguments):
    """What `plan.call` does, in this process, without the pictures of a run."""
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        return commands.exit_code(patch, train, *arguments[2:])


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of it that a test may change."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pretended(here, monkeypatch):
    """Runs that train.py only pretends to make, out of the real one; the list of their settings."""
    calls = []
    record, metrics = read("run.json"), read("metrics.json")
    shutil.copy(ALL / "predictions.csv", here)

    def pretend(arguments):
        asked = tyro.cli(train.Options, args=arguments[2:])
        calls.append(asked)
        run = Path("runs") / asked.run
        run.mkdir(parents=True, exist_ok=True)
        corpus, name = read_corpus(asked.corpus), Path(asked.corpus).name
        completed = asked.resolved(read_config(asked.model).n_embd, len(corpus.split("train")))
        settings, files = manifest.describe_settings(completed), corpus.files
        own = record | {"settings": settings, "corpus": record["corpus"] | {"name": name, "sha256": files}}
        own["model"] = manifest.describe_weights(asked.model, asked.init)
        (run / "run.json").write_text(json.dumps(own))
        lost = 0.03 * (1 + asked.seed) if asked.init == "random" else 0
        scores = metrics["test"] | {"accuracy": 0.5 + 0.1 * asked.seed + (0.01 if asked.tune == "all" else 0) - lost}
        shutil.copy(here / "predictions.csv", run)
        (run / "metrics.json").write_text(json.dumps(metrics | {"test": scores}))
        (run / "train_metrics.json").write_text(json.dumps({"n": 84, "macro_roc_auc": 0.75}))
        return 0

    monkeypatch.setattr(plan, "call", pretend)
    monkeypatch.setattr(paper, "fit_missing", pretend_fits)
    return calls


def pretend_fits(planned, folder, device):
    """What was fitted on the real corpus, for all corpora, models and starts."""
    of_network, bag = (
        read(f"words-{name}.json", Path("runs/paper/fitted"))["result"] for name in ("tiny-pretrained", "bag")
    )
    starts = dict.fromkeys((run.corpus.name, run.settings.model, run.settings.init) for run in planned)
    corpora = dict.fromkeys(run.corpus.name for run in planned)
    return [
        results.Fitted(model, init, corpus, kind, None, metrics["chosen"], metrics)
        for corpus, model, init in starts
        for kind, metrics in of_network.items()
    ] + [results.Fitted("bag_of_words", "", corpus, "", None, bag["name"], bag) for corpus in corpora]


def read(name, run=ALL):
    return json.loads((run / name).read_text())


def change(name, **values):
    path = ALL / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.slow
def test_real_runs_leave_three_files_and_what_was_fitted(made):
    assert {path.name for path in (made / "runs").iterdir()} == {"paper", *(run.name for run in RUNS), "latest"}
    assert {path.name for path in (made / "runs/paper").iterdir()} - {".lock", output.WRITTEN} == {
        "fitted",
        "results.csv",
        "results.md",
        "results.png",
    }
    assert {path.name for path in (made / "runs/paper/fitted").iterdir()} == {
        "words-tiny-pretrained.json",
        "words-bag.json",
    }
    for run, tune, head in zip(RUNS, ("all", "head", "all"), ("classifier", "classifier", "words"), strict=True):
        settings = read("run.json", made / run)["settings"]
        assert (settings["tune"], settings["head"], settings["seed"], settings["epochs"]) == (tune, head, 0, 2)


@pytest.mark.slow
def test_runs_in_processes_of_their_own_leave_the_same(made, here, monkeypatch):
    shutil.rmtree("runs")
    assert run_paper(monkeypatch, *TINY) == 0
    for name in (ALL / "predictions.csv", HEAD / "predictions.csv", "runs/paper/results.csv"):
        # Other threads round otherwise, by which a pair of texts may change places in a ranking.
        pd.testing.assert_frame_equal(pd.read_csv(name), pd.read_csv(made / name), rtol=3e-3)


def test_the_table_holds_the_numbers_of_each_run(made):
    table = pd.read_csv(made / "runs/paper/results.csv", keep_default_na=False, na_values={"value": "", "ci_low": ""})
    columns = "model,init,corpus,tune,seed,split,metric,n,value,ci_low,ci_high,chosen"
    assert list(table.columns) == columns.split(",")
    order = [*["frozen"] * 9, *["wte"] * 9, *["head"] * 9, *["all"] * 9, *["words"] * 9, *[""] * (9 + 6)]
    assert list(table["tune"]) == order  # the most frequent class has no ROC AUC
    for run in RUNS:
        metrics = read("metrics.json", made / run)
        rows = table[(table["tune"] == run.name.split("-")[3]) & (table["split"] != "train")]
        assert set(rows["model"]) == {"tiny"}
        assert set(rows["seed"]) == {"0"}
        check_rows(rows, metrics)
    fitted = made / "runs/paper/fitted"
    for kind, metrics in read("words-tiny-pretrained.json", fitted)["result"].items():
        rows = table[table["tune"] == kind]
        assert set(rows["chosen"]) == {metrics["chosen"]}
        assert set(rows["seed"]) == {""}
        check_rows(rows[rows["split"] != "train"], metrics)
    bag = read("words-bag.json", fitted)["result"]
    for name, metrics in {
        "bag_of_words": bag,
        "majority": read("metrics.json", made / ALL)["baselines"]["majority"],
    }.items():
        rows = table[table["model"] == name]
        assert set(rows["tune"]) == set(rows["seed"]) == set(rows["init"]) == {""}
        check_rows(rows[rows["split"] != "train"], metrics)
    areas = table[(table["split"] == "train") & (table["model"] == "bag_of_words")]
    assert list(areas["value"]) == [bag["train"]["macro_roc_auc"]]


def check_rows(rows, metrics):
    assert len(rows) >= 6
    for row in rows.itertuples():
        measured = metrics[row.split]
        interval = measured["intervals"][row.metric]
        assert [row.n, row.value, row.ci_low, float(row.ci_high)] == [measured["n"], measured[row.metric], *interval]


def test_roc_auc_on_train_is_that_of_the_checkpoint(made):
    table = pd.read_csv(made / "runs/paper/results.csv")
    for run in RUNS[:2]:
        clf, tokenizer = load_classifier(made / run), Tokenizer.load(made / run)
        lines = [line.rsplit(";", 1) for line in (made / "words/train.txt").read_text().splitlines()]
        with torch.no_grad():
            p = torch.cat([clf(torch.tensor([tokenizer.encode(text)])).softmax(dim=1) for text, _ in lines]).numpy()
        areas = [roc_auc_score([label == k for _, label in lines], p[:, i]) for i, k in enumerate(clf.labels)]
        row = table[(table["split"] == "train") & (table["tune"] == run.name.split("-")[3])]
        assert list(row["metric"]) == ["macro_roc_auc"]
        assert row["value"].item() == pytest.approx(np.mean(areas), abs=1e-3)  # rounding may swap two texts
        assert row["n"].item() == len(lines)
        assert row["ci_low"].isna().all()


def test_the_page_says_where_its_numbers_come_from(made):
    page = (made / "runs/paper/results.md").read_text()
    record = read("run.json", made / ALL)
    assert f"SHA-256 of the weights {record['model']['sha256']}" in page
    assert f"- device: {record['device']}\n" in page
    assert f"torch {record['versions']['torch']}" in page
    assert "`python paper.py --model tiny --corpus words --epochs 2 --seeds 1 --device cpu`" in page
    assert "not results of official weights" in page
    assert read("metrics.json", made / ALL)["baselines"]["bag_of_words"]["name"] in page
    assert "DistilBERT" not in page


def test_roc_auc_on_train_of_a_run_that_answers_in_words_is_that_of_its_words(made):
    lm, tokenizer = load_lm(made / NAMED), Tokenizer.load(made / NAMED)
    words = [tokenizer.encode(f" {word}")[0] for word in ("angry", "afraid", "happy")]
    lines = [line.rsplit(";", 1) for line in (made / "words/train.txt").read_text().splitlines()]
    prompts = [tokenizer.encode(f"{text}\nThe feeling of this text is") for text, _ in lines]
    with torch.no_grad():
        p = torch.stack([lm(torch.tensor([ids]))[0, -1, words].softmax(dim=0) for ids in prompts]).numpy()
    areas = [roc_auc_score([label == k for _, label in lines], p[:, i]) for i, k in enumerate(("anger", "fear", "joy"))]
    area = read("train_metrics.json", made / NAMED)["macro_roc_auc"]
    assert area == pytest.approx(np.mean(areas), abs=1e-3)  # rounding decides a few of 5,000 pairs
    assert area != pytest.approx(0.5, abs=0.03)


def test_what_is_done_is_not_done_again(here, monkeypatch, capsys):
    before = (here / "runs/paper/results.csv").read_bytes()
    shutil.rmtree(here / "runs/paper")
    monkeypatch.setattr(plan, "call", lambda arguments: pytest.fail("a run was started"))
    assert run_paper(monkeypatch, *TINY) == 0
    assert "3 runs, 3 of them are there already: none to do" in capsys.readouterr().out
    assert (here / "runs/paper/results.csv").read_bytes() == before


def test_an_interrupted_run_goes_on(here, pretended, monkeypatch, capsys):
    change("run.json", status="interrupted")
    assert run_paper(monkeypatch, *TINY) == 0
    assert [(asked.run, asked.resume) for asked in pretended] == [(ALL.name, True)]
    assert "3 runs, 2 of them are there already" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_ended_before_its_first_line_is_done_again(here, pretended, monkeypatch):
    shutil.rmtree(HEAD)
    HEAD.mkdir()
    assert run_paper(monkeypatch, *TINY) == 0
    assert [(asked.run, asked.resume) for asked in pretended] == [(HEAD.name, False)]


def other_file(here):
    with (here / "words/val.txt").open("a") as file:
        file.write("i felt glad at last;joy\n")


def other_weights(here):
    save(GPT2LM(GPT2Config(2, 2, 10, n_ctx=17)), here / "tiny", Tokenizer.load("gpt2-mini"))


def other_default(here):
    settings = read("run.json")["settings"]
    change("run.json", settings={name: settings[name] for name in settings if name != "lm_weight"})


def no_run(here):
    (here / ALL / "run.json").unlink()


@pytest.mark.parametrize(
    ("meddle", "arguments", "expected"),
    [
        (None, ("--epochs", "3"), "another epochs; choose another --run"),
        (other_file, (), "another corpus; choose another --run"),
        (other_weights, (), "another weights; choose another --run"),
        (other_default, (), "another lm_weight; choose another --run"),  # older than the option, so without that loss
        (no_run, (), "there is no run.json; choose another --run"),
    ],
)
def test_another_run_of_that_name_is_left_alone(here, pretended, monkeypatch, capsys, meddle, arguments, expected):
    if meddle:
        meddle(here)
    assert run_paper(monkeypatch, *TINY, *arguments) == 2
    assert expected in one_line(capsys)
    assert not pretended
    assert (ALL / "model.safetensors").exists()


@pytest.mark.parametrize("status", ["unfinished", "interrupted"])
def test_an_unfinished_run_with_other_settings_is_left_alone(here, pretended, monkeypatch, capsys, status):
    """It may be at work in another terminal, or hold somebody's best epoch."""
    change("run.json", status=status)
    assert run_paper(monkeypatch, *TINY, "--epochs", "5") == 2
    assert f"{ALL}: made with another epochs" in one_line(capsys)
    assert (ALL / "model.safetensors").exists()


def test_two_at_once_do_not_meet(here, pretended, monkeypatch, capsys):
    change("run.json", status="unfinished")
    with FileLock("runs/paper/.lock"):
        assert run_paper(monkeypatch, *TINY) == 2
    assert "another paper.py is at work on it" in one_line(capsys)
    assert not pretended
    assert (ALL / "model.safetensors").exists()


def test_every_corpus_tune_and_seed_is_run_and_averaged(here, pretended, monkeypatch, capsys):
    shutil.copytree("words", "my words")
    arguments = ("--model", "tiny", "--corpus", "words", "my words", "--run", "all", "--seeds", "3", "--device", "cpu")
    assert run_paper(monkeypatch, *arguments) == 0
    names = [
        f"all-{corpus}-pretrained-{tune}-{seed}"
        for corpus in ("words", "my_words")
        for tune in KINDS
        for seed in range(3)
    ]
    assert [asked.run for asked in pretended] == names
    assert [asked.seed for asked in pretended] == [0, 1, 2] * 6
    assert {(asked.model, asked.device, asked.tune, asked.head) for asked in pretended} == {
        ("tiny", "cpu", "all", "classifier"),
        ("tiny", "cpu", "head", "classifier"),
        ("tiny", "cpu", "all", "words"),
    }
    assert [asked.epochs for asked in pretended] == [6, 6, 6, 10, 10, 10, 4, 4, 4] * 2
    table = pd.read_csv("runs/all/results.csv")
    assert (table["model"] == "majority").sum() == 2 * 6
    page = Path("runs/all/results.md").read_text()
    rows = [row for row in page.split("The runs were trained")[0].splitlines() if row.startswith("|")]
    assert rows[2].startswith("| words (84 / 48 / 54) | tiny, frozen features + logistic regression: ")
    assert rows[3].startswith("|  | tiny, mean of wte + logistic regression: C = ")
    assert rows[4].startswith("|  | tiny, head alone tuned | 3 |")
    assert rows[5].startswith("|  | tiny, all weights tuned | 3 |")
    assert rows[6].startswith("|  | tiny, label words, all weights tuned | 3 |")
    assert rows[9].startswith("| my words (84 / 48 / 54) | tiny, frozen features + logistic regression: ")
    assert len(rows) == 16
    assert "| **0.610**<br>seed 0: 0.510 [" in rows[5]
    assert "| **0.600**<br>seed 0: 0.500 [" in rows[4]
    assert "<br>seed 2: 0.700 [" in rows[4]
    assert "| 0.750 |" in rows[5]
    out = " ".join(capsys.readouterr().out.split())
    assert "18 runs, 0 of them are there already: 18 to do" in out
    assert "runs/all-words-pretrained-all-1: test accuracy 0.610" in out


def test_a_corpus_from_the_hub_gives_its_last_name_to_its_runs(here, monkeypatch):
    corpus = replace(read_corpus("words"), name="owner/my feelings/folder")
    monkeypatch.setattr(plan, "read_corpus", lambda source, reading: corpus)
    options = paper.Options(("tiny",), corpus=("owner/my feelings",), seeds=1)
    names = [run.folder.name for run in paper.plan(options)]
    assert names == [f"paper-my_feelings-pretrained-{kind}-0" for kind in KINDS]


@pytest.fixture
def deep(here):
    """The name of a network with three blocks, and room for prompts."""
    save(GPT2LM(GPT2Config(3, 2, 10, n_ctx=32)), here / "deep", Tokenizer.load("gpt2-mini"))
    return "deep"


def test_two_blocks_of_a_deeper_network_are_tuned_from_pretrained_weights_alone(deep):
    options = paper.Options((deep,), ("pretrained", "random"), ("words",), seeds=2, epochs=4)
    planned = paper.plan(options)
    assert [run.folder.name for run in planned] == [
        *[f"paper-words-pretrained-{kind}-{seed}" for kind in ("all", "head", "2", "words") for seed in range(2)],
        *[f"paper-words-random-{kind}-{seed}" for kind in ("all", "head") for seed in range(2)],
    ]
    words = ["--model", deep, "--init", "pretrained", "--device", "auto", "--precision", "auto", "--epochs", "4"]
    for run, extra in zip(
        planned[4:8], [["2"], ["2"], ["all", "--head", "words"], ["all", "--head", "words"]], strict=True
    ):
        seed, name = str(run.settings.seed), run.folder.name
        by_hand = [*words, "--corpus", "words", "--tune", *extra, "--seed", seed, "--run", name]
        assert run.settings == tyro.cli(train.Options, args=by_hand).resolved(10, len(run.corpus.split("train")))


@pytest.fixture
def wide(here):
    """The name of a network of another shape."""
    torch.manual_seed(1)
    save(GPT2LM(GPT2Config(3, 5, 35, n_ctx=31)), here / "wide", Tokenizer.load("gpt2-mini"))
    return "wide"


def test_a_second_model_is_trained_beside_the_runs_of_the_first(here, pretended, wide, monkeypatch, capsys):
    both = ("--model", "tiny", wide, *TINY[2:])
    assert run_paper(monkeypatch, *both) == 0
    names = [f"paper-words-wide-pretrained-{kind}-0" for kind in ("all", "head", "2", "words")]
    assert [(asked.run, asked.model) for asked in pretended] == [(name, wide) for name in names]
    out = " ".join(capsys.readouterr().out.split())
    assert "7 runs, 3 of them are there already" in out
    assert "results.md, results.csv, model_differences.csv and results.png are written" in out
    table = pd.read_csv("runs/paper/results.csv")
    assert list(table["model"].unique()) == ["tiny", wide, "bag_of_words", "majority"]
    accuracies = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
    assert list(accuracies["model"]) == ["tiny"] * 5 + [wide] * 6 + ["bag_of_words", "majority"]
    compared = pd.read_csv("runs/paper/model_differences.csv")
    assert list(compared["tune"]) == ["all", "all", "head", "head", "words", "words"]  # tiny has two blocks
    assert set(compared["model"]) == {wide}
    assert set(compared["first_model"]) == {"tiny"}
    accuracy = compared.iloc[0]
    assert accuracy["mean"] == 0.51
    assert accuracy["first_mean"] == read("metrics.json")["test"]["accuracy"]
    page = Path("runs/paper/results.md").read_text()
    tuned = "head alone tuned | pretrained | 2"
    assert all(f"| words | {model} | {tuned} | {3e-3 * 256 / n:g} | 0 | 0 |" in page for model, n in SHAPES.items())
    assert "in number of layers, heads per layer, width, tokens at most, learning rate.\n" in page
    for models in ((wide, "tiny"), (wide,), ("tiny",)):
        again = paper.plan(paper.Options(models, corpus=("words",), seeds=1, epochs=2, device="cpu"))
        assert all(run.read_record() for run in again)


SHAPES = {"tiny": 10, "wide": 35}  # widths


def test_a_run_of_one_model_is_never_taken_for_that_of_another(here, pretended, wide, monkeypatch, capsys):
    assert run_paper(monkeypatch, "--model", wide, *TINY[2:]) == 2
    assert f"{ALL}: made with another model, " in one_line(capsys)
    assert not pretended
    for run in RUNS:
        shutil.rmtree(run)
    assert run_paper(monkeypatch, "--model", wide, "tiny", *TINY[2:]) == 0
    assert [asked.model for asked in pretended] == [wide] * 4 + ["tiny"] * 3
    assert len({asked.run for asked in pretended}) == 7
    assert {asked.run.split("-")[2] for asked in pretended} == set(SHAPES)


@pytest.mark.slow
def test_several_models_go_on_after_an_interruption(here, pretended, wide, monkeypatch):
    both = ("--model", "tiny", wide, *TINY[2:])
    pretend = plan.call
    monkeypatch.setattr(plan, "call", lambda arguments: 130 if len(pretended) == 2 else pretend(arguments))
    assert run_paper(monkeypatch, *both) == 130
    path = Path("runs/paper-words-wide-pretrained-head-0/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    monkeypatch.setattr(plan, "call", pretend)
    assert run_paper(monkeypatch, *both) == 0
    assert [asked.run.split("-")[4] for asked in pretended] == ["all", "head", "head", "2", "words"]
    assert [asked.resume for asked in pretended] == [False, False, True, False, False]


def test_a_name_beside_a_folder_has_the_learning_rate_of_its_own_width(here, wide):
    planned = paper.plan(paper.Options((wide, "gpt2-mini"), ("random",), ("words",), seeds=1))
    assert [(run.folder.name, run.settings.lr) for run in planned] == [
        ("paper-words-wide-random-all-0", pytest.approx(1e-3 * 256 / 35)),
        ("paper-words-wide-random-head-0", pytest.approx(3e-3 * 256 / 35)),
        ("paper-words-gpt2-mini-random-all-0", 1e-3),
        ("paper-words-gpt2-mini-random-head-0", 3e-3),
    ]


def test_two_runs_of_one_name_are_refused(here, monkeypatch, capsys):
    """The name of a corpus or a model may hold a dash."""
    for name in ("wide", "ly-wide"):
        shutil.copytree("tiny", name)
    shutil.copytree("words", "words-ly")
    arguments = ("--model", "wide", "ly-wide", "--corpus", "words", "words-ly", *TINY[4:], "--init", "random")
    assert run_paper(monkeypatch, *arguments) == 2
    assert (
        "paper-words-ly-wide-random-all-0: the runs of ly-wide on words and wide on words-ly would have this name"
        in one_line(capsys)
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (";fear", ";schadenfreude", "label words of several tokens: schadenfreude"),
        ("i felt ", "i felt " + "again and again " * 6, "tokens"),
    ],
)
def test_where_a_network_cannot_answer_in_words_a_line_says_why(deep, monkeypatch, capsys, old, new, why):
    for path in Path("words").iterdir():
        path.write_text(path.read_text().replace(old, new))
    planned = paper.plan(paper.Options((deep,), corpus=("words",), seeds=1))
    assert [run.kind for run in planned] == ["all", "head", "2"]
    out = " ".join(capsys.readouterr().out.split())
    assert "words: no row of label words: " in out
    assert why in out


def test_the_command_that_shows_is_the_one_that_runs(here, pretended, monkeypatch, capsys):
    shutil.rmtree(HEAD)
    assert run_paper(monkeypatch, *TINY) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if "train.py" in line)
    assert " --model tiny --init pretrained --corpus words --tune head --seed 0 --epochs 2 --device cpu" in shown
    assert shown.endswith(f"--run {HEAD.name}")


@pytest.mark.parametrize(("code", "meaning"), [(2, "a mistake"), (1, "an error in the program"), (-9, "memory")])
def test_a_run_that_fails_ends_it_with_one_line(here, monkeypatch, capsys, code, meaning):
    shutil.rmtree(HEAD)
    monkeypatch.setattr(plan, "call", lambda arguments: code)
    assert run_paper(monkeypatch, *TINY) == 2
    line = one_line(capsys)
    assert f"{HEAD}: train.py failed with exit code {code}" in line
    assert meaning in line


@pytest.mark.parametrize("code", [130, -signal.SIGINT])
def test_a_run_that_was_interrupted_ends_it_with_130(here, monkeypatch, code):
    shutil.rmtree(HEAD)
    monkeypatch.setattr(plan, "call", lambda arguments: code)
    assert run_paper(monkeypatch, *TINY) == 130


def test_ctrl_c_reaches_the_run_and_waits_for_it(tmp_path, monkeypatch):
    script = """
import pathlib, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has none
pathlib.Path("ready").touch()
try:
    time.sleep(30)
except KeyboardInterrupt:
    time.sleep(0.5)
    pathlib.Path("ended").touch()
"""

    def interrupt():
        while not Path("ready").exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            plan.call([sys.executable, "-c", script])
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert Path("ended").exists()
    assert plan.call([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_the_remaining_time_follows_from_like_runs(here, pretended, monkeypatch):
    monkeypatch.setattr(plan, "choose_kinds", lambda model, corpus, truncate: plan.FROM_EITHER_START)
    options = paper.Options(("tiny",), corpus=("words",), epochs=2, seeds=3, device="cpu")
    cpu = paper.Device.choose("cpu", "auto")
    change("run.json", seconds={"all": 600})
    head = read("run.json", HEAD)
    (HEAD / "run.json").write_text(json.dumps(head | {"seconds": {"all": 60}}))
    record = read("run.json")
    again = record["settings"] | {"seed": 1, "run": "paper-words-pretrained-all-1"}
    other = Path("runs", again["run"])
    other.mkdir()
    (other / "run.json").write_text(json.dumps(record | {"settings": again}))
    assert paper.describe_remaining(paper.plan(options), cpu) == f"3 to do, which takes about 12 min on {cpu}"
    (HEAD / "run.json").write_text(json.dumps(head | {"status": "unfinished"}))
    assert paper.describe_remaining(paper.plan(options), cpu) == f"4 to do, which takes about 40 min on {cpu}"
    (HEAD / "run.json").write_text(json.dumps(head | {"seconds": {"all": 60}}))
    with_random = replace(options, init=("pretrained", "random"))  # of which nothing is known: the mean of 600, 600, 60
    assert paper.describe_remaining(paper.plan(with_random), cpu) == f"9 to do, which takes about 54 min on {cpu}"
    (HEAD / "run.json").write_text(json.dumps(head | {"status": "unfinished"}))
    change("run.json", seconds={"all": 600})
    save(GPT2LM(GPT2Config(2, 2, 20, n_ctx=17)), here / "wide", Tokenizer.load("gpt2-mini"))
    both = replace(options, model=("tiny", "wide"))  # 4 of tiny, and 6 with blocks of four times as many weights
    assert paper.describe_remaining(paper.plan(both), cpu) == f"10 to do, which takes about 280 min on {cpu}"
    for run in (ALL, other):
        shutil.rmtree(run)
    assert paper.describe_remaining(paper.plan(options), cpu) == "6 to do"


HOW = ["--texts", "300", "--device", "cpu", "--precision", "auto"]


def pretend_prompts(monkeypatch, code=0):
    """What prompt.py writes, without asking; returns the list of its options. Trainings are left as they are."""
    asked, call = [], plan.call
    texts = prompted_tables.make_texts()
    answers, targets = prompted_tables.make_all(texts, 2.0), texts["test"].targets
    scores = prompted_tables.tabulate(answers, texts)
    labels, shares = prompted_tables.LABELS, prompted_tables.SHARES
    chosen, _ = judge(answers, scores, {"majority": targets * 0}, targets, labels, shares)

    def pretend(arguments):
        if Path(arguments[1]).name != "prompt.py":
            return call(arguments)
        asked.append(arguments[2:])
        folder = Path("runs", arguments[3], "prompt")
        folder.mkdir(exist_ok=True)
        if not code:
            options, source = dict(zip(arguments[2::2], arguments[3::2], strict=True)), folder.parent / "run.json"
            corpus = read_corpus(json.loads(source.read_text())["settings"]["corpus"])
            n = {split: min(int(options["--texts"]), len(corpus.split(split))) for split in ("val", "test")}
            written = scores.assign(model=options["--model"], n=scores["split"].map(n))
            output.write_csv(folder / "scores.csv", written)
            output.write_csv(folder / "chosen.csv", chosen)
        return code

    monkeypatch.setattr(plan, "call", pretend)
    return asked


def test_each_corpus_is_asked_once_without_a_head(here, pretended, monkeypatch, capsys):
    shutil.copytree("words", "my words")
    asked = pretend_prompts(monkeypatch)
    arguments = ("--model", "tiny", "--corpus", "words", "my words", "--run", "two", "--epochs", "3", "--device", "cpu")
    assert run_paper(monkeypatch, *arguments, *BOTH, "--prompt") == 0
    assert asked == [
        ["--run", f"two-{corpus}-pretrained-all-0", "--model", "tiny", *HOW] for corpus in ("words", "my_words")
    ]
    assert "results.csv, differences.csv, prompts.csv and results.png" in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv("runs/two/prompts.csv")
    columns = "corpus,model,way,shots,template,verbalizer,correction,prior,draws,metric,n,value,ci_low,ci_high,sd,worst"
    assert ",".join(table) == f"{columns},val_accuracy,val_macro_f1,test_roc_auc"
    check_means(table[table["corpus"] == "words"], pd.read_csv("runs/two-words-pretrained-all-0/prompt/scores.csv"))
    assert set(table["corpus"]) == {"words", "my words"}
    page = Path("runs/two/results.md").read_text()
    section = page.split("## Without a head: prompts")[1]
    rows = [row for row in section.splitlines() if row.startswith("|")][2:]
    assert len(rows) == 2 * 4
    assert rows[0].startswith(
        "| words (53) | tiny | no examples, no correction | feeling, first word, direct, uniform prior | 0."
    )
    assert rows[4].startswith("| my words (53) | tiny | no examples, no correction |")
    few = table[(table["way"] == "few_shot") & (table["shots"] == 4) & (table["corpus"] == "words")].set_index("metric")
    f1, accuracy = few.loc["macro_f1"], few.loc["accuracy"]
    assert rows[3].startswith("|  |  | 4 of each class: examples, corrected, mean over draws | feeling, first word, ")
    scores = f"| {f1['value']:.3f} [{f1['ci_low']:.3f}, {f1['ci_high']:.3f}] | {f1['sd']:.3f}, {f1['worst']:.3f} | "
    assert scores + f"{accuracy['value']:.3f} [" in rows[3]
    assert "Quoted" not in section
    assert run_paper(monkeypatch, *arguments, *BOTH, "--prompt") == 0
    assert len(asked) == 2  # nobody is asked again
    assert run_paper(monkeypatch, *arguments, *BOTH) == 0
    assert not Path("runs/two/prompts.csv").exists()
    assert "Without a head" not in Path("runs/two/results.md").read_text()


def test_each_model_is_asked_without_a_head(here, pretended, wide, monkeypatch):
    asked = pretend_prompts(monkeypatch)
    assert run_paper(monkeypatch, "--model", "tiny", wide, *TINY[2:], "--prompt") == 0
    assert [each[1:4:2] for each in asked] == [[ALL.name, "tiny"], ["paper-words-wide-pretrained-all-0", wide]]
    table = pd.read_csv("runs/paper/prompts.csv")
    counts = table["model"].value_counts()
    assert counts["tiny"] == counts[wide] == len(table) / 2


def check_means(table, scores):
    """Means over the random draws, of what was asked just so; ensembles and references have none."""
    asked = table["way"].isin(["direct", "zero_shot", "few_shot"])
    assert set(table[~asked]["way"]) >= {"all_templates", "all_draws", "majority"}
    assert table[~asked][["val_accuracy", "val_macro_f1", "test_roc_auc"]].isna().all(axis=None)
    for row in table[asked].to_dict("records"):
        same = [
            score
            for score in scores.to_dict("records")
            if all(score[name] == row[name] for name in ("shots", "template", "verbalizer", "correction", "prior"))
            and (str(score["draw"]).isdigit() if row["shots"] else pd.isna(score["draw"]))
        ]
        for column, split, metric in (
            ("val_accuracy", "val", "accuracy"),
            ("val_macro_f1", "val", "macro_f1"),
            ("test_roc_auc", "test", "auc"),
        ):
            values = [score[metric] for score in same if score["split"] == split]
            assert len(values) == row["draws"]
            assert row[column] == pytest.approx(np.mean(values))


@pytest.mark.parametrize("other", [{"model": "gpt2-mini"}, {"texts": 50}])
def test_what_somebody_asked_of_another_network_or_fewer_texts_is_asked_anew(here, pretended, monkeypatch, other):
    asked = pretend_prompts(monkeypatch)
    for _ in range(2):
        assert run_paper(monkeypatch, *TINY, "--prompt") == 0
        assert len(asked) == 1  # of 48 and 54 texts all
    options = {"run": ALL.name, "model": "tiny", "texts": 300} | other
    plan.call(["python", "prompt.py", *(word for name, value in options.items() for word in (f"--{name}", str(value)))])
    assert run_paper(monkeypatch, *TINY, "--prompt") == 0
    assert asked[2:] == asked[:1]
    monkeypatch.setattr("experiments.paper.prompts.TEXTS", 50)
    assert run_paper(monkeypatch, *TINY, "--prompt") == 0
    assert asked[3][asked[3].index("--texts") + 1] == "50"


def test_where_prompts_fail_one_line_says_so_and_the_command_goes_on_from_there(here, pretended, monkeypatch, capsys):
    before = Path("runs/paper/results.md").read_bytes()
    asked = pretend_prompts(monkeypatch, code=2)
    assert run_paper(monkeypatch, *TINY, "--prompt") == 2
    assert f"{ALL}: prompt.py failed with exit code 2, a mistake" in one_line(capsys)
    assert Path("runs/paper/results.md").read_bytes() == before
    pretend_prompts(monkeypatch, code=130)
    assert run_paper(monkeypatch, *TINY, "--prompt") == 130
    again = pretend_prompts(monkeypatch)
    assert run_paper(monkeypatch, *TINY, "--prompt") == 0
    assert asked == again


MISTAKES = {
    "no seeds": (("--seeds", "0"), "--seeds 0"),
    "a path for a name": (("--run", "a/b"), "--run a/b"),
    "latest": (("--run", "latest"), "--run latest"),
    "the name of a run": (("--run", ALL.name), "is a run of train.py"),
    "no corpus": (("--corpus", "nothing here"), "nothing here"),
    "two corpora of one name": (("--corpus", "words", "more/words"), "more/words: words is called words too"),
    "a corpus twice": (("--corpus", "words", "words"), "--corpus words words: expected each once"),
    "no epochs": (("--epochs", "0"), "--epochs 0: expected at least 1"),
    "unknown model": (("--model", "tiny", "gpt5"), "gpt5"),
    "no model": (("--model",), "--model (nothing): expected at least one model"),
    "a model twice": (("--model", "tiny", "tiny"), "--model tiny tiny: expected at least one model, and each of them"),
    "auto beside another": (("--model", "tiny", "auto"), "--model tiny auto: auto chooses one model"),
    "two models of one name": (("--model", "tiny", "more/tiny"), "--model more/tiny: tiny is called tiny too"),
    "a model without weights": (("--model", "tiny", "bare"), "bare: expected model.safetensors"),
    "a model that cannot read the corpus": (("--model", "tiny", "short"), "short on words: "),
    "a start twice": (("--init", "random", "random"), "--init random random: expected"),
    "prompts of random weights": (("--init", "random", "--prompt"), "--prompt: random weights know no words"),
    "no start": (("--init",), "--init (nothing): expected"),
    "unknown start": (("--init", "pretrained", "zeros"), "zeros"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_starts(here, pretended, monkeypatch, capsys, mistake):
    arguments, expected = MISTAKES[mistake]
    shutil.copytree("words", "more/words")
    for name in ("more/tiny", "bare"):
        shutil.copytree("tiny", name)
    Path("bare/model.safetensors").unlink()
    save(GPT2LM(GPT2Config(1, 2, 10, n_ctx=5)), here / "short", Tokenizer.load("gpt2-mini"))
    before = set(here.rglob("*"))
    assert run_paper(monkeypatch, *TINY, "--run", "new", *arguments) == 2
    assert expected in one_line(capsys)
    assert not pretended
    assert set(here.rglob("*")) == before


def test_both_starts_are_run_and_compared(here, pretended, monkeypatch, capsys):
    shutil.copytree("words", "my words")
    arguments = ("--model", "tiny", "--corpus", "words", "my words", "--run", "two", "--epochs", "3", "--device", "cpu")
    assert run_paper(monkeypatch, *arguments, *BOTH) == 0
    assert [asked.run for asked in pretended] == [
        f"two-{corpus}-{init}-{tune}-{seed}"
        for corpus in ("words", "my_words")
        for init, kinds in (("pretrained", KINDS), ("random", ("all", "head")))
        for tune in kinds
        for seed in range(3)
    ]
    assert [asked.init for asked in pretended] == [*["pretrained"] * 9, *["random"] * 6] * 2
    assert "results.md, results.csv, differences.csv and results.png" in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv("runs/two/differences.csv")
    columns = "corpus,model,tune,metric,n,seeds,pretrained,random,difference,ci_low,ci_high"
    assert list(table.columns) == columns.split(",")
    assert list(table["corpus"]) == ["words"] * 4 + ["my words"] * 4
    assert list(table["tune"]) == ["all", "all", "head", "head"] * 2
    assert list(table["metric"]) == ["accuracy", "macro_f1"] * 4
    assert set(table["n"]) == {54}
    assert set(table["seeds"]) == {3}
    first = table.iloc[0]
    np.testing.assert_allclose([first["pretrained"], first["random"], first["difference"]], [0.61, 0.55, 0.06])


def test_the_page_has_the_difference_of_each_seed(here, pretended, monkeypatch):
    assert run_paper(monkeypatch, *TINY, "--run", "two", "--seeds", "2", *BOTH) == 0
    tables = Path("runs/two/results.md").read_text().split("The runs were trained with these settings:")[1]
    settings, rows = (
        [row for row in table.splitlines() if row.startswith("|")]
        for table in tables.split("## Pretrained minus random weights, the same texts")
    )
    assert rows[2].startswith(
        "| words (54) | tiny | all weights tuned | accuracy | 0.560 | 0.515 | **+0.045** [+0.000, +0.000]"
    )
    assert rows[2].endswith("| seed 0: +0.030<br>seed 1: +0.060 |")
    assert rows[3].startswith("| words (54) | tiny | all weights tuned | macro-F1 |")
    assert rows[3].endswith("| seed 0: +0.000<br>seed 1: +0.000 |")
    assert rows[4].startswith("| words (54) | tiny | head alone tuned | accuracy | 0.550 | 0.505 | **+0.045** ")
    assert len(rows) == 6
    lr = 256 / 10  # of the mini's width, by that of the tiny
    assert settings[2:] == [
        f"| words | tiny | head alone tuned | pretrained | 2 | {3e-3 * lr:g} | 0 | 0 |",
        f"| words | tiny | head alone tuned | random | 2 | {3e-3 * lr:g} | 0 | 0 |",
        f"| words | tiny | all weights tuned | pretrained | 2 | {8e-4 * lr:g} | 0.1 | 0.5 |",
        f"| words | tiny | all weights tuned | random | 2 | {1e-3 * lr:g} | 0.3 | 0 |",
        f"| words | tiny | label words, all weights tuned | pretrained | 2 | {8e-4 * lr:g} | 0.1 | 0 |",
    ]


def test_the_page_says_where_the_epochs_differ(here, pretended, monkeypatch):
    monkeypatch.setattr(lab.defaults, "FEW", 0)
    assert run_paper(monkeypatch, *TINY, "--run", "two", "--epochs", "None", *BOTH) == 0
    text = Path("runs/two/results.md").read_text()
    for start in (
        "all weights tuned | pretrained | 4",
        "all weights tuned | random | 6",
        "head alone tuned | random | 10",
    ):
        assert f"| {start} |" in text


def test_with_one_start_nothing_is_compared(here, pretended, monkeypatch, capsys):
    assert run_paper(monkeypatch, *TINY, *BOTH) == 0
    assert Path("runs/paper/differences.csv").exists()
    assert len(pretended) == 2
    for init in ("random", "pretrained"):
        capsys.readouterr()
        assert run_paper(monkeypatch, *TINY, "--init", init) == 0
        assert "differences" not in capsys.readouterr().out
        assert not Path("runs/paper/differences.csv").exists()
        text = Path("runs/paper/results.md").read_text()
        assert "minus" not in text
        assert ("tiny from random weights, all weights tuned" in text) == (init == "random")
    assert len(pretended) == 2


def test_auto_is_asked_once_for_both(here, monkeypatch):
    asked = []
    monkeypatch.setattr(plan, "choose_model", lambda *given: asked.append(given) or ("tiny", None))
    planned = paper.plan(paper.Options(("auto",), ("random", "pretrained"), ("words",), seeds=1))
    assert asked == [("auto", "pretrained")]
    assert [(run.settings.init, run.weights is None) for run in planned] == [
        *[("random", True)] * 2,
        *[("pretrained", False)] * 3,
    ]
    assert {run.settings.model for run in planned} == {"tiny"}


def test_predictions_are_those_that_were_measured(made):
    words = read_corpus(made / "words")
    targets = words.targets("test")
    assert len(targets) == 54
    for run in (ALL, HEAD):
        predicted = results.read_predicted(made / run / "predictions.csv", words)
        test = read("metrics.json", made / run)["test"]
        assert accuracy_score(targets, predicted) == test["accuracy"]
        assert test["confusion_matrix"][2][1] == ((targets == 2) & (predicted == 1)).sum()


def swap_rows(lines):
    return [*lines[:-2], lines[-1], lines[-2]]


@pytest.mark.parametrize(
    "meddle",
    [
        swap_rows,
        lambda lines: lines[:-1],
        lambda lines: [],
        lambda lines: [lines[0].replace("predicted", "guessed"), *lines[1:]],
        lambda lines: [re.sub('"(joy|anger|fear)",([0-9.])', r'"gladness",\2', line) for line in lines],
    ],
    ids=["other order", "too few", "empty", "without a column", "another label"],
)
def test_predictions_of_other_texts_are_one_line(here, monkeypatch, capsys, meddle):
    path = ALL / "predictions.csv"
    lines = path.read_text().splitlines()
    changed = meddle(lines)
    assert changed != lines
    path.write_text("".join(f"{line}\n" for line in changed))
    assert run_paper(monkeypatch, *TINY) == 2
    assert f"{path}: expected the test texts of words; move {ALL} away" in one_line(capsys)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["thirteen", "apart"])
def test_a_corpus_at_the_edge_runs_to_its_end_and_the_page_says_what_is_undefined(here, monkeypatch, name):
    odd_corpora.write_corpus(here, name)
    monkeypatch.setattr(plan, "call", run_here)
    arguments = ("--model", "tiny", "--corpus", name, "--epochs", "1", "--seeds", "1", "--device", "cpu", "--run", name)
    assert run_paper(monkeypatch, *arguments, *BOTH) == 0
    text = Path("runs", name, "results.md").read_text()
    lines = {
        f"- {name}: {label(line[:-1])}; means over the classes leave that out" for line in odd_corpora.CORPORA[name][1]
    }
    assert {line for line in text.splitlines() if "has no text of" in line} == lines
    assert "nan" not in text.replace(", nan;", "")
    table = pd.read_csv(Path("runs", name, "results.csv"), keep_default_na=False)
    empty = table[(table["metric"] == "macro_roc_auc") & (table["split"] == "test") & (table["value"] == "")]
    classifiers = {"apart": 4 + 4 + 1 + ("words" in set(table["tune"]))}.get(name, 0)
    assert len(empty) == classifiers


def test_a_single_file_is_split_alike_for_each_seed(here, pretended, monkeypatch):
    lines = [
        line for split in ("train", "val", "test") for line in Path("words", f"{split}.txt").read_text().splitlines()
    ]
    Path("words.txt").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    planned = paper.plan(paper.Options(("tiny",), corpus=("words.txt",), seeds=2, device="cpu"))
    assert [run.settings.seed for run in planned] == [0, 1] * 3
    assert {run.settings.split_seed for run in planned} == {0}
    assert len({id(run.corpus) for run in planned}) == 1
    pd.testing.assert_frame_equal(planned[0].corpus.examples, read_corpus("words.txt", seed=0).examples)
    assert planned[1].folder == Path("runs/paper-words.txt-pretrained-all-1")
