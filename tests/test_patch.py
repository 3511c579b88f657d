"""`patch.py` from the command line to its tables."""

import shutil
from pathlib import Path

import children
import commands
import numpy as np
import pandas as pd
import pytest
import torch
from children import KILLED, at_file, differing, left_in, within
from commands import one_line
from pictures_on_disk import leave_undrawn
from small_run import WORDS

import lab.sweep
import patch as script
from experiments.patch import measure
from experiments.patch.cells import KINDS
from experiments.patch.tables import average
from model import GPT2LM, GPT2Config, Tokenizer, load_classifier, load_lm, masks, save
from model.gpt2 import Trace

L, H, BOS = 2, 3, 50256
DIRECTIONS = ["denoise", "noise"]
COLUMNS = {  # of the design; more may follow
    "pairs": "pair split clean corrupt clean_class corrupt_class position gap kept why",
    "patch": "pair direction kind layer head position token metric clean corrupt patched effect normalised estimate",
    "paths": "pair direction sender receiver input layer_norm effect estimate",
}
TABLES = {*COLUMNS, "averages", "between", "controls", "edges", "estimates", "sums"}
CORE = ("patch_cells", "patch_subspaces", "patch_all_heads", "patch_edges")
CORE += ("estimate_cells", "integrate_cells", "estimate_edges")
DEFAULT = ("--pairs", "10", "--controls", "3")
FEW = ("--pairs", "2", "--controls", "1", "--texts", "0")
TEXTS = ("--clean", "i felt so happy", "--corrupt", "i felt so afraid")


def run_patch(monkeypatch, *arguments):
    """The exit code of `python patch.py arguments`."""
    return commands.exit_code(monkeypatch, script, "--device", "cpu", *arguments)


def table(name, run="one"):
    return pd.read_csv(f"runs/{run}/patch/{name}.csv", keep_default_na=False, na_values=[""])


def report(run="one"):
    return Path(f"runs/{run}/patch/report.md").read_text()


@pytest.fixture(scope="module")
def patched(trained, tmp_path_factory):
    """A working folder in which `patch.py` has run; its pictures are empty."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("patched") / "here", symlinks=True)
    with pytest.MonkeyPatch.context() as changes:
        changes.chdir(folder)
        leave_undrawn(changes)
        assert run_patch(changes, *DEFAULT) == 0
    return folder


@pytest.fixture
def done(patched, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(patched, tmp_path / "done", symlinks=True)
    monkeypatch.chdir(tmp_path / "done")


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take longer than the tiny network, and are tested elsewhere."""
    monkeypatch.setattr(script, "draw", lambda folder, results, subject, edges: None)


@pytest.fixture
def computed(monkeypatch):
    """Notes which functions of the core are called."""
    names = []

    def note(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *all_: names.append(name) or function(*all_))

    for name in CORE:
        note(measure, name)
    note(lab.sweep, "run_ablations")
    return names


# What lands in the run's folder.


@pytest.mark.usefixtures("done")
def test_all_of_it_lands_in_the_runs_folder():
    folder = Path("runs/one/patch")
    assert {path.stem for path in folder.glob("*.csv")} == TABLES
    for name, columns in COLUMNS.items():
        assert " ".join(table(name)).startswith(columns)
    assert {path.name for path in folder.glob("*.png")} >= {
        *("heads.png", "positions.png", "estimates.png", "paths.png", "between.png")
    }
    assert len(list(folder.glob("pair_*.png"))) == 3  # one of each class
    assert (folder / "paths.dot").read_text().startswith("digraph")
    page = report()
    assert "python patch.py --device cpu --pairs 10 --controls 3" in page
    assert "nan" not in page.lower()
    pairs = table("pairs")
    kept = pairs[pairs["kept"]]
    assert len(kept) == 10 < len(pairs)
    assert set(kept["clean_class"]) == set(kept["corrupt_class"]) == set(WORDS)
    cells = table("patch")
    assert list(cells["pair"].unique()) == list(kept["pair"])
    assert set(cells["direction"]) == {*DIRECTIONS}
    assert list(cells["kind"].unique()) == list(KINDS)
    tokenizer = Tokenizer.load("runs/one")
    for pair, rows in cells.groupby("pair"):
        T = len(tokenizer.encode(kept.set_index("pair").loc[pair, "clean"]))
        assert len(rows) == 2 * L * (4 * T + 5 * H)
    assert len(table("controls")) == 10 * 2 * L * 3
    assert set(table("paths")["receiver"]) >= {"logits"}
    assert table("between")["n"].gt(0).all()
    assert len(table("between")) == L * H * 6
    assert cells["patched"].notna().all()


@pytest.mark.usefixtures("done")
def test_the_effects_are_those_of_plain_calls():
    clf, tokenizer = load_classifier("runs/one"), Tokenizer.load("runs/one")
    cells = table("patch").set_index(["pair", "direction", "kind", "layer", "head", "position"]).sort_index()
    pairs = table("pairs").query("kept")
    for row in pairs.to_dict("records"):
        names = [clf.labels.index(row[name]) for name in ("clean_class", "corrupt_class")]
        ids = {name: tokenizer.encode(row[name]) for name in ("clean", "corrupt")}

        def read(name, ids=ids, names=names, **arguments):
            return clf(torch.tensor([ids[name]]), **arguments)[0, names] @ torch.tensor([1.0, -1])

        trace = Trace("z", "mlp")
        clean, corrupt = read("clean", trace=trace).item(), read("corrupt").item()
        assert row["gap"] == pytest.approx(clean - corrupt, rel=1e-4)
        gate = torch.ones(1, L, len(ids["clean"]))
        gate[0, 0, row["position"]] = 0
        closed = masks.close_heads(clf.config, [(1, 2)])
        expected = {
            ("z", 1, 2, np.nan): {"head_gate": closed, "head_fill": trace.stacked("z")},
            ("mlp", 0, np.nan, row["position"]): {"mlp_gate": gate, "mlp_fill": trace.stacked("mlp")},
        }
        for cell, arguments in expected.items():
            got = cells.loc[[(row["pair"], "denoise", *cell)]].iloc[0]
            patched = read("corrupt", **arguments).item()
            values = [clean, corrupt, patched, patched - corrupt, (patched - corrupt) / (clean - corrupt)]
            names_of_values = ["clean", "corrupt", "patched", "effect", "normalised"]
            assert got[names_of_values].tolist() == pytest.approx(values, abs=1e-4)
            assert got["metric"] == f"{row['clean_class']} - {row['corrupt_class']}"
        for direction, expected in (("denoise", 1), ("noise", -1)):  # all that differs is the changed token
            whole = cells.loc[[(row["pair"], direction, "resid_pre", 0, np.nan, row["position"])]].iloc[0]
            assert whole["normalised"] == pytest.approx(expected, abs=1e-3)
            assert tokenizer.encode(whole["token"]) == [ids["clean"][row["position"]]]


@pytest.mark.usefixtures("done")
def test_averages_and_edges_follow_from_the_single_pairs():
    gaps = table("pairs").query("kept").set_index("pair")["gap"]
    cells, averages = table("patch"), table("averages")
    heads = averages[(averages["kind"] == "z") & (averages["tokens"] == "all")]
    assert len(heads) == 2 * L * H
    for row in heads.to_dict("records"):
        rows = cells[(cells["kind"] == "z") & (cells["direction"] == row["direction"])]
        rows = rows[(rows["layer"] == row["layer"]) & (rows["head"] == row["head"])]
        assert row["share"] == pytest.approx(rows["effect"].sum() / gaps.sum())
        assert row["n"] == 10
        assert row["share_low"] < row["share"] < row["share_high"]
    kept = table("pairs").query("kept")
    expected = average(cells[cells["kind"] == "z"], ["direction", "kind", "layer", "head"], kept)  # of no other pairs
    columns = ["direction", "layer", "head", "share_low", "share_high", "verdict"]
    pd.testing.assert_frame_equal(heads[columns].reset_index(drop=True), expected[columns])
    paths = table("paths").groupby(["direction", "sender", "receiver", "input"])["effect"].sum() / gaps.sum()
    edges = table("edges").set_index(["direction", "sender", "receiver", "input"])
    assert len(edges) == len(paths)
    np.testing.assert_allclose(edges["share"].sort_index(), paths.sort_index())
    sums = heads.groupby("direction")["share"].sum()
    np.testing.assert_allclose(table("sums").set_index("direction")["heads_one_by_one"], sums)


# Options.


@pytest.mark.usefixtures("undrawn")
def test_own_texts_are_one_pair_without_limits(here, monkeypatch):
    assert run_patch(monkeypatch, *TEXTS) == 0
    pairs = table("pairs")
    columns = ["pair", "clean", "corrupt", "clean_class", "corrupt_class", "position", "kept"]
    assert pairs[columns].to_numpy().tolist() == [[0, TEXTS[1], TEXTS[3], "joy", "fear", 3, True]]
    assert table("averages")["share_low"].isna().all()
    assert "**These numbers have no limits**" in report()
    assert not Path("runs/one/patch/between.csv").exists()
    gap = pairs["gap"].item()
    assert run_patch(monkeypatch, *TEXTS, "--answers", "fear", "joy") == 0
    assert table("pairs")["gap"].item() == pytest.approx(-gap)
    assert set(table("patch")["metric"]) == {"fear - joy"}


@pytest.mark.usefixtures("undrawn")
def test_own_texts_with_a_small_gap_have_effects_and_no_shares(here, monkeypatch):
    texts = ("--clean", "i felt at happy", "--corrupt", "i felt so happy", "--answers", "anger", "fear")
    assert run_patch(monkeypatch, *texts) == 0
    assert table("pairs")["gap"].abs().item() < 0.5
    cells = table("patch")
    assert cells["normalised"].isna().all()
    assert cells["effect"].abs().max() > 0
    assert table("averages")["share"].isna().all()
    assert "gap below 0.5 nats" in report()


OPTIONS = {  # and what holds of patch.csv, paths.csv and averages.csv then
    "one direction, some kinds, a receiver": (
        ("--direction", "noise", "--kinds", "z", "mlp", "--receiver", "logits", "--layer-norm", "frozen"),
        lambda cells, paths, means: (
            {*cells["direction"], *paths["direction"], *means["direction"]} == {"noise"}
            and [*cells["kind"].unique()] == [*means["kind"].unique()] == ["z", "mlp"]
            and {*paths["receiver"]} == {"logits"}
            and len(paths) == 2 * (1 + L * (H + 1))
            and {*paths["layer_norm"]} == {"frozen"}
            and "**frozen**" in report()
        ),
    ),
    "positions, a sender": (
        ("--positions", "--kinds", "v", "resid_mid", "--sender", "head 0.1"),
        lambda cells, paths, means: (
            len(cells[cells["kind"] == "v"]) == 2 * L * H * sum(1 + n for n in lengths())
            and {*means["tokens"]} == {"all", "changed and last"}
            and (cells["token"].isna() == cells["position"].isna()).all()
            and {*paths["sender"]} == {"head 0.1"}
            and len(paths) == 2 * 2 * (1 + 3 * H + 1 + 1)
        ),
    ),
    "estimate first": (
        ("--estimate-first", "2", "--receiver", "head 0.0"),
        lambda cells, paths, means: (
            (cells.groupby(["pair", "direction", "kind"])["patched"].count() == 2).all()
            and (cells["patched"].isna() == cells["effect"].isna()).all()
            and cells["estimate"].notna().all()
            and "Only the 2 cells of each map" in report()
        ),
    ),
}


def lengths():
    """The tokens of the texts that are kept."""
    tokenizer = Tokenizer.load("runs/one")
    return [len(tokenizer.encode(text)) for text in table("pairs").query("kept")["clean"]]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("option", OPTIONS)
def test_options_say_what_is_measured(here, monkeypatch, option):
    arguments, holds = OPTIONS[option]
    assert run_patch(monkeypatch, *FEW, *arguments) == 0
    assert holds(table("patch"), table("paths"), table("averages"))


@pytest.mark.parametrize("kind", ["z", "resid_mid", pytest.param("attn", marks=pytest.mark.slow)])
def test_one_kind_alone_is_drawn(here, saved, monkeypatch, kind):
    assert run_patch(monkeypatch, "--pairs", "1", "--kinds", kind, "--texts", "0", "--receiver", "head 0.0") == 0
    assert Path("runs/one/patch/heads.png").exists() == (kind == "z")
    assert Path("runs/one/patch/positions.png").exists() == (kind == "attn")
    assert not table("edges")["strong"].any()
    assert not list(Path("runs/one/patch").glob("paths.*[gt]"))  # neither a picture nor a graph of nothing


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_seed_chooses_pairs(here, monkeypatch):
    chosen = []
    for seed in ("0", "1"):
        assert run_patch(monkeypatch, *FEW, "--kinds", "mlp", "--receiver", "logits", "--seed", seed) == 0
        chosen.append(table("patch")["pair"].unique().tolist())
    assert chosen[0] != chosen[1]


@pytest.fixture
def language_model(here):
    """A language model with random weights, in the folder `never`."""
    torch.manual_seed(0)
    lm = GPT2LM(GPT2Config(L, H, 12, n_ctx=17)).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save(lm, "never", Tokenizer.load("gpt2-mini"))


PROMPTS = ("--clean", "we saw Mary", "--corrupt", "we saw John", "--answers", " Mary", " John")


@pytest.mark.usefixtures("undrawn", "language_model")
def test_a_language_model_is_asked_for_next_tokens(monkeypatch):
    assert run_patch(monkeypatch, "--model", "never", *PROMPTS, "--kinds", "z", "mlp") == 0
    lm, tokenizer, cells = load_lm("never"), Tokenizer.load("never"), table("patch", "never")
    answers = [tokenizer.encode(name)[0] for name in PROMPTS[-2:]]
    for name in ("clean", "corrupt"):
        ids = [BOS, *tokenizer.encode(PROMPTS[2 * (name == "corrupt") + 1])]
        expected = lm(torch.tensor([ids]))[0, -1, answers] @ torch.tensor([1.0, -1])
        assert cells[name].tolist() == pytest.approx([expected.item()] * len(cells), rel=1e-4)
    assert set(cells["metric"]) == {" Mary -  John"}
    assert len(cells) == 2 * L * (len(ids) + H)
    assert not Path("runs/one/patch").exists()
    assert not Path("runs/never/patch/between.csv").exists()
    assert "language model: never" in report("never")
    assert run_patch(monkeypatch, "--model", "never", *PROMPTS, "--kinds", "z", "--run", "other") == 0
    assert set(table("patch", "other")["kind"]) == {"z"}


# What is kept.


TIMED = "patch_cells"  # a call says how long patches take, by the time of some


def read_outputs():
    """Tables and report, and what is kept for the next call."""
    files = [path for path in Path("runs/one/patch").rglob("*") if path.suffix in (".csv", ".md", ".dot", ".json")]
    return {str(path): path.read_bytes() for path in files if path.name != ".written.json"}  # it has the pictures, too


@pytest.mark.usefixtures("done", "undrawn")
def test_a_second_call_computes_nothing(monkeypatch, computed):
    first = read_outputs()
    assert run_patch(monkeypatch, *DEFAULT) == 0
    assert set(computed) <= {TIMED}
    assert differing(read_outputs(), first) == {"runs/one/patch/report.md"}  # which showed pictures
    assert run_patch(monkeypatch, "--pairs", "9", "--controls", "3") == 0  # all of them are among the ten
    assert set(computed) <= {TIMED}
    assert table("pairs")["kept"].sum() == 9


@pytest.mark.slow
@pytest.mark.usefixtures("done", "undrawn")
def test_tables_of_an_earlier_call_go_and_files_of_others_stay(monkeypatch, computed):
    folder, results = Path("runs/one/patch"), Path("runs/one/patch/results")
    others = {"notes.csv": "of my own", "plot.png": "a plot", "results/mine.json": "{}", "results/data.npy": "numbers"}
    for name, content in others.items():
        (folder / name).write_text(content)
    arguments = ("--pairs", "2", "--kinds", "mlp", "--texts", "0", "--receiver", "logits", "--no-resume")
    assert len(list(results.glob("*estimates*"))) == 2 * 10
    assert run_patch(monkeypatch, *arguments) == 0
    assert {name: (folder / name).read_text() for name in others} == others
    assert {path.name for path in folder.glob("*.png")} == {"plot.png"}
    assert not (folder / "between.csv").exists()
    assert len(list(results.iterdir())) == 2 + 2 * 2 * 3  # of each pair and direction: estimates, patches, edges
    calls = len(computed)
    assert run_patch(monkeypatch, *arguments) == 0
    assert len(computed) == 2 * calls


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_other_weights_are_measured_anew(here, monkeypatch, computed):
    arguments = (*TEXTS, "--answers", "joy", "fear", "--kinds", "mlp", "--receiver", "logits")
    assert run_patch(monkeypatch, *arguments) == 0
    before, calls = table("patch"), len(computed)
    clf = load_classifier("runs/one")
    with torch.no_grad():
        clf.score.weight.neg_()
    save(clf, "runs/one", Tokenizer.load("runs/one"))
    assert run_patch(monkeypatch, *arguments) == 0
    assert len(computed) == 2 * calls
    np.testing.assert_allclose(table("patch")["effect"], -before["effect"], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_call_goes_on_and_ends_as_if_nothing_had_been(here, monkeypatch, computed):
    arguments = ("--pairs", "2", "--kinds", "mlp", "--texts", "2", "--receiver", "logits")
    assert run_patch(monkeypatch, *arguments) == 0
    whole, calls = read_outputs(), [name for name in computed if name != TIMED]
    shutil.rmtree("runs/one/patch")
    computed.clear()
    for module, name, nth in (
        *((measure, "estimate_cells", 2), (measure, "patch_all_heads", 3)),
        *((measure, "patch_edges", 4), (lab.sweep, "run_ablations", 1)),
    ):
        with monkeypatch.context() as changes:
            changes.setattr(module, name, interrupt_at(nth, getattr(module, name)))
            assert run_patch(changes, *arguments) == 130
        assert not list(Path("runs/one/patch").glob("*.csv"))
    assert run_patch(monkeypatch, *arguments) == 0
    assert read_outputs() == whole
    again = len([name for name in computed if name != TIMED]) - len(calls)
    assert again <= 1  # what was under way when patches were interrupted: the controls


def interrupt_at(nth, function):
    """The function, whose nth call is stopped by Ctrl-C."""
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return function(*arguments)

    return interrupted


# Kills, see test_kill.py.

ARGUMENTS = "--device cpu --run one --pairs 2 --controls 1 --kinds z mlp"
DEATHS = [
    at_file("", 1),
    at_file("", 3),
    within("experiments.patch.measure.estimate_cells", 3),
    at_file("patches.json", 2),  # a result is half written
    within("experiments.patch.measure.patch_subspaces", 2),
    within("experiments.patch.measure.patch_edges", 7),
    at_file("between", 2),  # an array without what it depends on
    within("lab.sweep.run_ablations", 1),
    at_file("report.md", 1),
    at_file("averages.csv", 2),
    at_file(".written.json", 1),
]


def run_killed(folder, before=children.often):
    """`python patch.py` in a process of its own, after `before()`: its exit code, and what it wrote to stderr."""
    stderr = folder.with_name(f"{folder.name}-{next(children.number)}.stderr")
    children.ensure_server()
    process = children.SERVER.Process(target=work, args=(folder, before, stderr))
    process.start()
    return children.Child(process, stderr).end()


def work(folder, before, stderr):
    children.COMMANDS["patch"] = ARGUMENTS
    children.work(folder, "patch", (), before, stderr)


@pytest.mark.slow
def test_killed_at_every_turn_it_ends_as_if_nothing_had_been(here):
    undisturbed = shutil.copytree(here, here.with_name("undisturbed"), symlinks=True)
    assert run_killed(undisturbed) == (0, "")
    for death in DEATHS:
        assert run_killed(here, death) == (KILLED, ""), death
    assert run_killed(here) == (0, "")
    assert differing(left_in(here), left_in(undisturbed)) == set()


# Mistakes.


MISTAKES = {
    "no run": (("--run", "two"), "runs/two: there is no such run; make one with `make train`"),
    "clean alone": (("--clean", "i felt so happy"), "expected both, got --clean alone"),
    "corrupt alone": (("--corrupt", "i felt so happy"), "expected both, got --corrupt alone"),
    "lengths": (("--clean", "so happy", "--corrupt", "so very happy"), "expected as many tokens in both, got 2 and 3"),
    "the same": (("--clean", "so happy", "--corrupt", "so happy"), "expected two texts that differ"),
    "answers": ((*TEXTS, "--answers", "joy", "hope"), "--answers: expected two of anger, fear, joy, got hope"),
    "answers alone": (("--answers", "joy", "fear"), "--answers: expected two texts beside it"),
    "kind": (("--kinds", "z", "heads"), "'heads'"),
    "no kind": (("--kinds",), "--kinds: expected at least one of resid_pre, resid_mid"),
    "a kind twice": (("--kinds", "z", "z"), "none twice"),
    "sender": (("--sender", "head 0.3"), "'head 0.3': expected one of embedding, head, mlp, as in head 1.1, head 1.2"),
    "sender of logits": (("--sender", "logits"), "'logits': expected one of embedding, head, mlp"),
    "receiver": (("--receiver", "embedding"), "'embedding': expected one of head, mlp, logits"),
    "LayerNorm": (("--layer-norm", "fixed"), "'fixed'"),
    "no pairs": (("--pairs", "0"), "--pairs 0: expected at least 1"),
    "nothing first": (("--estimate-first", "0"), "--estimate-first 0: expected at least 1"),
    "controls": (("--controls", "-1"), "--controls -1"),
    "texts": (("--texts", "-1"), "--texts -1"),
    "seed": (("--seed", "-1"), "--seed -1"),
    "model and corpus": (
        ("--model", "gpt2-mini", "--corpus", "corpus.txt"),
        "expected a classifier, got a language model",
    ),
    "model": (("--model", "nothing", *PROMPTS), "nothing"),
    "words": (("--corpus", "unknown.txt"), "unknown.txt: expected test texts with a word of their class"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(here, monkeypatch, capsys, mistake):
    arguments, expected = MISTAKES[mistake]
    Path("unknown.txt").write_text(Path("corpus.txt").read_text().replace(";", "ish;"))  # words that no list has
    assert run_patch(monkeypatch, *arguments) == 2
    assert expected in one_line(capsys)
    assert not Path("runs/one/patch").exists()


def test_a_network_that_reads_no_pair_right_is_one_line(here, monkeypatch, capsys):
    clf = load_classifier("runs/one")
    with torch.no_grad():
        clf.score.weight.neg_()
    save(clf, "runs/one", Tokenizer.load("runs/one"))
    assert run_patch(monkeypatch) == 2
    assert "the network tells apart none of" in one_line(capsys)
    assert not Path("runs/one/patch").exists()


@pytest.mark.usefixtures("language_model")
def test_a_mistake_with_a_language_model_is_one_line(monkeypatch, capsys):
    for arguments, expected in (
        (("--run", "one", *PROMPTS), "runs/one: expected a free name or a folder of make patch"),
        (PROMPTS[:4], "--answers: expected two next tokens"),
        ((*PROMPTS[:4], "--answers", " Mary", " Humiliated"), "which is ' Hum' 'iliated'"),
        ((), "the network tells apart none of 8 pairs"),
        ((*PROMPTS, "--run", "latest"), "latest"),
    ):
        assert run_patch(monkeypatch, "--model", "never", *arguments) == 2
        assert expected in one_line(capsys)
        assert not list(Path("runs").glob("*/patch"))
