"""`prompt.py` from the command line to its files, on a language model of which it is known what it answers."""

import shutil
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from planted_lm import LABELS, TOKENIZER, plant_lm, write_texts
from small_run import train_on, write_shape

import prompt
import train
from lab.device import Device
from lab.metrics import prediction_metrics
from lab.prompted import open_prompted
from lab.study import open_study
from model import GPT2LM, GPT2Config, save

PRIORS = ["uniform", "train"]
TABLES = {
    "scores": "model,template,verbalizer,shots,draw,order,last_class,correction,prior,split,n,accuracy,macro_f1,auc,"
    "ece,ci_low,ci_high,predicted_share_fear,predicted_share_joy,predicted_share_sadness,label_mass,entropy",
    "predictions": "split,index,text,label,predicted,lp_fear,lp_joy,lp_sadness,b_fear,b_joy,b_sadness",
    "biases": "template,verbalizer,shots,draw",
    "demonstrations": "shots,draw,order,position,index,text,label",
    "effects": "kind,layer,head,region,fill,split,class,metric,n,baseline,ablated,effect,ci_low,ci_high",
    "correlations": "correction,class,n_heads,spearman",
    "curve": "method,shots,draw,n_train,n,accuracy,macro_f1",
    "chosen": "",
    "compared": "",
}
SMALL = ("--shots", "1", "--draws", "2", "--template", "feeling", "mood")


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch):
    """Pictures stay empty; tests/experiments/prompt/test_figures.py draws them."""
    monkeypatch.setattr("lab.figures.save", lambda figure, path: path.touch())


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A working folder with a corpus of cues, a run on it, and the language model that reads them."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "cues").mkdir()
    for split, n in (("train", 90), ("val", 31), ("test", 32)):
        texts = write_texts(split, n)
        lines = [f"{text};{LABELS[k]}\n" for text, k in zip(texts.strings, texts.targets, strict=True)]
        (folder / f"cues/{split}.txt").write_text("".join(lines))
    train_on(folder, "cues", GPT2Config(2, 3, 12, n_ctx=17))
    save(plant_lm(), folder / "planted", TOKENIZER)
    save(GPT2LM(GPT2Config(2, 3, 12, n_ctx=17)), folder / "short", TOKENIZER)
    return folder


@pytest.fixture
def here(planted, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(planted, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def run_prompt(monkeypatch, *arguments):
    """The exit code of `python prompt.py arguments`."""
    common = ("--run", "one", "--model", "planted", "--device", "cpu")
    return commands.exit_code(monkeypatch, prompt, *common, *arguments)


@pytest.mark.slow
def test_all_of_it_lands_in_the_runs_folder_and_a_second_call_computes_nothing(here, monkeypatch, capsys):
    assert run_prompt(monkeypatch, *SMALL, "--transductive") == 0
    folder = Path("runs/one/prompt")
    tables = {name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""]) for name in TABLES}
    for name, columns in TABLES.items():
        assert (
            list(tables[name])[: len(columns.split(",")) if columns else 0] == columns.split(",")[: len(columns) or 0]
        )
    written = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert {f"{name}.csv" for name in TABLES} | {"report.md", "results"} <= written
    assert len([name for name in written if name.endswith(".png")]) == 6
    check_plant(tables["scores"])
    check_predictions(tables)
    out = capsys.readouterr().out
    assert "label words: fear: afraid, scared" in out
    assert "examples give without one, take about 1 min" in " ".join(out.split())
    assert "Examples come from 90 of 90 texts of train" in out
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "python prompt.py --run one --model planted" in page
    for name in ("experiments.prompt.scoring.score_words", "experiments.prompt.scoring.sum_log_probs"):
        monkeypatch.setattr(name, None)
    before = {name: (folder / f"{name}.csv").read_bytes() for name in TABLES}
    assert run_prompt(monkeypatch, *SMALL, "--transductive") == 0
    assert {name: (folder / f"{name}.csv").read_bytes() for name in TABLES} == before
    with pytest.raises(TypeError):
        run_prompt(monkeypatch, *SMALL, "--no-resume")


def check_plant(scores: pd.DataFrame) -> None:
    """Direct answers name the class of the prior, corrected ones the cue; both say what else the network would say."""
    assert set(scores["prior"]) == {*PRIORS}
    assert set(scores["model"]) == {"planted"}
    single = scores[(scores["template"] != "all") & (scores["draw"] != "all") & (scores["split"] == "test")]
    single = single[(single["prior"] == "uniform") & (single["verbalizer"] == "all words")]
    direct = single[single["correction"] == "direct"]
    assert (direct["predicted_share_joy"] == 1).all()
    assert (direct["macro_f1"] < 0.2).all()
    corrected = single[single["correction"].isin(["contextual", "domain_pmi", "domain_context", "batch"])]
    assert len(corrected) > 4
    assert (corrected["macro_f1"] > 0.9).all()
    mass = scores["label_mass"].dropna()
    assert len(mass) > len(scores) / 2
    assert ((mass > 0) & (mass < 1)).all()
    assert scores.loc[scores["correction"] == "channel", "macro_f1"].min() > 0.9
    assert {"all"} <= set(scores["template"])
    assert {"all", "0", "1", "nearest"} <= set(scores["draw"].dropna())
    assert (scores["correction"] == "batch_transductive").any()


def check_predictions(tables: dict[str, pd.DataFrame]) -> None:
    """What was predicted is what lp - b says, and scores as scores.csv says of the way that val chose."""
    predictions, scores = tables["predictions"], tables["scores"]
    labels = [name.removeprefix("lp_") for name in predictions if name.startswith("lp_")]
    for split, n in (("val", 31), ("test", 32)):
        rows = predictions["split"] == split
        assert rows.sum() == n
        predicted = pd.Categorical(predictions.loc[rows, "predicted"], categories=labels).codes
        targets = pd.Categorical(predictions.loc[rows, "label"], categories=labels).codes
        macro_f1 = prediction_metrics(targets, predicted, labels)["macro_f1"]
        assert np.isclose(scores.loc[scores["split"] == split, "macro_f1"], macro_f1).any()
    log_probs, b = (predictions[[f"{name}_{label}" for label in labels]].to_numpy() for name in ("lp", "b"))
    assert (np.array(labels)[(log_probs - b).argmax(axis=1)] == predictions["predicted"]).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--template", "none"), "template none: expected a file .toml, or one of feeling"),
        (("--words", "joy"), "--words joy: expected label=word"),
        (("--words", "joy=sad"), "'sad'"),
        (("--shots", "40"), "--shots"),
        (("--shots", "1", "1"), "expected different numbers"),
        (("--shots", "-1"), "none below 0"),
        (("--draws", "0"), "--draws 0: expected at least 1"),
        (("--model", "nowhere"), "nowhere"),
        (("--model", "runs/one"), "runs/one is a classifier, which cannot be asked"),
        (("--model", "short", "--template", "question"), "expected prompts of at most 17 tokens"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_asked(here, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("experiments.prompt.scoring.score_words", None)
    assert run_prompt(monkeypatch, *arguments) == 2
    assert message in one_line(capsys)
    assert not list(Path("runs/one").glob("prompt/*.csv"))


def test_a_run_that_began_with_random_weights_cannot_be_asked(here, monkeypatch, capsys):
    assert commands.exit_code(monkeypatch, prompt, "--run", "one", "--device", "cpu") == 2
    assert "began with random weights, which cannot be asked; name a model with --model" in one_line(capsys)


def test_templates_that_do_not_fit_are_left_out(here, monkeypatch, capsys):
    asked = []

    def stop(self, settings):
        asked.extend(setting.template.name for setting in settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.prompt.asking.Asking.ask", stop)
    assert run_prompt(monkeypatch, "--model", "short") == 130
    assert "i_feel" in asked
    assert "question" not in asked
    out = " ".join(capsys.readouterr().out.split())
    assert "Template question is left out: --shots 0: expected prompts of at most 17 tokens" in out
    assert "No prompts with 1 examples of each class" in out


@pytest.fixture
def talker(here, empty_pictures, monkeypatch):
    """A run on words of its own, which are not ours."""
    write_shape(here / "wide", GPT2Config(2, 3, 12, n_ctx=64))
    words = ("--head", "words", "--template", "mood", "--words", "joy=yes", "sadness=no", "fear=maybe")
    options = ("--model", "wide", "--corpus", "cues", "--init", "random", "--epochs", "1", "--device", "cpu")
    assert commands.exit_code(monkeypatch, train, *options, *words, "--run", "talker") == 0


@pytest.mark.usefixtures("talker")
def test_a_run_on_label_words_is_asked_for_these():
    study = open_study("talker", Device(torch.device("cpu"), "fp32"))
    assert open_prompted(study, None, ()).words.words == (("maybe",), ("yes",), ("no",))
    assert open_prompted(study, None, ("joy=glad,good",)).words.words == (("maybe",), ("glad", "good"), ("no",))
    assert open_prompted(study, "planted", ()).words.words[1][0] == "happy"


@pytest.mark.slow
@pytest.mark.usefixtures("talker")
def test_of_a_run_on_label_words_the_report_says_what_it_has_seen(monkeypatch):
    options = ("--run", "talker", "--device", "cpu", "--shots", "0", "--template", "mood", "i_feel")
    assert commands.exit_code(monkeypatch, prompt, *options) == 0
    folder = Path("runs/talker/prompt")
    assert "was trained on label words, on all texts of train" in (folder / "report.md").read_text(encoding="utf-8")
    assert not (folder / "curve.csv").exists()
    assert not (folder / "effects.csv").exists()
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores["shots"]) == {0}
    run = pd.read_csv("runs/talker/predictions.csv")
    direct = pd.read_csv(folder / "predictions.csv").query("split == 'test'")
    assert scores.query("template == 'mood' and correction == 'direct' and split == 'test'")["accuracy"].iloc[0] == (
        pytest.approx(run.query("split == 'test'").eval("label == predicted").mean())
    )
    assert len(direct) == 32
