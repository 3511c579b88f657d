"""What is explored: a run's classifier or a language model, and the texts around it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import line_of
from small_run import write_shape

from experiments.explore import subject as subjects
from experiments.explore.subject import choose_examples, open_language_model, open_run
from lab.texts import Texts, check_text
from model import GPT2LM, GPT2Config, hub, save


@pytest.fixture
def language_model(tmp_path):
    """The folder of a language model with a tokenizer."""
    folder = tmp_path / "lm"
    config = GPT2Config(1, 3, 12, n_ctx=17)
    write_shape(folder, config)
    torch.manual_seed(0)
    save(GPT2LM(config), folder)
    return folder


def test_a_run_is_opened(here):
    subject = open_run("one")
    assert (subject.name, subject.call, str(subject.run)) == ("one", "open_run('one')", "runs/one")
    assert subject.labels == ("anger", "fear", "joy")
    assert subject.weights == hub.content_hash(here / "runs/one/model.safetensors")
    assert subject.corpus == "corpus.txt"
    assert subject.donors.split == "train"
    assert not subject.model.training
    assert subject.fill_names == ("zero", "mean", "resample", "class_mean", "text")
    for example in subject.examples:
        ids = torch.tensor([subject.tokenizer.encode(example["text"])])
        assert subject.labels[subject.model(ids).argmax()] == example["predicted"]
    assert {example["label"] for example in subject.examples} == {*subject.labels}
    assert eval(subject.call, {"open_run": open_run}).weights == subject.weights
    assert open_run("latest").name == "one"


def test_without_a_run_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "make train" in line_of(open_run, "none")


def test_a_language_model_is_opened(language_model):
    subject = open_language_model(str(language_model))
    assert subject.name == "lm"
    assert subject.labels == ()
    assert subject.run is None
    assert subject.weights == hub.content_hash(language_model / "model.safetensors")
    assert len(subject.donors) == subjects.DONORS
    assert subject.fill_names == ("zero", "mean", "resample", "text")
    assert all(example["label"] is None for example in subject.examples)
    assert not subject.model.training
    again = eval(subject.call, {"open_language_model": open_language_model})
    assert again.weights == subject.weights


def test_an_unknown_model_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "no-model" in line_of(open_language_model, "no-model")


def test_examples_are_the_texts_of_each_class_that_are_nearest_to_turning_and_the_first_one_is_right(
    subject, monkeypatch
):
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0, 0.0],  # 0: right, sure
            [0.5, 0.4, 0.1, 0.0],  # 1: right, close
            [0.3, 0.6, 0.1, 0.0],  # 2: wrong
            [0.42, 0.43, 0.15, 0.0],  # 3: right, closer
            [0.45, 0.44, 0.11, 0.0],  # 4: right, closest, and too long
            [0.1, 0.2, 0.346, 0.354],  # 5: wrong, closest of all
        ]
    )
    targets = np.array([0, 0, 0, 1, 0, 2])
    sequences = [[1]] * 4 + [[1] * (subjects.EXAMPLE_TOKENS + 1)] + [[1] * subjects.EXAMPLE_TOKENS]
    texts = Texts("test", np.arange(6), [f"text {i}" for i in range(6)], sequences, targets)
    short = np.delete(probabilities, 4, axis=0)
    monkeypatch.setattr(subjects, "predict", lambda clf, sequences, device: short[: len(sequences)])
    examples = choose_examples(subject.model, texts, subject.device)
    assert [(example["text"], example["label"], example["predicted"]) for example in examples] == [
        ("text 3", "fear", "fear"),
        ("text 1", "anger", "anger"),
        ("text 5", "joy", "love"),
        ("text 2", "anger", "fear"),
    ]
    assert choose_examples(subject.model, texts.select(np.array([4])), subject.device) == []


def test_a_text_is_checked(subject):
    tokenizer = subject.tokenizer
    assert check_text("i felt", tokenizer, 2) == [72, 2936]
    assert check_text("<|endoftext|>", tokenizer, 61) == tokenizer.encode("<|endoftext|>")
    assert len(check_text("<|endoftext|>", tokenizer, 61)) > 1  # ordinary text
    assert check_text("\0", tokenizer, 61)
    line = line_of(check_text, "i felt so", tokenizer, 2, "other")
    assert line == "other: expected at most 2 tokens, got 3; shorten it"
    assert line_of(check_text, "", tokenizer, 2).startswith("text: expected at least one character")
    assert "surrogate" in line_of(check_text, "a\udc80", tokenizer, 61)


def test_the_means_of_a_subject_are_measured_once(subject, monkeypatch):
    calls, measure = [], subjects.fills.measure_means

    def count(*arguments):
        calls.append(1)
        return measure(*arguments)

    monkeypatch.setattr(subjects.fills, "measure_means", count)
    again = replace(subject)
    for _ in range(2):
        again.compute_fills("mean", [72, 2936])
        again.compute_fills("class_mean", [72])
    assert len(calls) == 1


def test_fewer_donors_than_draws_are_all_taken(subject):
    few = replace(subject, donors=subject.donors.select(np.arange(3)))
    assert len(few.compute_fills("resample", [72, 2936])) == 3
    assert len(subject.compute_fills("resample", [72, 2936])) == 10
    assert len(subject.compute_fills("text", [72, 2936], [3919])) == 1
    assert subject.compute_fills("zero", [72]) == [{}]
