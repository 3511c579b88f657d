"""What the pages say can be done, done: their examples, commands, options, links, pictures and files."""

import fnmatch
import importlib
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import commands
import pandas as pd
import pytest
import small_run
import torch
import tyro
from pictures_on_disk import leave_undrawn
from torch.distributed.run import get_args_parser

import experiments
import verify
from model import GPT2LM, GPT2Classifier, GPT2Config, Tokenizer, load_lm, save
from model.config import PRESETS

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "data/*/README.md", "lessons/README.md")
    for path in sorted(ROOT.glob(pattern))
}
NAMES = "train ablate attend explain explore rate agreement patch probe prompt embed paper pretrain verify"
SCRIPTS = {name: importlib.import_module(name) for name in NAMES.split()}
LABELS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
TINY = GPT2Config(1, 2, 8, n_ctx=17)

# Scripts run as the pages call them, but for these options, which are set whether a page sets them or not.
REPLACED = [  # scripts, option, value, reason
    ("prompt", "--model", "talker", "other weights need a network, or minutes"),
    ("prompt", "--shots", "1", "more examples repeat the first"),
    ("prompt", "--draws", "1", "more draws repeat the first"),
    ("prompt", "--texts", "7", "more texts repeat the first"),
    ("train paper pretrain", "--model", "tiny", "other weights need a network, or minutes"),
    ("train paper pretrain", "--epochs", "1", "one epoch runs the same code"),
    (
        "train ablate attend explain patch probe prompt embed paper pretrain verify",
        "--device",
        "cpu",
        "the same on every machine",
    ),
    ("train pretrain", "--compile", "off", "compiling takes a minute; tests/model/test_compile.py compiles"),
    (
        "ablate attend explain patch probe prompt embed",
        "--run",
        "one",
        "the run that is there; the table of files is checked with two",
    ),
    ("train paper pretrain", "--run", "new", "another name changes nothing"),
    ("paper", "--corpus", "corpus.txt", "a second corpus repeats the first"),
    ("paper", "--seeds", "1", "a second seed repeats the first"),
    ("attend", "--head", "1.2", "the tiny network has no head 3.4"),
    ("explain", "--texts", "3", "more texts repeat the first"),
    ("probe", "--words", "500", "the least that is allowed"),
    ("ablate patch", "--controls", "2", "more random subspaces repeat the first"),
    ("patch", "--pairs", "3", "more pairs repeat the first"),
    ("patch", "--texts", "1", "more texts repeat the first"),
    ("embed", "--texts", "29", "more texts repeat the first"),
]
DOWNLOADED = ("auto", "emotion", "sample", "stanfordnlp/imdb")  # as --corpus of train.py: corpus.txt, small and at hand
NOT_RUN = {  # commands by their beginning, and why; their targets and options are checked all the same
    "make explore": "serves until Ctrl-C; tests/test_explore.py starts it",
    "python explore.py": "needs a file that the page has exported; tests/test_explore.py has one",
    "make rate": "serves until Ctrl-C; tests/test_rate.py starts it",
    "make agreement": "needs the answers of raters; tests/test_rate.py has some",
    'make paper ARGS="--prompt': "calls prompt.py in another process; tests/test_paper.py pretends that",
    'make ablate ARGS="--prompt': "random weights know no words; tests/test_ablate_prompt.py has a planted network",
    "make ablate MODEL": "needs a network; tests/lab/test_foreign.py ablates a folder",
    "make patch MODEL": "only the official weights know whom the bag is given; tests/test_patch.py has a tiny model",
    "make test": "it would run this test again",
    "make lint": "runs no program of ours",
    "make words": "needs a network",
    "make lessons": "trains for two minutes; tests/lessons/test_lessons.py does what it does",
    "make mutants": "takes hours; tests/bench/test_mutants.py runs it on a small tree",
    "make bench": "takes minutes; tests/test_bench.py runs it with a pretended clock",
    "bench/gpu.sh": "needs a GPU; tests/bench/test_gpu.py rehearses it",
    "bench/collect.sh": "needs what bench/gpu.sh wrote; tests/bench/test_gpu.py calls it",
    "python -m bench": "takes minutes, and loading 7 GB; tests/test_bench.py runs the parts",
    "hf download": "needs a network",
    ".venv/bin/jupyter": "not among the requirements",
    ".venv/bin/python lessons": "tests/lessons/test_lessons.py runs each",
    ".venv/bin/pip install": "needs a network",
    "kill -9": "tests/test_kill.py kills",
}


def fenced(text: str, language: str) -> list[str]:
    """Return the code blocks in this language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"(?ms)^```.*?^```", "", text)


def spans(text: str) -> list[str]:
    """Return what stands between backticks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


# Examples


@pytest.fixture
def mini_run(tmp_path, monkeypatch):
    """A working folder with a finished run of the mini's shape."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(GPT2Classifier(GPT2Config.preset("gpt2-mini"), LABELS), "runs/latest", Tokenizer.load("gpt2-mini"))


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page] and page != "CONTRIBUTING.md"])
def test_every_example_runs(mini_run, page):
    names = {}
    for example in fenced(PAGES[page], "python"):
        exec(example, names)


def test_the_first_example_closes_a_head(mini_run, capsys):
    exec(fenced(PAGES["README.md"], "python")[0], {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == LABELS
    before, after = zip(*((float(line.split()[1]), float(line.split()[3])) for line in lines), strict=True)
    assert sum(before) == pytest.approx(1, abs=0.01) == sum(after)
    assert before != after


def test_the_masks_of_the_network_page_act(mini_run):
    names = {}
    setup, example = fenced(PAGES["docs/network.md"], "python")[:2]
    exec(setup + example, names)
    calls = [line for line in example.splitlines() if line.startswith("clf(")]
    assert len(calls) == 2
    for call in calls:
        assert not torch.allclose(eval(call, names), names["clf"](names["ids"]), atol=1e-6)


def test_the_experiment_of_the_contributors_page_runs(here, monkeypatch):
    files = dict(re.findall(r"(?ms)^`([\w/]+\.py)`:\n\n```python\n(.*?)^```", PAGES["CONTRIBUTING.md"]))
    assert set(files) == {"norms.py", "experiments/norms/table.py", "tests/experiments/norms/test_table.py"}
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    monkeypatch.syspath_prepend(here)
    # The package finds the new folder as if it were in its own.
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(here / "experiments")])
    assert commands.exit_code(monkeypatch, importlib.import_module("norms"), "--run", "one", "--device", "cpu") == 0
    table = pd.read_csv("runs/one/norms/norms.csv")
    assert list(table) == ["layer", "class", "n", "norm"]
    assert len(table) == 3 * len(small_run.WORDS)  # before and after both layers
    assert (table["norm"] > 0).all()
    names = {}
    exec(files["tests/experiments/norms/test_table.py"], names)
    names["test_the_norms_are_those_of_a_plain_loop"]()


# Commands


def commands_of(text: str) -> list[str]:
    """Return the commands of a page: each line of its sh blocks, and each span that begins like one."""
    lines = [line for block in fenced(text, "sh") for line in block.splitlines()]
    begins = rf"make [a-z]|python |\.venv/bin/\w+ |hf |cp |kill |({'|'.join(SCRIPTS)})\.py "
    lines += [span for span in spans(text) if re.match(begins, span)]
    return [command.strip() for line in lines for command in line.split("&&")]


@cache
def expanded(command: str) -> list[str]:
    """Return the words of the command; of `make`, those of what it would run, none where it has no such target."""
    words = shlex.split(command.split(" > ")[0])
    if words[0] != "make":
        return words
    environment = {"PATH": os.environ["PATH"]}  # without what `make test` sets
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, env=environment, capture_output=True, text=True)
    return shlex.split(done.stdout.replace("\\\n", "").splitlines()[-1]) if done.returncode == 0 else []


def script_and_options(words: list[str]) -> tuple[str, list[str]]:
    """Return the script that a command calls, as train or bench.speed, and its options; torchrun's own must exist."""
    if Path(words[0]).name == "torchrun":
        end = words.index("--")
        get_args_parser().parse_args([*words[1:end], "train.py"])
        words = words[end:]
    start = 0 if words[0].endswith(".py") else 2 if words[1] == "-m" else 1
    return words[start].removesuffix(".py"), words[start + 1 :]


def made_small(script: str, arguments: list[str]) -> list[str]:
    """Return the options with those of REPLACED in their places, and a small corpus for one that is downloaded."""
    options: dict[str, list[str]] = {}
    for word in arguments:
        if word.startswith("--"):
            options[word] = values = []
        else:
            values.append(word)
    options |= {option: [value] for scripts, option, value, _ in REPLACED if script in scripts.split()}
    if script == "train" and options.setdefault("--corpus", ["auto"])[0] in DOWNLOADED:
        options["--corpus"] = ["corpus.txt"]
    if script == "patch" and "--clean" in options:
        options |= {"--clean": ["i felt happy"], "--corrupt": ["i felt mad"]}  # the tiny network knows these words
    if "--seeds" in options and script == "train":
        options["--seeds"] = ["0", "1"]  # a third repeats the second
    options.pop("--seed", None)  # another seed changes nothing
    if script == "probe" and "--model" in options:
        options["--model"] = ["tiny"]
    return [word for option in sorted(options) for word in (option, *options[option])]


COMMANDS = sorted({command for text in PAGES.values() for command in commands_of(text)})
RUN = [each for each in COMMANDS if expanded(each) and not each.startswith(tuple(NOT_RUN)) and each != "make mini"]
CALLS = [call for call in map(script_and_options, map(expanded, RUN)) if call[1] != ["--help"]]
SMALL_CALLS = sorted({(script, *made_small(script, options)) for script, options in CALLS})


def choose_calls() -> list[tuple[str, ...]]:
    """Return one call of each script for each set of options: with other values it would run the same code."""
    written = {tuple(call.split()) for call in WRITERS.values()}
    chosen = {(call[0], *(word for word in call if word.startswith("--"))): call for call in SMALL_CALLS}
    return sorted(call for call in chosen.values() if call[0] != "verify" and call not in written)


def test_every_kind_of_command_is_found_and_make_has_its_target():
    """If a pattern above found none, the tests below would pass over them."""
    kinds = Counter(command.split()[0] for command in COMMANDS)
    assert kinds["make"] > 20
    assert kinds[".venv/bin/torchrun"] == 2
    assert not [beginning for beginning in NOT_RUN if not any(each.startswith(beginning) for each in COMMANDS)]
    assert not [command for command in COMMANDS if not expanded(command)]


def test_make_hands_several_runs_to_the_ablation_alone_and_seeds_as_they_are():
    assert expanded('make ablate RUN="a b c"')[1:] == ["ablate.py", "--run", "a", "b", "c"]
    assert expanded("make ablate RUN=a")[1:] == ["ablate.py", "--run", "a"]
    assert expanded('make probe RUN="a b"')[1:] == ["probe.py", "--run", "a b"]
    seeds = ["--run", "a", "--seeds", "0", "1", "--epochs", "3"]
    assert expanded('make train RUN=a SEEDS="0 1" ARGS="--epochs 3"')[1:] == ["train.py", *seeds]


@pytest.fixture
def scripts():
    """All modules with options, by what a command calls them."""
    benchmarks = ("speed", "loading", "pretraining", "corpora", "forecasts", "regularisers", "mutants", "gpu")
    return SCRIPTS | {f"bench.{name}": importlib.import_module(f"bench.{name}") for name in benchmarks}


def test_every_command_has_options_that_exist(scripts):
    """As they stand on the page, whatever is replaced when they run."""
    begins = "make (bench|explore|mutants|rate|agreement)|python (-m bench|explore)"
    not_run = [command for command in COMMANDS if re.match(begins, command)]
    calls = CALLS + [script_and_options(expanded(command)) for command in not_run]
    assert {script for script, _ in calls} == set(scripts)
    for script, options in calls:
        tyro.cli(scripts[script].Options, args=options)


def test_every_option_named_exists(scripts):
    texts = [span for text in PAGES.values() for span in spans(text)]
    named = {option for text in texts for option in re.findall(r"(?<!\S)--[a-z-]+", text)}
    assert len(named) > 20
    exist = {
        f"--{no}{field.name.rstrip('_').replace('_', '-')}"
        for script in scripts.values()
        for field in commands.list_options(script.Options)
        for no in ["", "no-"][: 1 + isinstance(field.default, bool)]
    }
    assert named <= exist | {"--help"}


@pytest.fixture
def workshop(here, monkeypatch):
    """A folder with all that the commands of the pages ask for. Pictures stay empty, and little is measured."""
    lines = Path("corpus.txt").read_text()
    Path("path/emotion").mkdir(parents=True)
    for split in ("train", "val", "test"):
        Path(f"path/emotion/{split}.txt").write_text(lines.replace("felt", f"felt {split}"))
    Path("first4000.txt").write_text(lines)
    Path("reviews.csv").write_text("said,feels\n" + lines.replace(";", ","))
    Path("novels.txt").write_text(f"{lines}<|endoftext|>\n{lines}")
    Path("novels.txt.xz").write_bytes(lzma.compress(Path("novels.txt").read_bytes()))
    save(GPT2LM(TINY), "tiny", Tokenizer.load("gpt2-mini"))
    save(GPT2LM(replace(TINY, n_ctx=256)), "talker", Tokenizer.load("gpt2-mini"))  # prompts are long
    pretend_other_run(Path("runs/one"), Path("runs/shuffled"), shuffle_labels=True)
    leave_undrawn(monkeypatch)
    monkeypatch.setattr("experiments.pretrain.training.EVALUATIONS", 2)
    in_this_process = partial(commands.exit_code, monkeypatch, SCRIPTS["train"])  # starting another one takes seconds
    monkeypatch.setattr("experiments.paper.plan.call", lambda words: in_this_process(*words[2:]))


def test_verify_runs(tmp_path, monkeypatch):
    """On a tiny network that is called gpt2, with one fact about it: the facts on file are about weights of 500 MB."""
    assert [call for call in SMALL_CALLS if call[0] == "verify"] == [("verify", "--device", "cpu")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "gpt2", dict(n_layer=1, n_head=2, n_embd=8, n_ctx=17))
    save(GPT2LM(TINY), "gpt2", Tokenizer.load("gpt2-mini"))
    monkeypatch.setattr(verify, "FACTS", tmp_path / "facts.json")
    monkeypatch.setattr(verify, "read_maps", lambda path: [])
    n = sum(parameter.numel() for parameter in load_lm("gpt2").parameters())
    for expected, code in ((n, 0), (n + 1, 1)):
        fact = {"fact": "parameters", "measure": "parameters", "inputs": {}, "expected": expected, "tolerance": 0}
        verify.FACTS.write_text(json.dumps([fact]))
        assert commands.exit_code(monkeypatch, verify, "--device", "cpu") == code


# Files, links and pictures

NEW = "--device cpu --epochs 1"
WRITERS = {  # the call that writes the files of a page's table
    "docs/train.md": "",  # the run `one` is there
    "docs/ablate.md": "ablate --controls 2 --device cpu --fill zero --gates learn --run one two --units "
    "heads layers regions words curves pairs smallest",
    "docs/attend.md": "attend --device cpu --head 1.2 --run one",
    "docs/explain.md": "explain --device cpu --run one --texts 3",
    "docs/patch.md": "patch --controls 2 --device cpu --pairs 3 --run one --texts 1",
    "docs/probe.md": "probe --device cpu --run one --words 500",
    "docs/prompt.md": "prompt --device cpu --draws 1 --model talker --run one --shots 1 --texts 7",
    "docs/embed.md": "embed --device cpu --run one --texts 29",
    "docs/paper.md": f"paper --corpus corpus.txt {NEW} --init pretrained random --model tiny --run new --seeds 1",
    "docs/pretrain.md": f"pretrain --compile off --corpus novels.txt {NEW} --model tiny --run new",
}
LONG = {
    "docs/ablate.md",
    "docs/embed.md",
    "docs/paper.md",
    "docs/prompt.md",
}  # pages whose call takes 15 seconds or more
OTHER_CALLS = choose_calls()


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")  # each script's other call draws them
@pytest.mark.parametrize("call", OTHER_CALLS, ids=" ".join)
def test_every_other_command_runs(workshop, monkeypatch, call):
    script, *options = call
    assert commands.exit_code(monkeypatch, SCRIPTS[script], *options) == 0


def files_named(text: str) -> list[str]:
    """Return the patterns in the first column of the table whose head begins with "in `runs/"."""
    table = re.search(r"(?ms)^\| in `runs/[^\n]*\n\|---\|---\|\n((?:\|[^\n]*\n)+)", text)
    rows = table[1].splitlines() if table else []
    return [name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_every_table_of_files_is_checked():
    assert {page for page, text in PAGES.items() if files_named(text)} == {*WRITERS, "docs/bench.md"}  # see NOT_RUN


def pretend_other_run(run: Path, copy: Path, **changed: object) -> None:
    """Copy a run as if it had been trained with other settings."""
    shutil.copytree(run, copy)
    record = json.loads((run / "run.json").read_text())
    record["settings"] |= {"run": copy.name} | changed
    (copy / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page in LONG else []) for page in WRITERS]
)
def test_the_files_of_a_page_are_those_that_are_written(workshop, monkeypatch, page):
    folder = Path("runs/one")
    pretend_other_run(folder, folder.with_name("two"), seed=1)
    if WRITERS[page]:
        script, *options = WRITERS[page].split()
        assert commands.exit_code(monkeypatch, SCRIPTS[script], *options) == 0
        folder = Path("runs/new") if "--run new" in WRITERS[page] else folder / script
    named = set(files_named(PAGES[page]))
    if page == "docs/probe.md":
        named -= {"agreement.csv"}  # only beside an ablation, see tests/test_probe.py
    if page == "docs/embed.md":  # this run began with random weights, and reads no sentence of data/senses.toml
        named -= {"reductions-pretrained.*", "senses.*"}
    if page == "docs/paper.md":
        named -= {"model_differences.csv"}  # of several models, see tests/test_paper.py
    written = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert not [name for name in named if not fnmatch.filter(written, name)]
    assert not [name for name in written if not any(fnmatch.fnmatch(name, pattern) for pattern in named)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page; of equal ones all but the first are numbered."""
    count: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        count[re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")] += 1
    return {name if i == 0 else f"{name}-{i}" for name, n in count.items() for i in range(n)}


def test_anchors_are_those_of_github():
    text = "# Is it `GPT-2`?\n## A, b: c_d\n## A, b: c_d\n## [x](y)\n```\n# no heading\n```\n"
    assert anchors(text) == {"is-it-gpt-2", "a-b-c_d", "a-b-c_d-1", "x"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[page])) if not link.startswith("http")]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_is_short_and_links_to_every_page():
    assert PAGES["README.md"].count("\n") <= 150
    assert not [page for page in PAGES if page != "README.md" and f"]({page})" not in PAGES["README.md"]]
