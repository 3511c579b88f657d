"""`train.py --head words`: a run of a language model that names the class, and all that is done with such a run."""

import json
import shutil
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from small_run import write_corpus, write_shape

import ablate
import attend
import embed
import explain
import patch
import probe
import train
from experiments.explore import compute
from experiments.explore.code import write_code
from experiments.explore.experiment import read_experiment
from experiments.explore.server import describe
from experiments.explore.subject import open_run
from lab.device import Device
from lab.predict import predict
from lab.study import open_study
from model import GPT2Config, Tokenizer, load_lm

CPU = Device(torch.device("cpu"), "fp32")
TINY = ("--model", "tiny", "--corpus", "corpus.txt", "--init", "random", "--lr", "0.03", "--dropout", "0")
TINY += ("--device", "cpu", "--compile", "off")
ASKED = "\nThe feeling of this text is"  # of the template `feeling`


def run(monkeypatch, script, *arguments):
    """The exit code of `python SCRIPT.py arguments`."""
    return commands.exit_code(monkeypatch, script, *arguments)


def train_words(monkeypatch, name, *arguments):
    assert run(monkeypatch, train, *TINY, "--head", "words", "--run", name, *arguments) == 0
    return Path("runs") / name


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A working folder with a run that has learnt its texts, runs/one."""
    folder = tmp_path_factory.mktemp("words")
    write_corpus(folder / "corpus.txt", 60)
    write_shape(folder / "tiny", GPT2Config(2, 3, 12, n_ctx=24))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_words(patch, "one", "--epochs", "20")
    return folder


@pytest.fixture
def here(learnt, tmp_path, monkeypatch):
    """A copy of it to work in, without any data of nltk; pictures stay empty."""
    shutil.copytree(learnt, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])
    for place in ("lab.figures.save", "lab.figures.save_twice"):
        monkeypatch.setattr(place, lambda figure, path: path.touch())


@pytest.mark.usefixtures("here")
def test_a_run_is_a_language_model_that_learnt_to_name_classes():
    folder = Path("runs/one")
    assert json.loads((folder / "metrics.json").read_text())["test"]["accuracy"] > 0.9
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert "id2label" not in config
    record = json.loads((folder / "run.json").read_text())
    assert record["settings"]["head"] == "words"
    assert record["prompt"]["words"] == {"anger": "angry", "fear": "afraid", "joy": "happy"}
    assert record["prompt"]["template"]["prompt"] == "{text}" + ASKED
    log = pd.read_json(folder / "log.jsonl", lines=True)
    mass = log.loc[log["split"] == "val", "label_mass"]
    assert mass.iloc[0] < 0.01
    assert 0.9 < mass.iloc[-1] <= 1
    assert log.loc[log["split"] == "train", "loss"].iloc[0] > 9  # of 50,257 tokens


@pytest.mark.usefixtures("here")
def test_transformers_predicts_what_the_table_says():
    import transformers

    hf = transformers.GPT2LMHeadModel.from_pretrained("runs/one").eval()
    lm, tokenizer = load_lm("runs/one"), Tokenizer.load("runs/one")
    table = pd.read_csv("runs/one/predictions.csv")
    words = [tokenizer.encode(f" {word}")[0] for word in ("angry", "afraid", "happy")]
    for row in table.iloc[::5].itertuples():
        assert ASKED not in row.text
        ids = torch.tensor([tokenizer.encode(row.text + ASKED)])
        with torch.no_grad():
            logits = hf(ids).logits
            torch.testing.assert_close(lm(ids), logits, atol=1e-4, rtol=1e-4)
        p = logits[0, -1, words].softmax(dim=0)
        torch.testing.assert_close(p, torch.tensor([row.p_anger, row.p_fear, row.p_joy]), atol=1e-5, rtol=1e-4)
    log = pd.read_json("runs/one/log.jsonl", lines=True).query("split == 'val'")
    scores = json.loads(Path("runs/one/metrics.json").read_text())["val"]
    assert scores["macro_f1"] == pytest.approx(log["macro_f1"].max())


@pytest.mark.usefixtures("here")
def test_a_study_of_it_reads_prompts():
    study, table = open_study("one", CPU), pd.read_csv("runs/one/predictions.csv")
    assert study.has_classifier
    for split in ("val", "test"):
        texts, rows = study.texts[split], table[table["split"] == split]
        assert texts.strings == [text + ASKED for text in rows["text"]]
        assert texts.sequences == [study.tokenizer.encode(text) for text in texts.strings]
        p = predict(study.clf, texts.sequences, CPU)
        assert np.allclose(p, rows[["p_anger", "p_fear", "p_joy"]], atol=1e-6)
    bare = study.without_template()
    assert bare.texts["test"].strings == list(table.loc[table["split"] == "test", "text"])
    assert bare.fill("well") == "well"
    assert bare.without_template() is bare
    assert study.fill("well") == "well" + ASKED
    assert [line for line in study.provenance("", 0) if "angry, afraid, happy" in line]
    assert not [line for line in bare.provenance("", 0) if "angry, afraid, happy" in line]


@pytest.mark.usefixtures("here")
def test_it_stays_as_it_was_trained_whatever_the_templates_are_now(monkeypatch):
    before = open_study("one", CPU)
    monkeypatch.setattr("data.prompts.PROMPTS", Path("nowhere.toml"))
    after = open_study("one", CPU)
    assert before.texts["test"].sequences == after.texts["test"].sequences
    assert torch.equal(before.clf.score.weight, after.clf.score.weight)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_ablation_and_probes_read_it(monkeypatch):
    options = ("--run", "one", "--device", "cpu")
    assert run(monkeypatch, ablate, *options, "--units", "heads", "regions", "--rows", "0", "--controls", "0") == 0
    effects = pd.read_csv("runs/one/ablate/effects.csv")
    rows = effects.query("kind == 'head' and metric == 'accuracy' and split == 'test' and `class` == 'all'")
    assert len(rows) == 2 * 3 * 2  # heads and fills
    assert (rows["baseline"] > 0.9).all()
    assert "in the prompt '{text}" in Path("runs/one/ablate/report.md").read_text()
    assert run(monkeypatch, probe, *options, "--words", "500") == 0
    probes = pd.read_csv("runs/one/probe/probes.csv")
    assert set(probes.loc[probes["property"] == "emotion", "reading"]) == {"last", "mean"}
    assert {path.name for path in Path("runs/one/probe").glob("*.csv")} >= {"lens.csv", "contributions.csv"}
    assert len(pd.read_csv("runs/one/probe/agreement.csv"))  # the same network and texts


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_vectors_are_those_of_its_prompts_and_words_those_of_its_texts(monkeypatch):
    monkeypatch.setattr("lab.figures.save", lambda figure, path: path.touch())
    assert run(monkeypatch, embed, "--run", "one", "--device", "cpu", "--texts", "40") == 0
    folder = Path("runs/one/embed")
    sites = pd.read_csv(folder / "sites.csv").query("model == 'fine-tuned' and layer == 3 and pooling == 'last'")
    assert (sites.loc[sites["correction"] != "without_top", "probe_accuracy"] > 0.9).all()  # 12 dimensions lose one
    documents = pd.read_csv(folder / "documents.csv")
    assert set(documents["last_token"]) == {" is"}  # of the prompt
    assert not documents["text"].str.contains("feeling").any()
    topics = pd.read_csv(folder / "topics.csv", keep_default_na=False)
    assert not {"feeling", "text"} & set(topics["word"])
    assert "random tokens come from the whole prompt" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_another_language_model_is_probed_with_the_same_words(monkeypatch, capsys):
    options = ("--run", "one", "--device", "cpu", "--words", "500")
    train_words(monkeypatch, "two", "--epochs", "1", "--seed", "1")
    assert run(monkeypatch, probe, *options, "--model", "runs/two") == 0
    assert len(pd.read_csv("runs/one/probe-two/lens.csv"))
    assert run(monkeypatch, train, *TINY, "--run", "clf", "--epochs", "1") == 0
    capsys.readouterr()
    assert run(monkeypatch, probe, *options, "--model", "runs/clf") == 2
    assert "expected a language model" in one_line(capsys)
    assert run(monkeypatch, ablate, "--run", "one", "clf", "--device", "cpu") == 2
    assert "head" in one_line(capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_attention_explanations_and_patches_are_of_prompts(monkeypatch):
    options = ("--run", "one", "--device", "cpu")
    assert run(monkeypatch, attend, *options, "--text", "i felt mad") == 0
    assert "The feeling" in Path("runs/one/attend/attention.html").read_text(encoding="utf-8")
    assert run(monkeypatch, explain, *options, "--texts", "3", "--text", "i felt mad") == 0
    texts = pd.read_csv("runs/one/explain/texts.csv")
    assert texts["text"][0] == "i felt mad" + ASKED
    assert texts["text"].str.endswith(ASKED).all()
    assert run(monkeypatch, patch, *options, "--pairs", "3", "--controls", "0", "--texts", "1") == 0
    pairs = pd.read_csv("runs/one/patch/pairs.csv")
    assert pairs["kept"].sum() == 3
    answers = ("--clean", "i felt happy", "--corrupt", "i felt mad", "--answers", "joy", "anger")
    assert run(monkeypatch, patch, *options, "--controls", "0", *answers) == 0
    assert pd.read_csv("runs/one/patch/pairs.csv")["clean"].tolist() == ["i felt happy" + ASKED]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_explanations_beside_those_of_shuffled_labels(monkeypatch, capsys):
    train_words(monkeypatch, "shuffled", "--epochs", "1", "--shuffle-labels")
    options = ("--run", "one", "--device", "cpu", "--texts", "3", "--shuffled-run")
    assert run(monkeypatch, explain, *options, "shuffled") == 0
    assert "labels" in set(pd.read_csv("runs/one/explain/sanity.csv")["scheme"])
    train_words(monkeypatch, "other", "--epochs", "1", "--shuffle-labels", "--words", "joy=glad")
    capsys.readouterr()
    assert run(monkeypatch, explain, *options, "other") == 2
    assert "expected the prompt of runs/one" in one_line(capsys)


@pytest.mark.usefixtures("here")
def test_it_is_explored_by_its_prompts():
    subject = open_run("one", CPU)
    assert subject.labels == ("anger", "fear", "joy")
    assert all(example["text"].endswith(ASKED) for example in subject.examples)
    assert "The network reads: {text}" + ASKED in describe(subject)["about"]
    experiment = read_experiment({"text": "i felt mad" + ASKED, "heads": [[1, 2]]}, subject)
    after = compute.run(subject, experiment)["after"]
    printed = []
    exec(write_code(subject, experiment, "")["python"], {"print": lambda *rows, sep: printed.extend(rows)})
    assert np.allclose(printed[1], after, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("here", "unmeasured")
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(monkeypatch):
    options = ("--epochs", "3", "--dropout", "0.1", "--class-weights", "--tune", "1")
    whole = train_words(monkeypatch, "whole", *options)
    monkeypatch.setattr("experiments.train.training.STATE_EVERY", 0)
    train_epoch = train.Training.train

    def interrupted(self, *rest):
        if self.epoch == 3:
            raise KeyboardInterrupt
        return train_epoch(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "train", interrupted)
        assert run(patch, train, *TINY, "--head", "words", "--run", "cut", *options) == 130
    cut = train_words(monkeypatch, "cut", *options, "--resume")
    for name in ("model.safetensors", "config.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    logs = [pd.read_json(each / "log.jsonl", lines=True).drop(columns="seconds") for each in (whole, cut)]
    pd.testing.assert_frame_equal(*logs)


@pytest.mark.usefixtures("here", "unmeasured")
def test_a_training_does_not_go_on_with_another_template(monkeypatch, capsys):
    text = "[templates.mine]\nprompt = '{text} Mood:'\ndomain = 'Mood:'\n"
    Path("mine.toml").write_text(text)
    options = ("--template", "mine.toml", "--seeds", "0", "--epochs", "1")
    train_words(monkeypatch, "mine", *options)
    train_words(monkeypatch, "mine", *options)  # finished
    Path("mine.toml").write_text(text.replace("Mood", "Feeling"))
    capsys.readouterr()
    assert run(monkeypatch, train, *TINY, "--head", "words", "--run", "mine", *options) == 2
    assert "made with --template" in one_line(capsys)


@pytest.mark.usefixtures("here", "unmeasured")
def test_label_words_are_chosen_once_for_all_seeds(monkeypatch):
    chosen, choose_head = [], train.choose_head
    monkeypatch.setattr(train, "choose_head", lambda *of: chosen.append(choose_head(*of)) or chosen[-1])
    train_words(monkeypatch, "seeds", "--seeds", "0", "1", "--epochs", "1")
    assert len(chosen) == 1
    records = [json.loads(Path(f"runs/seeds-{seed}/run.json").read_text()) for seed in (0, 1)]
    assert [record["prompt"] for record in records] == [chosen[0].describe()] * 2


@pytest.mark.usefixtures("here", "unmeasured")
def test_only_what_tune_names_is_trained(monkeypatch):
    folder = train_words(monkeypatch, "begin", "--epochs", "1")
    pretrained = ("--init", "pretrained", "--model", "runs/begin", "--epochs", "1", "--tune", "1")
    before, after = load_lm(folder), load_lm(train_words(monkeypatch, "tuned", *pretrained))
    changed = {
        name for name, parameter in before.named_parameters() if not torch.equal(parameter, after.get_parameter(name))
    }
    assert changed
    assert all(name.startswith(("trunk.h.1.", "trunk.ln_f.")) for name in changed)


REFUSED = {
    "--tune head": ("--head words --tune head", "adds no head to train alone"),
    "a template of a classifier": ("--template mood", "add --head words"),
    "words of a classifier": ("--words joy=glad", "add --head words"),
    "an unknown template": ("--head words --template felling", "template felling: expected a file .toml, or one of"),
    "words of several tokens": ("--head words --words joy=exhilarated", "'exhilarated': expected one token each"),
    "another class": ("--head words --words envy=green", "with a class of anger, fear, joy"),
    "one word for two": ("--head words --words joy=angry", "the second begins with the first"),
    "prompts that are too long": ("--head words --template long.toml", "together with the template, long"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_the_training(monkeypatch, capsys, case):
    options, expected = REFUSED[case]
    Path("long.toml").write_text(f"[templates.long]\nprompt = '{{text}}{' well' * 20}'\ndomain = 'well'\n")
    assert run(monkeypatch, train, *TINY, "--run", "new", *options.split()) == 2
    assert expected in one_line(capsys)
    assert not Path("runs/new").exists()
