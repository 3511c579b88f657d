"""Which pairs of texts are made, which are kept, and what is refused."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from commands import line_of
from hypothesis import given
from hypothesis import strategies as st

import verify
from data.words import Word
from experiments.patch import pairs
from experiments.patch.pairs import (
    BOS,
    GAP,
    Pair,
    check_texts,
    choose_balanced,
    compare_answers,
    copy_case,
    last_logits,
    pair_ioi_prompts,
    pair_prompts,
    pair_test_texts,
    pair_texts,
    replace_words,
)
from lab.device import Device
from lab.study import Study, open_study
from lab.texts import Texts
from model import GPT2LM, GPT2Classifier, GPT2Config, Tokenizer

TOKENIZER = Tokenizer.load("gpt2-mini")
CPU = Device(torch.device("cpu"), "fp32")
COLUMNS = ["pair", "split", "clean", "corrupt", "clean_class", "corrupt_class", "position", "gap", "kept", "why"]
LABELS = ["good", "Bad_poor", "fair"]  # none of them has a list, so these words are looked for


def study_of(*labelled, n_ctx=30, labels=LABELS):
    """A study of test texts with class numbers, and of an untrained classifier that calls the classes G, B and F."""
    torch.manual_seed(0)
    clf = GPT2Classifier(GPT2Config(1, 2, 6, n_ctx=n_ctx), ["G", "B", "F"]).eval()
    strings, targets = [text for text, _ in labelled], np.array([k for _, k in labelled])
    sequences = [TOKENIZER.encode(text)[-n_ctx:] for text in strings]
    test = Texts("test", np.arange(len(strings)), strings, sequences, targets)
    corpus = SimpleNamespace(name="corpus.csv", labels=labels)
    return Study(None, {}, clf, TOKENIZER, corpus, {"test": test}, CPU, "")


def read_as(monkeypatch, logits):
    """The network gives each text the logits that `logits` has for it."""

    def last_logits(model, sequences, device):
        return np.array([logits(TOKENIZER.decode([id_ for id_ in ids if id_ != BOS])) for ids in sequences])

    monkeypatch.setattr(pairs, "last_logits", last_logits)


@pytest.fixture(scope="module")
def language_model():
    torch.manual_seed(0)
    lm = GPT2LM(GPT2Config(1, 2, 6, n_ctx=20)).eval()
    torch.nn.init.normal_(lm.trunk.wpe.weight)  # or all texts would end alike
    return lm


@pytest.fixture(scope="module")
def prompts():
    facts = json.loads(Path(verify.FACTS).read_text(encoding="utf-8"))
    return next(fact["inputs"]["prompts"] for fact in facts if fact["fact"] == "IOI: mean of the 8 prompts")


def test_the_candidates_by_hand():
    study = study_of(
        ("a Good day, GOOD poor goodness", 0),  # " POOR" and " FAIR" are two tokens
        ("good's #good", 0),  # other words
        ("a good day", 1),  # of another class
        ("a poor fair", 1),
        ("a good day", 0),
        ("a good day", 0),  # nothing new
    )
    candidates = replace_words(study)
    expected = [
        ("a Good day, GOOD poor goodness", "a Bad day, GOOD poor goodness", ("G", "B"), (0, 1), [1]),
        ("a Good day, GOOD poor goodness", "a Poor day, GOOD poor goodness", ("G", "B"), (0, 1), [1]),
        ("a Good day, GOOD poor goodness", "a Fair day, GOOD poor goodness", ("G", "F"), (0, 2), [1]),
        ("a Good day, GOOD poor goodness", "a Good day, BAD poor goodness", ("G", "B"), (0, 1), [4]),
        ("a poor fair", "a good fair", ("B", "G"), (1, 0), [1]),
        ("a poor fair", "a fair fair", ("B", "F"), (1, 2), [1]),
        ("a good day", "a bad day", ("G", "B"), (0, 1), [1]),
        ("a good day", "a poor day", ("G", "B"), (0, 1), [1]),
        ("a good day", "a fair day", ("G", "F"), (0, 2), [1]),
    ]
    assert [(p.clean, p.corrupt, p.names, p.answers, p.positions) for p in candidates] == expected
    assert [pair.number for pair in candidates] == list(range(9))
    assert {pair.split for pair in candidates} == {"test"}
    for pair in candidates:
        assert [TOKENIZER.decode(pair.clean_ids), TOKENIZER.decode(pair.corrupt_ids)] == [pair.clean, pair.corrupt]


def test_the_words_are_those_of_the_lists_of_labels():
    candidates = replace_words(study_of(("so happy", 0), ("glad to be", 1), labels=["joy", "Fear", "good"]))
    expected = ["fear", "fears", "feared", "fearful", "afraid", "scared", "frightened", "good"]  # fearfully: 2 tokens
    assert [pair.corrupt for pair in candidates] == [f"so {word}" for word in expected]


def test_a_word_of_two_classes_is_no_new_word():
    candidates = replace_words(study_of(("so good", 0), labels=["very_good", "good_bad", "fair"]))
    assert [(pair.corrupt, pair.names[1]) for pair in candidates] == [("so bad", "B"), ("so fair", "F")]


def test_other_tokens_than_those_of_the_word_must_not_change(monkeypatch):
    assert replace_words(study_of(("so good", 0)))
    monkeypatch.setattr(pairs, "words", lambda text, tokenizer: [Word("good", 3, 7, (0,))])
    assert replace_words(study_of(("so good", 0))) == []


def test_a_text_of_which_only_the_end_is_read_is_left_out():
    labels = ["Humiliated", "good", "sad"]
    assert TOKENIZER.encode(" Humiliated by me")[2:] == TOKENIZER.encode(" Good by me")[1:]  # alike but for one token
    assert replace_words(study_of((" Humiliated by me", 0), n_ctx=3, labels=labels)) == []
    assert replace_words(study_of(("so good a day", 1), n_ctx=3, labels=labels)) == []
    assert len(replace_words(study_of(("so good a day", 1), n_ctx=4, labels=labels))) == 2


@pytest.mark.parametrize(
    ("word", "new", "expected"),
    [("sad", "happy", "happy"), ("Sad", "happy", "Happy"), ("SAD", "happy", "HAPPY"), ("A", "happy", "Happy")],
)
def test_a_replaced_word_keeps_its_capitals(word, new, expected):
    assert copy_case(word, new) == expected


def logits_by_hand(text):
    """G where the text has good, B where it has bad or poor, else F; sure of it only where it has no day."""
    k = 0 if "good" in text else 1 if "bad" in text or "poor" in text else 2
    return np.eye(3)[k] * (0.2 if "day" in text else 2)


def test_pairs_are_kept_by_hand(monkeypatch):
    read_as(monkeypatch, logits_by_hand)
    study = study_of(("a good day", 0), ("so good", 0), ("Good one", 0), ("good fair bad", 2))
    kept, table = pair_test_texts(study, 64, 0)
    assert list(table) == COLUMNS
    assert table["pair"].tolist() == list(range(12))
    rows = table.set_index("corrupt")
    for word in ("bad", "poor", "fair"):
        assert rows.loc[f"a {word} day", "why"] == "gap below 0.5"
        assert rows.loc[f"a {word} day", "gap"] == pytest.approx(0.4)
    assert rows.loc["Bad one", "why"] == "the clean text is read as F, not G"
    assert rows.loc["so fair", ["clean", "clean_class", "corrupt_class", "position", "gap"]].tolist() == [
        "so good", "G", "F", 1, 4
    ]  # fmt: skip
    assert rows.loc["so fair", "why"] == ""
    bad_or_poor = sorted(rows.loc[["so bad", "so poor"], "why"])
    assert bad_or_poor == ["", "another pair of this text and class is kept"]
    assert rows.loc["good good bad", "why"] == "the clean text is read as G, not F"
    assert kept == [pair for pair in replace_words(study) if table["kept"][pair.number]]
    assert table["kept"].tolist() == [not why for why in table["why"]]


def test_the_corrupt_text_must_be_read_right(monkeypatch):
    read_as(monkeypatch, lambda text: [2, 0, 1] if "good" in text else [0, 1, 2])
    _, table = pair_test_texts(study_of(("so good", 0)), 64, 0)
    assert table["why"].tolist() == ["the corrupt text is read as F, not B"] * 2 + [""]
    assert table["gap"].tolist() == [2 - -1, 2 - -1, 1 - -2]


def test_a_gap_of_half_a_nat_is_enough(monkeypatch):
    read_as(monkeypatch, lambda text: [0.25 * ("good" in text), 0.25 * ("bad" in text), 0.24 * ("fair" in text)])
    kept, table = pair_test_texts(study_of(("so good", 0)), 64, 0)
    assert table["gap"].tolist() == pytest.approx([0.5, 0.25, 0.49])
    assert [pair.corrupt for pair in kept] == ["so bad"]


def test_no_more_pairs_than_asked_for(monkeypatch):
    read_as(monkeypatch, logits_by_hand)
    kept, table = pair_test_texts(study_of(("so good", 0), ("be good", 0), ("my good", 0)), 2, 0)
    assert len(kept) == table["kept"].sum() == 2
    assert len({pair.clean for pair in kept}) == len({pair.answers for pair in kept}) == 2
    rest = table[~table["kept"]]
    assert set(rest["why"]) == {"--pairs 2 is reached", "another pair of this text and class is kept"}
    done = {(pair.clean, pair.names[1]) for pair in kept}
    for _, row in rest.iterrows():
        assert ((row["clean"], row["corrupt_class"]) in done) == row["why"].startswith("another")


def candidate(number, clean, clean_class, corrupt_class):
    """A pair of which only these matter, and its number, which makes its texts different."""
    return Pair(number, "test", clean, f"{clean} {number}", [], [], (clean_class, corrupt_class), ("", ""))


candidates_drawn = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 2), st.integers(0, 2)), max_size=14).map(
    lambda rows: [candidate(n, *row) for n, row in enumerate(rows)]
)


def choose_by_elimination(candidates, most, seed):
    """The numbers of the pairs that are chosen, one rule after the other."""
    chosen = []
    while len(chosen) < most:
        done = [(pair.clean, pair.answers[1]) for pair in chosen]
        left = [pair for pair in candidates if (pair.clean, pair.answers[1]) not in done]
        if not left:
            break
        for part in (lambda p: p.clean, lambda p: p.answers[0], lambda p: p.answers[1]):
            times = Counter(map(part, chosen))
            least = min(times[part(pair)] for pair in left)
            left = [pair for pair in left if times[part(pair)] == least]
        chosen.append(min(left, key=lambda p: sha256(repr((seed, p.clean, p.corrupt)).encode()).digest()))
    return {pair.number for pair in chosen}


@given(candidates_drawn, st.integers(1, 15), st.integers(0, 3), st.randoms())
def test_the_choice_is_that_of_plain_elimination_in_any_order(candidates, most, seed, random):
    why = choose_balanced(candidates, most, seed)
    chosen = {number for number, reason in why.items() if not reason}
    assert chosen == choose_by_elimination(candidates, most, seed)
    assert len(chosen) <= most
    done = [(pair.clean, pair.answers[1]) for pair in candidates if pair.number in chosen]
    assert len(set(done)) == len(done)
    for pair in candidates:
        again = pair.number not in chosen and (pair.clean, pair.answers[1]) in done
        assert why[pair.number].startswith("another pair") == again
    assert choose_balanced(random.sample(candidates, len(candidates)), most, seed) == why


def test_texts_and_classes_take_turns_whatever_the_seed():
    rows = [("a", 0, 1), ("a", 0, 2), ("a", 0, 2), ("b", 0, 1), ("c", 1, 2), ("c", 1, 0)]
    candidates, seen = [candidate(n, *row) for n, row in enumerate(rows)], set()
    for seed in range(20):
        why = choose_balanced(candidates, 3, seed)
        chosen = [pair for pair in candidates if not why[pair.number]]
        assert sorted(pair.clean for pair in chosen) == ["a", "b", "c"]
        first_two = choose_balanced(candidates, 2, seed)
        assert sorted(pair.answers[0] for pair in candidates if not first_two[pair.number]) == [0, 1]
        seen.add(tuple(pair.number for pair in chosen))
    assert len(seen) > 1


def test_no_candidates_and_no_pairs_are_refused(monkeypatch):
    line = line_of(pair_test_texts, study_of(("a day", 0), ("a good day", 1)), 64, 0)
    assert "corpus.csv" in line
    assert "good: good ...; Bad_poor: bad poor ...; fair: fair ..." in line
    assert '--clean "..." --corrupt "..."' in line
    read_as(monkeypatch, lambda text: logits_by_hand(text) * ("poor" not in text) + [0, 0.01 * ("poor" in text), 0])
    study = study_of(("a good day", 0), ("Good one", 0), ("x good sad", 0), ("fair good day", 2))
    monkeypatch.setattr(pairs, "GAP", 10)
    line = line_of(pair_test_texts, study, 64, 0)
    n, clean = len(replace_words(study)), 3 + 3
    assert f"none of {n} pairs" in line
    assert f"{clean} times it misreads the clean text, 0 times the corrupt one, {n - clean} gaps are below 10" in line
    assert '--clean "..." --corrupt "..."' in line


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("a", None, None), "--clean alone"),
        ((None, "b", ("x", "y")), "--corrupt alone"),
        (("", "b", None), "empty"),
        (("a", "", None), "empty"),
        ((None, None, ("x", "y")), "--answers: expected two texts"),
        (("a", "b", ("x", "x")), "'x' twice"),
    ],
)
def test_options_that_make_no_pair_are_refused(texts, expected):
    assert expected in line_of(check_texts, *texts)


@pytest.mark.parametrize("texts", [(None, None, None), ("a", "b", None), ("a", "b", ("x", "y"))])
def test_options_that_make_a_pair_pass(texts):
    check_texts(*texts)


def test_two_texts_are_compared_by_the_classes_that_they_are_read_as(monkeypatch):
    read_as(monkeypatch, lambda text: {"so fair": [0.1, 0, 0.3], "so bad": [0, 0.5, 0.125]}[text])
    kept, table = pair_texts(study_of(), "so fair", "so bad", None)
    ids = TOKENIZER.encode("so fair"), TOKENIZER.encode("so bad")
    assert kept == [Pair(0, "", "so fair", "so bad", *ids, (2, 1), ("F", "B"))]
    expected = [0, "", "so fair", "so bad", "F", "B", 1, 0.3 - (0.125 - 0.5), True, ""]
    assert table.to_numpy().tolist() == [expected]
    assert list(table) == COLUMNS


def test_answers_are_the_names_of_the_corpus_and_may_be_wrong(monkeypatch):
    read_as(monkeypatch, lambda text: {"so fair": [0.1, 0, 0.3], "so bad": [0, 0.5, 0.25]}[text])
    [pair], table = pair_texts(study_of(), "so fair", "so bad", ("Bad_poor", "good"))
    assert (pair.answers, pair.names) == ((1, 0), ("B", "G"))
    assert table["gap"].tolist() == [pytest.approx(-0.1 - 0.5)]
    assert table["kept"].tolist() == [True]
    line = line_of(pair_texts, study_of(), "so fair", "so bad", ("B", "good"))
    assert line == "--answers: expected two of good, Bad_poor, fair, got B"


def test_texts_of_one_class_need_answers(monkeypatch):
    read_as(monkeypatch, lambda text: [0, 1, 0])
    line = line_of(pair_texts, study_of(), "so fair", "so bad", None)
    assert "both texts are read as Bad_poor" in line
    assert "--answers A B" in line
    [pair], table = pair_texts(study_of(), "so fair", "so bad", ("good", "fair"))
    assert pair.answers == (0, 2)
    assert table["gap"].tolist() == [0]


def test_texts_that_cannot_be_paired_are_refused(language_model):
    study = study_of(n_ctx=7)
    assert "the same twice" in line_of(pair_texts, study, "so bad", "so bad", None)
    long = "one two three four five six seven"
    line = line_of(pair_texts, study, f"{long} eight", f"{long} nine", None)
    assert "at most 7 tokens, got 8" in line
    assert "at most 7 tokens, got 8" in line_of(pair_texts, study, "one", f"{long} eight", None)
    assert pair_texts(study, long, "one two three four five six eight", ("good", "fair"))[0]
    line = line_of(pair_prompts, language_model, TOKENIZER, "a" + " a" * 19, "b" + " a" * 19, (" a", " b"), CPU)
    assert "at most 19 tokens, got 20" in line


def test_texts_of_different_lengths_are_shown_token_by_token(capsys):
    line = line_of(pair_texts, study_of(), "I am  happy 👍", "I am  Humiliated 👍", None)
    assert "got 6 and 7" in line
    assert [text.rstrip() for text in capsys.readouterr().out.splitlines()] == [
        "clean   'I' ' am' ' ' ' happy' ' 👍'     '👍'",
        "corrupt 'I' ' am' ' ' ' Hum'   'iliated' ' 👍' '👍'",
        "                      ^",
    ]


def test_a_text_that_goes_on_is_marked_where_the_other_ends(capsys):
    shown = ["'so' ' bad'", "'so' ' bad' '\\n'"]
    for texts, rows, n in (
        (("so bad", "so bad\n"), shown, "2 and 3"),
        (("so bad\n", "so bad"), shown[::-1], "3 and 2"),
    ):
        assert f"got {n}" in line_of(pair_texts, study_of(), *texts, None)
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert lines == [f"clean   {rows[0]}", f"corrupt {rows[1]}", " " * 20 + "^"]


def test_long_texts_are_shown_in_blocks(capsys, monkeypatch):
    monkeypatch.setattr(pairs.console, "_width", 30)
    line_of(pair_texts, study_of(), "one two three four five", "one two three four five six", None)
    assert capsys.readouterr().out.splitlines() == [
        "clean   'one' ' two' ' three'",
        "corrupt 'one' ' two' ' three'",
        "",
        "' four' ' five'",
        "' four' ' five' ' six'",
        "                ^",
    ]


def test_ioi_prompts_are_those_of_the_facts(monkeypatch, language_model, prompts):
    read_as(monkeypatch, giver_is_avoided)
    kept, table = pair_ioi_prompts(language_model, TOKENIZER, CPU)
    assert [(pair.clean, *pair.names) for pair in kept] == [tuple(prompt) for prompt in prompts]
    assert [pair.corrupt for pair in kept] == [prompts[n][0] for n in (1, 0, 3, 2, 5, 4, 7, 6)]
    ids, answers = verify.encoded_prompts(language_model, TOKENIZER, prompts)
    assert [pair.clean_ids for pair in kept] == ids.tolist()
    assert [pair.corrupt_ids for pair in kept] == ids[[1, 0, 3, 2, 5, 4, 7, 6]].tolist()
    assert [list(pair.answers) for pair in kept] == answers.tolist()
    assert list(table) == COLUMNS
    assert table["gap"].tolist() == [2] * 8
    assert table["clean_class"].tolist() == [right for _, right, _ in prompts]
    assert set(table["position"]) == {10}  # of the facts: "resid_pre S2 (position 10)"


def giver_is_avoided(text):
    """Of two names in a text, the one that comes twice gets -1 and the other one 0."""
    logits = np.zeros(50257)
    [giver] = [name for name in ("John", "Mary", "Tom", "James", "Dan", "Sid", "Martin", "Amy") if text.count(name) > 1]
    logits[TOKENIZER.encode(f" {giver}")] = -1
    return logits


def test_ioi_prompts_need_both_answers_right_and_a_gap(monkeypatch, language_model):
    mary, sid, dan = (TOKENIZER.encode(name)[0] for name in (" Mary", " Sid", " Dan"))

    def logits(text):
        values = giver_is_avoided(text)
        if "John and Mary" in text:
            values[mary] += 1.5  # " Mary" is preferred after both
        if "Dan and Sid" in text:
            values[[dan, sid]] *= 0.1
        return values

    read_as(monkeypatch, logits)
    kept, table = pair_ioi_prompts(language_model, TOKENIZER, CPU)
    assert [pair.number for pair in kept] == [2, 3, 6, 7]
    assert table["gap"].tolist() == pytest.approx([2, 2, 2, 2, 0.2, 0.2, 2, 2])
    assert table["why"].tolist() == [
        "the corrupt text prefers Mary, not John",
        "the clean text prefers Mary, not John",
        *("", "", "gap below 0.5", "gap below 0.5", "", ""),
    ]
    read_as(monkeypatch, lambda text: np.zeros(50257))
    line = line_of(pair_ioi_prompts, language_model, TOKENIZER, CPU)
    assert "none of 8 pairs" in line
    assert "8 times it misreads the clean text, 0 times the corrupt one, 0 gaps" in line
    assert '--clean "..." --corrupt "..."' in line


def test_two_prompts_are_read_by_the_model_after_bos(language_model):
    answers = (" Mary", " John")
    [pair], table = pair_prompts(language_model, TOKENIZER, "Ask Tom for", "Ask Amy for", answers, CPU)
    ids, [[mary, john]] = verify.encoded_prompts(language_model, TOKENIZER, [["Ask Tom for", *answers]])
    assert pair.clean_ids == ids[0].tolist() == [BOS, *TOKENIZER.encode("Ask Tom for")]
    assert (pair.answers, pair.names, pair.positions) == ((mary, john), answers, [2])
    clean, corrupt = (language_model(torch.tensor([row]))[0, -1] for row in (pair.clean_ids, pair.corrupt_ids))
    gap = (clean[mary] - clean[john]) - (corrupt[mary] - corrupt[john])
    assert table["gap"].tolist() == [pytest.approx(gap.item(), rel=1e-4)]
    assert table[["pair", "split", "position", "kept"]].to_numpy().tolist() == [[0, "", 2, True]]


def test_answers_of_a_language_model_are_single_tokens(language_model):
    line = line_of(pair_prompts, language_model, TOKENIZER, "a", "b", (" Mary", "Humiliated"), CPU)
    assert "'Humiliated', which is 'Hum' 'iliated'" in line
    assert '" Mary"' in line
    assert "'', which is none" in line_of(pair_prompts, language_model, TOKENIZER, "a", "b", ("", " Mary"), CPU)
    assert "--answers" in line_of(pair_prompts, language_model, TOKENIZER, "a", "b", None, CPU)


def test_a_language_model_without_bos_is_refused():
    lm = GPT2LM(GPT2Config(1, 1, 2, n_ctx=20, vocab_size=50256))
    assert "token 50256, got 50256 tokens" in line_of(pair_ioi_prompts, lm, TOKENIZER, CPU)


def test_logits_are_those_of_a_plain_loop(language_model):
    sequences = [[5, 6, 7], [8], [5, 6, 7], [9, 5], [50256, 4, 3, 2]]
    study = study_of()
    for model in (study.clf, language_model):
        logits = last_logits(model, sequences, CPU)
        assert logits.dtype == np.float32
        with torch.no_grad():
            expected = [model(torch.tensor([ids])).reshape(-1, logits.shape[1])[-1].numpy() for ids in sequences]
        np.testing.assert_allclose(logits, np.stack(expected), atol=1e-5)


def test_the_answers_are_compared_by_hand():
    logits = np.array([[[1, 2, 4], [8, 16, 32]], [[0, 0, 1], [5, 3, 1]]], dtype=np.float32)
    two = [Pair(0, "", "", "", [], [], (2, 0), ("", "")), Pair(1, "", "", "", [], [], (0, 1), ("", ""))]
    assert compare_answers(logits, two).tolist() == [[3, 24], [0, 2]]


def test_the_pairs_of_a_trained_run_are_read_right(here):
    study = open_study("one", CPU)
    kept, table = pair_test_texts(study, 5, 0)
    again, same = pair_test_texts(study, 5, 0)
    assert kept == again
    pd.testing.assert_frame_equal(table, same)
    assert len(kept) == 5
    assert len({pair.answers[0] for pair in kept}) == 3
    for pair in kept:
        m = []
        for ids, answer in zip((pair.clean_ids, pair.corrupt_ids), pair.answers, strict=True):
            logits = study.clf(torch.tensor([ids]))[0]
            assert logits.argmax() == answer
            m.append((logits[pair.answers[0]] - logits[pair.answers[1]]).item())
        assert table["gap"][pair.number] == pytest.approx(m[0] - m[1], rel=1e-4)
        assert m[0] - m[1] >= GAP
        assert table["position"][pair.number] == pair.positions[0]
        assert pair.clean in study.texts["test"].strings
