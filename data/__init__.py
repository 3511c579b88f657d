"""Text in: corpora, batches and words; and the embedded defaults sample/ and gpt2-mini/."""

from .batches import Batch, bucketed, encode
from .corpus import Corpus, read_corpus
from .description import describe_corpus, render_description
from .reading import ReadOptions
from .splits import SPLITS

__all__ = [
    "SPLITS",
    "Batch",
    "Corpus",
    "ReadOptions",
    "bucketed",
    "describe_corpus",
    "encode",
    "read_corpus",
    "render_description",
]
