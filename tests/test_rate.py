"""`rate.py` and `agreement.py` from the command line: the page's address, simulated raters, and what they leave."""

import json
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import commands
import httpx2
import pandas as pd
import pytest
from commands import one_line
from explained_files import write_explained

import agreement
import rate

FOLDER = Path("runs/one/explain")
ADDRESS = re.compile(r"^http://\S+/$", re.MULTILINE)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A working folder with a finished run that was explained."""
    monkeypatch.chdir(tmp_path)
    write_explained(FOLDER)
    (FOLDER.parent / "run.json").write_text(json.dumps({"status": "finished", "settings": {"run": "one"}}))
    return tmp_path


def call_rate(monkeypatch, *arguments):
    return commands.exit_code(monkeypatch, rate, "--run", "one", "--port", "0", "--no-open", *arguments)


def call_agreement(monkeypatch, *arguments):
    return commands.exit_code(monkeypatch, agreement, "--run", "one", *arguments)


def answer_as_a_person(folder: Path, simulated: Path, n: int) -> None:
    """Leave a rater `ann` who gave the first n answers of a simulated one."""
    lines = [json.loads(line) for line in simulated.read_text().splitlines()][: n + 1]
    lines = [line | {"pseudonym": "ann", "simulated": False} for line in lines]
    (folder / "ann.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_page_is_served_until_ctrl_c(run, monkeypatch, capsys):
    seen, replies = [], []

    def ask():
        deadline = time.monotonic() + 60
        while not ADDRESS.search("".join(seen)) and time.monotonic() < deadline:
            seen.append(capsys.readouterr().out)
            time.sleep(0.01)
        address = ADDRESS.search("".join(seen))[0]
        replies.append(httpx2.get(address, timeout=60))
        replies.append(httpx2.post(f"{address}api/start", json={"pseudonym": "ann"}, timeout=60))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert call_rate(monkeypatch) == 130
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert [reply.status_code for reply in replies] == [200, 200]
    assert (FOLDER / "answers" / "ann.jsonl").is_file()
    assert "16 predictions before and after" in " ".join("".join(seen).split())


def test_simulated_raters_are_measured_and_say_so(run, monkeypatch, capsys):
    others = {path.name for path in FOLDER.iterdir()}
    assert call_rate(monkeypatch, "--simulate", "8", "--accuracy", "0.7") == 0
    assert call_agreement(monkeypatch) == 0
    assert {path.name for path in FOLDER.iterdir()} - others == {
        "answers",
        *("agreement.csv", "agreement.md", "agreement.png", "agreement.svg"),
    }
    lines = [json.loads(line) for line in (FOLDER / "answers" / "sim-3.jsonl").read_text().splitlines()]
    assert all(line["simulated"] for line in lines)
    assert "**Simulated raters: no person answered." in (FOLDER / "agreement.md").read_text()
    table = pd.read_csv(FOLDER / "agreement.csv", keep_default_na=False, na_values={"value": ""})
    accuracy = table[(table["task"] == "before") & (table["measure"] == "accuracy") & (table["class"] == "all")]
    assert accuracy["value"].item() == pytest.approx(0.7, abs=0.12)
    assert {"joy", "nan", "1"} <= {*table["class"].astype(str)}
    assert call_rate(monkeypatch, "--simulate", "2") == 0
    assert sorted(path.stem for path in (FOLDER / "answers").glob("*.jsonl")) == ["sim-1", "sim-2"]


@pytest.mark.slow
def test_people_and_simulated_raters_are_never_mixed(run, monkeypatch, capsys):
    assert call_rate(monkeypatch, "--simulate", "3") == 0
    answer_as_a_person(FOLDER / "answers", FOLDER / "answers" / "sim-1.jsonl", 40)
    for options, raters in (((), 1), (("--simulated",), 3)):
        assert call_agreement(monkeypatch, *options) == 0
        table = pd.read_csv(FOLDER / "agreement.csv")
        assert set(table.loc[table["measure"] == "accuracy", "raters"]) <= {raters, 0}
        assert ("Simulated raters" in (FOLDER / "agreement.md").read_text()) == bool(options)
    assert call_rate(monkeypatch, "--simulate", "1") == 0
    assert (FOLDER / "answers" / "ann.jsonl").is_file()  # no person is ever removed


@pytest.mark.slow
def test_a_later_explain_spoils_nothing(run, monkeypatch, capsys):
    assert call_rate(monkeypatch, "--simulate", "2") == 0
    assert call_agreement(monkeypatch) == 0
    table = (FOLDER / "agreement.csv").read_bytes()
    write_explained(FOLDER, 30, seed=1)
    assert call_agreement(monkeypatch) == 0
    assert (FOLDER / "agreement.csv").read_bytes() == table


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--method", "none"), "--method none: expected one of"),
        (("--accuracy", "1.5"), "--accuracy 1.5: expected 0 to 1"),
        (("--simulate", "-1"), "--simulate -1: expected at least 0"),
        (("--run", "none"), "make train"),
        (("--host", "no such host"), "cannot listen there"),
    ],
)
def test_mistakes_are_one_line(run, monkeypatch, capsys, arguments, line):
    assert call_rate(monkeypatch, *arguments) == 2
    assert line in one_line(capsys)


def test_what_is_missing_is_one_line(run, monkeypatch, capsys):
    assert call_agreement(monkeypatch) == 2
    assert "there are no answers yet; run `make rate` first" in one_line(capsys)
    shutil.rmtree(FOLDER)
    assert call_rate(monkeypatch) == 2
    assert "texts.csv: there is no such file; run `make explain` first" in one_line(capsys)
    assert call_agreement(monkeypatch) == 2
    assert "run `make rate` first" in one_line(capsys)
