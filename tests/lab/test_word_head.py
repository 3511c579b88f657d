"""What a run of `train.py --head words` asks and answers, in its manifest and out of it again."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import line_of

from lab.texts import Texts
from lab.word_head import choose_word_head, load_network, read_word_head
from model import GPT2LM, GPT2Classifier, GPT2Config, Tokenizer, save

TOKENIZER = Tokenizer.load("gpt2-mini")
LABELS = ("joy", "fear")
CONFIG = GPT2Config(1, 2, 6, n_ctx=9, dropout=0, attn_dropout=0)


def write_file(folder, *names):
    path = folder / "mine.toml"
    path.write_text("".join(f"[templates.{name}]\nprompt = '{{text}} Class:'\ndomain = 'Class:'\n" for name in names))
    return str(path)


def test_a_manifest_holds_the_whole_head(tmp_path):
    path = write_file(tmp_path, "mine")
    head = choose_word_head(path, ("joy=glad,merry",), LABELS, TOKENIZER)
    template = {"name": "mine", "prompt": "{text} Class:", "domain": "Class:", "channel": ""}
    assert head.describe() == {"template": template, "words": {"joy": "glad", "fear": "afraid"}}
    record = {"prompt": json.loads(json.dumps(head.describe()))}
    write_file(tmp_path, "other")  # the file may change afterwards
    assert read_word_head(record, TOKENIZER) == head
    assert head.words.ids == (((TOKENIZER.encode(" glad")[0],),), ((TOKENIZER.encode(" afraid")[0],),))
    assert read_word_head({}, TOKENIZER) is None


def test_one_template_is_expected(tmp_path):
    line = line_of(choose_word_head, write_file(tmp_path, "a", "b"), (), LABELS, TOKENIZER)
    assert "expected one to train on, got a, b" in line
    assert "feeling" in line_of(choose_word_head, "felling", (), LABELS, TOKENIZER)


def test_every_prompt_is_checked_for_a_word_that_joins_its_end():
    head = choose_word_head("feeling", (), LABELS, TOKENIZER)
    texts = {
        split: Texts(split, np.arange(2), ["well", last], [[1], [2]], np.zeros(2, int))
        for split, last in {"train": "fine", "test": "ill"}.items()
    }
    head.check(texts, TOKENIZER)
    joining = SimpleNamespace(encode=lambda text: [*text.encode()] if not text.startswith("ill ") else [1])
    assert "'happy' joins the end of 'ill'" in line_of(head.check, texts, joining)


def test_a_language_model_is_read_with_its_words(tmp_path):
    torch.manual_seed(0)
    lm = GPT2LM(CONFIG)
    save(lm, tmp_path / "lm", TOKENIZER)
    save(GPT2Classifier(CONFIG, LABELS), tmp_path / "clf", TOKENIZER)
    head = choose_word_head("feeling", (), LABELS, TOKENIZER)
    clf = load_network(tmp_path / "lm", head)
    assert clf.labels == LABELS
    assert not clf.training
    ids = torch.tensor([[3, 1, 4], [1, 5, 0]])
    words = [TOKENIZER.encode(word)[0] for word in (" happy", " afraid")]
    expected = torch.stack([lm(ids)[0, 2, words], lm(ids)[1, 1, words]])
    torch.testing.assert_close(clf(ids, torch.tensor([3, 2])), expected)
    assert "expected a language model" in line_of(load_network, tmp_path / "clf", head)
    assert load_network(tmp_path / "clf", None).labels == LABELS
    long = choose_word_head("feeling", ("joy=exhilarated",), LABELS, TOKENIZER)
    assert "'exhilarated'" in line_of(load_network, tmp_path / "lm", long)


@pytest.mark.parametrize("labels", [("a=b", "c, d"), ("all", "none")])
def test_any_label_names_a_class(labels):
    head = choose_word_head("feeling", (), labels, TOKENIZER)
    assert read_word_head({"prompt": head.describe()}, TOKENIZER) == head
