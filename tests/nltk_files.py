"""A stand-in for nltk's data."""

from pathlib import Path

import nltk
import pytest


def put(files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write these files, by path, and let nltk look in this folder alone."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)  # nltk reads nothing that others may write
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
