"""Views and corruptions of sequences, and the gaps of a cloze, on packed rows."""

from nextup.augment.ngrams import ShuffleMode, cut_ngram, shuffle_ngrams
from nextup.augment.operators import crop, insert, mask, reorder, share, substitute
from nextup.augment.packed import Packed
from nextup.augment.places import cloze_places
from nextup.augment.similarity import SimilarItems, better_of, by_embedding, co_occurrence
from nextup.augment.strangers import Strangers, splice_strangers
from nextup.augment.views import OPERATORS, Augmenter, Operator, ViewPolicy, short_set

__all__ = [
    "OPERATORS",
    "Augmenter",
    "Operator",
    "Packed",
    "ShuffleMode",
    "SimilarItems",
    "Strangers",
    "ViewPolicy",
    "better_of",
    "by_embedding",
    "cloze_places",
    "co_occurrence",
    "crop",
    "cut_ngram",
    "insert",
    "mask",
    "reorder",
    "share",
    "short_set",
    "shuffle_ngrams",
    "splice_strangers",
    "substitute",
]
