"""An exported experiment, run again: what is compared, and what is refused."""

import json

import pytest
from commands import line_of

from experiments.explore.check import TOLERANCE, compare, read_export

BODY = {"text": "i felt so happy", "heads": [[0, 3]], "mlps": [2], "tokens": {"1": "hide"}, "fill": "mean"}
PARTS = ("before", "after")


@pytest.fixture(params=["client", "language_client"])
def export(request):
    """What the page exports, and the subject that it is of."""
    client = request.getfixturevalue(request.param)
    subject = request.getfixturevalue(request.param.replace("client", "subject"))
    answer, model = client.post("/api/run", json=BODY).json(), client.get("/api/model").json()
    content = {"format": "headgate experiment", "version": 1, "model": model, "experiment": BODY, "answer": answer}
    return subject, json.loads(json.dumps(content))


def test_the_same_is_the_same(export, tmp_path):
    subject, content = export
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content | {"page": "whatever else it says"}))
    assert compare(subject, read_export(path)) < 1e-7


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", [1e-3, -1e-3, 3 * TOLERANCE])
def test_one_number_that_is_another_is_measured(export, part, change):
    subject, content = export
    content["answer"][part][2] += change
    difference = compare(subject, content)
    assert difference == pytest.approx(abs(change), abs=1e-6)
    assert difference > TOLERANCE


def test_another_switch_is_another_answer(export):
    subject, content = export
    content["experiment"]["heads"] = [[0, 2]]
    if subject.labels:
        assert compare(subject, content) > TOLERANCE
    else:  # other next tokens are the likeliest
        assert "answer.labels: expected" in line_of(compare, subject, content)


@pytest.mark.parametrize(
    ("part", "changes", "line"),
    [
        ("model", {"sha256": "cd" * 32}, "expected weights of SHA-256 " + "cd" * 32),
        ("model", {"sha256": None}, "expected weights of SHA-256 None"),
        ("answer", {"labels": ["anger", "joy", "fear", "love"]}, "answer.labels: expected"),
        ("answer", {"labels": None}, "answer.labels: expected"),
        ("answer", {"ids": [1, 2, 3, 4]}, "answer.ids: expected [72, 2936, 523, 3772], got [1, 2, 3, 4]"),
        ("answer", {"after": None}, "answer.after: expected a probability"),
        ("answer", {"after": []}, "answer.after: expected a probability"),
        ("answer", {"before": [0.5]}, "answer.before: expected a probability"),
        ("answer", {"before": {"joy": 1}}, "answer.before: expected a probability"),
        ("experiment", {"heads": [[0, 9]]}, "head: expected a whole number 0 .. 4, got 9"),
        ("experiment", {"text": None}, "text: expected a string"),
        ("experiment", {"gates": 1}, "'gates'"),
    ],
)
def test_what_cannot_be_compared_is_refused(export, part, changes, line):
    subject, content = export
    content[part] |= changes
    assert line in line_of(compare, subject, content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 2, 10**400, True, "0.5", None, [0.5]])
@pytest.mark.parametrize("position", [0, -1])
def test_what_is_no_probability_is_refused(export, value, position):
    subject, content = export
    content["answer"]["after"][position] = value
    assert "answer.after: expected a probability" in line_of(compare, subject, content)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is not JSON"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "expected a headgate experiment, version 1"),
        ('{"format": "headgate experiment", "version": 2}', "expected a headgate experiment, version 1"),
        ('{"format": "other", "version": 1}', "expected a headgate experiment, version 1"),
        ('{"format": "headgate experiment", "version": 1}', "model: expected an object, got None"),
        (
            '{"format": "headgate experiment", "version": 1, "model": {}, "answer": {}}',
            "experiment: expected an object",
        ),
        (
            '{"format": "headgate experiment", "version": 1, "model": {}, "experiment": {}, "answer": []}',
            "answer: expected an object, got []",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, line):
    path = tmp_path / "file.json"
    path.write_text(text)
    message = line_of(read_export, path)
    assert line in message
    assert str(path) in message


def test_a_missing_file_is_called_missing(tmp_path):
    assert line_of(read_export, tmp_path / "no.json") == f"{tmp_path}/no.json: there is no such file"
