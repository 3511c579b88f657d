"""`ablate.py --prompt`: the language model of a run is ablated, and not its classifier."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from pictures_on_disk import leave_undrawn
from planted_lm import LABELS, TOKENIZER, plant_lm, write_texts

import ablate
import train
from data.prompts import read_templates
from experiments.ablate.plans import plan_words
from experiments.ablate.prompts import ask
from experiments.prompt.demonstrations import draw_settings
from lab.demonstrations import make_pool
from lab.device import Device
from lab.effects import read_effects
from lab.label_words import choose_words
from lab.prompts import write_prompt
from lab.study import open_study
from lab.sweeps import Sweeps
from model import GPT2LM, GPT2Config, masks, save

FOLDER = Path("runs/one/prompt/ablate")
CPU = Device(torch.device("cpu"), "fp32")


def plant_four_heads() -> GPT2LM:
    """A model that reads cues with head 0.0 alone, and prefers joy."""
    lm = GPT2LM(GPT2Config(1, 4, 32, n_ctx=256, vocab_size=50257, dropout=0.0, attn_dropout=0.0)).eval()
    lm.load_state_dict(plant_lm().state_dict())
    return lm.requires_grad_(False)


@pytest.fixture(scope="module")
def trained_from_planted(tmp_path_factory) -> Path:
    """A folder with the run `one`, which began with that model."""
    here = tmp_path_factory.mktemp("planted")
    save(plant_four_heads(), here / "planted", TOKENIZER)
    (here / "corpus").mkdir()
    for split, n in (("train", 60), ("val", 42), ("test", 45)):
        texts = write_texts(split, n)
        rows = [f"{text};{LABELS[k]}" for text, k in zip(texts.strings, texts.targets, strict=True)]
        (here / "corpus" / f"{split}.txt").write_text("\n".join(rows) + "\n")
    options = "--model planted --corpus corpus --epochs 1 --device cpu --run one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        leave_undrawn(patch)
        assert commands.exit_code(patch, train, *options.split()) == 0
    return here


@pytest.fixture
def planted_run(trained_from_planted, tmp_path, monkeypatch):
    shutil.copytree(trained_from_planted, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])


def run_ablate(monkeypatch, *arguments):
    return commands.exit_code(monkeypatch, ablate, "--device", "cpu", *arguments)


def read_baseline(metric):
    effects = read_effects(FOLDER / "effects.csv")
    rows = effects[(effects["split"] == "test") & (effects["class"] == "all") & (effects["metric"] == metric)]
    (baseline,) = rows["baseline"].unique()
    return baseline


@pytest.mark.slow
@pytest.mark.usefixtures("planted_run", "saved")
def test_a_prompt_is_ablated_in_a_folder_of_its_own_with_all_units(monkeypatch, capsys):
    units = ("--units", "heads", "layers", "regions", "words", "curves", "pairs", "smallest")
    options = ("--controls", "2", "--pairs", "0.0", "0.1", "--gates", "learn")
    assert run_ablate(monkeypatch, "--prompt", "feeling", *units, *options) == 0
    assert not Path("runs/one/ablate").exists()
    page = (FOLDER / "report.md").read_text().splitlines()
    assert page[2] == (
        "What is ablated here is no classifier, but the language model planted, asked with the prompt feeling and no "
        "example. Its label prior, the mean over the prompts of val, is taken out, anew under each ablation."
    )
    assert page[4].startswith("**One prompt.** Of 4 heads, each closed alone with fill mean, 1 matters")
    assert "prompts of at most 300 training texts" in "\n".join(page)
    assert any("sad" in line and line.startswith("- label words") for line in page)
    effects = read_effects(FOLDER / "effects.csv")
    assert set(effects["kind"]) == {"head", "heads", "mlp", "layer", "mask", "cut", "words", "pair"}
    assert read_baseline("accuracy") > 0.9
    matters = effects[effects["verdict"] == "matters"]
    assert set(matters.loc[matters["kind"] == "head", "head"]) == {0}
    sets = pd.read_csv(FOLDER / "learnt_sets.csv", dtype={"heads": str}, keep_default_na=False)
    assert sets[(sets["class"] == "all") & (sets["set"] == "learnt")].iloc[-1]["heads"] == "0.0"  # reads the cues


@pytest.mark.slow
@pytest.mark.usefixtures("planted_run", "saved")
def test_without_a_correction_the_prompt_names_one_class_and_the_logits_are_swept_once(monkeypatch):
    heads = ("--prompt", "feeling", "--units", "heads", "--fill", "mean", "--controls", "0")
    kept = {}
    for correction in ("direct", "domain_pmi", "batch"):
        assert run_ablate(monkeypatch, *heads, "--correction", correction) == 0
        kept[correction] = np.load(FOLDER / "logits-feeling-0" / "test-mean-heads.npy")
        if correction == "direct":
            assert read_baseline("accuracy") == pytest.approx(1 / 3)
        else:
            assert read_baseline("accuracy") > 0.9
        assert ("is left in" in (FOLDER / "report.md").read_text()) == (correction == "direct")
        np.testing.assert_array_equal(kept[correction], kept["direct"])


@pytest.mark.usefixtures("planted_run", "saved")
def test_effects_of_a_prompt_with_examples_are_those_of_plain_calls(monkeypatch):
    """With the examples as the report shows them, fill zero, and the prior of the prompt without a text."""
    settings = ("--prompt", "emotion", "--shots", "1", "--correction", "domain_pmi", "--units", "heads")
    assert run_ablate(monkeypatch, *settings, "--fill", "zero", "--controls", "0") == 0
    assert "asked with the prompt emotion and 1 example of each class" in (FOLDER / "report.md").read_text()
    study = json.loads((FOLDER / "study.json").read_text())
    examples, empty = study["prompt"].split("Text: {text}")
    assert empty == "\nEmotion:"
    assert examples.count("Text: ") == 3
    assert all(f"Emotion: {word}\n\n" in examples for word in ("happy", "sad", "afraid"))
    words, lm, test = choose_words(LABELS, (), TOKENIZER), plant_four_heads(), write_texts("test", 45)
    log_prob = []
    for arguments in ({}, {"head_gate": masks.close_heads(lm.config, [(0, 0)])}):

        def read(prompt, arguments=arguments):
            logits = lm(torch.tensor([TOKENIZER.encode(prompt)]), **arguments)[0, -1].double().log_softmax(0)
            scores = np.array([[logits[ids[0]].item() for ids in words.flat]])
            return words.read_classes(scores, "all words")[0]

        corrected = np.stack([read(f"{examples}Text: {text}\nEmotion:") for text in test.strings])
        corrected -= read(f"{examples}Emotion:")
        corrected -= np.logaddexp.reduce(corrected, axis=1, keepdims=True)
        log_prob.append(corrected[np.arange(45), test.targets].mean())
    effects = read_effects(FOLDER / "effects.csv")
    row = effects.query("split == 'test' and head == 0 and metric == 'log_prob' and `class` == 'all'").iloc[0]
    np.testing.assert_allclose([row["baseline"], row["ablated"]], log_prob, atol=1e-4)
    assert log_prob[0] - log_prob[1] > 0.3


@pytest.mark.usefixtures("planted_run", "saved")
def test_examples_are_the_first_draw_of_prompt(monkeypatch):
    settings = ("--prompt", "emotion", "--shots", "2", "--seed", "5", "--units", "heads", "--controls", "0")
    assert run_ablate(monkeypatch, *settings) == 0
    study = open_study("one", CPU)
    pool, words = make_pool(study), choose_words(study.clf.labels, (), TOKENIZER)
    (template,) = read_templates(["emotion"])
    first = draw_settings(template, pool, 2, 3, words, 5)[0].demonstrations  # as prompt.py draws
    prompt = json.loads((FOLDER / "study.json").read_text())["prompt"]
    assert prompt == write_prompt(template, "{text}", first, words)


@pytest.mark.slow
@pytest.mark.usefixtures("planted_run", "saved")
def test_going_back_to_a_prompt_sweeps_nothing_again(monkeypatch):
    heads = ("--units", "heads", "--fill", "mean", "--controls", "0", "--texts", "12")
    prompts = (("--prompt", "feeling"), ("--prompt", "feeling", "--shots", "1"), ("--prompt", "emotion"))
    for prompt in prompts:
        assert run_ablate(monkeypatch, *prompt, *heads) == 0
    made = {path: path.stat().st_mtime_ns for path in FOLDER.glob("logits-*/*.json")}
    assert {path.parent.name for path in made} == {"logits-feeling-0", "logits-feeling-1", "logits-emotion-0"}

    def sweep_nothing(clf, sequences, ablations, fills, device, left):
        assert not len(left)
        return iter(())

    monkeypatch.setattr("lab.sweeps.sweep", sweep_nothing)
    for prompt in prompts:
        assert run_ablate(monkeypatch, *prompt, *heads) == 0
        asked = f"the prompt {prompt[1]} and {'1' if '1' in prompt else 'no'} example"
        assert asked in (FOLDER / "report.md").read_text()
    assert made == {path: path.stat().st_mtime_ns for path in FOLDER.glob("logits-*/*.json")}


@pytest.mark.usefixtures("planted_run")
def test_only_words_of_the_text_are_hidden_in_a_prompt(tmp_path):
    """And not what the template and the examples say."""
    study = ask(open_study("one", CPU), "i_feel", 1, 0)
    text = "people feel that the rain felt cold"
    ids = TOKENIZER.encode(study.fill(text))
    texts = replace(study.texts["test"].select(np.arange(1)), strings=[study.fill(text)], sequences=[ids])
    study = replace(study, texts=study.texts | {"test": texts})
    ablations = plan_words(Sweeps(study, tmp_path, 0, 0)).ablations["test"]
    (feel,) = (each for each in ablations if each.region == "feel")
    mask = feel.intervention(torch.tensor([ids]), torch.tensor([len(ids)]))["attn_mask"]
    hidden = (~mask).reshape(-1, len(ids)).all(dim=0).nonzero().flatten().tolist()
    named = [i for i, token in enumerate(ids) if TOKENIZER.decode([token]).strip() in ("feel", "felt")]
    assert len(named) == 3 + 2 + 1  # of three examples, of the text, and of the question
    assert hidden == named[3:5]


TWO = '[templates.a]\nprompt = "{text} A"\ndomain = "A"\n[templates.b]\nprompt = "{text} B"\ndomain = "B"\n'
MISTAKES = {
    "shots alone": (("--shots", "1"), "--prompt"),
    "correction alone": (("--correction", "direct"), "--prompt"),
    "another template": (("--prompt", "weather"), "feeling"),
    "two templates": (("--prompt", "two.toml"), "expected one template, got a, b"),
    "two runs": (("--prompt", "feeling", "--run", "one", "two"), "expected at most one of these"),
    "too many examples": (("--prompt", "feeling", "--shots", "21"), "got 20 of fear; take fewer"),
    "too long": (("--prompt", "feeling", "--shots", "19"), "fewer --shots"),
    "negative": (("--prompt", "feeling", "--shots", "-1"), "--shots -1"),
    "a single text": (("--prompt", "feeling", "--texts", "1"), "at least 2 texts"),
}


@pytest.mark.usefixtures("planted_run")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(monkeypatch, capsys, mistake):
    Path("two.toml").write_text(TWO)
    arguments, expected = MISTAKES[mistake]
    assert run_ablate(monkeypatch, *arguments) == 2
    assert expected in one_line(capsys)
    assert not (FOLDER / "effects.csv").exists()


def test_a_run_from_random_weights_has_nobody_to_ask(here, monkeypatch, capsys):
    assert run_ablate(monkeypatch, "--prompt", "feeling") == 2
    assert "random weights" in (line := one_line(capsys))
    assert "--model" not in line  # ablate has no such option
