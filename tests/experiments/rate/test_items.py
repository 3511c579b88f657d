from collections import Counter
from dataclasses import asdict
from itertools import chain
from json import dumps, loads

import numpy as np
import pandas as pd
import pytest
from commands import line_of
from explained_files import EMOJI, LABELS, METHODS, write_explained

from experiments.rate.items import Items, RatedText, deal, draw_pairs, make_items, weigh_words
from experiments.rate.simulate import simulate_raters
from lab.output import write_csv

METHOD = "integrated_gradients"


def test_words_are_the_sums_of_their_tokens_for_the_class_predicted(explained, items):
    table = pd.read_csv(
        explained / "attributions.csv", keep_default_na=False, dtype={"class": str}, lineterminator="\n"
    )
    for text in items.texts:
        rows = table[(table["split"] == "test") & (table["index"] == text.index) & (table["class"] == text.predicted)]
        for method in METHODS:
            of_method = rows[rows["method"] == method].sort_values("position")["value"].to_numpy()
            felt, emoji = of_method[1] + of_method[2], of_method[-2] + of_method[-1]
            expected = [of_method[0], felt, *of_method[3:-2], emoji]
            assert text.values[method] == pytest.approx(expected)
        assert text.words[:2] == ["i", " felt"]
        assert text.words[-1] == f" {EMOJI}"
        assert text.real == [True] * (len(text.words) - 1) + [False]
        assert "".join(text.words) == text.text


def test_texts_are_read_as_they_were_written_and_none_is_a_users(items):
    assert len(items.texts) == 48
    assert items.labels == list(LABELS)
    assert {text.split for text in items.texts} == {"test"}
    joined = "".join(text.text for text in items.texts)
    assert all(odd in joined for odd in ("<img", "NA", '"quote"', "line\nbreak", "lone\rreturn", "שלום"))


def test_random_values_are_the_methods_own_on_other_words(items):
    shuffled = [text.values["random"] != text.values[METHOD] for text in items.texts]
    assert all(sorted(text.values["random"]) == sorted(text.values[METHOD]) for text in items.texts)
    assert np.mean(shuffled) > 0.9


def test_the_halves_have_the_same_classes_right_and_wrong_and_no_text_is_in_two_parts(items):
    first, second = (Counter(items.texts[i].cell for i in half) for half in zip(*items.pairs, strict=True))
    assert len(items.pairs) == 16
    assert first == second
    assert all(items.texts[i].cell == items.texts[j].cell for i, j in items.pairs)
    predicted = [*chain(*items.pairs)]
    assert len({*predicted, *items.examples}) == 48  # so none comes twice
    assert {*items.choices, *items.marked} <= {*predicted}
    assert not {*items.choices} & {*items.marked}
    assert (len(items.choices), len(items.marked)) == (20, 10)
    cells = Counter(items.texts[i].cell for i in items.examples)
    assert len(cells) == 6
    assert sorted(cells.values()) == [2, 2, 2, 2, 4, 4]  # of 8 each, after 3 pairs of four cells and 2 of two


def make_texts(*cells: tuple[str, bool]) -> list[RatedText]:
    return [RatedText("test", i, "", p if right else "?", p, [], [], {}) for i, (p, right) in enumerate(cells)]


def test_pairs_are_alike_as_far_as_can_be():
    rng = np.random.default_rng(0)
    texts = make_texts(("a", True), ("a", True), ("a", False), ("b", False), ("b", True), ("c", True))
    pairs, rest = draw_pairs(texts, 1, rng)
    assert [sorted(pair) for pair in pairs] == [[0, 1]]  # of one cell
    pairs, rest = draw_pairs(texts[1:], 2, rng)
    assert sorted(sorted(pair) for pair in pairs) == [[0, 1], [2, 3]]  # of one class
    assert rest == [4]
    right_first = [texts[1:][pair[0]].cell[1] for pair in pairs]
    assert sorted(right_first) == [False, True]  # one half is not the easier one
    pairs, rest = draw_pairs(texts[3:], 1, rng)
    assert [sorted(pair) for pair in pairs] == [[0, 1]]
    pairs, rest = draw_pairs(texts[4:], 1, rng)
    assert [sorted(pair) for pair in pairs] == [[0, 1]]  # any two


def count_classes(texts, among):
    return Counter(texts[i].predicted for i in among)


def test_all_classes_come_in_equal_shares_whatever_their_names():
    texts = make_texts(*(4 * [(label, right) for label in "abcdef" for right in (True, False)]))
    first_of = Counter()
    for seed in range(20):
        dealt = list(deal(texts, range(48), np.random.default_rng(seed)))
        assert sorted(dealt) == list(range(48))
        for n in (6, 10, 20):
            counts = count_classes(texts, dealt[:n])
            assert len(counts) == 6
            assert max(counts.values()) - min(counts.values()) <= 1
        right = sum(texts[i].cell[1] for i in dealt[:10])
        assert 4 <= right <= 6
        first_of[texts[dealt[0]].predicted] += 1
    assert len(first_of) > 3


def test_a_frequent_class_does_not_take_all_pairs():
    texts = make_texts(*38 * [("a", True)], *5 * [("b", True)], *5 * [("c", False)])
    for seed in range(5):
        pairs, rest = draw_pairs(texts, 16, np.random.default_rng(seed))
        assert count_classes(texts, chain(*pairs)) == {"a": 24, "b": 4, "c": 4}
        assert len({*chain(*pairs), *rest}) == 48


def test_texts_of_less_than_two_words_are_neither_compared_nor_marked(tmp_path):
    write_explained(tmp_path)
    path = tmp_path / "attributions.csv"
    table = pd.read_csv(path, keep_default_na=False, dtype=str, lineterminator="\n")
    number = table["index"].astype(int) // 7
    table.loc[number % 2 == 1, "word"] = ""
    table.loc[(number % 4 == 2) & (table["group"] != "0"), "word"] = ""
    write_csv(path, table)
    items = make_items(tmp_path, "one", METHOD, "random", 0)
    assert len([text for text in items.texts if sum(text.real) < 2]) == 36
    assert items.marked
    assert all(sum(items.texts[i].real) > 1 for i in items.choices + items.marked)
    simulate_raters(tmp_path, items, 2, 0.5)  # nobody is stuck


def test_explanations_that_look_alike_are_not_compared(tmp_path):
    write_explained(tmp_path)
    path = tmp_path / "attributions.csv"
    table = pd.read_csv(path, keep_default_na=False, dtype=str, lineterminator="\n")
    alike = table["index"].astype(int) // 7 % 2 == 1
    table.loc[alike & (table["method"] == "attention"), "value"] = "-2"
    table.loc[alike & (table["method"] == METHOD), "value"] = "1"
    table.loc[table["word"] == "felt", "value"] = "1e-9"  # of two tokens
    write_csv(path, table)
    for against in ("attention", "random"):
        items = make_items(tmp_path, "one", METHOD, against, 0)
        shown = [[items.texts[i].weigh(method) for method in (METHOD, against)] for i in items.choices]
        assert all(left != right for left, right in shown)
        assert len(shown) >= 5


def test_methods_stay_in_the_order_of_the_table():
    """A sort that is not stable mixes them, once there are some dozens of rows."""
    methods, n = [f"method {i}" for i in range(10)], 41
    about = {"split": "test", "index": 0, "text": "a" * n, "label": "joy", "predicted": "joy"}
    rows = [
        {"position": i, "start": i, "end": i + 1, "group": i, "word": "a", "method": method, "value": float(i)}
        for method in methods
        for i in range(n)
    ]
    text = weigh_words(about, pd.DataFrame(rows))
    assert list(text.values) == methods
    assert text.values["method 3"] == list(range(n))


def test_items_survive_json_and_their_version_says_what_they_are(explained, items):
    again = Items.from_json(loads(dumps(asdict(items))))
    assert asdict(again) == asdict(items)
    assert again.version == items.version
    assert make_items(explained, "one", METHOD, "random", 0).version == items.version
    others = [make_items(explained, "one", METHOD, "random", 1), make_items(explained, "one", METHOD, "attention", 0)]
    assert len({items.version, *(other.version for other in others)}) == 3


def test_fewer_texts_give_fewer_items_and_say_so(tmp_path, items):
    assert "would give" not in items.description
    write_explained(tmp_path, 20)
    few = make_items(tmp_path, "one", METHOD, "random", 0)
    assert (len(few.examples), len(few.pairs), len(few.choices), len(few.marked)) == (6, 6, 8, 4)
    assert "at least 48 texts would give 16 of each" in few.description


@pytest.mark.parametrize(
    ("break_files", "options", "line"),
    [
        (
            lambda folder: (folder / "texts.csv").unlink(),
            {},
            "texts.csv: there is no such file; run `make explain` first",
        ),
        (lambda folder: (folder / "attributions.csv").unlink(), {}, "attributions.csv: there is no such file"),
        (lambda folder: write_explained(folder, 11), {}, "expected at least 12 explained texts, got 11"),
        (lambda folder: None, {"method": "none"}, "--method none: expected one of integrated_gradients, attention"),
        (lambda folder: None, {"method": "random"}, "--method random: expected one of integrated_gradients"),
        (lambda folder: None, {"against": "none"}, "--against none: expected one of random, integrated_gradients"),
        (lambda folder: None, {"against": METHOD}, "expected another method"),
        (lambda folder: change(folder, "texts.csv", "i felt", "i feel"), {}, "does not fit texts.csv"),
        (lambda folder: change(folder, "attributions.csv", '"test",7,', '"test",8,'), {}, "does not fit texts.csv"),
    ],
)
def test_mistakes_are_one_line(tmp_path, break_files, options, line):
    write_explained(tmp_path, 12)
    break_files(tmp_path)
    options = {"method": METHOD, "against": "random"} | options
    assert line in line_of(make_items, tmp_path, "one", options["method"], options["against"], 0)


def change(folder, name, before, after):
    path = folder / name
    path.write_bytes(path.read_bytes().replace(before.encode(), after.encode()))
