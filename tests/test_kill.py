"""kill -9, again and again, and the same command after it: what is there at the end is what an undisturbed command
leaves, byte for byte."""

import os
import random
import shutil
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from pathlib import Path

import children
import pytest
from children import COMMANDS, KILLED, at_file, differing, left_in, run, start, within
from safetensors.torch import save_file

import lab.state
from experiments.train.frozen import FROZEN


def die_half_way(nth: int) -> None:
    """SIGKILL when half of the nth state is written."""
    children.often()
    states = count(1)

    def half(tensors, path, **options):
        save_file(tensors, path, **options)
        if next(states) == nth:
            os.truncate(path, path.stat().st_size // 2)
            children.die()

    lab.state.save_file = half


state = partial(partial, die_half_way)
DEATHS = {
    "train": [
        *(at_file("", n) for n in (1, 2, 4)),  # until there is a manifest
        *(state(n) for n in (1, 3)),
        *(at_file("model.safetensors", n) for n in (2, 3)),
        at_file("config.json", 3),  # the weights are new, and the config is former
        within("experiments.train.training.f1_score", 2),  # an epoch is over
        within("experiments.train.steps.Step.__call__", 12),
        at_file("log.jsonl", 3),
        at_file("", 21),
        within("experiments.train.measure.predictions", 1),
        at_file("confusion_test.png", 2),
        at_file("latest", 1),
        at_file("run.json", 7),  # all is done but to say so
    ],
    "pretrain": [
        at_file("", 2),
        state(2),
        within("torch.Tensor.backward", 17),
        at_file("model.safetensors", 3),
        within("pretrain.continue_text", 2),
        at_file("run.json", 7),
    ],
    "ablate": [
        at_file("", 2),
        at_file("npy", 2),
        at_file("json", 2),  # logits without what they depend on
        *(within("lab.sweep.run_ablations", n) for n in (3, 5)),
        at_file("report.md", 2),
    ],
    "probe": [
        at_file("", 4),
        within("experiments.probe.tasks.score_sites", 1),
        within("experiments.probe.tasks.score_sites", 3),
        at_file("layers.png", 2),
    ],
}


@pytest.fixture(scope="module")
def working_folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a folder with a finished run `one`, and with books."""

    def make() -> Path:
        folder = shutil.copytree(trained, tmp_path_factory.mktemp("kill") / "here", symlinks=True)
        children.write_books(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def undisturbed(working_folder: Callable[[], Path]) -> Callable[[str], dict[str, object]]:
    """What a script leaves in runs/ without being disturbed."""

    @cache
    def left(script: str) -> dict[str, object]:
        here = working_folder()
        assert run(here, script) == (0, "")
        return left_in(here)

    return left


def test_killed_while_it_writes_it_ends_as_if_nothing_had_been(working_folder, undisturbed):
    here = working_folder()
    assert run(here, "train", before=state(3)) == (KILLED, "")
    assert run(here, "train") == (0, "")
    assert differing(left_in(here), undisturbed("train")) == set()


@pytest.mark.slow
def test_killed_with_frozen_blocks_it_ends_as_if_nothing_had_been(working_folder):
    here, whole, options = working_folder(), working_folder(), ("--tune", "1", "--dropout", "0")
    for death, kept in ((at_file(FROZEN, 2), False), (within("experiments.train.steps.Step.__call__", 12), True)):
        assert run(here, "train", *options, before=death) == (KILLED, "")
        assert (here / "runs/two" / FROZEN).exists() == kept
    for folder in (here, whole):
        assert run(folder, "train", *options) == (0, "")
        assert not (folder / "runs/two" / FROZEN).exists()
    assert differing(left_in(here), left_in(whole)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMANDS)
def test_killed_at_every_turn_it_ends_as_if_nothing_had_been(working_folder, undisturbed, script):
    here = working_folder()
    for death in DEATHS[script]:
        assert run(here, script, before=death) == (KILLED, ""), death
    assert run(here, script) == (0, "")
    assert differing(left_in(here), undisturbed(script)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "ablate"])
def test_killed_at_any_time_it_ends_as_if_nothing_had_been(working_folder, undisturbed, script):
    """From outside, wherever it happens to be, also while the file system writes."""
    here, rng, code = working_folder(), random.Random(0), KILLED
    for _ in range(5):
        if code == KILLED:
            child = start(here, script)
            child.process.join(rng.uniform(0.2, 1.2))
            child.process.kill()
            code, said = child.end()
            assert code in (KILLED, 0), said
    if code == KILLED:
        assert run(here, script) == (0, "")
    assert differing(left_in(here), undisturbed(script)) == set()


@pytest.mark.slow
def test_without_a_name_the_newest_run_with_these_settings_goes_on(working_folder, undisturbed):
    here = working_folder()
    for others in ((), ("--run", "three", "--lr", "0.005")):
        assert run(here, "train", *others, before=at_file("state", 3)) == (KILLED, "")
    shutil.copytree(here / "runs" / "two", here / "runs" / "older")
    manifest = here / "runs" / "older" / "run.json"
    manifest.write_text(manifest.read_text().replace('"started": "2', '"started": "1'))
    before = left_in(here)
    assert run(here, "train", "--run", "") == (0, "")
    after = left_in(here)
    assert {Path(name).parts[1] for name in differing(after, before) - {"latest"}} == {"two"}
    ours = {name: content for name, content in after.items() if not name.startswith(("runs/three", "runs/older"))}
    assert differing(ours, undisturbed("train")) == set()


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True], ids=["both new", "both go on"])
def test_of_two_at_once_one_goes_on_and_the_other_changes_nothing(working_folder, undisturbed, begun):
    here = working_folder()
    if begun:
        assert run(here, "train", before=at_file("state", 3)) == (KILLED, "")
    ends = sorted(child.end() for child in [start(here, "train") for _ in range(2)])
    assert [code for code, _ in ends] == [0, 2]
    assert ends[0][1] == ""
    assert ends[1][1] == "error: runs/two: another train.py is at work on it; wait, or choose another --run\n"
    assert differing(left_in(here), undisturbed("train")) == set()
