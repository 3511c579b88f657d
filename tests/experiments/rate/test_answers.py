import json
import os
import re

import pytest
from commands import line_of

from experiments.rate.answers import (
    append_line,
    check_answer,
    check_pseudonym,
    open_session,
    read_items,
    read_lines,
    read_raters,
    read_session,
    record,
)
from experiments.rate.items import make_items


def test_lines_are_whole_or_do_not_count(tmp_path):
    path = tmp_path / "ann.jsonl"
    assert read_lines(path) == []
    append_line(path, {"a": 1, "text": "line\nbreak\u2028"})
    append_line(path, {"a": 2})
    whole = path.read_bytes()
    assert whole.count(b"\n") == 2
    for cut in range(1, 9):  # killed in the middle of the second line
        path.write_bytes(whole[:-cut])
        assert [line["a"] for line in read_lines(path)] == [1]
        append_line(path, {"a": 3})
        assert [line["a"] for line in read_lines(path)] == [1, 3]


def test_a_line_is_on_the_disk_before_the_next_item_is_shown(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((tmp_path / "ann.jsonl").read_bytes()))
    append_line(tmp_path / "ann.jsonl", {"a": 1})
    assert synced == [b'{"a": 1}\n']


def test_a_file_that_somebody_broke_is_one_line(tmp_path):
    (tmp_path / "ann.jsonl").write_text("{}\nnonsense\n")
    assert "ann.jsonl: expected a JSON object on each line" in line_of(read_lines, tmp_path / "ann.jsonl")


@pytest.mark.parametrize("content", ["[1]\n", "3\n", '{"order": []}\n[]\n'])
def test_lines_that_are_no_objects_are_one_line(tmp_path, content):
    (tmp_path / "ann.jsonl").write_text(content)
    assert "ann.jsonl: expected a JSON object on each line" in line_of(read_session, tmp_path / "ann.jsonl")


@pytest.mark.parametrize(
    "break_lines",
    [
        lambda lines: lines[1:],
        lambda lines: lines[:2] + lines[3:],
        lambda lines: [{"a": 1}, *lines[1:]],
        lambda lines: [lines[0] | {"order": [{"name": 1}]}, *lines[1:]],
        lambda lines: [lines[0] | {"pseudonym": "bob"}, *lines[1:]],
        lambda lines: [*lines, {"a": 1}],
        lambda lines: [*lines[:2], lines[2] | {"answer": "joy"}],
        lambda lines: [*lines[:2], lines[2] | {"step": []}],
    ],
)
def test_a_file_that_somebody_edited_is_one_line(tmp_path, items, break_lines):
    session = open_session(tmp_path, "ann", items)
    for step in session.steps[:3]:
        record(session, step, "read", 1.5)
    lines = break_lines(read_lines(session.path))
    session.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert re.search("ann.jsonl: expected the lines|there is no such file", line_of(read_session, session.path))


@pytest.mark.parametrize("content", [b"nonsense\n", b"[]\n", b"\xff\n", b""])
def test_what_is_wrong_with_one_rater_stops_no_other(tmp_path, items, content):
    (tmp_path / "bob.jsonl").write_bytes(content)
    assert open_session(tmp_path, "ann", items).lines == 1


def test_a_session_goes_on_where_it_stopped_in_the_same_order(tmp_path, items):
    session = open_session(tmp_path, "ann", items)
    for step in session.steps[:3]:
        record(session, step, "read", 1.5)
    again = open_session(tmp_path, "ann", items)
    assert again.steps == session.steps
    assert list(again.answers) == [step.name for step in session.steps[:3]]
    assert again.lines == 4
    first, line, *_ = read_lines(tmp_path / "ann.jsonl")
    assert first["order"][5]["name"] == session.steps[5].name
    assert {"seed", "swapped", "at", "items"} <= first.keys()
    text = items.texts[session.steps[0].text]
    assert line | {"text": text.text, "index": text.index, "items": items.version, "seconds": 1.5} == line
    assert line | {"pseudonym": "ann", "answer": "read", "simulated": False, "part": "examples"} == line


def test_the_later_of_two_answers_counts(tmp_path, items):
    session = open_session(tmp_path, "ann", items)
    for step in session.steps[:16]:
        record(session, step, "read", 1)
    step = session.steps[16]
    record(session, step, "joy", 1)
    record(session, step, "1", 1)
    assert read_session(session.path).answers[step.name]["answer"] == "1"
    assert len(read_session(session.path).answers) == 17


def test_a_later_explain_changes_nothing_for_who_has_begun(tmp_path, explained, items):
    open_session(tmp_path, "ann", items)
    others = make_items(explained, "one", "attention", "random", 3)
    assert open_session(tmp_path, "ann", others).items.version == items.version
    assert open_session(tmp_path, "bob", others).items.version == others.version


def test_every_other_rater_predicts_the_other_half_first(tmp_path, items):
    for name in ("ann", "bob", "sim-1", "cem", "sim-2"):
        open_session(tmp_path, name, items)
    swapped = {name: lines[0]["swapped"] for name, lines in read_raters(tmp_path).items()}
    assert swapped == {"ann": False, "bob": True, "cem": False, "sim-1": False, "sim-2": True}


@pytest.mark.parametrize("name", ["", "a b", "../a", "ä", "a" * 41, "sim-1", "SIM-1", 3, None, ["a"], "a\n"])
def test_a_bad_pseudonym_is_one_line(name):
    assert "pseudonym: " in line_of(check_pseudonym, name)


def test_pseudonyms_are_one_whatever_their_case():
    assert check_pseudonym("Ann_1-x") == "ann_1-x"


@pytest.mark.parametrize(
    ("part", "good", "bad"),
    [
        ("examples", ["read"], ["left", None, 1, ""]),
        ("before", ["joy", "nan", "1"], ["anger", 1, None, ["joy"], ""]),
        ("choices", ["left", "right"], ["random", None, 0, ["left"]]),
        ("marks", [[0], [0, 3]], [[], [-1], [99], [7], [0.0], [True], "0", None, [[0]], {"0": 1}]),  # 7: the emoji
    ],
)
def test_answers_are_checked(tmp_path, items, part, good, bad):
    session = open_session(tmp_path, "ann", items)
    step = next(step for step in session.steps if step.part == part)
    for answer in good:
        check_answer(session, step, answer)
    for answer in bad:
        assert line_of(check_answer, session, step, answer).startswith("answer: expected")


def test_the_items_are_kept_beside_the_answers(tmp_path, items):
    open_session(tmp_path, "ann", items)
    content = json.loads((tmp_path / f"items-{items.version}.json").read_text())
    assert content["texts"][3]["text"] == items.texts[3].text
    (tmp_path / f"items-{items.version}.json").unlink()
    read_items.cache_clear()
    assert "there is no such file, and answers beside it need it" in line_of(open_session, tmp_path, "ann", items)
