"""What a prompt says: against plain passes of the network, on a plant, and kept on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_lm import CUES, LABELS, open_planted, plant_lm, write_texts
from sklearn.metrics import f1_score

from data.prompts import read_templates
from experiments.prompt import scoring
from experiments.prompt.priors import CONTENT_FREE, correct
from experiments.prompt.scoring import Setting, draw_contexts, list_answers, score_channel, score_setting
from lab.label_words import choose_words
from lab.prompts import Demonstration, write_prompt
from model import InputError

TEXTS = {split: write_texts(split, 31) for split in ("val", "test")}
TRAIN = write_texts("train", 60)
CONTEXTS = draw_contexts(TRAIN, 0)
FEELING, EMOTION = read_templates(["feeling", "emotion"])
EXAMPLES = tuple(Demonstration(i, TRAIN.strings[i], int(TRAIN.targets[i])) for i in (2, 4, 3, 0, 1, 5))
FEW = Setting(FEELING, 2, "0", "0", EXAMPLES)
CORRECTIONS = ["direct", "contextual", "domain_pmi", "domain_context", "batch", "batch_transductive"]


@pytest.fixture(scope="module")
def prompted():
    return open_planted()


@pytest.fixture(scope="module")
def random_neo(reference):
    """A GPT-Neo, whose layer 1 sees but the last five tokens of a prompt."""
    return open_planted(reference("GPTNeoForCausalLM", vocab_size=50257, max_position_embeddings=256).ours)


def score(setting, prompted, folder, texts=TEXTS, contexts=CONTEXTS, seed=0, advance=int):
    return score_setting(setting, texts, contexts, prompted, folder, seed, advance)


def ask(prompted, prompt: str) -> np.ndarray:
    """Return the log-probability of each class behind a prompt, by one plain forward pass."""
    ids = prompted.tokenizer.encode(prompt)
    log_probs = prompted.lm(torch.tensor([ids]))[0, -1].detach().double().log_softmax(dim=-1).numpy()
    return np.array([np.logaddexp.reduce(log_probs[[ids[0] for ids in words]]) for words in prompted.words.ids])


def answers_of(scored, prompted, verbalizer="all words"):
    answers = list_answers(scored, prompted.words, transductive=True)
    return {(each.correction, each.split): each for each in answers if each.verbalizer == verbalizer}


def macro_f1(answers) -> float:
    targets = TEXTS[answers.split].targets
    return f1_score(targets, correct(answers.log_probs, answers.b).argmax(axis=1), average="macro")


@pytest.mark.parametrize("network", ["prompted", "random_neo"])
@pytest.mark.parametrize("setting", [Setting(EMOTION), FEW], ids=["no examples", "examples"])
def test_all_that_is_scored_is_what_plain_passes_say(request, tmp_path, setting, network):
    prompted = request.getfixturevalue(network)
    scored, words = score(setting, prompted, tmp_path), prompted.words

    def prompt(text):
        return write_prompt(setting.template, text, setting.demonstrations, words)

    def check(log_probs, prompts):
        expected = [ask(prompted, each) for each in prompts]
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(words.read_classes(log_probs, "all words"), expected, atol=2e-5)

    for split, texts in TEXTS.items():
        check(scored.texts[split], map(prompt, texts.strings))
    check(scored.content_free, map(prompt, CONTENT_FREE))
    check(scored.contexts, map(prompt, CONTEXTS))
    examples = prompt("").removesuffix(setting.template.fill(""))
    check(scored.domain, [examples + setting.template.domain])
    assert examples.count("\n\n") == len(setting.demonstrations)


@pytest.mark.parametrize("setting", [Setting(FEELING), Setting(EMOTION), FEW], ids=["feeling", "emotion", "examples"])
def test_the_plant_is_found_by_every_correction_and_hidden_without_one(prompted, tmp_path, setting):
    """T6."""
    answers = answers_of(score(setting, prompted, tmp_path), prompted)
    assert list(answers) == [(correction, split) for split in ("val", "test") for correction in CORRECTIONS]
    for split in ("val", "test"):
        assert macro_f1(answers["direct", split]) < 0.2
        assert (answers["direct", split].log_probs.argmax(axis=1) == 0).all()
        for correction in CORRECTIONS[1:]:
            assert macro_f1(answers[correction, split]) > 0.95, correction
    channel = score_channel(setting, TEXTS["test"], prompted, tmp_path, 0, int)
    assert f1_score(TEXTS["test"].targets, channel.argmax(axis=1), average="macro") > 0.95


def test_where_nothing_is_planted_nothing_is_found(tmp_path):
    prompted = open_planted(plant_lm(effect=0.0))
    answers = answers_of(score(Setting(FEELING), prompted, tmp_path), prompted)
    for correction in CORRECTIONS:
        assert macro_f1(answers[correction, "test"]) < 0.45, correction


def test_a_prior_of_the_words_changes_direct_answers_alone(tmp_path):
    """T1, in the network: its prior is another constant on the label words' logits."""
    folders = {prior: tmp_path / str(prior) for prior in (0.0, 4.0)}
    answers = {}
    for prior, folder in folders.items():
        folder.mkdir()
        prompted = replace(open_planted(plant_lm(prior=prior)), weights=str(prior))
        answers[prior] = answers_of(score(Setting(FEELING), prompted, folder), prompted)
    for correction in ("domain_pmi", "batch"):
        with_prior, without = (
            correct(each[correction, "test"].log_probs, each[correction, "test"].b) for each in answers.values()
        )
        np.testing.assert_allclose(with_prior, without, atol=1e-4)
    direct = [each["direct", "test"].log_probs.argmax(axis=1) for each in answers.values()]
    assert (direct[0] != direct[1]).any()


def test_each_prior_is_the_mean_probability_behind_its_own_inputs(prompted, tmp_path):
    scored = score(Setting(FEELING), prompted, tmp_path)
    answers, words = answers_of(scored, prompted), prompted.words
    inputs = {"contextual": scored.content_free, "domain_pmi": scored.domain, "domain_context": scored.contexts}
    for correction, log_probs in inputs.items():
        mean = np.exp(words.read_classes(log_probs, "all words")).mean(axis=0)
        np.testing.assert_allclose(np.exp(answers[correction, "test"].b), mean / mean.sum())
    assert np.abs(answers["domain_context", "test"].b - answers["contextual", "test"].b).max() > 0.1


def test_domain_pmi_is_contextual_calibration_with_the_domain_prompt(prompted, tmp_path):
    """T5."""
    scored = score(Setting(FEELING), prompted, tmp_path)
    swapped = answers_of(replace(scored, content_free=scored.domain), prompted)
    np.testing.assert_array_equal(swapped["contextual", "test"].b, answers_of(scored, prompted)["domain_pmi", "test"].b)


def test_the_batch_prior_is_that_of_val_unless_it_is_transductive(prompted, tmp_path):
    scored = score(Setting(FEELING), prompted, tmp_path)
    answers, words = answers_of(scored, prompted), prompted.words
    of_split = {split: words.read_classes(scored.texts[split], "all words").mean(axis=0) for split in TEXTS}
    for split in TEXTS:
        np.testing.assert_allclose(answers["batch", split].b, of_split["val"])
        np.testing.assert_allclose(answers["batch_transductive", split].b, of_split[split])
    plain = [each.correction for each in list_answers(scored, words, transductive=False)]
    assert "batch" in plain
    assert "batch_transductive" not in plain


def test_the_order_of_classes_does_not_matter(prompted, tmp_path):
    """T10: with the classes in another order, predictions are those with their numbers exchanged."""
    order = [2, 0, 1]
    labels = tuple(LABELS[k] for k in order)
    other = replace(prompted, words=choose_words(labels, (), prompted.tokenizer))
    (tmp_path / "other").mkdir()
    one = answers_of(score(Setting(FEELING), prompted, tmp_path), prompted)
    two = answers_of(score(Setting(FEELING), other, tmp_path / "other"), other)
    for key in one:
        np.testing.assert_allclose(two[key].log_probs, one[key].log_probs[:, order])
        np.testing.assert_allclose(two[key].b, one[key].b[order])


def test_each_text_may_have_examples_of_its_own(prompted, tmp_path):
    nearest = {split: [EXAMPLES[i % 5 : i % 5 + 2] for i in range(31)] for split in TEXTS}
    setting = Setting(FEELING, 1, "nearest", "near_to_far", nearest=nearest)
    scored = score(setting, prompted, tmp_path)
    for i in (0, 17, 30):
        prompt = write_prompt(FEELING, TEXTS["test"].strings[i], nearest["test"][i], prompted.words)
        expected = ask(prompted, prompt)
        np.testing.assert_allclose(
            prompted.words.read_classes(scored.texts["test"][[i]], "all words")[0], expected, atol=2e-5
        )
    answers = list(list_answers(scored, prompted.words, transductive=False))
    assert {each.correction for each in answers} == {"direct", "batch"}
    assert {each.last_class for each in answers} == {""}


def test_answers_say_how_they_were_asked(prompted, tmp_path):
    (first, *_) = list_answers(score(FEW, prompted, tmp_path), prompted.words, transductive=False)
    assert (first.template, first.verbalizer, first.shots) == ("feeling", "all words", 2)
    assert (first.draw, first.order, first.last_class, first.split) == ("0", "0", "fear", "val")
    assert FEW.name == "feeling-2-0-0"


def test_the_channel_scores_the_tokens_of_the_text_alone(prompted, tmp_path):
    """Against plain passes over label word and text, for every template."""
    texts = replace(TEXTS["test"], strings=TEXTS["test"].strings[:3], sequences=TEXTS["test"].sequences[:3])
    for template in read_templates():
        ours = score_channel(Setting(template), texts, prompted, tmp_path, 0, int)
        for i, text in enumerate(texts.strings):
            for k, words in enumerate(prompted.words.words):
                ids = prompted.tokenizer.encode(template.fill_channel(words[0], text))
                n = len(prompted.tokenizer.encode(text))
                log_probs = prompted.lm(torch.tensor([ids]))[0].double().log_softmax(dim=-1)
                expected = sum(log_probs[t - 1, ids[t]].item() for t in range(len(ids) - n, len(ids)))
                assert ours[i, k] == pytest.approx(expected, abs=1e-3), template.name


def test_what_is_on_disk_is_not_scored_again(prompted, tmp_path, monkeypatch):
    done: list[int] = []
    scored = score(FEW, prompted, tmp_path, advance=done.append)
    channel = score_channel(FEW, TEXTS["test"], prompted, tmp_path, 0, done.append)
    number = sum(done)
    assert number == 2 * 31 + 3 + 20 + 1 + 3 * 31

    def fail(*arguments):
        raise AssertionError("scored again")

    monkeypatch.setattr(scoring, "score_words", fail)
    monkeypatch.setattr(scoring, "sum_log_probs", fail)
    done.clear()
    again = score(FEW, prompted, tmp_path, advance=done.append)
    np.testing.assert_array_equal(again.texts["test"], scored.texts["test"])
    np.testing.assert_array_equal(score_channel(FEW, TEXTS["test"], prompted, tmp_path, 0, done.append), channel)
    assert sum(done) == number
    for changes in ({"weights": "other"}, {"words": prompted.words.first()}):
        with pytest.raises(AssertionError, match="scored again"):
            score(FEW, replace(prompted, **changes), tmp_path)
    with pytest.raises(AssertionError, match="scored again"):
        score(replace(FEW, demonstrations=EXAMPLES[::-1]), prompted, tmp_path)


def test_contexts_are_words_of_train_as_many_as_a_text_has():
    words = {word for text in TRAIN.strings for word in text.split()}
    mean = np.mean([len(text.split()) for text in TRAIN.strings])
    assert len(CONTEXTS) == 20
    assert {len(text.split()) for text in CONTEXTS} == {round(mean)}
    assert {word for text in CONTEXTS for word in text.split()} <= words
    assert draw_contexts(TRAIN, 0) == CONTEXTS
    assert draw_contexts(TRAIN, 1) != CONTEXTS
    assert any(cue in text for text in CONTEXTS for cue in CUES)


def test_examples_that_do_not_fit_are_refused(prompted, tmp_path):
    with pytest.raises(InputError, match="take fewer --shots"):
        score(replace(FEW, demonstrations=EXAMPLES * 5), prompted, tmp_path)
