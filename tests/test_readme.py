"""What the README says can be done, done."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import tyro

import ablate
import paper
import pretrain
import probe
import train
import verify
from model import GPT2LM, GPT2Classifier, GPT2Config, Tokenizer, load_classifier, masks, save

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = {
    "train": train.Options,
    "ablate": ablate.Options,
    "probe": probe.Options,
    "verify": verify.Options,
    "paper": paper.Options,
    "pretrain": pretrain.Options,
    "mini": pretrain.Options,  # as make calls it
}
MENTIONED = ("mini", [])  # in passing: it needs a text
LABELS = ["sadness", "joy", "love", "anger", "fear", "surprise"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A working folder with a finished run of the mini's shape."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(GPT2Classifier(GPT2Config.preset("gpt2-mini"), LABELS), "runs/latest", Tokenizer.load("gpt2-mini"))


def test_the_first_example_closes_a_head(run, capsys):
    exec(blocks("python")[0], {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == LABELS
    before, after = zip(*((float(line.split()[1]), float(line.split()[3])) for line in lines), strict=True)
    assert sum(before) == pytest.approx(1, abs=0.01)
    assert sum(after) == pytest.approx(1, abs=0.01)


def test_the_masks_of_the_second_example_act(run):
    clf, lm = load_classifier("runs/latest"), GPT2LM(GPT2Config(1, 2, 10)).eval()
    ids = torch.tensor([Tokenizer.load("runs/latest").encode("i feel like nobody would notice")])
    names = {"clf": clf, "lm": lm, "ids": ids, "T": ids.shape[1], "masks": masks}
    example = blocks("python")[1]
    calls = [line for line in example.splitlines() if line.startswith("clf(")]
    exec(example, names)
    assert len(calls) == 2
    for call in calls:
        assert not torch.allclose(eval(call, names), clf(ids), atol=1e-6)


def commands():
    """Every `make` and every script of the README: the script, and the arguments that it gets."""
    names = "|".join(SCRIPTS)
    for script, *make in re.findall(
        rf"^make ({names})\b ?(.*)$|`make ({names})\b ?([^`]*)`", README, flags=re.MULTILINE
    ):
        script, text = (script, make[0]) if script else make[1:]
        words = dict(word.split("=", 1) for word in shlex.split(text))
        given = [f"--{name.lower()}={value}" for name, value in words.items() if name != "ARGS"]
        yield script, [*given, *shlex.split(words.get("ARGS", ""))]
    for script, arguments in re.findall(rf"(?:python|--) ({names})\.py ?([^`\n]*)", README):
        yield script, shlex.split(arguments)


@pytest.mark.parametrize(
    ("script", "arguments"), [c for c in commands() if c[1] != ["--help"] and c != MENTIONED], ids=str
)
def test_every_command_has_options_that_exist(script, arguments):
    options = tyro.cli(SCRIPTS[script], args=arguments)
    if hasattr(options, "check"):
        options.check()


def test_every_option_named_exists():
    named = set(re.findall(r"`(--[a-z-]+)[^`]*`", README))
    assert len(named) > 10
    there = {
        f"--{no}{name.replace('_', '-')}"
        for options in SCRIPTS.values()
        for name, kind in options.__annotations__.items()
        for no in ["", "no-"][: 1 + (kind is bool)]
    }
    assert named <= there | {"--help"}


def test_every_file_named_exists():
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")}
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]
