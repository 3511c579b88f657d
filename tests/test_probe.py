"""`probe.py` from the command line to its tables, and a control: a property that is planted in one head."""

import json
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from planted import planted, planted_texts
from small_run import ODD, WORDS, train_odd_in

import ablate
import probe
from experiments.probe import tasks
from experiments.probe.linear import Task, probe_sites
from lab import figures
from lab.activations import record, sites
from lab.device import Device
from lab.effects import read_effects
from lab.study import open_study
from model import GPT2LM, GPT2Config, Tokenizer, save

PROBES = {"property", "network", "reading", "kind", "layer", "head", "C", "n", "val_accuracy", "accuracy"}
PROBES |= {"ci_low", "ci_high", "macro_f1", "control", "selectivity", "bits", "compression"}


def run_probe(monkeypatch, *arguments):
    """The exit code of `python probe.py arguments`."""
    return commands.exit_code(monkeypatch, probe, "--device", "cpu", "--words", "500", *arguments)


def table(name, folder="probe"):
    return pd.read_csv(f"runs/one/{folder}/{name}.csv", keep_default_na=False, na_values=[""])


def run_ablate(monkeypatch, *arguments):
    """The exit code of `python ablate.py arguments`."""
    return commands.exit_code(monkeypatch, ablate, "--device", "cpu", *arguments)


def test_all_of_it_lands_in_the_runs_folder(here, monkeypatch, capsys):
    assert run_probe(monkeypatch) == 0
    folder, out = Path("runs/one/probe"), " ".join(capsys.readouterr().out.split())
    assert "probes take about" in out
    assert "the property sentiment is left out" in out  # nltk has no data here
    assert "the property part of speech is left out" in out
    probes = table("probes")
    assert set(probes) == PROBES
    assert set(map(tuple, probes[["property", "network", "reading"]].drop_duplicates().to_numpy())) == {
        *(("emotion", network, reading) for network in ("trained", "random") for reading in ("last", "mean")),
        *((name, "trained", "word") for name in ("negated", "length", "position")),
    }
    assert (probes.groupby(["property", "network", "reading"]).size() == 3 + 2 * 3 + 2).all()
    assert set(probes.loc[probes["property"] == "emotion", "n"]) == {18}  # a tenth of the file, all of test
    assert probes.loc[probes["property"] == "emotion", ["control", "selectivity"]].isna().all(axis=None)
    assert probes.loc[probes["property"] != "emotion", ["control", "selectivity"]].notna().all(axis=None)
    differences = table("differences")
    assert set(differences["rival"]) == {*table("baselines")["baseline"], "random weights", "best layer"}
    assert len(differences) == 2 * len(probes) + 2 * 11 + 7 * 3  # two baselines; random weights; the streams
    assert set(table("baselines")["baseline"]) == {"most frequent class", "word type", "bag of words"}
    assert list(table("profiles").groupby(["property", "reading"])["n_heads"].apply(list).iloc[0]) == [1, 2, 4]
    lens = table("lens")
    assert set(lens["class"]) == {"all", *WORDS}
    last = lens[lens["layer"] == 2].set_index("class")  # where the lens ends at the run's own predictions
    metrics = json.loads(Path("runs/one/metrics.json").read_text())["test"]
    assert last.loc["all", "accuracy"] == pytest.approx(metrics["accuracy"])
    for label in WORDS:
        assert last.loc[label, "accuracy"] == pytest.approx(metrics["per_class"][label]["recall"])
    assert (last["decided"] == 1).all()
    assert not (folder / "agreement.csv").exists()
    pictures = {"layers.png", "heads.png", "profiles.png", "lens.png", "contributions.png", "texts.png"}
    assert {path.name for path in folder.glob("*.png")} == pictures
    assert "python probe.py --device cpu --words 500" in (folder / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_beside_ablation_it_says_whether_the_two_agree(here, monkeypatch):
    assert run_ablate(monkeypatch, "--units", "heads", "--fill", "zero") == 0
    assert run_probe(monkeypatch) == 0
    agreement = table("agreement").set_index(["property", "reading", "class"])
    assert len(agreement) == 5 * 4  # readings times all texts and three classes
    heads = table("probes").query("kind == 'head' and network == 'trained' and property == 'length'")
    effects = read_effects(Path("runs/one/ablate/effects.csv")).query("split == 'test'")
    for label, metric, sign in (("all", "log_prob", -1), ("joy", "specific_margin", None)):
        size = effects[(effects["class"] == label) & (effects["metric"] == metric)]["effect"]
        size = size.abs() if sign is None else sign * size
        ranks = heads["accuracy"].rank(), size.rank()  # both in the order of layers and heads
        expected = np.corrcoef(*(own.to_numpy() for own in ranks))[0, 1]
        assert agreement.loc[("length", "word", label), "spearman"] == pytest.approx(expected)


HEADS = ("--units", "heads", "--fill", "zero")


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_an_ablation_of_other_texts_or_without_heads_is_left_out(here, monkeypatch):
    Path("other.txt").write_text(Path("corpus.txt").read_text().replace("i felt", "so i felt"))
    study = open_study("one", Device(torch.device("cpu"), "fp32"))
    assert "run `make ablate`, and then this once more" in probe.read_ablation(study, False)
    for line, arguments in (
        ("is of other texts of test; ", (*HEADS, "--texts", "13")),
        ("is of other corpus, texts of test; ", (*HEADS, "--corpus", "other.txt")),
        ("closed no heads", ("--units", "layers", "--fill", "zero")),
    ):
        assert run_ablate(monkeypatch, *arguments) == 0
        assert line in probe.read_ablation(study, False)


def test_an_ablation_is_read_only_if_it_says_that_it_is_of_the_same(here, monkeypatch):
    assert run_ablate(monkeypatch, *HEADS, "--seed", "3") == 0  # which moves no effect of this fill
    study, about = open_study("one", Device(torch.device("cpu"), "fp32")), Path("runs/one/ablate/study.json")
    assert probe.read_ablation(study, False).equals(read_effects(Path("runs/one/ablate/effects.csv")))
    assert "another" in probe.read_ablation(study, True)
    written = json.loads(about.read_text())
    for name, other in (("weights", "0123"), ("precision", "bf16")):
        about.write_text(json.dumps(written | {name: other}))
        assert f"is of other {name}; " in probe.read_ablation(study, False)
    about.unlink()
    assert "does not say what it was made of" in probe.read_ablation(study, False)


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_what_is_left_out_is_told_on_the_page_and_leaves_no_table(here, monkeypatch, capsys):
    assert run_ablate(monkeypatch, *HEADS, "--class", "joy") == 0
    capsys.readouterr()
    assert run_probe(monkeypatch) == 0
    line = "the ablation is of other classes; run `make ablate` with the same --corpus and --precision, "
    assert f"Probing beside ablation is left out: {line}" in " ".join(capsys.readouterr().out.split())
    assert f"Not measured: {line}" in Path("runs/one/probe/report.md").read_text()
    assert not Path("runs/one/probe/agreement.csv").exists()


@pytest.mark.filterwarnings("error::scipy.stats.ConstantInputWarning")
@pytest.mark.slow
@pytest.mark.parametrize("labels", [ODD, ["no", "yes"]], ids=["odd", "two"])
def test_classes_without_texts_and_with_odd_names_are_ablated_and_then_probed(tmp_path, monkeypatch, capsys, labels):
    """Both commands run to their end, and say what cannot be computed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])
    train_odd_in(tmp_path, labels)
    units = ("heads", "words", "curves", "pairs", "smallest")
    assert run_ablate(monkeypatch, "--units", *units, "--fill", "zero") == 0
    assert run_probe(monkeypatch) == 0
    captured = capsys.readouterr()
    assert "Warning" not in captured.out + captured.err
    names = {"all (class)" if label == "all" else label for label in labels}
    untested = names & {"no test", "one text"}
    effects = read_effects(Path("runs/one/ablate/effects.csv"))
    assert set(effects["class"]) == {"all", *names}
    margins = effects[(effects["split"] == "test") & (effects["metric"] == "specific_margin")]
    assert set(margins.loc[margins["effect"].isna(), "class"]) == untested
    assert set(table("lens")["class"]) == set(table("contributions")["class"]) == {"all", *names - untested}
    agreement = table("agreement")
    assert set(agreement["class"]) == {"all", *names}
    assert agreement.loc[agreement["class"].isin(untested), ["spearman", "p"]].isna().all(axis=None)
    assert agreement.loc[agreement["property"] == "emotion", "p"].notna().any()
    for folder in ("ablate", "probe"):
        page = Path(f"runs/one/{folder}/report.md").read_text()
        assert ("no test text has the class no test, one text: nothing can be measured" in page) == bool(untested)
        assert "[nan" not in page
        assert "nan" in labels or "nan" not in page  # where no class is called so
    if untested:
        assert "correlations cannot be computed" in page


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_an_interrupted_experiment_goes_on_and_does_nothing_twice(here, monkeypatch):
    done, score_sites = [], tasks.score_sites

    def interrupted(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments)
        return score_sites(*arguments)

    monkeypatch.setattr(tasks, "score_sites", interrupted)
    assert run_probe(monkeypatch) == 130
    assert not Path("runs/one/probe/probes.csv").exists()
    monkeypatch.setattr(tasks, "score_sites", lambda *arguments: done.append(arguments) or score_sites(*arguments))
    assert run_probe(monkeypatch) == 0
    assert len(done) == 7
    first = Path("runs/one/probe/probes.csv").read_bytes()
    Path("runs/one/probe/agreement.csv").write_text("not written by a call of ours")
    assert run_probe(monkeypatch) == 0
    assert len(done) == 7
    assert Path("runs/one/probe/probes.csv").read_bytes() == first
    assert Path("runs/one/probe/agreement.csv").exists()
    assert not [path for path in Path("runs/one/probe/tasks").iterdir() if path.is_dir()]  # activations are gone
    assert run_probe(monkeypatch, "--seed", "1") == 0
    assert len(done) == 14


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_a_network_that_was_never_fine_tuned_is_probed_on_the_runs_texts(here, monkeypatch, capsys):
    torch.manual_seed(0)
    save(GPT2LM(GPT2Config(1, 2, 10, n_ctx=17)), "never", Tokenizer.load("gpt2-mini"))
    assert run_probe(monkeypatch, "--model", "never") == 0
    assert "no class lens" in " ".join(capsys.readouterr().out.split())
    probes = table("probes", "probe-never")
    assert set(probes["layer"]) == {0, 1}
    assert not Path("runs/one/probe-never/lens.csv").exists()
    assert not Path("runs/one/probe").exists()


MISTAKES = {
    "no run": (("--run", "two"), "make train"),
    "texts": (("--texts", "3"), "--texts 3: expected at least 100"),
    "model": (("--model", "nothing"), "nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(here, monkeypatch, capsys, mistake):
    arguments, expected = MISTAKES[mistake]
    assert run_probe(monkeypatch, *arguments) == 2
    assert expected in one_line(capsys)


def test_a_property_that_is_planted_in_one_head_is_found_there(tmp_path):
    sequences, targets = planted_texts()
    clf, y = planted().eval(), np.concatenate([own == 0 for own in targets.values()]).astype(int)
    split = np.repeat(list(targets), 200)
    task = Task(y, ("other", "a"), split, np.arange(len(y)))
    texts = [ids for own in sequences.values() for ids in own]
    last = [np.array([len(ids) - 1]) for ids in texts]
    read = record(clf.trunk, texts, {"last": last}, tmp_path, Device(torch.device("cpu"), "fp32"))["last"]
    heads = [site for site in sites(clf.config) if site.kind == "head"]
    most = max((y[split == "test"] == k).mean() for k in (0, 1))
    for site, score in zip(heads, probe_sites(read, heads, task, lambda: None), strict=True):
        if (site.layer, site.head) == (1, 2):
            assert score.accuracy == 1
        else:
            assert score.accuracy < most + 0.05


@pytest.mark.slow
def test_classes_whose_letters_no_font_has_go_by_their_numbers_in_pictures_alone(tmp_path, monkeypatch, capsys):
    """Tables have their names, and each report says which is which."""
    labels, shown = ["no font 喜悦", "_joy", "愤怒", "기쁨"], ["no font", " _joy", "class 2", "class 3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])
    monkeypatch.setattr("lab.fonts.list_families", lambda: ["DejaVu Sans"])
    save, drawn = figures.save, {}
    monkeypatch.setattr(figures, "save", lambda figure, path: (save(figure, path), drawn.update({path.name: figure})))
    train_odd_in(tmp_path, labels)
    said = "in pictures: no font is no font 喜悦; class 2 is 愤怒; class 3 is 기쁨. No font here has all letters;"
    printed = capsys.readouterr()
    assert printed.out.replace("\n", " ").replace("  ", " ").count(said) == 1
    assert "Glyph" not in printed.err
    assert run_ablate(monkeypatch, *HEADS) == 0
    assert run_probe(monkeypatch) == 0
    heads, lens = drawn["heads_zero.png"], drawn["lens.png"]
    assert sorted(axes.get_title() for axes in heads.axes if axes.get_title()) == sorted(shown)
    assert sorted(axes.get_title() for axes in lens.axes) == sorted(["all texts", *shown])
    assert set(read_effects(Path("runs/one/ablate/effects.csv"))["class"]) == {"all", *labels}
    assert set(table("lens")["class"]) == {"all", *labels}
    for folder in ("ablate", "probe"):
        assert f"- {said}" in Path(f"runs/one/{folder}/report.md").read_text(encoding="utf-8")
    printed = capsys.readouterr()
    assert "Warning" not in printed.out + printed.err
