"""Heads in prompting, on a network of which it is known which head reads the text, and which only favours a class."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted_lm import DEVICE, LABELS, TOKENIZER, WORD, open_planted, plant_lm, write_texts
from scipy.special import log_softmax
from scipy.stats import spearmanr

import lab.sweep
from data.prompts import read_templates
from experiments.prompt.heads import CLASSIFIER, close_heads, correlate, measure_heads, measure_reliability
from experiments.prompt.scoring import Setting
from lab.fills import mean, measure_means
from lab.label_words import choose_words, score_words
from lab.prompted import make_prompt_study
from lab.prompts import Demonstration
from lab.study import Study
from model import GPT2LM, GPT2Classifier, GPT2Config, InputError, masks

READS, FAVOURS, MARK = 0, 1, 20  # heads, and a dimension that marks the last word of the template
CONTEXTS = ["day was long again", "we saw many people", "her people there again"]
(FEELING,) = read_templates(["feeling"])


def plant_heads() -> GPT2LM:
    """The planted model with four heads: head 0.0 reads the cue as before, head 0.1 favours the first class behind the
    last word of the template, whatever the text is; the others do nothing."""
    lm = GPT2LM(GPT2Config(1, 4, 32, n_ctx=256, vocab_size=50257, dropout=0.0, attn_dropout=0.0)).eval()
    lm.load_state_dict(plant_lm(prior=2.0).state_dict())
    attn = lm.requires_grad_(False).trunk.h[0].attn
    (token,) = TOKENIZER.encode(" is")
    lm.trunk.wte.weight[token, MARK] = 1
    attn.c_attn.bias[8] = 50
    attn.c_attn.weight[32 + 8, MARK] = 50  # the key of this word
    attn.c_attn.weight[64 + 8, MARK] = 1
    attn.c_proj.weight[WORD, 8] = 5
    return lm


def classify(lm: GPT2LM) -> GPT2Classifier:
    """A classifier on the same trunk, which reads the same dimensions behind the bare text."""
    clf = GPT2Classifier(lm.config, LABELS).eval().requires_grad_(False)
    clf.trunk = lm.trunk
    clf.score.weight.zero_()
    for k in range(len(LABELS)):
        clf.score.weight[k, WORD + k] = 1
    return clf


@pytest.fixture(scope="module")
def study() -> Study:
    texts = {split: write_texts(split, n) for split, n in (("train", 60), ("val", 45), ("test", 48))}
    corpus = SimpleNamespace(files={})
    return Study(Path("one"), {}, classify(plant_heads()), TOKENIZER, corpus, texts, DEVICE, "cd" * 32)


@pytest.fixture(scope="module")
def prompted(study):
    return open_planted(plant_heads())


def ask(study, prompted, folder, setting=None):
    texts = {split: study.texts[split] for split in ("val", "test")}
    return measure_heads(study, prompted, setting or Setting(FEELING), texts, CONTEXTS, folder, seed=0)


@pytest.fixture(scope="module")
def heads(study, prompted, tmp_path_factory):
    return ask(study, prompted, tmp_path_factory.mktemp("results"))


def find_effects(heads, head, metric, label="all"):
    """The effect of closing a head on test, by correction."""
    rows = heads.effects.query("split == 'test' and head == @head and metric == @metric and `class` == @label")
    return rows.set_index("correction")["effect"]


def test_a_head_that_favours_a_class_seems_to_matter_until_its_prior_is_taken_out_without_it(heads):
    direct, *corrected = find_effects(heads, FAVOURS, "margin", "sadness").drop(CLASSIFIER)
    assert direct > 0.5  # sadness gains what joy loses
    assert len(corrected) == 4
    np.testing.assert_allclose(corrected, 0, atol=0.1 * direct)


def test_the_head_that_reads_the_text_matters_with_every_correction_and_to_the_classifier(heads):
    effects = find_effects(heads, READS, "specific_margin", "fear")
    assert set(effects.index) == {"direct", "contextual", "domain_pmi", "domain_context", "batch", CLASSIFIER}
    assert (effects < -1).all()
    for idle in (2, 3):
        np.testing.assert_allclose(find_effects(heads, idle, "specific_margin", "fear"), 0, atol=1e-5)


def test_the_tables_have_the_columns_of_ablate_and_two_more(heads):
    columns = (
        "kind layer head region fill split class metric n baseline ablated effect ci_low ci_high p p_corrected "
        "share share_low share_high verdict correction template"
    )
    assert " ".join(heads.effects) == columns
    assert set(heads.effects["kind"]) == {"head"}
    assert set(heads.effects["fill"]) == {"mean"}
    templates = heads.effects.groupby("correction")["template"].unique().map("".join).to_dict()
    corrections = ("direct", "contextual", "domain_pmi", "domain_context", "batch")
    assert templates == {**dict.fromkeys(corrections, "feeling"), CLASSIFIER: ""}
    correlations = "correction class n_heads spearman ci_low ci_high p reliability_prompt reliability_classifier"
    assert " ".join(heads.correlations) == correlations
    assert len(heads.correlations) == 5 * 4


def test_without_an_ablation_the_answers_are_those_of_the_whole_vocabulary(study, prompted, tmp_path):
    examples = (Demonstration(3, "we saw rain", 1), Demonstration(5, "the wind again", 2))
    asked = make_prompt_study(study, prompted, FEELING, examples, seed=0)
    answers = close_heads(asked, "heads", ("test",), tmp_path, seed=0)["test"][0, :, 0]
    prompts = [f"we saw rain\nThe feeling of this text is {prompted.words.words[1][0]}\n\n"] * len(study.texts["test"])
    prompts = [
        f"{first}the wind again\nThe feeling of this text is {prompted.words.words[2][0]}\n\n{text}\n"
        "The feeling of this text is"
        for first, text in zip(prompts, study.texts["test"].strings, strict=True)
    ]
    scores = score_words(prompted.lm, [TOKENIZER.encode(prompt) for prompt in prompts], prompted.words, DEVICE)
    expected = log_softmax(prompted.words.read_classes(scores, "all words"), axis=1)
    np.testing.assert_allclose(log_softmax(answers, axis=1), expected, atol=1e-4)


def test_effects_are_those_of_plain_calls_with_the_prior_of_the_same_network(study, prompted, heads):
    """By hand: the mean fill, head 0.1 closed, behind each prompt and behind the prompt without a text."""
    asked = make_prompt_study(study, prompted, FEELING, (), seed=0)
    train, test = asked.texts["train"], study.texts["test"]
    fill = mean(measure_means(asked.clf, train.sequences, train.targets, DEVICE))(None)
    closed = {"head_gate": masks.close_heads(asked.clf.config, [(0, FAVOURS)]), "head_fill": fill["head_fill"]}
    log_prob = []
    for arguments in ({}, closed):

        def read(prompt, arguments=arguments):
            return asked.clf(torch.tensor([TOKENIZER.encode(prompt)]), **arguments).double().log_softmax(1)[0]

        b = read("The feeling of this text is")
        prompts = [f"{text}\nThe feeling of this text is" for text in test.strings]
        corrected = [(read(prompt) - b).log_softmax(0) for prompt in prompts]
        log_prob.append(np.mean([row[k].item() for row, k in zip(corrected, test.targets, strict=True)]))
    row = heads.effects.query(
        "split == 'test' and head == @FAVOURS and metric == 'log_prob' and `class` == 'all' "
        "and correction == 'domain_pmi'"
    ).iloc[0]
    np.testing.assert_allclose([row["baseline"], row["ablated"]], log_prob, atol=1e-4)
    assert log_prob[0] > -0.6  # guessing: -1.1


@pytest.mark.slow
def test_what_was_swept_is_kept_and_other_words_are_swept_anew(study, prompted, monkeypatch, tmp_path):
    before = ask(study, prompted, tmp_path)
    run_ablations, swept = lab.sweep.run_ablations, []

    def note(clf, batch, ablations, *rest):
        swept.append(len(ablations))
        return run_ablations(clf, batch, ablations, *rest)

    monkeypatch.setattr(lab.sweep, "run_ablations", note)
    again = ask(study, prompted, tmp_path)
    assert not swept
    np.testing.assert_array_equal(again.effects["effect"], before.effects["effect"])
    first = replace(prompted, words=prompted.words.first())
    other = ask(study, first, tmp_path)
    assert swept
    assert not np.allclose(other.effects["baseline"], before.effects["baseline"], equal_nan=True)


def test_words_of_several_tokens_are_refused(study, prompted, tmp_path):
    words = choose_words(LABELS, ("joy=happyish mood",), TOKENIZER)
    with pytest.raises(InputError, match="happyish mood"):
        ask(study, replace(prompted, words=words), tmp_path)


U, N = 23, 210
TARGETS = np.arange(N) % 3


def make_log_odds(needed: np.ndarray, seed: int, noise: float = 0.3) -> np.ndarray:
    """Log-odds (1 + U, N, 3) of a network whose head u takes needed[u] of what tells each class, with noise."""
    rng = np.random.default_rng(seed)
    signal = 4 * (TARGETS[:, None] == np.arange(3)) - 1.0
    return signal * (1 - np.array([0, *needed]))[:, None, None] + noise * rng.normal(size=(1 + U, N, 3))


def test_the_same_heads_in_both_networks_correlate_and_others_do_not():
    needed, rng = np.linspace(0, 0.9, U), np.random.default_rng(0)
    prompt = make_log_odds(needed, 1)
    same = correlate(prompt, make_log_odds(needed / 2, 2), TARGETS, LABELS, 0)
    assert (same["class"] == ["all", *LABELS]).all()
    assert (same["n_heads"] == U).all()
    assert (same["spearman"] > 0.97).all()
    assert (same["ci_low"] > 0.9).all()
    assert (same["p"] == 1e-4).all()
    assert (same.filter(like="reliability") > 0.97).all(axis=None)
    others = correlate(prompt, make_log_odds(rng.permutation(needed), 2), TARGETS, LABELS, 0)
    assert (others["p"] > 0.05).all()
    assert (others.filter(like="reliability") > 0.97).all(axis=None)


def test_the_correlation_is_that_of_scipy_on_margins_by_hand():
    prompt, classifier = (make_log_odds(np.linspace(0, 0.05, U), seed) for seed in (1, 2))
    table, effects = correlate(prompt, classifier, TARGETS, LABELS, 0).set_index("class"), []
    for network in (prompt, classifier):
        margins = np.stack(
            [network[:, k == TARGETS, k].mean(1) - network[:, k != TARGETS, k].mean(1) for k in range(3)], axis=1
        )
        effects.append(margins[1:] - margins[0])
    for k, label in enumerate(LABELS):
        expected = spearmanr(effects[0][:, k], effects[1][:, k])
        assert table.loc[label, "spearman"] == pytest.approx(expected.statistic)
        assert table.loc[label, "p"] == pytest.approx(expected.pvalue, abs=0.03)
        assert table.loc[label, "ci_low"] < expected.statistic < table.loc[label, "ci_high"]
    assert table.loc["all", "spearman"] == pytest.approx(table.loc[list(LABELS), "spearman"].mean())


def test_heads_that_move_more_than_others_are_not_alike_for_that():
    """In both networks the effects are noise whose size is that of the head: nothing is common but how much moves."""
    sizes = np.geomspace(0.05, 5, U)
    one, other = (make_log_odds(sizes * np.random.default_rng(seed).normal(size=U), seed) for seed in (1, 2))
    effects = [np.abs(network[1:] - network[:1]).mean(axis=(1, 2)) for network in (one, other)]
    assert spearmanr(*effects).statistic > 0.3
    table = correlate(one, other, TARGETS, LABELS, 0).set_index("class")
    assert table.loc["all", "p"] > 0.05


def test_noise_has_no_reliability_and_what_lies_between_has_some():
    """Half of the variance of each effect is noise: the reliability is the share that is not."""
    noise = [measure_reliability(make_log_odds(np.zeros(U), seed), TARGETS, 0)[1:] for seed in range(8)]
    assert np.mean(noise) < 0.35
    rng = np.random.default_rng(0)
    middling = [
        measure_reliability(make_log_odds(rng.normal(0, 0.03 * (1.5 / N) ** 0.5 * 2.5, U), seed), TARGETS, 0)[1:]
        for seed in range(8)
    ]
    assert np.mean(noise) < np.mean(middling) < 0.9


def test_a_class_without_texts_has_no_correlation_and_a_single_text_no_reliability():
    targets = np.where(TARGETS == 2, 0, TARGETS)
    targets[0] = 2
    table = correlate(make_log_odds(np.zeros(U), 1), make_log_odds(np.zeros(U), 2), targets, LABELS, 0)
    assert table["spearman"].notna().all()
    assert table["reliability_prompt"].isna().tolist() == [False, False, False, True]
    targets[0] = 0
    table = correlate(make_log_odds(np.zeros(U), 1), make_log_odds(np.zeros(U), 2), targets, LABELS, 0)
    assert table.set_index("class").loc["fear"].drop("n_heads").isna().all()
    assert table.set_index("class").drop("fear")["p"].notna().all()


@pytest.mark.slow
def test_another_seed_draws_other_texts(study, prompted, monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.prompt.heads.TEXTS", 30)
    texts = {split: study.texts[split] for split in ("val", "test")}
    setting = Setting(FEELING)
    one, other = (measure_heads(study, prompted, setting, texts, CONTEXTS, tmp_path, seed) for seed in (0, 1))
    overall = "split == 'test' and metric == 'log_prob' and `class` == 'all'"
    assert set(one.effects.query(overall)["n"]) == {30}
    assert not np.allclose(one.effects.query(overall)["baseline"], other.effects.query(overall)["baseline"])


def test_a_run_that_answers_in_label_words_is_compared_as_it_was_trained(study, prompted, monkeypatch, tmp_path):
    """Its classifier is the language model, and reads its own prompts: the same as the prompt without a correction."""
    asked = make_prompt_study(study, prompted, FEELING, (), seed=0)
    run = replace(study, clf=asked.clf, template=FEELING, texts={**asked.texts, "train": study.texts["train"]})
    monkeypatch.setattr(Study, "without_template", lambda self: study)
    heads = ask(run, prompted, tmp_path)
    pairs = heads.effects.query("split == 'test' and metric == 'specific_margin'")
    direct, classifier = (pairs[pairs["correction"] == name]["baseline"] for name in ("direct", CLASSIFIER))
    np.testing.assert_allclose(direct, classifier, rtol=1e-5)
