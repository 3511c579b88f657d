"""Who is answered: a table of requests that come from elsewhere, each refused in one line."""

import pytest
from starlette.testclient import TestClient

from lab.guard import MOST_BYTES, list_hosts
from lab.server import make_app

GOOD = {"text": "i felt so happy"}
HERE, EVIL = "127.0.0.1:8642", "evil.example:8642"
JSON = {"content-type": "application/json"}
SITE = "http://" + HERE


@pytest.fixture
def client(tmp_path) -> TestClient:
    """A page with one fact and one answer, without a socket."""

    async def echo(request, body):
        return body

    page = tmp_path / "page.html"
    page.write_text("<!doctype html>")
    app = make_app(page, {"model": {"name": "one"}}, {"run": echo}, list_hosts(8642, ()))
    return TestClient(app, base_url=SITE)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"host": EVIL}, 400, id="evil Host"),
        pytest.param({"host": "127.0.0.1"}, 400, id="Host without a port"),
        pytest.param({"host": "127.0.0.1:80"}, 400, id="Host with another port"),
        pytest.param({"host": "127.0.0.1:8642.evil.example"}, 400, id="Host that begins like ours"),
        pytest.param({"host": "evil.example@127.0.0.1:8642"}, 400, id="Host with a user"),
        pytest.param({"host": "::1:8642"}, 400, id="Host without brackets"),
        pytest.param({"host": ""}, 400, id="empty Host"),
        pytest.param([("host", HERE), ("host", EVIL)], 400, id="two Hosts"),
        pytest.param([("host", HERE), ("host", HERE)], 400, id="our Host twice"),
        pytest.param({"host": EVIL, "origin": f"http://{EVIL}"}, 400, id="rebinding: Host and Origin fit each other"),
        pytest.param(
            {"host": EVIL, "origin": f"http://{EVIL}", "sec-fetch-site": "same-origin"}, 400, id="rebinding, all of it"
        ),
        pytest.param({"x-forwarded-host": HERE, "host": EVIL}, 400, id="forwarded Host"),
        pytest.param({"origin": "http://evil.example"}, 403, id="evil Origin"),
        pytest.param({"origin": "null"}, 403, id="Origin null"),
        pytest.param({"origin": ""}, 403, id="empty Origin"),
        pytest.param({"origin": "https://" + HERE}, 403, id="Origin with another scheme"),
        pytest.param({"origin": "http://127.0.0.1:8643"}, 403, id="Origin with another port"),
        pytest.param({"sec-fetch-site": "cross-site"}, 403, id="cross-site"),
        pytest.param({"sec-fetch-site": "same-site"}, 403, id="same-site"),
        pytest.param({"sec-fetch-site": "nonsense"}, 403, id="unknown Sec-Fetch-Site"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_from_elsewhere_is_refused(client, check_refusal, method, headers, status):
    path, body = ("/api/model", {}) if method == "GET" else ("/api/run", {"json": GOOD})
    check_refusal(client.request(method, path, headers=headers, **body), status)
    assert client.post("/api/run", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:8642"},
        {"host": "[::1]:8642"},
        {"host": "LocalHost:8642"},
        {"origin": SITE},
        {"origin": "HTTP://LOCALHOST:8642", "host": "localhost:8642"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": SITE},
        {"content-type": "Application/JSON; charset=utf-8"},
    ],
)
def test_a_request_of_this_machine_is_answered(client, check_headers, headers):
    answer = client.post("/api/run", json=GOOD, headers=headers)
    assert answer.status_code == 200
    check_headers(answer)
    assert client.get("/api/model", headers=headers).status_code == 200


def test_a_link_on_another_site_opens_the_page_and_nothing_else(client, check_refusal):
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    check_refusal(client.get("/", headers=link | {"sec-fetch-dest": "iframe"}), 403)
    check_refusal(client.get("/", headers=link | {"sec-fetch-mode": "no-cors"}), 403)
    check_refusal(client.get("/", headers=link | {"host": EVIL}), 400)
    check_refusal(client.get("/api/model", headers=link), 403)
    check_refusal(client.post("/api/run", json=GOOD, headers=link), 403)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None])
def test_a_post_that_a_form_could_send_is_refused(client, check_refusal, kind):
    headers = {} if kind is None else {"content-type": kind}
    check_refusal(client.post("/api/run", content=b'{"text": "a"}', headers=headers), 415)


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/api/run", "/", "/page/page.css"])
def test_other_methods_are_refused_and_no_preflight_succeeds(client, check_refusal, method, path):
    headers = {"access-control-request-method": "POST", "origin": SITE}
    check_refusal(client.request(method, path, headers=headers), 405)


def test_a_body_that_is_too_long_is_refused_by_its_head(client, check_refusal):
    check_refusal(client.post("/api/run", content=b" " * (MOST_BYTES + 1), headers=JSON), 413)
    body = b'{"text": "a"}'.ljust(MOST_BYTES)
    assert client.post("/api/run", content=body, headers=JSON).status_code == 200  # as long as may be


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "", "9" * 5000])
def test_a_length_that_is_no_number_is_refused(client, check_refusal, length):
    headers = JSON | {"content-length": length.encode()}
    check_refusal(client.post("/api/run", content=b"{}", headers=headers), 413)


def test_list_hosts_by_hand():
    ours = ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"]
    assert list_hosts(8000, ()) == ours
    assert list_hosts(8000, ("Lab.example", "lab.example:443", "[fe80::1]", "[fe80::1]:80")) == [
        *ours,
        *("lab.example:8000", "lab.example:443", "[fe80::1]:8000", "[fe80::1]:80"),
    ]
    assert {"127.0.0.1", "localhost", "[::1]", "localhost:80"} <= {*list_hosts(80, ())}  # browsers leave out port 80
