"""Templates and label words: what may be one, and what is refused."""

from pathlib import Path

import pytest

from data.prompts import Template, read_templates, read_words
from model import InputError, Tokenizer


def write(folder: Path, content: str) -> str:
    path = folder / "own.toml"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_there_are_at_least_eight_with_all_that_a_correction_needs():
    templates = read_templates()
    assert len(templates) >= 8
    assert len({template.prompt for template in templates}) == len(templates)
    for template in templates:
        assert template.prompt.endswith(template.domain), "the domain prompt is the prompt without the text"
        assert template.channel.endswith("{text}")


def test_every_word_of_ours_is_one_token_behind_a_space_and_names_one_class():
    tokenizer = Tokenizer.load("gpt2-mini")
    words = read_words()
    emotions = [word for label in ("sadness", "joy", "love", "anger", "fear", "surprise") for word in words[label]]
    assert len(set(emotions)) == len(emotions)
    for label, of_class in words.items():
        for word in of_class:
            assert len(tokenizer.encode(f" {word}")) == 1, (label, word)


def test_a_template_is_filled_even_with_texts_that_look_like_one():
    template = Template("t", "Text: {text}\nMood:", "Mood:", "Mood: {word}\nText: {text}")
    assert template.fill("{word} {text}") == "Text: {word} {text}\nMood:"
    assert template.fill_channel("sad", "a {word} {text}") == "Mood: sad\nText: a {word} {text}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "name: expected letters, digits"),
        ({"name": "all"}, "not `all`"),
        ({"prompt": "{text}"}, "prompt: expected {text} once among words"),
        ({"prompt": "Mood: {text} "}, "prompt: expected {text} once among words"),
        ({"prompt": "Mood:"}, "prompt: expected {text} once"),
        ({"prompt": "{text} {text} Mood:"}, "prompt: expected {text} once"),
        ({"prompt": "{text} Mood: "}, "no space or line end behind the last one"),
        ({"prompt": "{text} Mood:\n"}, "no space or line end behind the last one"),
        ({"prompt": "{text} {word}:"}, "prompt: expected {text} once"),
        ({"domain": "{text}:"}, "domain: expected the prompt without {text}"),
        ({"domain": ""}, "domain: expected"),
        ({"channel": "{text} {word}"}, "channel: expected {word} once, and {text} once, at the end"),
        ({"channel": "{text}"}, "channel: expected {word} once"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(fields, message):
    with pytest.raises(InputError, match=r"^template ") as refused:
        Template(**{"name": "t", "prompt": "{text} Mood:", "domain": "Mood:", **fields})
    assert message in str(refused.value)


def test_names_and_files_are_chosen_in_order(tmp_path):
    own = write(tmp_path, '[templates.mine]\nprompt = "{text} So:"\ndomain = "So:"\n')
    assert [template.name for template in read_templates(["tone", own, "mood"])] == ["tone", "mine", "mood"]
    assert read_templates([own])[0] == Template("mine", "{text} So:", "So:", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("templates = 3", "expected [templates.NAME]"),
        ("[words]\njoy = []", "expected [templates.NAME]"),
        ('[templates.a]\nprompt = "{text}:"', "templates.a: expected texts called prompt, domain"),
        ('[templates.a]\nprompt = "{text}:"\ndomain = 3', "templates.a: expected texts"),
        ('[templates.a]\nprompt = "{text}:"\ndomain = ":"\nlabel = "x"', "templates.a: expected texts"),
        ('[templates.a]\nprompt = "{text} "\ndomain = ":"', "template a, prompt: expected"),
        ("[templates.a", "expected TOML in UTF-8"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, content, message):
    own = write(tmp_path, content)
    with pytest.raises(InputError) as refused:
        read_templates([own])
    assert own in str(refused.value)
    assert message in str(refused.value)


def test_unknown_missing_and_repeated_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"template moods: expected a file \.toml, or one of feeling, emotion"):
        read_templates(["moods"])
    with pytest.raises(InputError, match="No such file"):
        read_templates([str(tmp_path / "none.toml")])
    with pytest.raises(InputError, match="templates: expected each name once, got mood more often"):
        read_templates(["mood", "tone", "mood"])
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[templates.a]\nprompt = "\xe9"')
    with pytest.raises(InputError, match="expected TOML in UTF-8"):
        read_templates([str(latin)])
