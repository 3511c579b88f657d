"""What a request may ask for: a table of bodies, each refused in one line that names the part."""

import pytest
from commands import line_of

from experiments.explore.experiment import Experiment, read_experiment

TEXT = "i felt so happy"  # 4 tokens
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        pytest.param(b"", "JSON", id="nothing"),
        pytest.param(b"{", "JSON", id="half of an object"),
        pytest.param(b"{'text': 'a'}", "JSON", id="Python"),
        pytest.param(b'{"text": "a"} {}', "JSON", id="two values"),
        pytest.param(b'{"text": "\xff"}', "JSON", id="not UTF-8"),
        pytest.param('{"text": "a"}'.encode("utf-16"), "JSON", id="UTF-16"),
        pytest.param(b'{"text": "a", "mlps": [NaN]}', "NaN", id="NaN"),
        pytest.param(b'{"text": "a", "mlps": [-Infinity]}', "Infinity", id="Infinity"),
        pytest.param(b"[" * 60_000, "JSON", id="deep brackets"),
        pytest.param(b'{"a":' * 12_000, "JSON", id="deep braces"),
        pytest.param(b'{"text": "a", "mlps": [' + b"9" * 5000 + b"]}", "JSON", id="5,000 digits"),
        pytest.param(b"[]", "object", id="a list"),
        pytest.param(b'"text"', "object", id="a string"),
        pytest.param(b"null", "object", id="null"),
        pytest.param(b"{}", "text", id="no text"),
        pytest.param(b'{"text": null}', "text", id="null as text"),
        pytest.param(b'{"text": ["a"]}', "text", id="a list as text"),
        pytest.param(b'{"text": ""}', "text", id="empty text"),
        pytest.param(b'{"text": "a \\ud83d b"}', "surrogate", id="lone surrogate"),
        pytest.param(b'{"text": "a", "\\ud83d": 1}', "expected text, heads", id="lone surrogate as a key"),
        pytest.param(b'{"text": "' + b"no " * 62 + b'"}', "61 tokens", id="text over n_ctx"),
        pytest.param(b'{"text": "a", "gates": []}', "'gates'", id="unknown key"),
        pytest.param(b'{"text": "a", "' + b"x" * 60_000 + b'": 1}', "expected text, heads", id="long unknown key"),
    ],
)
def test_a_body_that_is_no_request_is_refused(client, check_refusal, body, part):
    assert part in check_refusal(client.post("/api/run", content=body, headers=JSON), 400)
    assert client.post("/api/run", json={"text": TEXT}).status_code == 200


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"heads": {}}, "heads: expected a list"),
        ({"heads": "0.3"}, "heads: expected a list"),
        ({"heads": [3]}, "heads: expected [layer, head], got 3"),
        ({"heads": [[0, 3, 1]]}, "heads: expected [layer, head]"),
        ({"heads": [[-1, 0]]}, "layer: expected a whole number 0 .. 2, got -1"),
        ({"heads": [[3, 0]]}, "layer: expected a whole number 0 .. 2, got 3"),
        ({"heads": [[0, 5]]}, "head: expected a whole number 0 .. 4, got 5"),
        ({"heads": [[0, -1]]}, "head: expected"),
        ({"heads": [[True, 0]]}, "layer: expected a whole number 0 .. 2, got True"),
        ({"heads": [[0, 1.0]]}, "head: expected"),
        ({"heads": [["0", 1]]}, "layer: expected"),
        ({"heads": [[None, 1]]}, "layer: expected"),
        ({"heads": [[10**30, 1]]}, "layer: expected"),
        ({"heads": [[0, 1], [1, 1], [0, 1]]}, "heads: expected each only once"),
        ({"mlps": 2}, "mlps: expected a list"),
        ({"mlps": [3]}, "mlps: expected a whole number 0 .. 2, got 3"),
        ({"mlps": [-1]}, "mlps: expected"),
        ({"mlps": [False]}, "mlps: expected"),
        ({"mlps": [1, 1]}, "mlps: expected each only once"),
        ({"mlps": list(range(12_000))}, "mlps: expected a whole number"),
        ({"mlps": [[]] * 9000}, "mlps: expected a whole number"),
        ({"fill": "noise"}, "fill: expected one of zero, mean, resample, class_mean, text, got 'noise'"),
        ({"fill": None}, "fill: expected one of"),
        ({"fill": ["zero"]}, "fill: expected one of"),
        ({"fill": "text"}, "other: expected a string"),
        ({"fill": "text", "other": ""}, "other: expected at least one character"),
        ({"fill": "text", "other": "no " * 62}, "other: expected at most 61 tokens"),
        ({"tokens": ["hide"]}, "tokens: expected an object"),
        ({"tokens": {"-1": "hide"}}, "tokens: expected positions 0 .. 3, got '-1'"),
        ({"tokens": {"4": "hide"}}, "tokens: expected positions 0 .. 3, got '4'"),
        ({"tokens": {"01": "hide"}}, "tokens: expected positions"),
        ({"tokens": {" 1": "hide"}}, "tokens: expected positions"),
        ({"tokens": {"1.0": "hide"}}, "tokens: expected positions"),
        ({"tokens": {"": "hide"}}, "tokens: expected positions"),
        ({"tokens": {"٣": "hide"}}, "tokens: expected positions"),
        ({"tokens": {"²": "hide"}}, "tokens: expected positions"),
        ({"tokens": {"99999999999999999999999": "hide"}}, "tokens: expected positions"),
        ({"tokens": {"9" * 5000: "hide"}}, "tokens: expected positions"),
        ({"tokens": {"1": "burn"}}, "tokens: expected one of hide, delete, fill, got 'burn'"),
        ({"tokens": {"1": True}}, "tokens: expected one of"),
        ({"tokens": {"1": {}}}, "tokens: expected one of"),
        ({"tokens": {"3": "hide"}}, "tokens: 3, the last one that is not deleted, is read"),
        ({"tokens": {"3": "delete", "2": "hide"}}, "tokens: 2, the last one that is not deleted, is read"),
        ({"tokens": dict.fromkeys("0123", "delete")}, "tokens: every token is deleted"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(client, check_refusal, parts, line):
    assert line in check_refusal(client.post("/api/run", json={"text": TEXT, **parts}), 400)
    assert client.post("/api/run", json={"text": TEXT}).status_code == 200


@pytest.mark.parametrize("path", ["attention", "heads", "random", "lens", "code"])
def test_each_address_checks_the_experiment(client, check_refusal, path):
    look = {"look": [0, 0]} if path == "attention" else {}
    assert client.post(f"/api/{path}", json={"text": TEXT, **look}).status_code == 200
    assert "head: expected" in check_refusal(
        client.post(f"/api/{path}", json={"text": TEXT, "heads": [[0, 5]], **look})
    )
    assert "object" in check_refusal(client.post(f"/api/{path}", json=[]))


@pytest.mark.parametrize("look", [None, [0], [0, 5], [3, 0], "0.1", {}, [True, 0]])
def test_the_head_to_look_at_is_checked(client, check_refusal, look):
    check_refusal(client.post("/api/attention", json={"text": TEXT, "look": look}), 400)


@pytest.mark.parametrize("every", [1, 0, "yes", []])
def test_all_is_true_or_false(client, check_refusal, every):
    line = check_refusal(client.post("/api/attention", json={"text": TEXT, "look": [0, 0], "all": every}), 400)
    assert line.startswith("all: expected true or false")


def test_an_experiment_is_read_as_it_is_written(subject):
    tokens = {"0": "delete", "1": "hide", "3": "fill"}
    body = {"text": TEXT, "heads": [[2, 4], [0, 3]], "mlps": [2, 0], "tokens": tokens, "fill": "text", "other": "no"}
    assert read_experiment(body, subject) == Experiment(
        TEXT,
        (72, 2936, 523, 3772),
        heads=((2, 4), (0, 3)),
        mlps=(2, 0),
        tokens={0: "delete", 1: "hide", 3: "fill"},
        fill="text",
        other="no",
        other_ids=(3919,),
    )
    assert read_experiment(body, subject).kept == [1, 2, 3]
    assert read_experiment({"text": TEXT, "other": "no"}, subject) == Experiment(TEXT, (72, 2936, 523, 3772))


def test_a_language_model_has_no_classes_whose_mean_could_be_taken(language_subject):
    line = line_of(read_experiment, {"text": TEXT, "fill": "class_mean"}, language_subject)
    assert line == "fill: expected one of zero, mean, resample, text, got 'class_mean'"


def test_a_text_may_be_as_long_as_the_context_and_the_last_token_filled_or_deleted(client):
    assert client.post("/api/run", json={"text": "no " * 60 + "no"}).status_code == 200  # 61 tokens
    for removal in ("fill", "delete"):
        assert client.post("/api/run", json={"text": TEXT, "tokens": {"3": removal}}).status_code == 200
