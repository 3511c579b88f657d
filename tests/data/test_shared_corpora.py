"""Corpora as people share them are read whole; `tests/shared_corpora.py` makes them."""

import pytest
from commands import line_of
from shared_corpora import COLUMNS, EMOTIONS, TOPICS, write_tweets, write_wide
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from data import ReadOptions, read_corpus

TWEETS = {"text_column": "content", "label_column": "sentiment"}
WIDE = {"text_column": "narrative", "label_column": "product"}


@pytest.fixture(scope="module")
def tweets(tmp_path_factory):
    return write_tweets(tmp_path_factory.mktemp("tweets"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write_wide(tmp_path_factory.mktemp("wide"))


def accuracy(corpus):
    """Of a bag of words."""
    train, test = corpus.split("train"), corpus.split("test")
    count = CountVectorizer(max_features=500)
    fitted = LogisticRegression(max_iter=20).fit(count.fit_transform(train["text"]), train["label"])
    return fitted.score(count.transform(test["text"]), test["label"])


def test_the_one_broken_row_of_31013_is_named(tweets):
    message = line_of(read_corpus, tweets, ReadOptions(**TWEETS))
    assert message.startswith(f"{tweets}:15507: not a valid row: ")
    assert "rows cannot be used" not in message


def test_the_other_31012_are_read(tweets):
    corpus = read_corpus(tweets, ReadOptions(**TWEETS, skip_bad_rows=True))
    assert len(corpus.examples) == 31_012
    assert corpus.skipped["line"].tolist() == [15_507]
    assert corpus.labels == tuple(sorted(EMOTIONS))
    lines = tweets.read_text(encoding="utf-8").splitlines()
    for text, line in corpus.examples[["text", "line"]].sample(500, random_state=0).itertuples(index=False):
        assert text.replace('"', '""') in lines[line - 1]
    for what in ("RT @user_", "https://", "&amp;", "😂", '" she said'):
        assert corpus.examples["text"].str.contains(what, regex=False).sum() > 1000
    by_text = corpus.examples.groupby("text")["label"]
    assert (by_text.size() > 1).sum() > 100
    assert (by_text.nunique() > 1).sum() > 50


def test_wide_tables_are_read_but_for_the_blank_classes(wide):
    message = line_of(read_corpus, wide, ReadOptions(**WIDE))
    assert message.startswith(
        f"{wide / 'train.csv'}:98, 195, 292: the label is empty; 40 of 4,000 rows cannot be used: 40 empty labels"
    )
    corpus = read_corpus(wide, ReadOptions(**WIDE, skip_bad_rows=True))
    assert [len(corpus.split(split)) for split in ("train", "val", "test")] == [3200 - 32, 400 - 4, 400 - 4]
    assert corpus.skipped["kind"].value_counts().to_dict() == {"empty labels": 40}
    assert corpus.labels == tuple(sorted(TOPICS))
    assert corpus.examples["text"].str.contains(";").all()
    assert (wide / "val.csv").read_text().partition("\n")[0].count("|") == COLUMNS - 1


def test_words_tell_the_classes(tweets, wide):
    assert accuracy(read_corpus(tweets, ReadOptions(**TWEETS, skip_bad_rows=True))) > 0.9
    assert accuracy(read_corpus(wide, ReadOptions(**WIDE, skip_bad_rows=True))) > 0.9


def test_a_seed_gives_one_corpus(tmp_path):
    contents = [write_tweets(tmp_path / str(i), 200, seed).read_bytes() for i, seed in enumerate((3, 3, 4))]
    assert contents[0] == contents[1] != contents[2]
