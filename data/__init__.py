"""Text in: corpora and batches."""

from .batches import Batch, bucketed, encode
from .corpus import Corpus, read_corpus
from .description import describe, report
from .splits import SPLITS

__all__ = ["SPLITS", "Batch", "Corpus", "bucketed", "describe", "encode", "read_corpus", "report"]
