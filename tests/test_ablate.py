"""`ablate.py` from the command line to its tables."""

import json
import shutil
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from scipy.optimize import minimize_scalar
from small_run import WORDS
from torch.nn.functional import cross_entropy

import ablate
import lab.device
import lab.sweep
import train
from experiments.ablate import figures
from lab.defaults import StudyOptions
from lab.device import Device
from lab.effects import read_effects
from lab.study import open_study
from model import Tokenizer, load_classifier, masks, save

COLUMNS = (
    "kind layer head region fill split class metric n baseline ablated effect ci_low ci_high p p_corrected "
    "share share_low share_high verdict"
)


def run_ablate(monkeypatch, *arguments):
    """The exit code of `python ablate.py arguments`."""
    return commands.exit_code(monkeypatch, ablate, "--device", "cpu", *arguments)


def table(name, run="one"):
    path = Path(f"runs/{run}/ablate/{name}.csv")
    if name == "effects":
        return read_effects(path)
    return pd.read_csv(path, keep_default_na=False, na_values={"layer": "", "head": ""})


@pytest.mark.slow
def test_all_of_it_lands_in_the_runs_folder(here, monkeypatch, capsys):
    monkeypatch.setattr("experiments.ablate.learnt.STEPS", 2)
    assert run_ablate(monkeypatch, "--all", "--texts", "13", "--rows", "0", "--controls", "2") == 0
    folder, out = Path("runs/one/ablate"), capsys.readouterr().out
    assert "ablations of val and test take about" in out
    assert "opinion_lexicon is missing" in " ".join(out.split())
    effects = table("effects")
    assert " ".join(effects) == COLUMNS
    assert set(effects["kind"]) == {"head", "heads", "mlp", "layer", "mask", "cut", "words", "pair"}
    assert set(effects["fill"]) == {"zero", "mean", "resample", "class_mean"}
    assert set(effects["class"]) == {"all", *WORDS}
    assert set(effects.loc[effects["kind"] == "words", "region"]) >= {"negation", "random, as many as negation"}
    assert set(effects.loc[effects["class"] == "all", "n"]) == {13}
    heads = effects[(effects["kind"] == "head") & (effects["metric"] == "accuracy")]
    assert len(heads) == 2 * 3 * 4 * 2  # heads, fills, splits
    followed = ("importance", "correlations", "curves", "interactions", "gates", "learnt_sets")
    for name in ("significance", "flips", "verdicts", *followed):
        assert len(table(name))
    controls = table("controls")
    assert controls.groupby("kind")["draw"].nunique().to_dict() == {
        "head": 2,
        "mlp": 2,
        "mask": 1,
        "cut": 1,
        "words": 1,
    }
    assert len(table("verdicts")) == len(
        effects.query("split == 'test' and metric == 'specific_margin_tempered'")
    ) - len(controls.query("split == 'test' and kind in ['mask', 'cut', 'words']"))
    assert set(json.loads((folder / "smallest.json").read_text())) >= {"open", "kept_test"}
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures >= {"heads_zero.png", "heads_class_mean.png", "layers_mean.png", "regions.png", "curves.png"}
    report = (folder / "report.md").read_text()
    assert "python ablate.py --device cpu --all --texts 13 --rows 0 --controls 2" in report


@pytest.mark.usefixtures("saved")
def test_the_effects_are_those_of_plain_calls(here, monkeypatch):
    assert run_ablate(monkeypatch, "--units", "heads", "--fill", "zero") == 0
    clf, tokenizer = load_classifier("runs/one"), Tokenizer.load("runs/one")
    texts = pd.read_csv("runs/one/predictions.csv").query("split == 'test'")
    targets = [clf.labels.index(label) for label in texts["label"]]
    gate = masks.close_heads(clf.config, [(1, 2)])
    log_probs = []
    for arguments in ({}, {"head_gate": gate}):
        logits = torch.cat([clf(torch.tensor([tokenizer.encode(text)]), **arguments) for text in texts["text"]])
        log_probs.append(logits.log_softmax(1).detach().double().numpy()[np.arange(len(targets)), targets])
    effects = table("effects").query("split == 'test' and layer == 1 and head == 2 and metric == 'log_prob'")
    overall = effects[effects["class"] == "all"].iloc[0]
    assert overall["effect"] == pytest.approx((log_probs[1] - log_probs[0]).mean(), abs=1e-5)
    for k, label in enumerate(clf.labels):
        own = np.array(targets) == k
        row = effects[effects["class"] == label].iloc[0]
        assert row["ablated"] == pytest.approx(log_probs[1][own].mean(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_an_interrupted_sweep_goes_on_and_does_nothing_twice(here, monkeypatch):
    arguments, plain, computed = ("--units", "heads", "layers"), lab.sweep.run_ablations, [0]
    monkeypatch.setattr(lab.device, "TOKENS", 256)

    def counted(clf, batch, ablations, fills, tokens):
        computed[-1] += len(ablations) * len(batch.ids)
        if len(computed) == 2 and computed[-1] > 400:  # the second time, in the middle
            raise KeyboardInterrupt
        return plain(clf, batch, ablations, fills, tokens)

    monkeypatch.setattr(lab.sweep, "run_ablations", counted)
    assert run_ablate(monkeypatch, *arguments) == 0
    whole = pd.read_csv("runs/one/ablate/effects.csv")
    shutil.rmtree("runs/one/ablate")
    computed.append(0)
    assert run_ablate(monkeypatch, *arguments) == 130
    assert not Path("runs/one/ablate/effects.csv").exists()
    computed.append(0)
    assert run_ablate(monkeypatch, *arguments) == 0
    pd.testing.assert_frame_equal(pd.read_csv("runs/one/ablate/effects.csv"), whole)
    under_way = 256 // lab.sweep.COPIES * 6  # one batch of one kind of units
    assert computed[0] <= computed[1] + computed[2] <= computed[0] + under_way
    assert computed[2] < computed[0] - 200
    computed.append(0)
    assert run_ablate(monkeypatch, *arguments) == 0  # all of it is there
    assert computed[-1] == 0


@pytest.mark.usefixtures("saved")
def test_learnt_gates_need_no_curves(here, monkeypatch):
    monkeypatch.setattr("experiments.ablate.learnt.STEPS", 2)
    monkeypatch.setattr("lab.stats.DRAWS", 20)
    titles, draw = [], figures.draw_gates
    monkeypatch.setattr(figures, "draw_gates", lambda *arguments: titles.append(arguments[-1]) or draw(*arguments))
    arguments = ("--units", "layers", "--fill", "mean", "zero", "--controls", "0", "--gates", "learn", "--class", "joy")
    assert run_ablate(monkeypatch, *arguments) == 0
    assert set(table("gates")["class"]) == set(table("learnt_sets")["class"]) == {"all", "joy"}
    assert set(table("effects")["kind"]) == {"head", "heads", "mlp", "layer"}
    assert "learnt" in set(table("correlations")["estimate"])
    learnt = pd.to_numeric(table("importance").set_index("class")["learnt"])
    assert learnt[["all", "joy"]].between(0, 1).all()
    assert learnt[["anger", "fear"]].isna().all()
    assert not Path("runs/one/ablate/curves.csv").exists()
    report = Path("runs/one/ablate/report.md").read_text()
    assert "### Learnt gates" in report
    assert "![The probability that the learnt gate of each head is open, for each class](gates.png)" in report
    assert Path("runs/one/ablate/gates.png").is_file()
    assert " val texts of " in titles[0]  # these taught the gates


@pytest.mark.usefixtures("saved")
def test_tempered_margins_are_those_of_plain_calls(here, monkeypatch):
    """With a temperature of each network that scipy finds on val, where some labels are wrong."""
    lines = Path("corpus.txt").read_text().splitlines()
    noisy = [line.replace(";anger", ";fear") if i % 3 else line for i, line in enumerate(lines)]
    Path("noisy.txt").write_text("\n".join(noisy) + "\n")
    settings = ("--units", "heads", "--fill", "zero", "--controls", "0", "--corpus", "noisy.txt")
    assert run_ablate(monkeypatch, *settings) == 0
    study = open_study("one", Device(torch.device("cpu"), "fp32"), StudyOptions(corpus="noisy.txt"))
    fear, margins = study.clf.labels.index("fear"), []
    for arguments in ({}, {"head_gate": masks.close_heads(study.clf.config, [(1, 2)])}):
        logits, targets = {}, {}
        for split in ("val", "test"):
            ids = [torch.tensor([sequence]) for sequence in study.texts[split].sequences]
            logits[split] = torch.cat([study.clf(text, **arguments) for text in ids]).double()
            targets[split] = torch.tensor(study.texts[split].targets)

        def loss(log_temperature, logits=logits["val"], classes=targets["val"]):
            return cross_entropy(logits / np.exp(log_temperature), classes).item()

        temperature = np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x)
        p, of_fear = (logits["test"] / temperature).softmax(1), targets["test"] == fear
        log_odds = (p.log() - (-p).log1p())[:, fear]
        margins.append((log_odds[of_fear].mean() - log_odds[~of_fear].mean()).item())
    effects = table("effects").query("split == 'test' and layer == 1 and head == 2 and `class` == 'fear'")
    row = effects[effects["metric"] == "specific_margin_tempered"].iloc[0]
    assert (row["baseline"], row["ablated"]) == (
        pytest.approx(margins[0], rel=1e-3),
        pytest.approx(margins[1], rel=1e-3),
    )
    assert row["share"] == pytest.approx(margins[1] / margins[0] - 1, abs=1e-3)
    assert not Path("runs/one/ablate/controls_zero.png").exists()
    assert not len(table("controls"))
    assert table("verdicts")["specific"].eq("").all()


@pytest.fixture
def two_seeds(here, unmeasured, monkeypatch):
    """Runs one and two, which differ in their seed."""
    record = json.loads(Path("runs/one/run.json").read_text())["settings"]
    options = {name: record[name] for name in ("model", "corpus", "init", "epochs", "lr", "dropout")}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert commands.exit_code(monkeypatch, train, *arguments, "--device", "cpu", "--run", "two", "--seed", "1") == 0


@pytest.mark.slow
@pytest.mark.usefixtures("saved", "two_seeds")
def test_runs_with_other_seeds_are_compared(here, monkeypatch, capsys):
    heads = ("--units", "heads", "--fill", "mean", "--controls", "3")
    assert run_ablate(monkeypatch, "--run", "one", "two", *heads) == 0
    verdicts = {run: table("verdicts", run) for run in ("one", "two")}
    key = ["layer", "head", "class"]
    both = verdicts["one"].merge(verdicts["two"], on=key, suffixes=("", "_two"))
    for run in verdicts:
        seeds = table("seeds", run)
        assert " ".join(seeds) == "kind layer head region fill class runs mean_share sd_share matters_in specific_in"
        seeds = both.merge(seeds, on=key)
        assert len(seeds) == len(both) == 2 * 3 * 3
        assert (seeds["runs"] == 2).all()
        pairs = pd.to_numeric(seeds["share"]), pd.to_numeric(seeds["share_two"])
        np.testing.assert_allclose(pd.to_numeric(seeds["mean_share"]), (pairs[0] + pairs[1]) / 2)
        np.testing.assert_allclose(pd.to_numeric(seeds["sd_share"]), (pairs[0] - pairs[1]).abs() / 2**0.5)
        matters = (seeds[["verdict", "verdict_two"]] == "matters").sum(axis=1)
        assert (seeds["matters_in"] == matters).all()
        report = Path(f"runs/{run}/ablate/report.md").read_text()
        assert "**2 seeds.**" in report
        assert "random weights" in report  # a head of one is no head of the other
        assert set(table("agreement", run)["class"]) == set(WORDS)
    assert not both["share"].equals(both["share_two"])
    assert run_ablate(monkeypatch, "--run", "one", *heads) == 0
    assert not Path("runs/one/ablate/seeds.csv").exists()
    assert "**One seed.**" in Path("runs/one/ablate/report.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("saved")
def test_the_least_share_of_interest_reaches_verdicts_and_report(here, monkeypatch):
    lines = Path("corpus.txt").read_text()  # too few for a verdict
    Path("more.txt").write_text(lines + lines.replace("felt", "feel") + lines.replace("felt", "am"))
    settings = ("--units", "layers", "--fill", "zero", "--controls", "0", "--corpus", "more.txt")
    counts = {}
    for least in ("0.001", "0.9"):
        assert run_ablate(monkeypatch, *settings, "--least", least) == 0
        verdicts = table("verdicts")
        counts[least] = (verdicts["verdict"] == "matters").sum(), (verdicts["verdict"] == "negligible").sum()
        assert f"{100 * float(least):.3g}%" in Path("runs/one/ablate/report.md").read_text()
    assert counts["0.001"][0] > counts["0.9"][0]
    assert counts["0.001"][1] < counts["0.9"][1]


RUNS = {  # changes of the settings of run two, and what is said
    "the same seed": ({"seed": 0}, "have the same seed"),
    "another rate": ({"lr": 0.5}, "differ in their lr"),
    "another start": ({"init": "pretrained", "tune": "head"}, "differ in their init, tune"),
}


@pytest.mark.usefixtures("two_seeds")
@pytest.mark.parametrize("change", RUNS)
def test_runs_that_differ_in_more_than_their_seed_are_refused(here, monkeypatch, capsys, change):
    settings, expected = RUNS[change]
    path = Path("runs/two/run.json")
    record = json.loads(path.read_text())
    record["settings"] |= settings
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert run_ablate(monkeypatch, "--run", "one", "two") == 2
    assert expected in one_line(capsys)
    assert not Path("runs/one/ablate/logits").exists()


@pytest.mark.usefixtures("saved")
def test_other_weights_are_swept_anew(here, monkeypatch):
    assert run_ablate(monkeypatch, "--units", "heads", "--fill", "zero") == 0
    before = table("effects").query("metric == 'accuracy'")
    clf = load_classifier("runs/one")
    with torch.no_grad():
        clf.score.weight.neg_()
    save(clf, "runs/one", Tokenizer.load("runs/one"))
    assert run_ablate(monkeypatch, "--units", "heads", "--fill", "zero") == 0
    after = table("effects").query("metric == 'accuracy'")
    assert (before["baseline"] > 0.8).all()
    assert (after["baseline"] < 0.2).all()


@pytest.mark.usefixtures("saved")
def test_one_class_alone_is_a_smaller_family_whatever_it_is_called(here, monkeypatch, capsys):
    for path in (Path("corpus.txt"), Path("runs/one/config.json")):
        path.write_text(path.read_text().replace("joy", "all"))
    arguments = ("--units", "heads", "--fill", "zero", "--corpus", "corpus.txt")
    assert run_ablate(monkeypatch, *arguments) == 0
    whole = table("significance")
    assert run_ablate(monkeypatch, *arguments, "--class", "all") == 0
    assert "'all' is called 'all (class)'" in " ".join(capsys.readouterr().out.split())
    alone, effects = table("significance"), table("effects")
    assert set(alone["class"]) == {"all (class)"}
    assert set(effects["class"]) == {"all", "all (class)"}
    texts = effects.query("split == 'test'").groupby("class")["n"].first()
    assert texts["all (class)"] < texts["all"] == 18
    assert json.loads(Path("runs/one/ablate/study.json").read_text())["classes"] == ["all (class)"]
    both = alone.merge(whole, on=["layer", "head", "class"], suffixes=("", "_whole"))
    assert len(both) == 6
    np.testing.assert_allclose(both["p"], both["p_whole"])
    assert (both["p_holm"] <= both["p_holm_whole"]).all()
    assert (both["p_holm"] < both["p_holm_whole"]).any()


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_tables_of_an_earlier_call_go_and_files_of_others_stay(here, monkeypatch, capsys):
    folder = Path("runs/one/ablate")
    assert run_ablate(monkeypatch, "--units", "heads", "layers", "--fill", "zero") == 0
    others = {"curves.csv": "of my own", "plot.png": "a plot", "settings.json": "{}", "logits/notes.json": "{}"}
    for name, content in others.items():
        (folder / name).write_text(content)
    assert (folder / "layers_zero.png").is_file()
    assert run_ablate(monkeypatch, "--units", "heads", "--fill", "zero", "--no-resume") == 0
    assert not (folder / "layers_zero.png").exists()
    assert not (folder / "logits" / "val-zero-layers.npy").exists()
    assert {name: (folder / name).read_text() for name in others} == others
    assert (folder / "heads_zero.png").is_file()


MISTAKES = {
    "no run": (lambda: None, ("--run", "two"), "make train"),
    "unfinished": (lambda: Path("runs/one/run.json").write_text('{"status": "unfinished"}'), (), "finished run"),
    "class": (lambda: None, ("--class", "hope"), "joy"),
    "pairs": (lambda: None, ("--units", "pairs", "--pairs", "0.1", "7.1"), "0.0 to 1.2"),
    "one of a pair": (lambda: None, ("--units", "pairs", "--pairs", "0.1"), "two or more"),
    "units": (lambda: None, ("--units", "neurons"), "--units"),
    "runs": (lambda: None, ("--run", "one", "one"), "several different ones"),
    "no controls": (lambda: None, ("--controls", "-1"), "--controls -1"),
    "least": (lambda: None, ("--least", "0"), "--least 0"),
    "texts": (lambda: None, ("--texts", "-1"), "--texts -1"),
    "corpus": (
        lambda: Path("corpus.txt").write_text("a;joy\n" * 50 + "b;fear\n" * 50 + "c;anger\n" * 50),
        (),
        "corpus",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(here, monkeypatch, capsys, mistake):
    make, arguments, expected = MISTAKES[mistake]
    make()
    assert run_ablate(monkeypatch, *arguments) == 2
    assert expected in one_line(capsys)
    assert not Path("runs/one/ablate/effects.csv").exists()
