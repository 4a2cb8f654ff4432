"""Five ways to change a sequence and keep what it says about its user.

Each operator works on all rows of a `Packed` at once and returns as many rows, in the same order.

Sources: crop, mask and reorder are those of Xie et al., *Contrastive Learning for Sequential
Recommendation* (CL4SRec), ICDE 2022; substitute and insert are those of Liu et al.,
*Contrastive Self-supervised Sequential Recommendation with Robust Augmentation* (CoSeRec), 2021,
section 4.

How many items an operator touches follows from the length ``m`` of a row and a rate alone, so the
lengths of the result are known on the host beforehand. Which items is drawn on the device, from
`generator` (by default the device's own). The drawing needs no answer from the device: tokens are
sorted by (row, random number), after which the first ``k`` of each row are ``k`` random ones, and
where the rows begin is known already.

mask, reorder and substitute leave every token where it stands; crop and insert set the tokens anew,
without gaps. Rates mean the decimals they are written as, see `share`.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from nextup.augment.packed import Packed, spans, to_device
from nextup.augment.places import shuffled_places, slice_places, some_places
from nextup.augment.similarity import SimilarItems
from nextup.errors import ConfigError


def share(lengths: NDArray[np.int64], rate: float) -> NDArray[np.int64]:
    """``floor(rate * m)`` for each length ``m``, with `rate` as the decimal it is written as.

    In floating point 0.29 of 100 are 28.999..., so the product is one of whole numbers: the rate
    is the nearest fraction with a denominator of at most a million. That is every decimal of up to
    six places exactly, and 1/3 where a third was meant.

    Examples
    --------
    >>> int(0.29 * 100), share(np.array([100, 7]), 0.29)
    (28, array([29,  2]))
    """
    fraction = _fraction(float(rate))
    found: NDArray[np.int64] = lengths * fraction.numerator // fraction.denominator
    return found


@lru_cache(maxsize=256)
def _fraction(rate: float) -> Fraction:
    return Fraction(repr(rate)).limit_denominator(1_000_000)


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate of the operator `name` that is no share of a row.

    Raises
    ------
    ConfigError
        If it lies outside of [0, 1], or is 1 for mask: nothing would be left to see.
    """
    if not (0.0 <= rate < 1.0 if name == "mask" else 0.0 <= rate <= 1.0):
        allowed = "[0, 1)" if name == "mask" else "[0, 1]"
        raise ConfigError(f"augment: the rate of `{name}` is {rate}; it must lie in {allowed}")


def crop(rows: Packed, rate: float, generator: torch.Generator | None = None) -> Packed:
    """Keep ``max(1, floor(rate * m))`` consecutive items of each row.

    Every one of the possible starts is as likely. CoSeRec's public code never draws the last one,
    so that its crops never hold the latest item; the papers say nothing of it, and here nothing is
    left out.

    Examples
    --------
    >>> crop(Packed.from_lists([[1, 2, 3, 4]]), rate=1.0).as_lists()
    [[1, 2, 3, 4]]
    """
    check_rate("crop", rate)
    kept = np.maximum(share(rows.lengths, rate), 1)
    return Packed.of(rows.tokens[slice_places(rows, kept, generator)], kept)


def mask(
    rows: Packed,
    rate: float,
    token: int | None = None,
    generator: torch.Generator | None = None,
) -> Packed:
    """Hide ``floor(rate * m)`` random items of each row; at least one stays.

    Parameters
    ----------
    token
        What stands for a hidden item, as in CL4SRec. None takes the item out and leaves the others
        in their places, which is what CoSeRec's public code comes to: it writes the number of
        padding there, which no other place ever looks at.

    Examples
    --------
    >>> half = mask(Packed.from_lists([[5, 5, 5, 5]]), rate=0.5, token=99)
    >>> sorted(half.tokens.tolist())
    [5, 5, 99, 99]
    """
    check_rate("mask", rate)
    # A rate as good as 1 may be rounded to 1 in `share`.
    hidden = np.minimum(share(rows.lengths, rate), rows.lengths - 1)
    if token is not None:
        tokens = rows.tokens.index_fill(0, some_places(rows, hidden, generator), token)
        return Packed(tokens, rows.lengths, rows.ago)
    kept = rows.lengths - hidden
    at = some_places(rows, kept, generator).sort().values
    return Packed(rows.tokens[at], kept, rows.ago[at])


def reorder(rows: Packed, rate: float, generator: torch.Generator | None = None) -> Packed:
    """Shuffle a slice of ``floor(rate * m)`` consecutive items of each row.

    Every one of the possible starts is as likely (the published code leaves out the last, see
    `crop`), and so is every order of the slice. A slice of none or one changes nothing.
    """
    check_rate("reorder", rate)
    counts = share(rows.lengths, rate)
    at = slice_places(rows, counts, generator)
    order = shuffled_places(counts, rows.device, generator)
    return Packed(rows.tokens.index_copy(0, at, rows.tokens[at[order]]), rows.lengths, rows.ago)


def substitute(
    rows: Packed, rate: float, similar: SimilarItems, generator: torch.Generator | None = None
) -> Packed:
    """Replace ``max(1, floor(rate * m))`` random items of each row by their most similar ones.

    Examples
    --------
    >>> next_one = SimilarItems(torch.tensor([0, 2, 3, 1]), torch.ones(4), n_items=3)
    >>> substitute(Packed.from_lists([[1, 3]]), 1.0, next_one).as_lists()
    [[2, 1]]
    """
    check_rate("substitute", rate)
    at = some_places(rows, np.maximum(share(rows.lengths, rate), 1), generator)
    tokens = rows.tokens.index_copy(0, at, similar.of(rows.tokens[at], generator))
    return Packed(tokens, rows.lengths, rows.ago)


def insert(
    rows: Packed,
    rate: float,
    similar: SimilarItems,
    max_length: int,
    generator: torch.Generator | None = None,
) -> Packed:
    """Set before ``k = max(1, floor(rate * m))`` random items of each row their most similar ones.

    The result is cut to its last `max_length` items, so it has ``min(m + k, max_length)``.

    Examples
    --------
    >>> next_one = SimilarItems(torch.tensor([0, 2, 3, 1]), torch.ones(4), n_items=3)
    >>> insert(Packed.from_lists([[1, 3]]), 1.0, next_one, max_length=3).as_lists()
    [[1, 1, 3]]
    """
    check_rate("insert", rate)
    if max_length < 1:
        raise ConfigError(f"augment: max_length is {max_length}; `insert` needs at least 1")
    counts = np.maximum(share(rows.lengths, rate), 1)
    at = some_places(rows, counts, generator)
    tokens = torch.cat([rows.tokens, similar.of(rows.tokens[at], generator)])
    stands = torch.arange(len(rows.tokens), device=rows.device)
    order = torch.argsort(torch.cat([2 * stands + 1, 2 * at]))
    grown = rows.lengths + counts
    kept = np.minimum(grown, max_length)
    last = spans(np.cumsum(grown) - kept, kept)
    return Packed.of(tokens[order[to_device(last, rows.device)]], kept)
