"""A stand-in for nltk's data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nltk
import pytest
from nltk.corpus import brown, opinion_lexicon, stopwords
from nltk.tag import mapping


@contextmanager
def nltk_files(files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write these files, by path, and let nltk look in this folder alone."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)  # nltk reads nothing that others may write
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    unload()
    yield folder
    unload()


def unload() -> None:
    """Make nltk look for its data anew, which it otherwise does but once."""
    for corpus in (brown, opinion_lexicon, stopwords):
        corpus._unload()
    mapping._MAPPINGS.pop("en-brown", None)
    nltk.data.clear_cache()
