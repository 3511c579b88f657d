"""The page of a paper: what was run, its scores, and what others published, from pretended runs."""

import dataclasses
import re

import pandas as pd
import pytest
from pretended import SETTINGS, measured

from experiments.paper import comparison, results
from experiments.paper.comparison import count_weights, list_differing
from experiments.paper.differences import compare_models, compare_starts
from experiments.paper.report import compare_with_bag, report
from model import GPT2Config

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 10, "n_ctx": 17, "vocab_size": 101}


def page(*runs, prompts=None):
    asked = pd.DataFrame() if prompts is None else prompts
    return write_page(runs, results.tidy(runs), asked)


def write_page(runs, table, prompts):
    return report(runs, table, compare_starts(runs), compare_models(runs), prompts, "python paper.py")


def test_rows_that_were_skipped_are_counted_with_their_corpus():
    run = measured("words", 1000)
    assert "- corpus: words, local files\n" in page(run)
    run.record["corpus"]["skipped"] = {"empty texts": 2, "blank lines": 1}
    assert "- corpus: words, local files, 2 empty texts skipped, 1 blank lines skipped\n" in page(run)


@pytest.mark.parametrize(
    ("corpus", "n", "expected"),
    [
        (
            "emotion",
            2000,
            {"tingtone/jq_emo_gpt* |  | *0.947* |", "distilbert-base-uncased-emotion* |  |  | *0.927* | *0.8825* |"},
        ),
        ("dair-ai/emotion/split", 2000, {"*0.947*", "*0.927*"}),
        (
            "owner/rotten_tomatoes",
            1066,
            {
                "*0.84 to 0.86*",
                "classifier and epochs* |  |  |  |  | *0.980089* | *0.911010* |",
                '*DistilBERT, frozen features: Zhang 2024, lecture "Interpreting contextual embeddings", whose slide '
                "does not say split, seed, pooling, classifier and epochs* |  |  |  |  | *0.918097* | *0.882378* |",
            },
        ),
        ("emotion", 1999, set()),
        ("emotion", 1066, set()),
        ("words", 2000, set()),
        ("emotion/words", 2000, set()),
        ("owner/super_emotion", 2000, set()),
    ],
)
def test_published_numbers_stand_beside_the_corpus_they_are_about(corpus, n, expected):
    text = page(measured(corpus, n))
    assert all(number in text for number in expected)
    assert bool(re.search(r"\| \*[^*]", text)) == bool(expected)


def test_only_published_weights_of_a_known_revision_are_official():
    model = {"name": "gpt2", "revision": "607a30d", "sha256": "248dfc"}
    official = page(measured("words", model=model))
    assert "gpt2, revision 607a30d, SHA-256 of the weights 248dfc\n" in official
    assert "official" not in official
    others = [
        {"model": model | {"revision": None}},
        {"model": model | {"name": "folder"}},
        {"model": {"name": "gpt2"}, "settings": SETTINGS | {"init": "random"}},
    ]
    for changes in others:
        assert "not results of official weights" in page(measured("words", **changes))


def test_the_page_names_both_starts():
    gpt2 = {"name": "gpt2", "revision": "607a30d", "sha256": "248dfc"}
    random = measured("words", model={"name": "gpt2"}, settings=SETTINGS | {"init": "random"})
    text = page(measured("words", model=gpt2), random)
    assert "- model: gpt2, revision 607a30d, SHA-256 of the weights 248dfc\n- model: gpt2 from random weights\n" in text
    assert "**Not all of these are results of official weights.**" in text
    assert "**These are not results of official weights.**" in page(measured("words"), random)


def test_runs_from_different_commits_or_devices_are_told():
    commits = [measured("words", git=commit, device="cpu") for commit in ("abc", "abc", "def")]
    text = page(*commits)
    assert "- commit: abc; for some of the runs: def\n" in text
    assert "- device: cpu\n" in text


def test_the_page_says_which_class_a_split_lacks():
    run = measured()
    assert "has no text of" not in page(run)
    run.metrics["test"]["per_class"]["fear"]["n"] = 0
    assert "\n- words: test has no text of fear; means over the classes leave that out\n" in page(run)


VAL_F1 = {"direct": 0.2, "zero_shot": 0.3, "few_shot": 0.4}  # none of an ensemble
PROMPTS = pd.DataFrame(
    {"corpus": corpus, "model": "tiny", "way": way, "shots": shots, "template": "i_feel", "verbalizer": "all words"}
    | {"correction": "domain_pmi", "prior": "train", "draws": draws, "metric": metric, "n": 300}
    | {"value": 0.25, "ci_low": 0.125, "ci_high": 0.375, "sd": 0.0625, "worst": 0.1875}
    | {"val_accuracy": 0.875, "val_macro_f1": VAL_F1.get(way), "test_roc_auc": 0.75}
    for corpus in ("owner/rotten_tomatoes", "emotion")
    for way, shots, draws in (("direct", 0, 1), ("zero_shot", 0, 1), ("all_templates", 0, 1), ("few_shot", 4, 5))
    for metric in ("macro_f1", "accuracy")
)


def read_prompts(*runs):
    return page(*runs, prompts=PROMPTS).split("## Without a head: prompts")[1]


def test_prompts_stand_beside_what_others_published_of_their_corpus():
    section = read_prompts(measured("owner/rotten_tomatoes", 1066), measured("emotion", 2000))
    rows = [row for row in section.splitlines() if row.startswith("|")]
    assert rows[2:8] == [
        "| owner/rotten\\_tomatoes (300) | tiny | no examples, no correction | i\\_feel, all words, domain pmi, "
        "train prior | 0.250 [0.125, 0.375] |  | 0.250 [0.125, 0.375] |",
        "|  |  | no examples, corrected | i\\_feel, all words, domain pmi, train prior | 0.250 [0.125, 0.375] |  "
        "| 0.250 [0.125, 0.375] |",
        "|  |  | 4 of each class: examples, corrected, mean over draws | i\\_feel, all words, domain pmi, train prior "
        "| 0.250 [0.125, 0.375] | 0.062, 0.188 | 0.250 [0.125, 0.375] |",
        rows[2].replace("owner/rotten\\_tomatoes", "emotion"),
        *rows[3:5],
    ]
    quoted = [row for row in rows if "*" in row]
    assert len(quoted) == 14
    assert "| corpus | network | prompt (examples: all together) | accuracy, % | source |" in section
    for network, accuracy in (("GPT-2 1.5B", 80.9), ("GPT-Neo 2.7B", 84.6)):
        assert f"| {network} | 8 examples, domain-context calibration | *{accuracy}* | Zhou et al. " in section
    assert all(row.startswith("| rotten\\_tomatoes | ") for row in quoted)
    assert (
        "| GPT-2 124M | 4 examples, mean (sd) of 5 seeds | *55.4 (7.4)* | Zhou et al. 2024, IDAICL, table 8 |"
        in section
    )
    assert "SST-2" in section


def test_prompts_on_another_sample_are_not_set_beside_published_ones():
    assert "Quoted" not in read_prompts(measured("owner/rotten_tomatoes", 1065))
    assert "Quoted" not in read_prompts(measured("emotion", 2000))


def test_the_prompt_that_is_best_on_val_stands_in_the_table_of_scores():
    prompts = PROMPTS.copy()
    prompts.loc[prompts["metric"] == "accuracy", ["value", "ci_low", "ci_high"]] = [0.5, 0.4375, 0.5625]
    prompts.loc[prompts["way"] == "few_shot", "draws"] = 5
    for draws in ("5 draws", ""):
        [row] = [line for line in page(measured("emotion"), prompts=prompts).splitlines() if "| prompt, " in line]
        name = "4 of each class: examples, corrected, mean over draws" if draws else "no examples, corrected"
        assert row == (
            f"|  | prompt, {name}: i\\_feel, all words, domain pmi, train prior (300 test texts) | {draws} | 0.875 "
            "| 0.500 [0.438, 0.562] | 0.250 [0.125, 0.375] |  | 0.750 |"
        )
        prompts.loc[prompts["way"] == "few_shot", "val_macro_f1"] = 0.1
    assert "| prompt, " not in page(measured("words"), prompts=prompts)
    assert "| prompt, " not in page(measured("emotion"))


def test_rows_stand_in_order_and_say_over_how_many_seeds():
    of_seeds = [
        measured(settings=SETTINGS | {"tune": tune, "seed": seed}) for tune in ("all", "head", 2) for seed in (0, 1)
    ]
    answers = measured(settings=SETTINGS | {"head": "words"})
    metrics = answers.metrics
    fitted = [
        results.Fitted("tiny", "pretrained", "words", "wte", None, "C = 1", metrics),
        results.Fitted("tiny", "pretrained", "words", "frozen", None, "after ln_f, last, C = 1", metrics),
    ]
    runs = [*of_seeds, answers]
    text = write_page(runs, results.tidy(runs, fitted), pd.DataFrame())
    rows = [row.split(" | ") for row in text.split("The runs were")[0].splitlines() if row.startswith("|")]
    assert rows[0][:3] == ["| corpus (texts: train / val / test)", "classifier", "seeds"]
    assert [row[1:3] for row in rows[2:]] == [
        ["tiny, frozen features + logistic regression: after ln_f, last, C = 1", ""],
        ["tiny, mean of wte + logistic regression: C = 1", ""],
        ["tiny, head alone tuned", "2"],
        ["tiny, last two blocks tuned", "2"],
        ["tiny, all weights tuned", "2"],
        ["tiny, label words, all weights tuned", "1"],
        ["best bag of words: the bag_of_words", ""],
        ["most frequent class", ""],
    ]
    area, (low, high) = metrics["test"]["macro_roc_auc"], metrics["test"]["intervals"]["macro_roc_auc"]
    assert rows[2][-1] == f"{area:.3f} [{low:.3f}, {high:.3f}] |"
    assert rows[4][-1].startswith(f"**{area:.3f}**<br>seed 0: {area:.3f} [{low:.3f}, ")
    assert "no row of label words" not in text
    assert "- words, tiny: no row of label words" in page(measured())


INTERVALS = {"frozen": [(0.3, 0.5)], "head": [(0.3, 0.49), (0.2, 0.4)], "2": [(0.3, 0.49), (0.4, 0.5)]}
INTERVALS |= {"all": [(0.71, 0.8), (0.8, 0.9)], "words": [(0.7, 0.8)]}


def test_a_sentence_says_what_a_bag_of_words_beats_only_where_no_intervals_overlap():
    bag = {"model": "bag_of_words", "init": "", "tune": "", "value": 0.6, "ci_low": 0.5, "ci_high": 0.7}
    rows = [bag | {"chosen": "one-grams"}] + [
        {"model": "tiny", "init": "pretrained", "tune": tune, "value": (low + high) / 2, "ci_low": low, "ci_high": high}
        for tune, intervals in INTERVALS.items()
        for low, high in intervals
    ]
    rows.append(rows[2] | {"init": "random", "value": 0.85, "ci_low": 0.8, "ci_high": 0.9})
    others = [row | {"metric": "accuracy", "ci_low": 0, "ci_high": 1} for row in rows]
    table = pd.DataFrame([row | {"metric": "macro_f1"} for row in rows] + others).assign(split="test")
    assert compare_with_bag("my_words", table) == (
        "my\\_words: the best bag of words, 0.600 [0.500, 0.700], is better than head alone tuned (0.348); worse than "
        "all weights tuned (0.802) or head alone tuned from random weights (0.850); not told apart by these texts from "
        "frozen features + logistic regression (0.400) or last two blocks tuned (0.422) or label words, all weights "
        "tuned (0.750)"
    )


def test_the_page_compares_the_networks_with_the_bag_of_words():
    run = measured()
    of_bag = run.metrics["baselines"]["bag_of_words"]["test"]
    for value, low, high, verdict in (
        (0.98, 0.95, 0.99, "better than"),
        (0.2, 0.1, 0.3, "worse than"),
        (0.6, 0.1, 0.95, "not told apart by these texts from"),
    ):
        of_bag["macro_f1"], of_bag["intervals"]["macro_f1"] = value, (low, high)
        score = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        f1 = run.metrics["test"]["macro_f1"]
        sentence = f"- words: the best bag of words, {score}, is {verdict} all weights tuned ({f1:.3f})\n"
        assert sentence in page(run)


def test_the_page_says_how_long_each_kind_was_trained():
    settings = [
        {"tune": "all", "init": "random", "epochs": 6, "lr": 1e-3, "dropout": 0.3},
        {"tune": "all", "seed": 0},
        {"tune": "all", "seed": 1},
        {"tune": "head", "epochs": 10, "lr": 3e-3, "dropout": 0.0},
    ]
    few = measured("few", settings=SETTINGS | {"lm_weight": 0.5})
    text = page(*(measured(settings=SETTINGS | each) for each in settings), few)
    table = text.split("The runs were trained with these settings:\n\n")[1].split("\n\n")[0].splitlines()
    assert table[2:] == [
        "| words | tiny | head alone tuned | pretrained | 10 | 0.003 | 0 | 0 |",
        "| words | tiny | all weights tuned | pretrained | 2 | 0.02 | 0.1 | 0 |",
        "| words | tiny | all weights tuned | random | 6 | 0.001 | 0.3 | 0 |",
        "| few | tiny | all weights tuned | pretrained | 2 | 0.02 | 0.1 | 0.5 |",
    ]


def of_models(*shapes, **settings):
    """A run of each of these shapes, of models "one_0", "one_1" and so on."""
    return [
        measured(
            settings=SETTINGS | {"model": f"one_{i}"} | settings,
            model={"name": f"one_{i}", "sha256": f"{i}" * 6, "shape": SHAPE | shape},
        )
        for i, shape in enumerate(shapes)
    ]


def test_weights_are_counted_as_by_hand():
    block = 2 * 2 * 10 + (10 * 30 + 30) + (10 * 10 + 10) + (10 * 40 + 40) + (40 * 10 + 10)
    assert count_weights(SHAPE) == (101 + 17) * 10 + 2 * block + 2 * 10


def of_presets(*names, **settings):
    """A run of each of these published networks."""
    return [
        measured(
            settings=SETTINGS | {"model": name} | settings,
            model={"name": name, "sha256": "0" * 6, "shape": GPT2Config.preset(name).describe()},
        )
        for name in names
    ]


def test_a_gpt_neo_beside_a_gpt2_differs_in_its_scores_its_biases_and_its_windows():
    """Not in dropout: train.py gave both the same, whatever their pretraining had."""
    neo = GPT2Config(2, 2, 10, 17, 101, scale_scores=False, qkv_bias=False, windows=(0, 5)).describe()
    assert count_weights(neo) == count_weights(SHAPE) - 2 * 30
    names = ["gpt2", "gpt-neo-125m"]
    for runs in (of_presets(*names), of_presets(*reversed(names))):
        assert list_differing(runs) == [
            "tokens at most",
            "division of attention scores by the root of a head's width",
            "bias of q, k and v",
            "how far back a local layer sees",
        ]
    runs = [*of_presets("gpt2"), *of_presets("gpt2-medium", dropout=0.0)]
    assert list_differing(runs) == ["number of layers", "heads per layer", "width", "dropout"]


def test_every_setting_of_a_shape_has_words():
    fields = {field.name for field in dataclasses.fields(GPT2Config)}
    assert fields - {"dropout", "attn_dropout"} == {*comparison.SHAPE}


def test_the_page_says_what_several_models_are_and_what_differs_besides_their_weights():
    first, second = of_models({}, {"n_head": 5})
    second.record["settings"] = second.record["settings"] | {"lr": 0.01}
    text = page(first, second)
    assert "| one\\_0 | 3,860 | 2 x 2 | 10 | 17 | 101 |\n| one\\_1 | 3,860 | 2 x 5 | 10 | 17 | 101 |\n" in text
    assert "Besides their weights the models differ in heads per layer, learning rate.\n" in text
    assert "a difference is no statement on an architecture" in text
    assert "- model: one\\_1, revision unknown, SHA-256 of the weights 111111\n" in text
    assert "| words | one\\_1 | all weights tuned | pretrained | 2 | 0.01 | 0.1 | 0 |" in text
    assert "of random weights" not in text
    assert "have the same shape, learning rates and dropout" in page(*of_models({}, {}))
    head = of_models({}, tune="head", lr=0.5)[0]  # another kind has another rate of each model
    assert list_differing([*of_models({}, {}), head]) == []
    assert "Models compared" not in page(measured())


def test_models_stand_in_blocks_with_headings_and_each_is_compared_with_the_bag_of_words():
    runs = [run for seed in (0, 1) for run in of_models({}, {}, seed=seed)]
    text = page(*runs)
    rows = [row.split(" | ")[1:3] for row in text.split("The runs were")[0].splitlines() if row.startswith("|")]
    assert rows[2:] == [
        ["**one\\_0**", ""],
        ["one\\_0, all weights tuned", "2"],
        ["**one\\_1**", ""],
        ["one\\_1, all weights tuned", "2"],
        ["best bag of words: the bag_of_words", ""],
        ["most frequent class", ""],
    ]
    assert "| words (84 / 48 / 54) | **one\\_0** |" in text
    f1 = runs[0].metrics["test"]["macro_f1"]
    for model in ("one\\_0", "one\\_1"):
        [sentence] = [
            line for line in text.splitlines() if line.startswith(f"- words, {model}: the best bag of words,")
        ]
        assert sentence.endswith(f"all weights tuned ({f1:.3f})")
    assert "- words, one\\_1: no row of label words" in text


def test_the_page_says_which_model_is_better_or_that_nothing_is_clear():
    first, second = ([run for seed in (0, 1) for run in of_models({}, {}, seed=seed)][i::2] for i in (0, 1))
    same = page(*first, *second)
    seeds = "seed 0: +0.000<br>seed 1: +0.000"
    assert f"| **+0.000** [+0.000, +0.000] | {seeds} | 1.000 | no clear difference |" in same
    assert f"| **+0.000** [+0.000, +0.000] | {seeds} |  | not judged |" in same
    wrong = [
        results.MeasuredRun(
            run.record,
            run.metrics | {"test": run.metrics["test"] | {"accuracy": 0.0, "macro_f1": 0.0}},
            run.targets,
            (run.targets + 1) % 3,
        )
        for run in second
    ]
    f1 = first[0].metrics["test"]["macro_f1"]
    row = "| words (54) | one\\_1 minus one\\_0 | all weights tuned | macro-F1 | 0.000 | "
    for seeds, ending in ((2, "is better"), (1, "not judged: one seed")):
        text = page(*first[:seeds], *wrong[:seeds])
        [line] = [line for line in text.splitlines() if line.startswith(row)]
        assert line.startswith(f"{row}{f1:.3f} | **-{f1:.3f}**")
        assert line.endswith(f"{ending} |")
        assert "nan" not in text
    assert "one interval excludes 0" not in text


def test_prompts_of_each_model_stand_in_its_block():
    runs, prompts = of_models({}, {}), PROMPTS[PROMPTS["corpus"] == "emotion"].assign(corpus="words")
    both = pd.concat([prompts.assign(model="one_0"), prompts.assign(model="one_1", val_accuracy=0.5)])
    text = page(*runs, prompts=both)
    rows = [row.split(" | ") for row in text.split("The runs were")[0].splitlines() if row.startswith("|")]
    starts = [row[1].split(",")[0] for row in rows[2:8]]
    assert starts == ["**one\\_0**", "one\\_0", "prompt", "**one\\_1**", "one\\_1", "prompt"]
    assert [rows[4][3], rows[7][3]] == ["0.875", "0.500"]
    section = [row for row in text.split("## Without a head")[1].splitlines() if row.startswith("| words")]
    assert [row.split(" | ")[:2] for row in section] == [["| words (300)", f"one\\_{i}"] for i in (0, 1)]
