"""The addresses: what they show, what they hide, and answers that come twice, late or not as they must be."""

import os

import pytest
from explained_files import METHODS
from starlette.testclient import TestClient

from experiments.rate.answers import read_lines
from experiments.rate.server import create_app
from lab.guard import list_hosts

PATH = "/api/answer"


def begin(client, pseudonym="ann"):
    return client.post("/api/start", json={"pseudonym": pseudonym}).json()


def make_body(state, answer=None, pseudonym="ann", seconds=1.5):
    if answer is None:
        step = state["step"]
        answer = {"read": "read", "predict": "joy", "choose": "left", "mark": [0]}[step["kind"]]
    step = state["step"]["name"]
    return {"pseudonym": pseudonym, "lines": state["lines"], "step": step, "answer": answer, "seconds": seconds}


def answer(client, state, *values):
    reply = client.post(PATH, json=make_body(state, *values))
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer_until(client, part):
    state = begin(client)
    while state["step"] and state["step"]["title"] != part:
        state = answer(client, state)
    return state


def test_a_rater_answers_all_and_can_then_download(client, tmp_path, items, check_headers):
    state, seen = begin(client), []
    while state["step"]:
        assert (state["done"], state["total"]) == (len(seen), 96)
        seen.append(state["step"])
        assert client.post("/api/download", json={"pseudonym": "ann"}).status_code == 400
        state = answer(client, state)
    assert len({step["name"] for step in seen}) == 96
    assert [step["part"] for step in seen] == [1] * 16 + [2] * 16 + [3] * 16 + [4] * 16 + [5] * 22 + [6] * 10
    reply = client.post("/api/download", json={"pseudonym": "ann"})
    check_headers(reply)
    assert reply.json()["lines"] == read_lines(tmp_path / "ann.jsonl")
    assert len(reply.json()["lines"]) == 97


def test_nothing_that_is_asked_is_shown(client, items):
    state = begin(client)
    while state["step"]:
        step = state["step"]
        shown = repr({key: value for key, value in step.items() if key not in ("words", "labels", "predicted")})
        assert not [method for method in (*METHODS, "random", "value") if method in shown]
        if step["kind"] == "predict":
            assert step["predicted"] is None
            assert step["weights"] == []
        state = answer(client, state)


def test_weights_are_absolute_shares_of_the_largest(client, items):
    step = answer_until(client, "The same texts, explained")["step"]
    text = items.texts[items.examples[0]]
    sizes = [abs(value) for value in text.values["integrated_gradients"]]
    assert step["weights"] == [pytest.approx([size / max(sizes) for size in sizes], abs=5e-4)]
    assert min(text.values["integrated_gradients"]) < 0  # or signs would not matter


def test_an_answer_that_comes_twice_counts_once(client, tmp_path):
    state = begin(client)
    body = make_body(state)
    replies = [client.post(PATH, json=body).json() for _ in range(3)]  # as where the first reply was lost
    assert replies[0] == replies[1] == replies[2]
    assert "note" not in replies[0]
    assert len(read_lines(tmp_path / "ann.jsonl")) == 2


def test_two_tabs_lose_and_double_nothing(client, tmp_path):
    first = second = answer_until(client, "Predict the network")
    first = answer(client, first, "joy")
    second = answer(client, second, "nan")  # of a tab that still shows the item
    assert second["note"].startswith("Another tab has gone on")
    assert second["step"] == first["step"]
    assert second["lines"] == first["lines"]
    second = answer(client, second, "1")
    first = answer(client, first, "joy")
    assert "note" in first
    lines = read_lines(tmp_path / "ann.jsonl")
    assert [line["answer"] for line in lines[17:]] == ["joy", "1"]
    assert len({line["step"] for line in lines[1:]}) == len(lines) - 1


def test_one_item_back_can_be_changed_and_no_more(client, tmp_path):
    state = answer_until(client, "Predict the network")
    before = state["step"]["name"]
    state = answer(client, state, "joy")
    assert state["previous"] | {"name": before, "answer": "joy"} == state["previous"]
    changed = client.post(PATH, json=make_body(state, "nan") | {"step": before}).json()
    assert changed["step"] == state["step"]
    assert changed["previous"]["answer"] == "nan"
    assert changed["done"] == state["done"]
    state = answer(client, changed, "1")
    refused = client.post(PATH, json=make_body(state, "1") | {"step": before})
    assert refused.status_code == 400
    assert [line["answer"] for line in read_lines(tmp_path / "ann.jsonl")[17:]] == ["joy", "nan", "1"]


def test_no_item_of_an_earlier_part_can_be_changed(client):
    """A choice shows the class of a text that was to be predicted."""
    state = answer_until(client, "Compare explanations")
    assert state["previous"] is None
    refused = client.post(PATH, json=make_body(state, "joy") | {"step": "after-16"})
    assert refused.status_code == 400
    assert answer(client, state)["previous"]["name"] == "choices-1"


def test_another_server_goes_on_with_what_is_on_disk(client, items, tmp_path):
    state = answer(client, begin(client))
    app = create_app(tmp_path, items, list_hosts(8643, ()))
    with TestClient(app, base_url="http://127.0.0.1:8643") as other:
        assert begin(other) == state


def test_raters_do_not_meet(client):
    ann = answer(client, begin(client))
    assert begin(client, "bob")["done"] == 0
    assert begin(client, "ANN") == ann


@pytest.mark.parametrize(
    "change",
    [
        {"pseudonym": "../../ann"},
        {"pseudonym": None},
        {"step": "before-1"},
        {"step": None},
        {"step": ["examples-1"]},
        {"answer": "joy"},
        {"answer": None},
        {"answer": {}},
        {"seconds": -1},
        {"seconds": None},
        {"seconds": "1"},
        {"seconds": True},
    ],
)
def test_what_is_not_understood_is_one_line_and_changes_nothing(client, tmp_path, check_refusal, change):
    state = begin(client)
    check_refusal(client.post(PATH, json=make_body(state) | change), 400)
    assert begin(client) == state
    assert len(read_lines(tmp_path / "ann.jsonl")) == 1


@pytest.mark.parametrize("path", ["/api/start", PATH, "/api/download"])
@pytest.mark.parametrize("content", [b"", b"[]", b"1", b"null", b'{"pseudonym": NaN}', b"{"])
def test_a_body_that_is_no_object_is_one_line(client, check_refusal, path, content):
    check_refusal(client.post(path, content=content, headers={"content-type": "application/json"}), 400)


def test_an_item_takes_a_day_at_most(client, tmp_path):
    client.post(PATH, json=make_body(begin(client), seconds=10**400))
    assert read_lines(tmp_path / "ann.jsonl")[1]["seconds"] == 24 * 3600


def test_a_lag_of_a_wrong_kind_is_a_lag(client, tmp_path):
    state = begin(client)
    for lines in (None, "1", 0, 2, [1]):
        assert "note" in client.post(PATH, json=make_body(state) | {"lines": lines}).json()
    assert len(read_lines(tmp_path / "ann.jsonl")) == 1


def test_a_full_disk_is_said_and_the_answer_can_be_given_again(client, monkeypatch):
    state = begin(client)

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        reply = client.post(PATH, json=make_body(state))
    assert reply.status_code == 503
    assert reply.json() == {"error": "This answer is not saved: No space left on device. Answer once more."}
    assert answer(client, state)["done"] == 1


def test_a_folder_that_cannot_be_written_is_one_line(client, monkeypatch):
    def fail(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("experiments.rate.answers.append_line", fail)
    reply = client.post("/api/start", json={"pseudonym": "ann"})
    assert reply.status_code == 503
    assert "Read-only file system" in reply.json()["error"]


def test_broken_answers_are_said_without_a_path(client, tmp_path, capsys):
    (tmp_path / "ann.jsonl").write_text("nonsense\n")
    reply = client.post("/api/start", json={"pseudonym": "ann"})
    assert reply.status_code == 503
    assert str(tmp_path) not in reply.text
    assert f"{tmp_path}/ann.jsonl: expected" in capsys.readouterr().err
    assert begin(client, "bob")["done"] == 0


def test_the_page_and_its_modules_are_served_to_this_machine_alone(client, check_headers, check_refusal):
    for path in ("/", "/page/rate.js", "/page/items.js", "/page/rate.css", "/page/page.css", "/page/nodes.js"):
        reply = client.get(path)
        assert reply.status_code == 200
        check_headers(reply)
    check_refusal(client.post("/api/start", json={"pseudonym": "ann"}, headers={"host": "evil.example"}), 400)
    check_refusal(client.get("/api/start"), 405)
