"""Views of sequences: crop, mask, reorder, substitute and insert, on packed rows."""

from nextup.augment.operators import crop, insert, mask, reorder, share, substitute
from nextup.augment.packed import Packed
from nextup.augment.places import cloze_places
from nextup.augment.similarity import SimilarItems, better_of, by_embedding, co_occurrence
from nextup.augment.views import OPERATORS, Augmenter, Operator, ViewPolicy, short_set

__all__ = [
    "OPERATORS",
    "Augmenter",
    "Operator",
    "Packed",
    "SimilarItems",
    "ViewPolicy",
    "better_of",
    "by_embedding",
    "cloze_places",
    "co_occurrence",
    "crop",
    "insert",
    "mask",
    "reorder",
    "share",
    "short_set",
    "substitute",
]
