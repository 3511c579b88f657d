"""The check of a machine with a GPU, rehearsed on the CPU: steps, limits of time, and weights in parts."""

import json
import os
import re
import shutil
import subprocess
import time
import weakref
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from commands import exit_code, one_line

from bench import gpu, gpu_steps
from data.books import steps_per_epoch
from lab.device import Device
from model import GPT2LM, GPT2Config, Tokenizer, load_lm, save

ROOT = Path(__file__).parent.parent.parent


def call(script, *arguments, **environment):
    return subprocess.run(
        [ROOT / "bench" / script, *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment
    )


@pytest.mark.slow
def test_a_rehearsal_takes_every_step(tmp_path):
    done = call("gpu.sh", "--rehearse", "--out", tmp_path)
    assert done.returncode == 0, (tmp_path / "log.txt").read_text()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "a rehearsal" in found["gpu"]
    steps = found["steps"]
    assert list(steps) == list(gpu.LIMITS) == list(gpu_steps.STEPS)
    assert re.search(r"\b[1-9]\d+ (skipped|passed)\b", steps["cuda-tests"]["summary"])
    for name in ("training", "trainer", "trainer-compiled", "sweep", "hooks"):
        assert min(steps[name][key] for key in ("seconds", "warm_up_seconds", "peak_bytes")) > 0
    assert 1 < steps["training"]["tokens_in_use"] < 1000
    assert 0.9 < steps["bf16"]["spearman"] < 1
    assert steps["out-of-memory"]["times"] == 2
    assert steps["out-of-memory"]["largest_difference"] < 1e-5
    assert steps["mini"]["held_out_loss"] == pytest.approx(10.8, abs=0.1)  # the log of 50,257
    table = (tmp_path / "gpu.md").read_text()
    assert len(re.findall(r"(?m)^\| ", table)) == 1 + len(steps)
    assert "headgate is" in table
    assert "failed" not in table
    assert table.strip() in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("SHA256SUMS", "config.json", "gpu.json", "gpu.md", "log.txt", "model.safetensors.00")
    ]
    assert call("collect.sh", tmp_path).returncode == 0
    assert load_lm(tmp_path).config == GPT2Config(2, 2, 8, n_ctx=64)


@pytest.mark.slow
def test_a_step_that_fails_is_told_and_the_next_one_begins(tmp_path):
    """As on a machine without transformers."""
    broken = tmp_path / "broken"
    (broken / "transformers").mkdir(parents=True)
    (broken / "transformers/__init__.py").write_text('raise ImportError("no such library here")')
    out, path = tmp_path / "out", f"{broken}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = call("gpu.sh", "--rehearse", "--out", out, "--steps", "hooks", "sweep", PYTHONPATH=path)
    assert done.returncode == 1
    steps = json.loads((out / "gpu.json").read_text())["steps"]
    assert "no such library here" in steps["hooks"]["failed"]
    assert steps["sweep"]["seconds"] > 0
    assert "failed: exit code 1: ImportError: no such library here" in (out / "gpu.md").read_text()
    assert "hooks: failed" in done.stdout


# Steps for the processes of `run_step`, which fork this one.


def sleep(task):
    (task.out / "child").write_text(str(subprocess.Popen(["sleep", "100"]).pid))
    time.sleep(100)


def keep_what_there_is(task):
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        return {"kept": 7}


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_step_is_stopped_after_its_time_with_all_that_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_steps.STEPS, "sleep", sleep)
    monkeypatch.setattr(gpu, "GRACE", 0.1)
    (tmp_path / "log.txt").write_text("")
    (tmp_path / "step.json").write_text('{"old": 1}')  # of a call that was killed
    result = gpu.run_step("sleep", gpu.Options(str(tmp_path), rehearse=True), 0.5)
    assert result["failed"] == "stopped after 0 s"
    assert "old" not in result
    assert result["step_seconds"] < 30
    assert is_gone((tmp_path / "child").read_text())


def test_a_step_that_is_stopped_may_keep_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_steps.STEPS, "keep", keep_what_there_is)
    result = gpu.run_step("keep", gpu.Options(str(tmp_path), rehearse=True), 0.5)
    assert result["kept"] == 7
    assert not (tmp_path / "step.json").exists()


def test_mistakes_are_told_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, words in (
        (["--rehearse", "--steps", "sweeep"], "--steps sweeep: expected some of cuda-tests, training, trainer, "),
        (["--rehearse", "--books", "none.txt"], "--books none.txt: expected a text file"),
        ([], "expected a GPU with CUDA, found none; --rehearse"),
    ):
        assert exit_code(monkeypatch, gpu, *arguments) == 2
        assert words in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_the_table_compares_with_peers_and_goals():
    timed = {"warm_up_seconds": 40.2, "peak_bytes": 3 * 2**30}
    results = {
        "training": timed | {"seconds": 12.5, "tokens_in_use": 13769},
        "trainer": timed | {"seconds": 50.0},
        "hooks": timed | {"seconds": 9.0},
        "bf16": {"failed": "stopped after 35 s"},
    }
    lines = gpu.make_table({"gpu": "X", "torch": "1", "transformers": "2"}, results).splitlines()[4:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][1:] == [
        *("12.50 s, after 40 s to warm up; moves the embeddings of 13,769 tokens alone", "3.00 GiB", "15 s")
    ]
    assert cells[1][1:] == ["50.00 s, after 40 s to warm up: headgate is 4.00 x as fast", "3.00 GiB", "3 x"]
    assert cells[2][1] == "9.00 s, after 40 s to warm up"  # there is no sweep to compare with
    assert cells[3][1:] == ["failed: stopped after 35 s", "", ""]


def test_memory_that_does_not_run_out_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_steps, "sweep_headgate", lambda job, end_turn: torch.ones(2, 3).numpy())
    task = gpu_steps.Task(tmp_path, tmp_path, 60, "", rehearsed=True)
    with pytest.raises(gpu_steps.InputError, match="got 0 times"):
        gpu_steps.run_out_of_memory(task)


def test_the_mini_gets_as_many_epochs_as_the_seconds_allow(tmp_path, monkeypatch):
    """Each step takes half a second, and the first ten, which warm up, 5 more."""
    clock, made, alive = [0.0], [], []
    monkeypatch.setattr(gpu_steps.time, "monotonic", lambda: clock[0])

    def take_step(training):
        made.append(weakref.ref(training.lm))
        clock[0] += 0.5 if training.step else 5.5
        training.step += 1

    monkeypatch.setattr(gpu_steps.Pretraining, "take_step", take_step)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(made[-1]() is not None))
    save(GPT2LM(GPT2Config(1, 2, 8, n_ctx=64)), tmp_path / "tiny", Tokenizer.load("gpt2-mini"))
    task = gpu_steps.Task(tmp_path, tmp_path, 120, "", rehearsed=True)
    settings = gpu_steps.Settings(str(gpu_steps.write_book(tmp_path)), str(tmp_path / "tiny"), epochs=1.0, sampled=0)
    epochs = gpu_steps.choose_epochs(settings, task)
    books = gpu_steps.read_books(settings.corpus, Tokenizer.load("gpt2-mini"))
    per_epoch = steps_per_epoch(books.train, 64, gpu_steps.Settings("").batch_size)
    assert epochs * per_epoch == pytest.approx(0.6 * (120 - 2 * 10) / 0.5)
    assert alive == [False]  # its memory is free


@pytest.fixture
def parts(tmp_path):
    """Weights of 35 bytes in parts of 10."""
    content = bytes(range(35))
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from/model.safetensors").write_bytes(content)
    gpu_steps.split_file(tmp_path / "from/model.safetensors", tmp_path / "to", 10)
    return tmp_path / "to", content


needs_sha256sum = pytest.mark.skipif(not shutil.which("sha256sum"), reason="collect.sh calls sha256sum")


@needs_sha256sum
def test_parts_are_joined_to_the_same_bytes(parts):
    folder, content = parts
    assert [len((folder / f"model.safetensors.0{i}").read_bytes()) for i in range(4)] == [10, 10, 10, 5]
    done = call("collect.sh", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "model.safetensors").read_bytes() == content
    assert call("collect.sh", folder).returncode == 0  # again


def damage_part(folder):
    (folder / "model.safetensors.02").write_bytes(bytes(10))


def remove_part(folder):
    (folder / "model.safetensors.02").unlink()


def remove_sums(folder):
    (folder / "SHA256SUMS").unlink()


def cut_sums(folder):
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:2]))


def change_sum_of_whole(folder):
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(sha256(bytes(range(35))).hexdigest(), sha256(b"").hexdigest()))


@needs_sha256sum
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_part, "model.safetensors.02: damaged"),
        (remove_part, "model.safetensors.02: missing"),
        (cut_sums, "SHA256SUMS: damaged"),
        (change_sum_of_whole, "SHA256SUMS: damaged"),
    ],
)
def test_what_is_damaged_is_named_and_nothing_is_joined(parts, damage, said):
    folder, _ = parts
    (folder / "model.safetensors").write_bytes(b"joined earlier")
    damage(folder)
    done = call("collect.sh", folder)
    assert (done.returncode, done.stderr) == (1, f"error: {folder}/{said}; copy it again\n")
    assert not {path.name for path in folder.iterdir()} & {"model.safetensors", "joined"}


@needs_sha256sum
def test_a_folder_that_gpu_sh_has_not_written_is_refused_and_stays_as_it_is(parts):
    folder, content = parts
    done = call("collect.sh")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: expected one folder")
    done = call("collect.sh", folder / "none")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {folder}/none: expected the folder that bench/gpu.sh wrote")
    remove_sums(folder)
    (folder / "model.safetensors").write_bytes(content)  # somebody's
    done = call("collect.sh", folder)
    assert (done.returncode, done.stderr) == (1, f"error: {folder}/SHA256SUMS: missing; copy it again\n")
    assert (folder / "model.safetensors").read_bytes() == content


@needs_sha256sum
def test_a_part_of_another_file_is_not_joined(parts):
    folder, content = parts
    (folder / "model.safetensors.04").write_bytes(b"left over")
    assert call("collect.sh", folder).returncode == 0
    assert (folder / "model.safetensors").read_bytes() == content


def test_parts_of_an_earlier_call_go(parts):
    folder, content = parts
    (folder / "model.safetensors").write_bytes(content)
    (folder / "weights").mkdir()
    (folder / "weights/model.safetensors").write_bytes(content[:15])
    gpu_steps.split_file(folder / "weights/model.safetensors", folder, 10)
    kept = {"SHA256SUMS", "weights", "model.safetensors.00", "model.safetensors.01"}
    assert {path.name for path in folder.iterdir()} == kept


@pytest.mark.slow
def test_paths_are_those_of_the_folder_where_it_is_called(tmp_path):
    """And a module that lies there has no say."""
    (tmp_path / "bench.py").write_text("raise SystemExit(7)")
    call = [ROOT / "bench/gpu.sh", "--rehearse", "--out", "out", "--books", "none.txt"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --books none.txt: expected a text file, found none\n")
    (tmp_path / "none.txt").write_text("there it is")
    done = subprocess.run([*call, "--steps", "cuda-tests"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/gpu.json").exists()


def test_every_25th_batch_warms_up():
    batches = [[i] for i in range(60)]
    assert gpu_steps.sample(batches, [(7 * i) % 60 for i in range(60)]) == [[0], [55], [50]]


def test_a_device_runs_what_is_rehearsed_on_the_cpu(tmp_path):
    task = gpu_steps.Task(tmp_path, tmp_path, 60, "", rehearsed=True)
    assert task.device == Device(torch.device("cpu"), "fp32")
    assert gpu_steps.Task(tmp_path, tmp_path, 60, "", rehearsed=False).shape == GPT2Config.preset("gpt2")
