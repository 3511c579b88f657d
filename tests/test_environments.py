"""Machines on which something usual is missing: links, the hub, a compiler, what only Unix has."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from children import write_books
from commands import exit_code, one_line

import ablate
import pretrain
import train
from experiments.explore.subject import open_run
from lab import defaults
from lab.device import Device

ROOT = Path(__file__).parent.parent
TINY = ["--model", "tiny", "--corpus", "corpus.txt", "--init", "random", "--epochs", "1", "--device", "cpu"]


def run_script(*arguments, **environment):
    """`python SCRIPT.py arguments` in a process of its own, in this folder."""
    changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=changed, capture_output=True, text=True, timeout=900
    )


# A file system without links.


@pytest.fixture
def without_links(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)


def test_without_links_a_training_is_finished_and_found_as_the_latest(
    here, without_links, unmeasured, monkeypatch, capsys
):
    assert exit_code(monkeypatch, train, *TINY, "--run", "two") == 0
    assert json.loads(Path("runs/two/run.json").read_bytes())["status"] == "finished"
    assert Path("runs/latest").read_bytes() == b"two"
    assert open_run("latest").name == "two"
    capsys.readouterr()
    assert exit_code(monkeypatch, train, *TINY, "--run", "two", "--resume") == 2
    assert "runs/two is finished" in one_line(capsys)
    assert exit_code(monkeypatch, train, *TINY, "--seed", "5", "--resume") == 0  # a new one
    assert open_run("latest").name not in ("two", "one")


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_without_links_experiments_work_on_the_latest_run(here, without_links, monkeypatch):
    Path("runs/latest").unlink()
    Path("runs/latest").write_text("one\n")
    assert exit_code(monkeypatch, ablate, "--device", "cpu", "--units", "layers", "--fill", "zero") == 0
    assert Path("runs/one/ablate/report.md").is_file()
    assert Path("runs/latest").read_text() == "one\n"


# What keeps the hub from being asked.


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("all_proxy", "socks://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere/ca.pem")],
)
def test_auto_goes_on_with_what_is_here_and_says_why(hub, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    for chosen, notice in (defaults.choose_model("auto", "pretrained"), defaults.choose_corpus("auto")):
        assert chosen in ("gpt2-mini", "sample")
        assert f"{variable}={value}" in notice
        assert "Going on with the embedded" in notice
    huggingface_hub.close_session()


# A compiler that is missing.


@pytest.fixture
def uncompilable(monkeypatch):
    """PyTorch finds no compiler when what was compiled is called, and `auto` is as on CUDA."""

    def fail(*arguments, **named):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(torch, "compile", lambda function, **how: fail)
    monkeypatch.setattr(Device, "compiles", lambda self, choice: choice)


@pytest.mark.parametrize("options", [(), ("--tune", "1", "--dropout", "0"), ("--tune", "head")], ids=str)
def test_training_goes_on_where_nothing_can_be_compiled(here, uncompilable, unmeasured, monkeypatch, capsys, options):
    assert exit_code(monkeypatch, train, *TINY, "--run", "auto", *options) == 0
    assert capsys.readouterr().out.count("torch.compile failed (RuntimeError: Failed to find C compiler.") == 1
    assert exit_code(monkeypatch, train, *TINY, "--run", "off", "--compile", "off", *options) == 0
    weights = [Path(f"runs/{name}/model.safetensors").read_bytes() for name in ("auto", "off")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("script", [train, pretrain], ids=lambda script: script.__name__)
def test_who_asks_for_it_gets_one_line_and_no_half_run(here, uncompilable, monkeypatch, capsys, script):
    write_books(here)
    books = ("--model", "tiny", "--corpus", "books.txt", "--batch-size", "2", "--epochs", "0.3", "--device", "cpu")
    before = sorted(os.listdir("runs"))
    assert exit_code(monkeypatch, script, *(TINY if script is train else books), "--compile", "on") == 2
    line = one_line(capsys)
    assert "--compile on: torch.compile failed (RuntimeError: Failed to find C compiler." in line
    assert "take --compile off" in line
    assert sorted(os.listdir("runs")) == before


@pytest.mark.parametrize("sampled", [0, 64])
def test_pretraining_goes_on_where_nothing_can_be_compiled(here, uncompilable, monkeypatch, capsys, sampled):
    write_books(here)
    books = (
        f"--model tiny --corpus books.txt --batch-size 2 --epochs 0.1 --device cpu --dropout 0.1 --sampled {sampled}"
    )
    monkeypatch.setattr(pretrain, "finish", lambda *arguments: None)
    for name, compiled in (("auto", "auto"), ("off", "off")):
        assert exit_code(monkeypatch, pretrain, *books.split(), "--run", name, "--compile", compiled) == 0
    assert capsys.readouterr().out.count("torch.compile failed") == 1
    rows = [Path(f"runs/{name}/log.jsonl").read_text().splitlines() for name in ("auto", "off")]
    losses = [[json.loads(row)["loss"] for row in log] for log in rows]
    assert len(losses[0]) > 2
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_machine_without_a_compiler(here, tmp_path):
    """PyTorch's own error, in a process that finds no program but git."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git"))
    nothing = {
        "PATH": str(tmp_path / "bin"),
        "CC": None,
        "CXX": None,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = run_script(ROOT / "train.py", *TINY, "--run", "two", "--compile", "on", **nothing)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "error: --compile on: torch.compile failed (InvalidCxxCompiler: No working C++ compiler found" in done.stderr
    assert not Path("runs/two").exists()


# Native Windows, as far as Python goes: modules that only Unix has are missing.

UNIX = ("resource", "fcntl", "pwd", "grp", "termios")
BLOCK = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {UNIX}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {UNIX}:
    if name != "pwd":  # built into Python, which has used it by now
        sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def unlike_unix(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    return {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": None}


@pytest.mark.slow
def test_a_training_needs_no_module_of_unix(here, unlike_unix):
    probing = (
        "import importlib.util as u\ntry:\n    u.find_spec('fcntl')\nexcept ModuleNotFoundError:\n    print('missing')"
    )
    assert run_script("-c", probing, **unlike_unix).stdout == "missing\n"  # or the test would see nothing
    done = run_script(ROOT / "train.py", *TINY, "--run", "two", **unlike_unix)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    record = json.loads(Path("runs/two/run.json").read_bytes())
    assert record["status"] == "finished"
    assert record["peak_memory_bytes"] == {"loading": None, "all": None}
    done = run_script(ROOT / "ablate.py", "--device", "cpu", "--units", "layers", "--fill", "zero", **unlike_unix)
    assert done.returncode == 0, done.stderr
    assert Path("runs/two/ablate/report.md").is_file()


HELP = f"""
import runpy, sys

sys.path.insert(0, {str(ROOT)!r})
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, script
"""


@pytest.mark.slow
def test_every_command_starts_without_the_modules_of_unix(unlike_unix):
    """In one process, for each would import the same again."""
    scripts = sorted(ROOT.glob("*.py"))
    done = run_script("-c", HELP, *scripts, **unlike_unix)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"usage: (\S+)", done.stdout) == [str(script) for script in scripts]
