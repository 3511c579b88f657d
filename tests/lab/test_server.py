"""A page of one file, one fact and one answer; tests/experiments/explore/test_server.py treats a whole one badly."""

import socket

import pytest
from commands import line_of
from starlette.testclient import TestClient

from lab.guard import list_hosts
from lab.server import SHARED, listen, make_app
from model import InputError


@pytest.fixture
def client(tmp_path) -> TestClient:
    async def add(request, body):
        if not isinstance(body, dict):
            raise InputError("expected an object")
        return {"sum": body["a"] + body["b"]}

    (tmp_path / "page.html").write_text("<!doctype html><title>a page</title>")
    (tmp_path / "module.js").write_text("export const one = 1;\n")
    (tmp_path / "secret.txt").write_text("nobody may read this")
    app = make_app(tmp_path / "page.html", {"fact": {"name": "nan"}}, {"add": add}, list_hosts(8000, ()))
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def test_a_page_with_its_modules_and_the_shared_ones(client, check_headers):
    assert "a page" in client.get("/").text
    assert client.get("/page/module.js").text == "export const one = 1;\n"
    assert client.get("/page/page.css").text == (SHARED / "page.css").read_text(encoding="utf-8")
    check_headers(client.get("/page/module.js"))


@pytest.mark.parametrize(
    "path", ["/page/secret.txt", "/page/page.html", "/page/..%2Fsecret.txt", "/secret.txt", "/api/x"]
)
def test_nothing_else_is_served(client, check_refusal, path):
    check_refusal(client.get(path), 404)


def test_facts_and_answers(client, check_refusal):
    assert client.get("/api/fact").json() == {"name": "nan"}
    assert client.post("/api/add", json={"a": 2, "b": 3}).json() == {"sum": 5}
    check_refusal(client.get("/api/add"), 405)
    assert check_refusal(client.post("/api/add", json=[]), 400) == "expected an object"
    reply = client.post("/api/add", json={"a": 2})
    assert reply.status_code == 500
    assert reply.json() == {"error": "headgate failed: KeyError; see the terminal"}


def test_a_taken_port_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: cannot listen there" in line_of(listen, "127.0.0.1", port)
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
