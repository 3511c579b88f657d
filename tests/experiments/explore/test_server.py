"""The addresses: files, errors, many requests at once, and a real server that is treated badly."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from experiments.explore import compute
from experiments.explore.experiment import read_experiment
from experiments.explore.server import PAGE, create_app
from lab.server import SHARED

GOOD = {"text": "i felt so happy", "heads": [[0, 3]]}
POST = b"POST /api/run HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
MODEL = {  # of the contract
    *("kind", "name", "run", "corpus", "labels", "n_layer", "n_head", "head_width", "n_embd", "n_ctx", "vocab_size"),
    *("sha256", "device", "fills", "removals", "examples", "most_tokens", "about"),
}


def test_the_model_is_described(client, language_client, subject, check_headers):
    answer = client.get("/api/model")
    check_headers(answer)
    model = answer.json()
    assert model.keys() >= MODEL
    sizes = {"n_layer": 3, "n_head": 5, "head_width": 7, "n_embd": 35, "n_ctx": 61, "vocab_size": 50257}
    assert model | sizes | {"kind": "classifier", "labels": ["anger", "fear", "joy", "love"]} == model
    assert model | {"name": "one", "run": str(subject.run), "sha256": "ab" * 32, "most_tokens": 256} == model
    assert [fill["name"] for fill in model["fills"]] == ["zero", "mean", "resample", "class_mean", "text"]
    assert [removal["name"] for removal in model["removals"]] == ["hide", "delete", "fill"]
    assert all(example.keys() == {"text", "label", "predicted"} for example in model["examples"])
    assert "nearest to another prediction" in model["about"][0]

    model = language_client.get("/api/model").json()
    assert model | {"kind": "language model", "labels": [], "run": None, "about": []} == model
    assert [fill["name"] for fill in model["fills"]] == ["zero", "mean", "resample", "text"]


def test_findings_are_served(client, language_client, check_headers):
    answer = client.get("/api/findings")
    check_headers(answer)
    assert answer.json() == {"why": "run `make ablate RUN=one` first, and start this page again", "rows": []}
    assert "language model" in language_client.get("/api/findings").json()["why"]


def test_the_page_and_its_files_are_served_with_types_that_browsers_obey(client, check_headers):
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    check_headers(answer)
    paths = [path for folder in (PAGE.parent, SHARED) for path in folder.iterdir() if path.suffix in (".js", ".css")]
    assert len({path.name for path in paths}) == len(paths)  # both folders are served from one address
    for path in paths:
        answer = client.get(f"/page/{path.name}")
        kind = {".js": "text/javascript", ".css": "text/css"}[path.suffix]
        assert answer.headers["content-type"].startswith(kind)
        assert answer.content == path.read_bytes()
        check_headers(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/nothing",
        "/page/",
        "/page/nothing.js",
        "/page/server.py",
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/page/..%5cserver.py",
        "/page/%2fetc%2fpasswd",
        "/page//etc/passwd",
        "/page/explore.css%00.js",
        "/page/.",
        "/page/explore.css/..",
        "/openapi.json",
        "/%ff",
    ],
)
def test_what_is_not_on_the_list_is_not_served(client, check_refusal, path):
    check_refusal(client.get(path), 404)


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/run"), ("POST", "/api/model"), ("POST", "/")])
def test_a_wrong_method_is_refused(client, check_refusal, method, path):
    body = {"json": GOOD} if method == "POST" else {}
    check_refusal(client.request(method, path, **body), 405)


@pytest.mark.parametrize("error", [RuntimeError("secret"), ValueError("secret"), KeyError("secret")])
def test_a_fault_of_ours_is_said_in_one_line_and_nothing_of_it_is_shown(client, check_headers, monkeypatch, error):
    def fail(*arguments):
        raise error

    with monkeypatch.context() as changes:
        changes.setattr(compute, "run", fail)
        patient = TestClient(client.app, str(client.base_url), raise_server_exceptions=False)
        answer = patient.post("/api/run", json=GOOD)
    assert answer.status_code == 500
    assert answer.json() == {"error": f"headgate failed: {type(error).__name__}; see the terminal"}
    check_headers(answer)
    assert client.post("/api/run", json=GOOD).status_code == 200


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
def test_too_little_memory_is_said_in_one_line(client, check_headers, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(compute, "run", fail)
    answer = client.post("/api/run", json=GOOD)
    assert (answer.status_code, answer.json()) == (503, {"error": "out of memory; shorten the text"})
    assert "retry-after" not in answer.headers  # it would be no better
    check_headers(answer)


def test_a_class_mean_of_no_texts_is_said_in_one_line(subject, check_refusal):
    predicted = subject.labels.index(subject.examples[0]["predicted"])
    targets = np.full(len(subject.donors), predicted)
    alike = replace(subject, donors=replace(subject.donors, targets=targets))
    application = TestClient(create_app(alike, ["testserver"]))
    body = {"text": subject.examples[0]["text"], "heads": [[0, 0]], "fill": "class_mean"}
    for name in ("run", "heads"):
        line = check_refusal(application.post(f"/api/{name}", json=body), 400)
        assert line == "fill class_mean: all training texts are of the predicted class; choose another fill"
    assert application.post("/api/run", json=body | {"fill": "mean"}).status_code == 200


# On the wire.


def send(address, message):
    """What a real server answers to these bytes: status, headers, body. It closes the connection at the end."""
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall(message.replace(b"%s", url.netloc.encode()))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return httpx2.Response(int(first.split()[1]), headers=headers, content=body)


def chunked(*pieces):
    """A body in pieces, without a length, that ends as such a body should."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


CLOSE = b"Connection: close\r\n"
JSON = b'{"text": "no"}'
LONG = [b" " * 8000] * 9


@pytest.mark.parametrize(
    ("message", "status"),
    [
        pytest.param(b"GET /api/model HTTP/1.0\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n" + CLOSE + b"\r\n", 400, id="proxy"),
        pytest.param(POST + CLOSE + b"Content-Length: 65537\r\n\r\n" + JSON, 413, id="long by its head"),
        pytest.param(
            POST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*LONG), 413, id="long without a head"
        ),
        pytest.param(POST + CLOSE + b"Content-Length: 5\r\n\r\n" + JSON, 400, id="longer than it says"),
        pytest.param(POST + CLOSE + b"\r\n" + JSON, 400, id="no length at all"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: %s\r\n" + CLOSE + b"\r\n", 405, id="OPTIONS *"),
    ],
)
def test_the_server_refuses_and_goes_on(server, check_refusal, message, status):
    check_refusal(send(server, message), status)
    answer = send(server, POST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(JSON[:5], JSON[5:]))
    assert answer.status_code == 200
    assert answer.json()["labels"] == ["anger", "fear", "joy", "love"]


@pytest.mark.parametrize(
    "message",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/1.1\r\nHost: %s\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"X: " + b"a" * 70_000,
    ],
)
def test_what_is_not_http_is_refused_by_the_layer_below(server, message):
    answer = send(server, message)
    assert 400 <= answer.status_code < 502
    assert "Traceback" not in answer.text
    assert httpx2.get(f"{server}api/model").status_code == 200


def test_no_websocket_is_opened(server):
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head = b"GET /api/model HTTP/1.1\r\nHost: %s\r\nOrigin: http://evil.example\r\n"
    answer = send(server, head + upgrade + b"Sec-WebSocket-Key: eA==\r\n\r\n")
    assert answer.status_code == 403


# Many at once.


def mix_requests(subject):
    """Twenty requests, as address and body, and what plain calls answer to them."""
    rng, cases = np.random.default_rng(0), []
    for i in range(20):
        text = " ".join(rng.choice(["i", "felt", "so", "happy", "mad", "today"], size=rng.integers(2, 9)))
        heads = [list(divmod(int(number), 5)) for number in rng.choice(15, size=rng.integers(0, 4), replace=False)]
        tokens = {"0": ["hide", "delete", "fill"][i % 3]}
        body = {"text": text, "heads": heads, "mlps": [i % 3], "tokens": tokens, "fill": subject.fill_names[i % 4]}
        experiment = read_experiment(body, subject)
        if i % 4 == 0:
            cases.append(("attention", body | {"look": [1, 2]}, compute.record(subject, experiment, (1, 2), False)))
        elif i % 4 == 1:
            cases.append(("lens", body, compute.read_layers(subject, experiment)))
        else:
            cases.append(("run", body, compute.run(subject, experiment)))
    return cases


def test_twenty_mixed_requests_at_once_equal_plain_calls(server, subject):
    cases = mix_requests(subject)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(httpx2.post, f"{server}api/{name}", json=body, timeout=60) for name, body, _ in cases]
    for (_, _, expected), answer in zip(cases, asked, strict=True):
        content = answer.result().json()
        content.pop("seconds", None)
        assert content == json.loads(json.dumps(expected))
    assert len({json.dumps(expected) for _, _, expected in cases}) == 20


class Slow:
    """In the place of `compute.run`: notes its calls, and waits until it may go on."""

    def __init__(self):
        self.texts, self.begun, self.go = [], threading.Event(), threading.Event()
        self.run = compute.run

    def __call__(self, subject, experiment):
        self.texts.append(experiment.text)
        self.begun.set()
        assert self.go.wait(60)
        return self.run(subject, experiment)


@pytest.fixture
def slow(monkeypatch):
    slow = Slow()
    monkeypatch.setattr(compute, "run", slow)
    yield slow
    slow.go.set()


def begin(address, text):
    """Send a request for /api/run, and leave its connection open."""
    url, body = urlsplit(address), json.dumps({"text": text}).encode()
    connection = socket.create_connection((url.hostname, url.port), timeout=60)
    head = POST.replace(b"%s", url.netloc.encode())
    connection.sendall(head + CLOSE + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    for _ in range(3):  # whoever is answered now came later
        assert httpx2.get(f"{address}api/model").status_code == 200
    return connection


def test_a_request_whose_sender_has_gone_is_not_computed(slow, server):
    first = begin(server, "first")
    assert slow.begun.wait(60)
    gone, stays = begin(server, "gone"), begin(server, "stays")
    gone.close()
    for _ in range(3):
        httpx2.get(f"{server}api/model")  # meanwhile the server answers what needs no computing
    slow.go.set()
    assert b" 200 OK" in first.recv(100)
    assert b" 200 OK" in stays.recv(100)
    assert slow.texts == ["first", "stays"]
    first.close()
    stays.close()


def test_too_many_waiting_requests_are_refused_and_told_to_come_again(slow, server, monkeypatch, check_headers):
    monkeypatch.setattr("experiments.explore.server.MOST_WAITING", 3)
    connections = [begin(server, text) for text in ("one", "two", "three")]
    answer = httpx2.post(f"{server}api/run", json=GOOD, timeout=60)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"error": "3 requests are waiting; try again"}
    check_headers(answer)
    slow.go.set()
    for connection in connections:
        assert b" 200 OK" in connection.recv(100)
        connection.close()
    assert slow.texts == ["one", "two", "three"]
    assert httpx2.post(f"{server}api/run", json=GOOD, timeout=60).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(slow, server, monkeypatch, check_headers):
    monkeypatch.setattr("lab.server.SECONDS", 0.3)
    started = time.monotonic()
    with ThreadPoolExecutor(2) as threads:  # one computes, one waits
        asked = [threads.submit(httpx2.post, f"{server}api/run", json=GOOD, timeout=60) for _ in range(2)]
    assert time.monotonic() - started < 20
    for answer in asked:
        assert answer.result().status_code == 503
        assert answer.result().json() == {"error": "this took more than 0.3 seconds; shorten the text"}
        assert "retry-after" not in answer.result().headers
        check_headers(answer.result())
    slow.go.set()
    monkeypatch.setattr("lab.server.SECONDS", 60)
    assert httpx2.post(f"{server}api/run", json=GOOD, timeout=60).status_code == 200


def test_the_limit_is_of_a_whole_request_and_a_request_may_come_between_its_passes(client, monkeypatch):
    passes = []

    def run_each(subject, experiment, closed):
        passes.append(len(closed))
        time.sleep(0.2)
        return torch.zeros(len(closed), 4)

    monkeypatch.setattr(compute, "run_each", run_each)
    monkeypatch.setattr("lab.device.TOKENS", 8)  # of 4 in the text: two units in each pass
    monkeypatch.setattr("lab.server.SECONDS", 0.5)
    answer = client.post("/api/heads", json=GOOD)
    assert answer.status_code == 503
    assert set(passes) == {2}
    assert len(passes) <= 4  # of 9


def test_a_body_that_never_ends_is_given_up(server, monkeypatch):
    monkeypatch.setattr("lab.server.SECONDS", 0.3)
    answer = send(server, POST + CLOSE + b"Content-Length: 100\r\n\r\n" + JSON)
    assert answer.status_code == 503
    assert httpx2.get(f"{server}api/model").status_code == 200
