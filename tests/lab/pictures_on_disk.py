"""What holds for every picture that is written."""

from pathlib import Path

from matplotlib import pyplot
from matplotlib.image import imread


def assert_whole(folder: Path) -> None:
    """All pictures of a folder are large enough and not blank, and pyplot keeps none of them."""
    for path in folder.iterdir():
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 400
        assert pixels[..., :3].var() > 0.001
    assert pyplot.get_fignums() == []
