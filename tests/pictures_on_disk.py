"""What holds for every picture that is written, and a way to write none."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.image import imread

from lab import figures


def assert_whole(draw: Callable[[Path, int], None], folder: Path) -> None:
    """`draw(folder, seed)` leaves pictures that are large and legible, other ones of other data; pyplot keeps none."""
    save = figures.save

    def save_legible(figure: Figure, path: Path) -> None:
        save(figure, path)
        assert_legible(figure, path.name)

    first, other = folders = folder / "first", folder / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", save_legible)
        for seed, path in enumerate(folders):
            path.mkdir()
            draw(path, seed)
    for path in first.iterdir():
        assert min(imread(path, format="png").shape[:2]) > 400
        assert (other / path.name).read_bytes() != path.read_bytes()
    assert pyplot.get_fignums() == []


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """Have pictures saved empty: drawing takes longer than all else that a tiny network does."""
    patch.setattr(Figure, "draw_without_rendering", lambda self: None)
    patch.setattr(Figure, "savefig", lambda self, path, **settings: path.write_bytes(b"a picture"))


def assert_legible(figure: Figure, name: str) -> None:
    """Nothing of a figure that was drawn lies beyond its edges, and no title, label or number on another one."""
    edges, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(edges.x0, edges.y0, width - edges.x1, height - edges.y1) > 0, f"{name}: cut off at an edge"
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for (a, one), (b, two) in combinations(boxes, 2):
        shared = [min(one.max[i], two.max[i]) - max(one.min[i], two.min[i]) for i in range(2)]
        assert min(shared) < 1, f"{name}: {a!r} lies on {b!r}"  # pixel
