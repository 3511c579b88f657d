"""Corpora from the hub, or from the stand-in for it."""

import errno
import json
import os
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import line_of
from huggingface_hub import constants

from data import ReadOptions, read_corpus
from model import InputError

SPLITS = {"train": 40, "validation": 10, "test": 10}
EMOTIONS = ["sadness", "joy", "love", "anger", "fear", "surprise"]


def write_parquet(path, texts, labels, names=None, columns=("text", "label")):
    """A parquet file of texts and numbered labels; with `names`, as the hub's `datasets` writes a ClassLabel."""
    table = pa.table({columns[0]: texts, columns[1]: pa.array(labels, pa.int64())})
    if names:
        features = {columns[1]: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def publish(hub, tmp_path, repository, folder="", splits=SPLITS, shards=1, classes=6, **parquet):
    """Publish a corpus in the layout that the hub's own conversion has; labels go round the classes."""
    root = tmp_path / "published" / repository.replace("/", "--")
    for split, size in splits.items():
        part = size // shards
        for shard in range(shards):
            rows = range(shard * part, (shard + 1) * part)
            path = root / folder / f"{split}-{shard:05}-of-{shards:05}.parquet"
            write_parquet(path, [f"{split} text {row}" for row in rows], [row % classes for row in rows], **parquet)
    hub.repositories["dataset", repository] = root
    return root


@pytest.mark.parametrize("source", ["emotion", "dair-ai/emotion", "dair-ai/emotion/split"])
def test_emotion_is_read_from_its_repository_with_the_labels_of_its_card(hub, tmp_path, source):
    publish(hub, tmp_path, "dair-ai/emotion", "split", names=EMOTIONS)
    publish(hub, tmp_path, "dair-ai/emotion", "unsplit", {"train": 60}, names=EMOTIONS)
    corpus = read_corpus(source)
    assert corpus.name == "dair-ai/emotion/split"
    assert corpus.labels == tuple(EMOTIONS)
    assert {split: len(corpus.split(split)) for split in ("train", "val", "test")} == dict(train=40, val=10, test=10)
    assert list(corpus.split("val")["text"]) == [f"validation text {row}" for row in range(10)]
    assert list(corpus.split("test")["label"]) == [EMOTIONS[row % 6] for row in range(10)]
    assert not hub.asked("unsplit")


def test_rotten_tomatoes_has_its_files_at_the_root_and_may_name_its_classes_in_the_card_alone(hub, tmp_path):
    root = publish(hub, tmp_path, "cornell-movie-review-data/rotten_tomatoes", classes=2)
    for split in SPLITS:
        (root / f"{split}-00000-of-00001.parquet").rename(root / f"{split}.parquet")
    (root / "README.md").write_text(CARD)
    corpus = read_corpus("rotten_tomatoes")
    assert corpus.name == "cornell-movie-review-data/rotten_tomatoes"
    assert corpus.labels == ("neg", "pos")
    assert list(corpus.split("train")["label"][:3]) == ["neg", "pos", "neg"]


CARD = """---
language:
- en
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  splits:
  - name: train
    num_bytes: 1074810
---

# Card
"""


@pytest.mark.parametrize(
    "card",
    [
        "",
        "no front matter\n",
        "---\nlicense: mit\n---\n",
        CARD.replace("name: label", "name: stars"),
        CARD.replace("features", "columns"),
        CARD.replace("names:", "num_classes: 2"),
        "---\ndataset_info: text\n---\n",
        "---\na: [b\n---\n",
        "---\n- a\n---\n",
        b"---\nlicense: \xff\n---\n",
    ],
)
def test_classes_that_nobody_names_are_called_by_their_numbers(hub, tmp_path, card):
    root = publish(hub, tmp_path, "someone/reviews", classes=2)
    (root / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert read_corpus("someone/reviews").labels == ("0", "1")


@pytest.mark.parametrize("names", ["\n          '1': pos\n          '0': neg", " [neg, pos]"])
def test_the_names_of_a_card_go_by_their_numbers(hub, tmp_path, names):
    root = publish(hub, tmp_path, "someone/reviews", classes=2)
    before, after = CARD.split("names:")[0], CARD.split("'1': pos")[1]
    (root / "README.md").write_text(f"{before}names:{names}{after}")
    assert list(read_corpus("someone/reviews").split("train")["label"][:3]) == ["neg", "pos", "neg"]


def test_other_column_names(hub, tmp_path):
    publish(hub, tmp_path, "someone/said", columns=("sentence", "mood"), names=EMOTIONS)
    assert read_corpus("someone/said", ReadOptions("sentence", "mood")).labels == tuple(EMOTIONS)
    with pytest.raises(InputError, match=r"one column 'text', there are 'sentence', 'mood'; name yours with --text-co"):
        read_corpus("someone/said")


def test_shards_are_read_in_their_order(hub, tmp_path):
    publish(hub, tmp_path, "someone/much", "data", shards=2)
    assert list(read_corpus("someone/much").split("train")["text"]) == [f"train text {row}" for row in range(40)]


def test_a_missing_shard_is_refused_and_nothing_downloaded(hub, tmp_path):
    root = publish(hub, tmp_path, "someone/much", shards=2)
    (root / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"expected parquet files for train, val and test, there are .*train-00000-of"):
        read_corpus("someone/much")
    assert not hub.asked("parquet")


def test_a_corpus_without_val_sets_a_tenth_of_train_aside_and_says_so(hub, tmp_path, caplog):
    publish(hub, tmp_path, "someone/imdb", splits={"train": 400, "test": 50, "unsupervised": 30}, classes=2)
    corpus = read_corpus("someone/imdb", seed=3)
    texts = {split: set(corpus.split(split)["text"]) for split in ("train", "val", "test")}
    assert len(texts["val"]) == 40
    assert corpus.split("val")["label"].value_counts().to_dict() == {"0": 20, "1": 20}
    assert texts["train"] | texts["val"] == {f"train text {row}" for row in range(400)}
    assert texts["test"] == {f"test text {row}" for row in range(50)}
    assert "no val split: a tenth of its train split is set aside" in caplog.text
    assert not hub.asked("unsupervised")
    assert set(read_corpus("someone/imdb", seed=3).split("val")["text"]) == texts["val"]
    assert set(read_corpus("someone/imdb", seed=4).split("val")["text"]) != texts["val"]


def test_of_several_corpora_in_a_repository_one_must_be_chosen(hub, tmp_path):
    publish(hub, tmp_path, "cardiff/tweets", "emotion")
    publish(hub, tmp_path, "cardiff/tweets", "irony", classes=2)
    with pytest.raises(InputError, match="several corpora in it: add one of emotion, irony as owner/name/FOLDER"):
        read_corpus("cardiff/tweets")
    assert read_corpus("cardiff/tweets/irony").labels == ("0", "1")
    assert not hub.asked("/emotion/")
    assert "several corpora in it" in line_of(read_corpus, "cardiff/tweets")  # though the cache has only one
    assert "expected parquet files for train, val and test in hate, there are" in line_of(
        read_corpus, "cardiff/tweets/hate"
    )


def test_other_formats_on_the_hub_are_refused_with_what_is_there(hub, tmp_path):
    for path in publish(hub, tmp_path, "someone/tables").iterdir():
        path.rename(path.with_suffix(".csv"))
    with pytest.raises(InputError, match=r"'someone/tables': expected parquet .*there are test-00000-of-00001.csv, "):
        read_corpus("someone/tables")


@pytest.mark.parametrize("fault", [{"status": 503}, {"error": "RepoNotFound"}, "offline"])
def test_the_cache_is_enough_where_the_hub_gives_no_answer(hub, tmp_path, monkeypatch, caplog, fault):
    publish(hub, tmp_path, "dair-ai/emotion", "split", names=EMOTIONS)
    first = read_corpus("emotion")
    if fault == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.misbehave("api", **fault)
    second = read_corpus("emotion")
    assert "Using its copy in the cache." in caplog.text
    pd.testing.assert_frame_equal(first.examples, second.examples)
    assert first.revision == second.revision == "c0ffee" + "0" * 34
    assert first.files == second.files


def test_what_is_there_is_not_sent_again(hub, tmp_path, caplog):
    publish(hub, tmp_path, "dair-ai/emotion", "split", names=EMOTIONS)
    read_corpus("emotion")
    hub.sent.clear()
    read_corpus("emotion")
    assert not hub.sent
    assert not caplog.text


@pytest.mark.parametrize("newer", [False, True])
def test_a_cache_that_can_only_be_read_is_enough(hub, tmp_path, monkeypatch, caplog, newer):
    """As others share one on a cluster; a newer commit cannot be put there."""
    publish(hub, tmp_path, "dair-ai/emotion", "split", names=EMOTIONS)
    first = read_corpus("emotion")
    if newer:
        hub.commits["dair-ai/emotion"] = "d" * 40

    def refuse(*arguments, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    for function in ("mkdir", "symlink", "replace"):
        monkeypatch.setattr(os, function, refuse)
    assert read_corpus("emotion").revision == first.revision
    assert ("cannot be written to" in caplog.text) == newer


def test_a_corpus_that_arrives_damaged_is_refused_and_fetched_anew(hub, tmp_path):
    publish(hub, tmp_path, "dair-ai/emotion", "split", names=EMOTIONS)
    hub.misbehave("split/validation-00000-of-00001.parquet", times=1, flip=100)
    with pytest.raises(InputError, match=r"'dair-ai/emotion': split/validation-00000-of-00001.parquet arrived damaged"):
        read_corpus("emotion")
    assert len(read_corpus("emotion").split("val")) == 10


def test_a_hub_that_refuses_is_one_line_with_what_to_do(hub):
    hub.misbehave("api", status=503)
    assert re.search("answered 503; .*CORPUS=path/to/folder", line_of(read_corpus, "emotion"))


@pytest.mark.parametrize("source", ["corpora/mine", "corpora/mine/deep"])
def test_a_mistyped_folder_is_called_both_what_it_is_not(hub, source):
    with pytest.raises(InputError, match=rf"\A{source}: no such file or folder here; .*'corpora/mine'.* none that you"):
        read_corpus(source)


@pytest.mark.parametrize("source", ["corpora/mine.csv", "./corpora/mine", "/corpora/mine", "mine", "a b/c", "../a"])
def test_what_cannot_be_on_the_hub_is_not_asked_for(hub, source):
    with pytest.raises(InputError, match="there is no such file or folder; give one as CORPUS=path/to/folder"):
        read_corpus(source)
    assert not hub.requests
