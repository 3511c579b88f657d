"""Settings with examples: what rotates, what differs, what is nearest, and what is too long."""

from collections import Counter

import numpy as np
import pytest
import torch
from planted_lm import LABELS, TOKENIZER, open_planted, plant_lm, write_texts

from data.prompts import Template, read_templates
from experiments.prompt.demonstrations import (
    check_fit,
    draw_settings,
    find_nearest_settings,
    list_orders,
    rank_neighbours,
    tabulate_demonstrations,
)
from experiments.prompt.scoring import Setting
from lab.label_words import LabelWords
from lab.prompts import Demonstration
from lab.texts import Texts
from model import GPT2LM, GPT2Config, InputError

TEMPLATE = read_templates(["it_was"])[0]


def words_of(K: int) -> LabelWords:
    names = [f"class {k}" for k in range(K)]
    return LabelWords(tuple(names), tuple((name,) for name in names), tuple(((k,),) for k in range(K)))


def pool_of(K: int, n: int = 60) -> list[Demonstration]:
    return [Demonstration(i, f"text {i}", i % K) for i in range(n)]


def texts_of(split, strings) -> Texts:
    return Texts(split, np.arange(len(strings)) + 7, list(strings), [[0]] * len(strings), np.zeros(len(strings), int))


def test_the_last_class_rotates_over_the_draws():
    words = words_of(5)
    settings = draw_settings(TEMPLATE, pool_of(5), 3, 10, words, 0)
    assert Counter(each.find_last_class(words) for each in settings) == dict.fromkeys(words.labels, 2)
    assert [(each.shots, each.draw, each.order) for each in settings] == [(3, str(n), "0") for n in range(10)]
    assert len({each.name for each in settings}) == 10


@pytest.mark.parametrize(
    ("K", "examples", "n", "last"),
    [(2, 4, 24, [12, 12]), (3, 3, 6, [2] * 3), (4, 4, 24, [6] * 4), (5, 5, 24, [5, 5, 5, 5, 4]), (6, 6, 24, [4] * 6)],
)
def test_the_orders_are_different_ones_of_the_same_examples(K, examples, n, last):
    words, pool = words_of(K), pool_of(K)
    settings = list_orders(TEMPLATE, pool, words, 0)
    orders = [each.demonstrations for each in settings]
    assert len(set(orders)) == len(orders) == n
    assert {frozenset(order) for order in orders} == {frozenset(orders[0])}
    assert len(orders[0]) == examples
    assert sorted(Counter(each.find_last_class(words) for each in settings).values(), reverse=True) == last
    assert [(each.draw, each.order) for each in settings] == [("orders", str(i)) for i in range(n)]
    assert orders[0] == draw_settings(TEMPLATE, pool, settings[0].shots, 1, words, 0)[0].demonstrations


def test_no_order_is_drawn_twice_with_any_seed():
    for seed in range(9):
        assert len({each.demonstrations for each in list_orders(TEMPLATE, pool_of(5), words_of(5), seed)}) == 24


def test_the_seed_decides_the_orders():
    one, same, other = (list_orders(TEMPLATE, pool_of(6), words_of(6), seed) for seed in (0, 0, 1))
    assert [each.demonstrations for each in one] == [each.demonstrations for each in same]
    places = [
        [[each.target for each in setting.demonstrations] for setting in settings[1:]] for settings in (one, other)
    ]
    assert places[0] != places[1]


@pytest.fixture
def random_lm():
    """A language model with random weights, opened for prompts."""
    torch.manual_seed(0)
    return open_planted(GPT2LM(GPT2Config(2, 3, 12, n_ctx=64, vocab_size=50257)).eval().requires_grad_(False))


def test_the_nearest_examples_are_those_of_a_plain_loop(random_lm, tmp_path):
    train = write_texts("train", 40)
    pool = [Demonstration(3 * i, text, i % 3) for i, text in enumerate(train.strings)]
    texts = {"val": write_texts("val", 3), "test": write_texts("test", 5)}
    planted = "Nobody" + texts["test"].strings[2][3:]  # nearly the same, but for the first token
    pool[17] = Demonstration(51, planted, 2)

    def embed(text):
        ids = TOKENIZER.encode(text)
        x = random_lm.lm.trunk(torch.tensor([ids]))[0].double()
        return sum(x[t] for t in range(1, len(ids))) / (len(ids) - 1)

    centre = sum(embed(each.text) for each in pool) / len(pool)
    near_to_far, far_to_near = find_nearest_settings(TEMPLATE, pool, texts, random_lm, 2, tmp_path, 0)
    for split, each in texts.items():
        for i, text in enumerate(each.strings):
            vector = embed(text) - centre
            cosines = {d: torch.cosine_similarity(vector, embed(d.text) - centre, dim=0).item() for d in pool}
            expected = tuple(sorted(cosines, key=cosines.__getitem__, reverse=True)[: 2 * 3])
            assert near_to_far.nearest[split][i] == expected
            assert far_to_near.nearest[split][i] == expected[::-1]
    assert near_to_far.nearest["test"][2][0].text == planted
    assert (near_to_far.draw, near_to_far.order) == ("nearest", "near_to_far")
    assert (far_to_near.draw, far_to_near.order) == ("nearest", "far_to_near")
    assert not near_to_far.demonstrations


def test_of_equally_near_ones_the_first_comes_first():
    vectors = np.array([[0, 2], [3, 0], [0, 1], [0, 0], [0, -1]], np.float32)  # the fourth is at the centre: cosine 0
    asked = np.array([[0, 1], [1, 0], [0, -3]], np.float32)
    assert list(rank_neighbours(asked, vectors, 4)) == [[0, 2, 1, 3], [1, 0, 2, 3], [4, 1, 3, 0]]


def test_more_neighbours_than_texts_are_refused(random_lm, tmp_path):
    with pytest.raises(InputError, match="--shots 7: expected 21 texts of train as examples, got 20"):
        find_nearest_settings(TEMPLATE, pool_of(3, 20), {}, random_lm, 7, tmp_path, 0)


# 5 tokens; with the template 7. As an example, 10: two line ends before, a label word behind.
POOL = [Demonstration(i, "the day was long again", i % 3) for i in range(60)]
TEXTS = {"val": texts_of("val", ["the day"] * 2), "test": texts_of("test", ["day", "we saw many people there"])}


def test_what_does_not_fit_is_refused_with_the_number_that_does():
    prompted = open_planted(plant_lm())  # reads 256 tokens
    settings = {shots: draw_settings(TEMPLATE, POOL, shots, 2, prompted.words, 0) for shots in (1, 8, 9)}
    check_fit([Setting(TEMPLATE), *settings[8]], TEXTS, prompted)  # 8 * 3 * 10 + 7 = 247
    with pytest.raises(InputError, match=r"--shots 9: .* at most 256 .* longest would have 277; at most --shots 8 fit"):
        check_fit([*settings[1], *settings[9]], TEXTS, prompted)
    for shots, expected in ((8, 247), (1, 37)):
        prompts = settings[shots][0].write_prompts(TEXTS["test"], prompted.words)
        assert max(map(len, prompted.encode(prompts))) == expected


def test_the_number_that_fits_is_that_of_the_first_examples_of_each_class():
    prompted, long = open_planted(plant_lm()), "the " * 75 + "day"  # 76 tokens, 81 as an example; "the" is 6
    texts, targets = ["the", long, "the", "the", "the", "the"], [0, 0, 1, 1, 2, 2]
    setting = Setting(TEMPLATE, 2, "0", "0", tuple(map(Demonstration, range(6), texts, targets)))
    test = {"test": texts_of("test", ["the " * 200 + "day"])}  # 201 tokens, 203 in the template
    with pytest.raises(InputError, match=r"would have 314; at most --shots 1 fit"):
        check_fit([setting], test, prompted)
    long_first = Setting(TEMPLATE, 2, "1", "0", setting.demonstrations[1::-1] + setting.demonstrations[2:])
    for settings in ([setting, long_first], [long_first, setting]):  # what fits, fits all
        with pytest.raises(InputError, match=r"at most --shots 0 fit"):
            check_fit(settings, test, prompted)
    # of the nearest, the nearest: one shot is three examples
    nearest = {"test": [setting.demonstrations]}
    for order, fits in (("near_to_far", 0), ("far_to_near", 1)):
        with pytest.raises(InputError, match=rf"--shots 2: .* would have 314; at most --shots {fits} fit"):
            check_fit([Setting(TEMPLATE, 2, "nearest", order, nearest=nearest)], test, prompted)


def test_a_text_that_does_not_fit_without_examples_is_said():
    test = {"test": texts_of("test", ["the " * 300])}
    with pytest.raises(InputError, match=r"--shots 0: .* a corpus of shorter texts"):
        check_fit([Setting(TEMPLATE)], test, open_planted(plant_lm()))


def test_each_example_is_listed_once():
    words, pool = words_of(3), pool_of(3)
    other = Template("other", "{text} so", "so")
    drawn = [each for template in (TEMPLATE, other) for each in draw_settings(template, pool, 1, 2, words, 0)]
    nearest = Setting(TEMPLATE, 1, "nearest", "far_to_near", nearest={"test": [tuple(pool[:3]), tuple(pool[3:6])]})
    settings = [Setting(TEMPLATE), *drawn, *list_orders(TEMPLATE, pool, words, 0), nearest]
    table = tabulate_demonstrations(settings, {"test": texts_of("test", ["a", "b"])}, LABELS)
    assert list(table) == ["shots", "draw", "order", "position", "index", "text", "label", "split", "for"]
    assert len(table) == 2 * 3 + 6 * 3 + 2 * 3
    first = table[(table["draw"] == "1") & (table["order"] == "0")]
    assert first["index"].tolist() == [each.index for each in drawn[1].demonstrations]
    assert first["label"].tolist() == [LABELS[each.target] for each in drawn[1].demonstrations]
    assert first["position"].tolist() == [0, 1, 2]
    assert first["for"].isna().all()
    assert set(first["split"]) == {""}
    of_text = table[table["draw"] == "nearest"]
    assert of_text["for"].tolist() == [7, 7, 7, 8, 8, 8]  # positions in test
    assert of_text["index"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(of_text["split"]) == {"test"}


def test_without_examples_the_table_is_empty():
    assert tabulate_demonstrations([Setting(TEMPLATE)], {}, LABELS).empty
