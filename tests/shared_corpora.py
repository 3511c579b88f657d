"""Two corpora as people share them, made of our own words: tweets in one .csv, and wide tables with bars."""

import random
from collections.abc import Sequence
from pathlib import Path

EMOTIONS = {  # thirteen classes, each with words that only its texts have
    "anger": "furious shouting insulted fuming",
    "boredom": "yawning dull endless tedious",
    "empty": "hollow numb blank drained",
    "enthusiasm": "thrilled pumped eager ready",
    "fun": "laughing games jokes silly",
    "happiness": "smiling sunny delighted grateful",
    "hate": "loathe disgusting vile horrid",
    "love": "darling hugs sweetheart adore",
    "neutral": "bus schedule printer tuesday",
    "relief": "finally over safe exhale",
    "sadness": "crying tears lonely miss",
    "surprise": "suddenly unexpected gasp wow",
    "worry": "nervous afraid exam tomorrow",
}
TOPICS = {  # seven classes
    "account": "login password profile username",
    "card": "plastic chip pin contactless",
    "fraud": "stolen scam unknown thief",
    "loan": "rate instalment lender repay",
    "mortgage": "house deed escrow appraisal",
    "report": "score bureau inquiry history",
    "transfer": "wire sent received delay",
}
OPENINGS = ["today i feel", "so this is", "again and again", "can you believe it", "my friend says", "on my way home"]
PLACES = [
    "in the kitchen",
    "at the station",
    "after lunch",
    "before school",
    "on the phone",
    "with my sister",
    "all week",
]
COLUMNS = 40
TEXT, LABEL = 17, 31  # places of the wide table


def write_tweets(folder: Path, rows: int = 31_013, seed: int = 0) -> Path:
    """Write tweets.csv with the columns tweet_id, sentiment, content; return its path.

    One row is broken: in the middle of the file, an open quotation mark. Some texts come twice, some of these under two
    labels; there are retweets, links, HTML entities and emoji."""
    rng = random.Random(seed)
    labels = list(EMOTIONS)
    lines, earlier = ["tweet_id,sentiment,content"], []
    for i in range(rows):
        label = labels[i % len(labels)]
        text = tweet(rng, EMOTIONS[label].split())
        if earlier and i % 97 == 0:  # a retweet by someone else; every second one felt otherwise
            label, text = rng.choice(earlier)
            label = rng.choice(labels) if i % 2 else label
        earlier.append((label, text))
        lines.append(f"{1_956_967_341 + i},{label},{quote(text)}")
    lines[rows // 2] = lines[rows // 2].split(",", 2)[0] + ',neutral,"and then he said'
    return write(folder / "tweets.csv", lines)


def write_wide(folder: Path, rows: int = 4000, seed: int = 0) -> Path:
    """Write train.csv, val.csv and test.csv with bars between 40 columns, of which `narrative` is the text and
    `product` the class, which every 97th row lacks; return the folder."""
    rng = random.Random(seed)
    header = [f"field_{i}" for i in range(COLUMNS)]
    header[TEXT], header[LABEL] = "narrative", "product"
    for split, share in (("train", 8), ("val", 1), ("test", 1)):
        lines = ["|".join(header)]
        for i in range(rows * share // 10):
            fields = [str(rng.randrange(1000)) if rng.random() < 0.7 else "" for _ in range(COLUMNS)]
            label = list(TOPICS)[i % len(TOPICS)]
            fields[TEXT] = f"{rng.choice(OPENINGS)}; {words(rng, TOPICS[label].split())}, {rng.choice(PLACES)}."
            fields[LABEL] = "" if i % 97 == 96 else label
            lines.append("|".join(fields))
        write(folder / f"{split}.csv", lines)
    return folder


def tweet(rng: random.Random, of_class: Sequence[str]) -> str:
    """Return a text with words of its class, and with what tweets have besides."""
    text = f"{rng.choice(OPENINGS)}, {words(rng, of_class)} {rng.choice(PLACES)} {rng.randrange(100_000)}"
    extra = rng.randrange(8)
    if extra == 0:
        text = f"RT @user_{rng.randrange(999)}: {text}"
    elif extra == 1:
        text += f" https://t.example/{rng.randrange(10**6):x}?a=1;b=2"
    elif extra == 2:
        text = f"me &amp; you &lt;3 {text} &quot;ok&quot;"
    elif extra == 3:
        text += " 😂👩‍👩‍👧"
    elif extra == 4:
        text = f'"{text}" she said'
    return text


def words(rng: random.Random, of_class: Sequence[str]) -> str:
    return " ".join(rng.sample(of_class, 2))


def quote(text: str) -> str:
    """Return the text as a field of CSV, quoted where it has to be."""
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text


def write(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
