"""What the report says of tables whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from explained import (
    BEST,
    LABELS,
    RANDOM_NETWORK,
    make_compared,
    make_judged,
    make_results,
    make_robustness,
    make_sanity,
)

from experiments.explain.methods import METHODS, embed
from experiments.explain.methods import explain as explain_text
from experiments.explain.report import list_examples, measure_baseline, report, summarise_completeness
from lab.device import Device

CPU = Device(torch.device("cpu"), "fp32")
WORDS = {"test": ["so", "happy", "", "now"], "user": ["never", "mind"]}  # by split; one group is no word


def make_text(split: str, label: int | None, predicted: int) -> SimpleNamespace:
    probabilities = np.array([0.8, 0.2] if predicted == 0 else [0.2, 0.8])
    explanation = SimpleNamespace(sums={"integrated_gradients": (np.log([4.0, 1.0]), np.zeros(2))})
    parsed = SimpleNamespace(text=" ".join(WORDS[split]))
    text = SimpleNamespace(split=split, index=3, label=label, predicted=predicted, probabilities=probabilities)
    return SimpleNamespace(**vars(text), explanation=explanation, parsed=parsed)


TEXTS = [make_text("user", None, 1), make_text("test", 0, 0)]


def make_attributions() -> pd.DataFrame:
    """Of class k, group g of a text has the value (g + 1) * (1 - 2k), in two tokens."""
    rows = []
    for text in TEXTS:
        for method in METHODS:
            for group, word in enumerate(WORDS[text.split]):
                for k, label in enumerate(LABELS):
                    row = {"split": text.split, "index": 3, "token": "x", "word": word, "class": label, "group": group}
                    rows += 2 * [row | {"method": method, "value": (group + 1) / 2 * (1 - 2 * k)}]
    return pd.DataFrame(rows)


def make_completeness() -> pd.DataFrame:
    """Integrated gradients miss one class of one of two texts; gradient x input misses both texts."""
    rows = []
    for method, shares in (("gradient_x_input", [[0, 0.5], [2, 0]]), ("integrated_gradients", [[0.01, 0], [0, 0.03]])):
        for index, of_text in enumerate(shares):
            nodes = np.nan if method == "gradient_x_input" else [28, 70][index]
            for label, share in zip(LABELS, of_text, strict=True):
                row = {"split": "test", "index": index, "class": label, "method": method, "share": share}
                rows.append(row | {"nodes": nodes})
    return pd.DataFrame(rows)


def write(results, shuffled=""):
    tables = {"attributions": make_attributions(), "completeness": make_completeness()} | results
    return report(["run: x"], TEXTS, **tables, shuffled=shuffled)


def read_answer(page: str) -> str:
    return page.split("## The answer")[1].split("\n## ")[0]


def test_the_answer_names_the_best_method_and_those_that_are_as_good():
    page = write(make_results(BEST))
    answer = read_answer(page)
    assert "**The most faithful method here is integrated gradients.** Its tokens do 80% of what a search" in answer
    assert "surely better than random in 4 of 4 comparisons. Not surely worse: shapley." in answer
    none = next(line for line in answer.splitlines() if line.startswith("- No better"))
    assert none.endswith(
        ": gradient norm, leave one out hide, leave one out delete, direct contribution, attention, rollout."
    )
    assert "random, is no better than random tokens, as it should be." in answer
    assert "- 1 test text explained, 1 of them classified right; and 1 of yours" in page
    assert "nan" not in page.lower()
    assert "| integrated gradients | better | 0.80 | 0.80 | 0.80 | 4 of 4 | yes |" in page
    assert "*3.20 [3.10, 3.30]*" in page  # fill made it
    assert "| sad\\_ness | 20 | 3.20 [3.10, 3.30] |" in page


def test_where_no_method_is_better_than_random_nothing_is_praised():
    page = write(make_results({}))
    answer = read_answer(page)
    assert "**No method is surely better than random tokens here.**" in answer
    assert "most faithful" not in page
    assert answer.count("rollout") == 2  # no better than random; stays
    assert "None is better than random here" in page
    assert "By predicted class" not in page


def test_a_control_that_is_better_than_random_and_tied_is_a_warning():
    judged = make_judged(BEST | {RANDOM_NETWORK: 0.7}, [RANDOM_NETWORK])
    answer = read_answer(write(make_results(BEST) | {"judged": judged}))
    assert (
        "better than random tokens in 6 of 6 comparisons: some of what is measured here comes from the text" in answer
    )
    assert "and it is not surely worse than the best method." in answer
    assert "All other methods are surely worse." in answer


def test_too_few_texts_are_said_to_be_too_few():
    nothing = {"score": np.nan, "comprehensiveness": np.nan, "sufficiency": np.nan, "better_in": 0, "judged_in": 0}
    judged = make_judged({}).assign(verdict="not judged", tied=False, **nothing)
    sanity = make_sanity().assign(verdict="not judged", ci_low=np.nan, ci_high=np.nan)
    page = write(make_results({}) | {"judged": judged, "sanity": sanity})
    answer = read_answer(page)
    assert answer.count("Too few texts to judge: ") == 2
    assert "is not judged, as there are too few texts." in answer
    assert "No better than random" not in answer
    assert "**No method surely follows the network.**" in answer
    assert "nan" not in page.lower()


def test_the_answer_says_which_explanations_follow_the_network():
    page = write(make_results(BEST))
    answer = read_answer(page)
    assert "**7 of 10 methods follow the network**: gradient x input, integrated gradients" in answer
    assert "so they do not explain the class: attention, rollout." in answer
    assert "These do neither surely: gradient norm." in answer
    assert "is not among those that follow" not in answer
    assert "| rollout | stays | 1.00 [0.90, 1.10] | 0.60 [0.50, 0.70] | 0.050 |" in page
    assert "No network of shuffled labels was compared" in page
    sanity = make_sanity()
    sanity.loc[sanity["method"] == "integrated_gradients", "verdict"] = "partly"
    answer = read_answer(write(make_results(BEST) | {"sanity": sanity}))
    assert "The most faithful method, integrated gradients, is not among those that follow." in answer
    assert "was not measured: no text" in read_answer(write(make_results(BEST) | {"sanity": sanity.iloc[:0]}))


def test_shuffled_labels_have_a_column():
    page = write(make_results(BEST) | {"sanity": make_sanity(labels=True)}, shuffled="control_1")
    assert "network of run control\\_1, which was trained on labels" in page
    assert "| rollout | stays | 1.00 [0.90, 1.10] | 0.60 [0.50, 0.70] | 0.050 | 0.60 [0.50, 0.70] |" in page
    assert "No network of shuffled labels" not in page


def test_words_say_what_the_bag_of_words_does_not_see():
    page = write(make_results(BEST))
    answer = read_answer(page)
    assert "**In 2 of 2 classes the network ranks words surely as a bag of words does**" in answer
    assert "sees and the bag does not: glad: not (the other way), ! (no weight); sad\\_ness: not" in answer
    row = next(line for line in page.splitlines() if line.startswith("| glad | 6"))
    words = "happy 2.00 [1.90, 2.10], not 0.50 [0.40, 0.60], ! 0.40 [0.30, 0.50]"
    assert row == f"| glad | 6 | 4 | 2 | 0.90 (p 0.002, 5 words) | {words} |"
    results = make_results(BEST) | {"compared": make_compared(unseen=False, p=0.4)}
    answer = read_answer(write(results))
    assert "**In 0 of 2 classes the network ranks words surely as a bag of words does**" in answer
    assert "No word surely matters to the network that the bag does not know" in answer
    few = make_compared().assign(spearman=np.nan, p=np.nan, p_corrected=np.nan)
    answer = read_answer(write(make_results(BEST) | {"compared": few}))
    assert "whether they rank words alike was not measured" in answer
    nothing = make_compared(unseen=False).assign(sure=0, seen=0)
    assert "glad: no word surely matters." in write(make_results(BEST) | {"compared": nothing})
    empty = make_results(BEST)
    empty |= {name: empty[name].iloc[:0] for name in ("words", "compared", "robustness")}
    page = write(empty)
    assert "No word stands in enough texts" in read_answer(page)
    assert "words.png" not in page
    assert "robustness.png" not in page


def test_a_method_that_cannot_be_compared_is_not_called_worse():
    results = make_results(BEST)
    judged = results["judged"].assign(tied=results["judged"]["best"])
    assert "All other methods are surely worse." in read_answer(write(results | {"judged": judged}))
    judged.loc[judged["method"] == "attention", "score"] = np.nan
    answer = read_answer(write(results | {"judged": judged}))
    assert "The others that have a score are surely worse; attention cannot be compared." in answer


def test_the_answer_says_whether_accuracy_falls():
    answer = read_answer(write(make_results(BEST)))
    assert "**Without the 10 most important words of every class, accuracy goes from 0.90 to 0.60**" in answer
    assert "to 0.87. The difference is -0.27 [-0.30, -0.24]: the network surely needs these words" in answer
    assert "A bag of words goes from 0.88 to 0.65." in answer
    fewer = make_results(BEST) | {"robustness": make_robustness().assign(words=7)}
    assert "of every class (7, as no more have a positive value), accuracy" in read_answer(write(fewer))
    answers = {
        "not surely a difference": make_robustness(falls=False),
        "the random words surely cost more": make_robustness().assign(ci_low=0.01, ci_high=0.2),
        "from too few texts for limits": make_robustness().assign(ci_low=np.nan, ci_high=np.nan),
    }
    for said, robustness in answers.items():
        answer = read_answer(write(make_results(BEST) | {"robustness": robustness}))
        assert said in answer
        assert "surely needs" not in answer


def test_examples_are_words_that_speak_for_the_predicted_class():
    user, test = list_examples(make_attributions(), TEXTS, LABELS, "shapley")
    assert test["words"] == [{"word": "now", "value": 4}, {"word": "happy", "value": 2}, {"word": "so", "value": 1}]
    assert (test["predicted"], test["label"]) == ("glad", "glad")
    assert user["words"] == []  # all speak against it
    assert user["label"] is None
    assert "| never mind | sad\\_ness |  | none speaks for it |" in write(make_results(BEST))


def test_a_text_adds_up_if_all_its_classes_do():
    gradient, integrated = summarise_completeness(make_completeness())
    assert (gradient["within"], gradient["n"], gradient["worst"]) == (0, 2, 2)
    assert (integrated["within"], integrated["n"], integrated["worst"]) == (1, 2, 0.03)
    page = write(make_results(BEST))
    assert "| integrated gradients | 1 of 2 | 3.0% | 49, 70 |" in page
    assert "| gradient x input | 0 of 2 | 200.0% |  |" in page


def test_the_baseline_is_that_of_the_network(clf):
    ids = [3, 1, 4, 1, 5]
    parsed = SimpleNamespace(ids=ids, groups=np.arange(5))
    explanation = explain_text(clf, parsed, CPU, pairs=2)
    with torch.no_grad():
        p = clf(torch.tensor([ids]))[0].softmax(dim=0).numpy()
        _, baseline = embed(clf, ids, CPU)
        stream = clf.trunk.norm(clf.trunk.run(baseline[None]))
        expected = clf.read(stream)[0].softmax(dim=0).numpy()
    text = SimpleNamespace(probabilities=p, explanation=explanation)
    assert np.abs(expected - p).max() > 0.01
    np.testing.assert_allclose(measure_baseline([text, text]), [expected, expected], atol=1e-5)


@pytest.mark.parametrize("label", ["a|b", "*bold*", "<b>"])
def test_labels_and_words_cannot_break_the_page(label):
    results = make_results(BEST)
    results = {
        name: table.replace({"class": {"glad": label}, "word": {"happy": "a|b"}}) for name, table in results.items()
    }
    attributions = make_attributions().replace({"class": {"glad": label}, "word": {"happy": "a|b"}})
    page = write(results | {"attributions": attributions})
    assert "a\\|b 2.00" in page
    assert "".join(f"\\{c}" if c in "|*<>" else c for c in label) in page
