"""The script of a state, run, prints the numbers of the page; its command asks for the same."""

import contextlib
import io
import json
import shlex

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from tiny import random_classifier

from data import ReadOptions
from experiments.explore.experiment import read_experiment
from experiments.explore.server import create_app
from experiments.explore.subject import open_run
from lab.device import Device
from lab.study import ITS_OWN, StudyOptions
from model import GPT2Config, Tokenizer, save

TEXTS = [
    "i felt so happy at work",
    "what a day 🦜 it was",
    "no",
    "she's 'quite' \"sure\"\nof it\t\\ {x} </script> $(ls) %s",
]
REMOVALS = ["hide", "delete", "fill"]
MIX = {  # tokens are hidden and filled behind a deleted one, where positions have moved
    **{"text": TEXTS[0], "heads": [[2, 1], [0, 3]], "mlps": [1], "fill": "text", "other": TEXTS[1]},
    "tokens": {"1": "delete", "2": "fill", "4": "hide", "5": "fill"},
}


def draw_state(subject, seed):
    """A random body: heads, MLPs, a whole layer and tokens off, each with any fill in turn."""
    rng, config = np.random.default_rng(seed), subject.model.config
    body = {"text": TEXTS[seed % len(TEXTS)], "fill": subject.fill_names[seed % len(subject.fill_names)]}
    heads = {tuple(rng.integers([config.n_layer, config.n_head]).tolist()) for _ in range(rng.integers(0, 5))}
    mlps = set(rng.integers(config.n_layer, size=rng.integers(0, 3)).tolist())
    if rng.random() < 0.3:
        layer = int(rng.integers(config.n_layer))
        heads |= {(layer, head) for head in range(config.n_head)}
        mlps.add(layer)
    body |= {"heads": [list(head) for head in sorted(heads, reverse=True)], "mlps": sorted(mlps)}
    T = len(subject.tokenizer.encode(body["text"]))
    removed = rng.choice(T, size=rng.integers(0, min(4, T)), replace=False).tolist()
    body["tokens"] = {str(i): REMOVALS[rng.integers(3)] for i in removed}
    last = max(i for i in range(T) if body["tokens"].get(str(i)) != "delete")
    if body["tokens"].get(str(last)) == "hide":
        body["tokens"][str(last)] = "fill"
    if body["fill"] == "text":
        body["other"] = TEXTS[(seed + 1) % len(TEXTS)]
    return body


@pytest.fixture(params=["classifier", "language model"])
def asked(request, monkeypatch):
    """A subject that scripts open, and a client of it."""
    kind = "" if request.param == "classifier" else "language_"
    subject = request.getfixturevalue(f"{kind}subject")

    def open_again(name):
        assert name == (subject.name if subject.labels else subject.source)
        return subject

    monkeypatch.setattr(Tokenizer, "load", lambda folder: subject.tokenizer)  # the folder has none
    opener = subject.call.partition("(")[0]
    monkeypatch.setattr(f"experiments.explore.subject.{opener}", open_again)
    return subject, request.getfixturevalue(f"{kind}client")


def run_script(client, body):
    """What the script of a state prints, and the network that it has opened."""
    code, out, names = client.post("/api/code", json=body).json(), io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(out):
        exec(compile(code["python"], "copied.py", "exec"), names)
    before, after = (np.array(json.loads(line)) for line in out.getvalue().splitlines()[-2:])
    return before, after, names["model"]


def check_state(subject, client, body):
    """Run the script of a state as a user would, and compare."""
    run = client.post("/api/run", json=body).json()
    before, after, network = run_script(client, body)
    assert getattr(network, "labels", ()) == subject.labels
    if not subject.labels:  # all next tokens: the likeliest are shown, those before first
        shown = list(dict.fromkeys(i for row in (before, after) for i in (-row).argsort(kind="stable")[:10].tolist()))
        assert [subject.tokenizer.decode([i]) for i in shown] == run["labels"]
        before, after = before[shown], after[shown]
    assert before == pytest.approx(run["before"], abs=1e-5)
    assert after == pytest.approx(run["after"], abs=1e-5)
    return np.abs(before - after).max()


def test_the_script_of_a_state_gives_the_numbers_of_the_page(asked):
    subject, client = asked
    changes = [check_state(subject, client, body) for body in (MIX, *(draw_state(subject, i) for i in range(5)))]
    assert sum(change > 1e-4 for change in changes) >= 4  # or nothing was compared


@pytest.mark.slow
def test_the_scripts_of_50_states_give_the_numbers_of_the_page(asked):
    subject, client = asked
    states = [draw_state(subject, seed) for seed in range(50)]
    changes = [check_state(subject, client, body) for body in states]
    assert sum(change > 1e-4 for change in changes) >= 35
    assert {body["fill"] for body in states if body["heads"] or body["mlps"]} == {*subject.fill_names}
    assert {removal for body in states for removal in body["tokens"].values()} == {*REMOVALS}
    mixes = [body for body in states if body["heads"] and body["mlps"] and body["tokens"]]
    assert len(mixes) >= 5


def test_the_script_needs_nothing_that_it_does_not_use(client):
    code = client.post("/api/code", json={"text": "no"}).json()["python"]
    assert "masks" not in code
    code = client.post("/api/code", json={"text": "no", "fill": "mean"}).json()["python"]
    assert "compute_fills" not in code  # nothing is off that could be filled


CLOSED = {"text": "i felt so glad today", "heads": [[1, 2], [0, 0]], "mlps": [1]}
CPU = Device(torch.device("cpu"), "fp32")


def ask(subject):
    """Requests to the application."""
    return TestClient(create_app(subject, ["testserver"]))


@pytest.fixture
def foreign(here):
    """A folder with a run and two classifiers of others, which have no run and not the corpus's order of classes."""
    for name, labels in {"theirs": ["joy", "anger", "fear"], "numbered": ["LABEL_0", "LABEL_1", "LABEL_2"]}.items():
        clf = random_classifier(GPT2Config(2, 3, 12, n_ctx=17), labels)
        save(clf, here / name, Tokenizer.load("gpt2-mini"))
    rows = [line.split(";") for line in (here / "corpus.txt").read_text().splitlines()]
    (here / "others.csv").write_text("".join(f"{label},{text} and town\n" for text, label in rows[::2]))
    return here


OF_OTHERS = ReadOptions(text_column="2", label_column="1", header=False)


@pytest.mark.parametrize(
    ("run", "options", "model"),
    [
        ("one", ITS_OWN, None),
        ("one", StudyOptions(corpus="others.csv", read=OF_OTHERS), None),
        ("latest", StudyOptions(corpus="corpus.txt"), "theirs"),
        ("latest", StudyOptions(corpus="corpus.txt", labels=("joy", "fear", "anger")), "numbered"),
        ("named", StudyOptions("others.csv", ("joy", "fear", "anger"), truncate=True, read=OF_OTHERS), "numbered"),
    ],
)
@pytest.mark.parametrize("fill", ["zero", "class_mean"])
def test_the_script_opens_the_same_network_and_texts(foreign, run, options, model, fill):
    subject = open_run(run, CPU, options, model)
    assert check_state(subject, ask(subject), CLOSED | {"fill": fill}) > 1e-4


def test_another_corpus_has_other_means(foreign):
    """Or the test above would compare nothing."""
    bodies = [CLOSED | {"fill": fill} for fill in ("zero", "class_mean")]
    own, other = (
        [ask(subject).post("/api/run", json=body).json()["after"] for body in bodies]
        for subject in (open_run("one", CPU), open_run("one", CPU, StudyOptions("others.csv", read=OF_OTHERS)))
    )
    assert own[0] == other[0]
    assert own[1] != pytest.approx(other[1], abs=1e-5)


def test_a_script_that_opens_a_run_puts_its_tensors_where_the_network_is(foreign):
    client = ask(open_run("latest", CPU, StudyOptions(corpus="corpus.txt"), "theirs"))
    code = client.post("/api/code", json={"text": "no"}).json()["python"]
    assert "masks" not in code
    assert "device=subject.device.device)" in code
    code = client.post("/api/code", json=CLOSED).json()["python"]
    assert code.count(".to(ids.device)") == 2  # the gates of heads and of MLPs


@pytest.mark.parametrize("text", TEXTS)
def test_the_command_asks_for_the_same_experiment(subject, client, text):
    body = {"text": text, "heads": [[0, 3]], "mlps": [2], "tokens": {"0": "fill"}, "fill": "text", "other": text}
    command = client.post("/api/code", json=body).json()["command"]
    curl, address, header_flag, header, data_flag, data = shlex.split(command)
    assert (curl, header_flag, data_flag) == ("curl", "-H", "-d")
    assert address == "http://127.0.0.1:8642/api/run"
    assert read_experiment(json.loads(data), subject) == read_experiment(body, subject)
    name, value = header.split(": ")
    answer = client.post(address, content=data.encode(), headers={name: value})
    assert answer.json()["after"] == client.post("/api/run", json=body).json()["after"]
