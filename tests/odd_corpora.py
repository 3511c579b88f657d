"""Corpora at the edge of what is allowed: classes that a split lacks, and classes with names that others might read."""

from pathlib import Path

NAMES = ["all", "NA", "nan", "1", "None", "p_1", "true", "[bold]", "anger", "fear", "love", "hope", "-"]
CORPORA = {  # texts by split and class; what train.py says of the splits
    "thirteen": (
        {
            "train": dict.fromkeys(NAMES, 4),
            "val": {name: 2 for name in NAMES if name != "1"},
            "test": {name: 3 for name in NAMES if name not in ("nan", "[bold]")},
        },
        ["val has no text of 1:", "test has no text of [bold], nan:"],
    ),
    "two": ({"train": {"all": 9, "NA": 9}, "val": {"all": 3, "NA": 5}, "test": {"all": 5, "NA": 3}}, []),
    "single": (
        {"train": {"joy": 9, "fear": 9, "all": 1}, "val": {"joy": 4, "fear": 4}, "test": {"joy": 4, "fear": 4}},
        ["val has no text of all:", "test has no text of all:"],
    ),
    "apart": (
        {"train": {"joy": 9, "fear": 9}, "val": {"joy": 4}, "test": {"fear": 4}},
        ["val has no text of fear:", "test has no text of joy:"],
    ),
}


def write_corpus(folder: Path, name: str) -> None:
    """Leaves the corpus of that name as folder/NAME."""
    (folder / name).mkdir()
    for split, classes in CORPORA[name][0].items():
        lines = [f"{split} {i} is about {label};{label}" for label, n in classes.items() for i in range(n)]
        (folder / name / f"{split}.txt").write_text("\n".join(lines) + "\n")
