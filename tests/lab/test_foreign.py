"""A classifier that `transformers` made, studied as it is."""

import json
import shutil
from pathlib import Path

import commands
import pandas as pd
import pytest
import small_run
import torch
from commands import one_line
from transformers import GPT2Config, GPT2ForSequenceClassification

import ablate
import attend
import embed
import explain
import patch
import probe
import train
from experiments.explore.subject import open_run
from lab.defaults import StudyOptions
from lab.device import Device
from lab.effects import read_effects
from lab.study import open_study
from model import InputError, Tokenizer
from model.names import EMBEDDED

CPU = Device(torch.device("cpu"), "fp32")
ORDER = ("joy", "fear", "anger")  # of the foreign head; the corpus sorts them
CORPUS = StudyOptions(corpus="corpus.txt")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a corpus and two foreign classifiers: `theirs` names its classes, `numbered` does not."""
    monkeypatch.chdir(tmp_path)
    small_run.write_corpus(tmp_path / "corpus.txt", 60)
    save_foreign(tmp_path / "theirs", ORDER)
    save_foreign(tmp_path / "numbered", [f"LABEL_{k}" for k in range(3)])
    return tmp_path


def save_foreign(folder, labels):
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=3, n_embd=12, n_positions=17, initializer_range=0.3, pad_token_id=50256,
        id2label=dict(enumerate(labels)), label2id={label: k for k, label in enumerate(labels)},
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, folder)


def call(monkeypatch, script, *arguments):
    return commands.exit_code(monkeypatch, script, "--device", "cpu", *arguments)


def share_right(folder, labels, study):
    """The accuracy on test that `transformers` measures, text by text."""
    hf, tokenizer = GPT2ForSequenceClassification.from_pretrained(folder).eval(), Tokenizer.load(folder)
    test = study.corpus.split("test")
    with torch.no_grad():
        predicted = [labels[hf(torch.tensor([tokenizer.encode(text)])).logits.argmax()] for text in test["text"]]
    return (pd.Series(predicted) == test["label"]).mean()


def test_it_is_ablated_without_a_training(here, monkeypatch):
    options = ("--model", "theirs", "--corpus", "corpus.txt", "--units", "heads", "--fill", "zero", "--controls", "2")
    assert call(monkeypatch, ablate, *options) == 0
    effects = read_effects(Path("runs/theirs/ablate/effects.csv"))
    row = effects.query("metric == 'accuracy' and split == 'test' and `class` == 'all'").iloc[0]
    study = open_study("theirs", CPU)
    assert row["baseline"] == pytest.approx(share_right("theirs", ORDER, study))
    assert set(effects["class"]) == {"all", *ORDER}
    report = Path("runs/theirs/ablate/report.md").read_text()
    assert "run: runs/theirs, which is theirs as it is, trained elsewhere; it may have learnt these texts" in report
    assert sorted(path.name for path in Path("runs/theirs").iterdir()) == ["ablate", "run.json"]
    assert not Path("runs/latest").exists()


@pytest.mark.parametrize("names", [(), ("anger", "joy", "fear")])
def test_the_study_has_its_logits_by_class(here, names):
    folder = "numbered" if names else "theirs"
    study = open_study("latest", CPU, StudyOptions(corpus="corpus.txt", labels=names), folder)
    hf = GPT2ForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 3, 11]])
    ours = dict(zip(study.clf.labels, study.clf(ids)[0].tolist(), strict=True))
    with torch.no_grad():
        theirs = dict(zip(names or ORDER, hf(ids).logits[0].tolist(), strict=True))
    assert ours == pytest.approx(theirs, abs=1e-5)
    targets = [study.clf.labels[k] for k in study.texts["test"].targets]
    assert targets == study.corpus.split("test")["label"].tolist()


def test_the_run_is_opened_again_by_its_name(here):
    first = open_study("mine", CPU, StudyOptions(corpus="corpus.txt", labels=("anger", "joy", "fear")), "numbered")
    again = open_study("mine", CPU)
    assert again.run == Path("runs/mine") == first.run
    assert again.clf.labels == first.clf.labels
    assert again.identity(again.texts["test"]) == first.identity(first.texts["test"])


@pytest.mark.parametrize(
    ("options", "model", "expected"),
    [
        (CORPUS, "numbered", "expected the classes LABEL_0, LABEL_1, LABEL_2, got anger, fear, joy; "
         "if they mean the same, say with --labels what LABEL_0 is called, and so on"),
        (StudyOptions(corpus="corpus.txt", labels=("anger", "joy")), "numbered",
         "--labels anger joy: expected anger, fear, joy, each once, in the order in which numbered has LABEL_0"),
        (StudyOptions(corpus="corpus.txt", labels=("anger", "joy", "anger")), "numbered",
         "--labels anger joy anger: expected anger, fear, joy, each once, in the order in which numbered has LABEL_0"),
        (CORPUS, "gpt2-mini", "expected a classifier, got a language model"),
        (StudyOptions(corpus="corpus.txt", labels=("a", "b", "c")), "gpt2-mini", "--labels: "),
        (StudyOptions(), "theirs", "--model theirs: expected a --corpus beside it"),
        (StudyOptions(labels=("anger", "joy", "fear")), None, "--labels: expected a --model"),
    ],
)  # fmt: skip
def test_what_cannot_be_studied_leaves_nothing_behind(here, options, model, expected):
    with pytest.raises(InputError) as error:
        open_study("latest", CPU, options, model)
    assert expected in str(error.value)
    assert not Path("runs").exists()


def test_a_name_stands_for_one_model_on_one_corpus(here):
    open_study("latest", CPU, CORPUS, "theirs")
    Path("other.txt").write_text(Path("corpus.txt").read_text().replace("today", "now"))
    with pytest.raises(InputError, match=r"runs/theirs is finished and was made with --corpus .*another --run"):
        open_study("latest", CPU, StudyOptions(corpus="other.txt"), "theirs")
    assert open_study("another", CPU, StudyOptions(corpus="other.txt"), "theirs").run == Path("runs/another")
    Path("runs/trained").mkdir()
    Path("runs/trained/run.json").write_text('{"status": "finished", "settings": {}}')
    with pytest.raises(InputError, match="runs/trained: expected a free name, got a run of"):
        open_study("trained", CPU, CORPUS, "theirs")


def test_a_model_in_a_folder_that_gives_no_name_asks_for_one(here):
    Path("theirs").rename("latest")
    with pytest.raises(InputError, match=r"^--model latest: expected a --run beside it, for no run can be called"):
        open_study("latest", CPU, CORPUS, "latest")
    assert not Path("runs").exists()
    assert open_study("named", CPU, CORPUS, "latest").run == Path("runs/named")


def test_a_model_that_has_changed_since_is_refused(here):
    open_study("mine", CPU, CORPUS, "theirs")
    shutil.copy("numbered/model.safetensors", "kept")
    hf = GPT2ForSequenceClassification.from_pretrained("theirs")
    torch.nn.init.normal_(hf.score.weight)
    hf.save_pretrained("theirs")
    with pytest.raises(InputError, match="theirs is no longer what runs/mine stands for"):
        open_study("mine", CPU)


def test_a_run_whose_corpus_was_read_otherwise_is_refused(here):
    """As by an earlier version, which read some files in another way."""
    open_study("mine", CPU, CORPUS, "theirs")
    path = Path("runs/mine/run.json")
    record = json.loads(path.read_text())
    record["corpus"]["texts"]["train"] -= 1
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="is read otherwise than when runs/mine was trained on it"):
        open_study("mine", CPU)


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_every_experiment_takes_it(here, monkeypatch):
    given = ("--model", "theirs", "--corpus", "corpus.txt")
    assert call(monkeypatch, probe, *given, "--texts", "100", "--words", "500") == 0
    assert call(monkeypatch, attend, *given) == 0
    assert call(monkeypatch, explain, *given, "--texts", "3") == 0
    assert call(monkeypatch, embed, *given, "--texts", "29") == 0
    own = ("--clean", "i felt happy today", "--corrupt", "i felt furious today", "--answers", "joy", "anger")
    assert call(monkeypatch, patch, *given, *own, "--controls", "2", "--texts", "1") == 0
    assert {path.name for path in Path("runs").iterdir()} == {"theirs"}
    for name in ("probe", "attend", "explain", "embed", "patch"):
        assert "trained elsewhere" in Path(f"runs/theirs/{name}/report.md").read_text(), name
    assert open_run("latest", CPU, CORPUS, "theirs").labels == ORDER


# Training goes on with it.


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_a_training_goes_on_with_classes_in_another_order(here, monkeypatch, capsys):
    options = ("--corpus", "corpus.txt", "--epochs", "1", "--lr", "1e-9", "--dropout", "0")
    assert call(monkeypatch, train, "--model", "theirs", *options, "--run", "ordered") == 0
    assert call(monkeypatch, train, "--model", "numbered", *options, "--run", "refused") == 2
    assert "say with --labels what LABEL_0 is called" in one_line(capsys)
    assert not Path("runs/refused").exists()
    named = ("--labels", *ORDER)  # the two have the same weights
    assert call(monkeypatch, train, "--model", "numbered", *named, *options, "--run", "named") == 0
    tables = [pd.read_csv(f"runs/{run}/predictions.csv") for run in ("ordered", "named")]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].columns[-3:].tolist() == ["p_anger", "p_fear", "p_joy"]
    accuracy = json.loads(Path("runs/ordered/metrics.json").read_text())["test"]["accuracy"]
    assert accuracy == pytest.approx(share_right("theirs", ORDER, open_study("ordered", CPU)))


def test_labels_without_a_classifier_are_refused(here, monkeypatch, capsys):
    assert call(monkeypatch, train, "--corpus", "corpus.txt", "--model", "gpt2-mini", "--labels", "a", "b", "c") == 2
    assert "--labels: " in one_line(capsys)
    assert call(monkeypatch, train, "--corpus", "corpus.txt", "--init", "random", "--labels", "a", "b", "c") == 2
    assert "--labels: " in one_line(capsys)
