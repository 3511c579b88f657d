"""`explore.py` from the command line: the address, Ctrl-C, a taken port, and an export that is checked."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import commands
import httpx2
import pytest
from commands import one_line

import explore
from experiments.explore import compute
from experiments.explore.experiment import read_experiment
from experiments.explore.subject import open_run

ROOT = Path(explore.__file__).parent
ADDRESS = re.compile(r"^http://\S+/$", re.MULTILINE)
BODY = {"text": "i felt so happy", "heads": [[0, 2]], "mlps": [1], "tokens": {"1": "hide"}, "fill": "mean"}


def run_explore(monkeypatch, *arguments):
    """The exit code of `python explore.py arguments`."""
    return commands.exit_code(monkeypatch, explore, "--device", "cpu", *arguments)


@contextmanager
def interrupted(ask):
    """While the main thread serves, call `ask()` from another one, and press Ctrl-C; its error is raised at the end."""
    errors = []

    def work():
        try:
            ask()
        except BaseException as error:
            errors.append(error)
        finally:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not errors, errors


def wait_for_address(capsys, seen):
    """Read what is printed until it holds an address; `seen` gets all of it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        seen.append(capsys.readouterr().out)
        if match := ADDRESS.search("".join(seen)):
            return match[0]
        time.sleep(0.01)
    raise AssertionError(f"no address in {seen}")


def test_it_prints_its_address_answers_and_ends_at_ctrl_c(here, monkeypatch, capsys):
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("--no-open opened the page"))
    seen, answers = [], []

    def ask():
        address = wait_for_address(capsys, seen)
        answers.append(httpx2.get(f"{address}api/model", timeout=60))  # at once: the address is good
        answers.append(httpx2.post(f"{address}api/run", json=BODY, timeout=60))

    with interrupted(ask):
        assert run_explore(monkeypatch, "--port", "0", "--no-open") == 130
    out, err = capsys.readouterr()
    out = "".join(seen) + out
    assert err == "stopped by Ctrl-C\n"
    assert "Traceback" not in out
    [address] = ADDRESS.findall(out)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    model, run = answers
    assert model.json()["run"] == "runs/one"
    assert "server" not in model.headers
    subject = open_run("one")
    expected = compute.run(subject, read_experiment(BODY, subject))
    assert run.json() | {"seconds": 0} == json.loads(json.dumps(expected)) | {"seconds": 0}
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(address)


@pytest.fixture
def subject_of_nothing(monkeypatch):
    """No network is opened, nothing is served, and every address is one of this machine."""
    listen = explore.listen
    monkeypatch.setattr(explore, "listen", lambda host, port: listen("127.0.0.1", port))
    monkeypatch.setattr(explore, "open_run", lambda run, device, options, model: None)
    monkeypatch.setattr(explore, "create_app", lambda subject, hosts: None)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)


@pytest.mark.parametrize(
    ("host", "shown", "others"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("localhost", "localhost", False),
        ("::1", "[::1]", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "[::1]", True),
    ],
)
def test_an_address_for_others_says_what_it_means(subject_of_nothing, monkeypatch, capsys, host, shown, others):
    assert run_explore(monkeypatch, "--port", "0", "--no-open", "--host", host, "--allow-host", "lab.example") == 0
    out = capsys.readouterr().out
    assert re.search(rf"^http://{re.escape(shown)}:[1-9]\d*/$", out, re.MULTILINE)
    assert ("Every program that reaches this port can use the page." in " ".join(out.split())) == others
    assert ("lab.example" in out) == others


def test_without_allowed_names_it_is_said_that_programs_are_answered_all_the_same(
    subject_of_nothing, monkeypatch, capsys
):
    assert run_explore(monkeypatch, "--port", "0", "--no-open", "--host", "0.0.0.0") == 0
    line = "Every program that reaches this port can use the page. Names for other browsers: none yet, see --allow-host"
    assert line in " ".join(capsys.readouterr().out.split())


def test_a_page_is_opened_only_where_a_person_is(subject_of_nothing, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for is_terminal, wants, count in ((True, "--open", 1), (True, "--no-open", 0), (False, "--open", 0)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal, raising=False)
        opened.clear()
        assert run_explore(monkeypatch, "--port", "0", wants) == 0
        assert len(opened) == count


def test_a_taken_port_is_said_before_anything_is_loaded(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)  # without any run
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run_explore(monkeypatch, "--port", port, "--no-open") == 2
    line = one_line(capsys)
    assert f"127.0.0.1:{port}: cannot listen there" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--run", "none"), "make train"),
        (("--port", "65536"), "--port 65536: expected at least 0 and below 65536"),
        (("--port", "-1"), "--port -1"),
        (("--host", "no such host"), "cannot listen there"),
        (("--host", "a" * 300), "cannot listen there"),
        (("--host", "192.0.2.1"), "192.0.2.1:0: cannot listen there"),
        (("--model", "no-model"), "no-model"),
        (("--check", "none.json"), "none.json: there is no such file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, part):
    monkeypatch.chdir(tmp_path)
    port = () if "--port" in arguments else ("--port", "0")
    assert run_explore(monkeypatch, *port, "--no-open", *arguments) == 2
    assert part in one_line(capsys)


@pytest.fixture
def export(here):
    """An experiment that the page exported."""
    subject = open_run("one")
    content = {
        "format": "headgate experiment",
        "version": 1,
        "model": {"sha256": subject.weights},
        "experiment": BODY,
        "answer": compute.run(subject, read_experiment(BODY, subject)),
    }
    Path("file.json").write_text(json.dumps(content))
    return content


def test_an_exported_experiment_is_the_same(export, monkeypatch, capsys):
    assert run_explore(monkeypatch, "--check", "file.json") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "file.json: the same: the largest difference of a probability is" in out


def test_another_number_is_found(export, monkeypatch, capsys):
    export["answer"]["after"][1] += 1e-3
    Path("file.json").write_text(json.dumps(export))
    assert run_explore(monkeypatch, "--check", "file.json") == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "file.json: NOT the same: the largest difference of a probability is 0.001, and 0.0001 may be" in out


@pytest.mark.parametrize(
    ("part", "changes", "line"),
    [
        (None, {"answer": None}, "answer: expected an object"),
        ("model", {"sha256": "cd" * 32}, "expected weights of SHA-256 cdcd"),
    ],
)
def test_an_export_that_does_not_fit_is_one_line(export, monkeypatch, capsys, part, changes, line):
    (export[part] if part else export).update(changes)
    Path("file.json").write_text(json.dumps(export))
    assert run_explore(monkeypatch, "--check", "file.json") == 2
    assert line in one_line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("model", [False, True])
def test_a_process_of_its_own_serves_and_ends_at_ctrl_c(here, model):
    """As a person starts it: `python explore.py`, also with a language model."""
    what = ("--model", str(ROOT / "data" / "gpt2-mini")) if model else ("--run", "one")
    call = [sys.executable, str(ROOT / "explore.py"), "--port", "0", "--no-open", "--device", "cpu", *what]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ready = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=ready
    ) as child:
        address = next(line.strip() for line in child.stdout if ADDRESS.match(line))
        kind = "language model" if model else "classifier"
        assert httpx2.get(f"{address}api/model", timeout=60).json()["kind"] == kind
        assert httpx2.post(f"{address}api/run", json=BODY, timeout=60).status_code == 200
        assert httpx2.get(f"{address}api/model", headers={"host": "evil.example"}, timeout=60).status_code == 400
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err == "stopped by Ctrl-C\n"
    assert "Traceback" not in out
