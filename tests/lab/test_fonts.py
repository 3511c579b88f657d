"""What pictures can write does not depend on the fonts of this machine: each test says which there are."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.image import imread

from lab import figures, fonts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(monkeypatch):
    """No font but matplotlib's own."""
    monkeypatch.setattr(fonts, "list_families", lambda: [fonts.MAIN])
    monkeypatch.setitem(matplotlib.rcParams, "font.family", [fonts.MAIN])


def make_font(path: Path, family: str, letters: str, weight: int = 400) -> Path:
    """Leaves a font in which each of these letters is a triangle, each a higher one."""
    names = [".notdef", *(f"letter{i}" for i in range(len(letters)))]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    glyphs = {}
    for i, name in enumerate(names):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        pen.lineTo((900, 0))
        pen.lineTo((450, 300 + 200 * i))
        pen.closePath()
        glyphs[name] = pen.glyph()
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(usWeightClass=weight)
    font.setupPost()
    font.save(path)
    return path


def write(text: str, path: Path) -> np.ndarray:
    figure = Figure(figsize=(3, 1))
    figure.text(0.1, 0.3, text, fontsize=20)
    figures.save(figure, path)
    return imread(path, format="png")


@pytest.fixture
def simhei(tmp_path, monkeypatch):
    """A family of the list, of one weight alone, that has two letters."""
    known = font_manager.fontManager.ttflist
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [font for font in known if font.name not in fonts.OTHERS])
    font_manager.fontManager.addfont(make_font(tmp_path / "simhei.ttf", "SimHei", "喜怒", weight=500))
    fonts.read_letters.cache_clear()
    assert fonts.list_families() == [fonts.MAIN, "SimHei"]
    monkeypatch.setitem(matplotlib.rcParams, "font.family", fonts.list_families())
    yield
    fonts.read_letters.cache_clear()


def test_a_font_that_is_installed_draws_the_letters_that_the_main_one_lacks(simhei, tmp_path, caplog):
    assert fonts.name_classes(["喜", "怒", "joy"]) == ["喜", "怒", "joy"]
    assert fonts.explain_names(["喜", "怒", "joy"]) == []
    with warnings.catch_warnings(action="error"):
        low, high, again = (write(text, tmp_path / f"{i}.png") for i, text in enumerate(("喜", "怒", "喜")))
    assert (low == again).all()
    heights = [(image[..., 0] < 0.5).any(axis=1).sum() for image in (low, high)]
    assert heights[1] / heights[0] == pytest.approx(700 / 500, rel=0.1)
    assert not caplog.records


@pytest.mark.slow
def test_it_is_found_where_the_style_is_made(tmp_path):
    path = make_font(tmp_path / "simhei.ttf", "SimHei", "喜怒")
    code = (
        f"from matplotlib.font_manager import fontManager; fontManager.addfont({str(path)!r})\n"
        "import matplotlib; from lab import figures\n"
        "with figures.STYLE: print(matplotlib.rcParams['font.family'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("['DejaVu Sans', ")
    assert "'SimHei'" in done.stdout


def test_without_one_a_class_goes_by_its_number(plain):
    labels = ["喜悦", "joy", "愤怒", "기쁨", "ความสุข", "🥰"]
    assert fonts.name_classes(labels) == ["class 0", "joy", "class 2", "class 3", "class 4", "class 5"]
    [line] = fonts.explain_names(labels)
    assert line.startswith("in pictures: class 0 is 喜悦; class 2 is 愤怒; class 3 is 기쁨; class 4 is ความสุข; class 5")
    assert "Noto Sans CJK" in line
    assert matplotlib.get_cachedir() in line


LONG = "a name of many words that goes on, of "


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["joy", "$5 & 50%_x", "été", "гнев", "שמחה", "خوشی"], None),
        (["joy 🥰", "anger 喜"], ["joy", "anger"]),  # what remains tells them apart
        (["joy 🥰", "joy"], ["class 0", "joy"]),
        (["joy 🥰", "joy 喜"], ["class 0", "class 1"]),
        (["all 🥰", "joy"], ["class 0", "joy"]),  # `all` stands for all texts
        (["!? 喜", "joy"], ["class 0", "joy"]),  # nothing that could be said
        (["喜", "class 0", "怒"], ["class 0*", "class 0", "class 2"]),
        (["a\tb", "a  b"], ["class 0", "class 1"]),
        (["a\tb", "c"], ["a b", "c"]),
        (["_joy", "joy"], [" _joy", "joy"]),
        (["x" * 40, "y" * 41], ["x" * 40, "y" * 25 + "…" + "y" * 14]),
        (
            [LONG + "his", LONG + "hers"],
            ["a name of many words that…oes on, of his", "a name of many words that…es on, of hers"],
        ),
        (["x" * 50 + "1" + "x" * 50, "x" * 50 + "2" + "x" * 50], ["class 0", "class 1"]),
        (["nan", "1", "1.0", "True", "null"], None),
    ],
)
def test_names_in_pictures_are_legible_and_different(plain, labels, names):
    drawn = fonts.name_classes(labels)
    assert drawn == (names or labels)
    assert not any(map(fonts.find_undrawable, drawn))
    assert len({*drawn}) == len(labels)
    explained = " ".join(fonts.explain_names(labels))
    for label, name in zip(labels, drawn, strict=True):
        differs = " ".join(label.split()) != name.strip()
        assert (f"{name.strip()} is {' '.join(label.split())}" in explained) == differs


def test_only_letters_that_are_missing_ask_for_a_font(plain):
    [line] = fonts.explain_names(["x" * 41])
    assert line == f"in pictures: {'x' * 25}…{'x' * 14} is {'x' * 41}"
    assert fonts.explain_names(["_joy", "a\tb"]) == []


def test_tables_are_renamed_where_they_name_classes(plain):
    table = pd.DataFrame(
        {"class": ["all", "喜悦", "joy"], "n": pd.array([1, None, 3], dtype="Int64"), "x": [0.5, 1, 2]}
    )
    table = table.assign(sure=[True, None, False], sign=pd.array([True, None, False], dtype="boolean"))
    renamed = fonts.rename_classes({"a": table, "b": table[:0]}, ["喜悦", "joy"])
    pd.testing.assert_frame_equal(renamed["a"], table.assign(**{"class": ["all", "class 0", "joy"]}))
    pd.testing.assert_frame_equal(renamed["b"], table[:0])
    assert fonts.rename_classes({"a": table}, ["joy"])["a"] is table


def test_what_no_font_has_is_drawn_without_a_word(plain, tmp_path, caplog):
    with warnings.catch_warnings(action="error"):
        write("喜 and 🥰, a text", tmp_path / "x.png")
    assert not caplog.records


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(plain):
    figure = Figure()
    axes = figure.subplots()
    [name] = fonts.name_classes(["_joy"])
    axes.plot([0, 1], label=f"{name}  AUC 0.5")
    assert [text.get_text().strip() for text in axes.legend().get_texts()] == ["_joy  AUC 0.5"]
