"""For each item the one that may stand for it: by co-occurrence, by embedding, by the surer of two.

Liu et al., *Contrastive Self-supervised Sequential Recommendation with Robust Augmentation*
(CoSeRec), 2021, section 4: a memory-based similarity counted once on the training sequences, a
model-based one from the item vectors as they are learnt, and the hybrid of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from nextup.data.sequences import Sequences

_PAIRS_AT_ONCE = 1 << 20
"""Pairs of items whose similarities are in memory at a time (times about 50 bytes)."""

_SAME = 1e-12
"""Relative difference below which sums are ties: they differ in the order of their terms only."""


@dataclass(frozen=True, eq=False)
class SimilarItems:
    """The most similar item of each.

    Parameters
    ----------
    item
        ``int64[I+1]``: the item that may stand for each; 0 where none is known.
    score
        ``float32[I+1]``: how sure, in [0, 1]; 0 where none is known.
    n_items
        The number ``I`` of items.

    Examples
    --------
    >>> train = Sequences.from_lists([[1, 2], [2, 1], [2, 3]])
    >>> co_occurrence(train, n_items=4).item.tolist()
    [0, 2, 1, 2, 0]
    """

    item: Tensor
    score: Tensor
    n_items: int

    @cached_property
    def known(self) -> Tensor:
        """``int64[K]``: the items that have a similar one, ascending."""
        return self.item.nonzero().flatten()

    def of(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``int64[n]`` to ``int64[n]``: an item that may stand for each token.

        Where none is known it is a uniformly random one of `known`, as in the published code;
        where `known` is empty it is the token itself. Tokens are items, ``1..I``.
        """
        found = self.item[tokens]
        if len(self.known) == self.n_items:
            return found
        if len(self.known) == 0:
            return tokens.clone()
        drawn = torch.randint(
            len(self.known), tokens.shape, generator=generator, device=tokens.device
        )
        return torch.where(found == 0, self.known[drawn], found)

    def to(self, device: torch.device | str) -> SimilarItems:
        """Return the same on `device`."""
        item = self.item.to(device)
        if item is self.item:
            return self
        return SimilarItems(item, self.score.to(device), self.n_items)


def co_occurrence(
    train: Sequences, n_items: int, inverse_user_frequency: bool = True
) -> SimilarItems:
    """Count which items the same users have (ItemCF, or ItemCF-IUF).

    ``sim(a, b)`` is the sum of ``w_u`` over the users who have both, by ``sqrt(n_a n_b)``, where
    ``n_a`` users have ``a``. What a user has is a set ``S_u``; ``w_u`` is ``1 / ln(1 + |S_u|)``,
    so that users who have everything say little, or 1. Scores are scaled to [0, 1] by the least
    and the greatest of all pairs that occur. Of equally similar items the lower number is taken.

    The similarities are never in memory together, however many items a user has.

    Parameters
    ----------
    train
        What training may see: no spans that hold validation or test items.
    inverse_user_frequency
        Whether users weigh the less the more items they have.
    """
    by_user = _sets(train, n_items)
    sizes = np.diff(by_user.indptr)
    by_item = by_user.T.tocsr()
    owners = np.diff(by_item.indptr)
    # An item meets at most as many others as its users have items, and at most all.
    blocks = _blocks(np.minimum(by_item @ sizes.astype(np.float64), n_items))
    if inverse_user_frequency:
        by_item.data /= np.log1p(sizes)[by_item.indices]
    item = np.zeros(n_items + 1, dtype=np.int64)
    score = np.zeros(n_items + 1, dtype=np.float64)
    low, high = np.inf, -np.inf
    for first, end in blocks:
        block = by_item[first:end] @ by_user
        one = np.repeat(np.arange(first, end), np.diff(block.indptr))
        apart = block.indices != one
        one, other = one[apart], block.indices[apart]
        if len(one) == 0:
            continue
        value = block.data[apart] / np.sqrt(owners[one] * owners[other])
        low, high = min(low, value.min()), max(high, value.max())
        starts = np.flatnonzero(np.diff(one, prepend=-1))
        best = np.maximum.reduceat(value, starts)
        ties = value >= np.repeat(best * (1 - _SAME), np.diff(starts, append=len(one)))
        item[one[starts]] = np.minimum.reduceat(np.where(ties, other, n_items + 1), starts)
        score[one[starts]] = best
    known = item > 0
    score[known] = _scaled(score[known], low, high)
    return SimilarItems(torch.from_numpy(item), torch.from_numpy(score.astype(np.float32)), n_items)


def _sets(train: Sequences, n_items: int) -> sparse.csr_array:
    """``[u, I+1]``: 1 where a user has an item, however often."""
    ends = np.concatenate([[0], np.cumsum(train.lengths)])
    items = np.array(train.flat(), dtype=np.int64)
    matrix = sparse.csr_array((np.ones(len(items)), items, ends), shape=(len(train), n_items + 1))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _blocks(pairs: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Cut the items into runs of about `_PAIRS_AT_ONCE` pairs, of one item at least."""
    total, first = np.cumsum(pairs), 0
    while first < len(pairs):
        before = total[first - 1] if first else 0.0
        end = int(np.searchsorted(total, before + _PAIRS_AT_ONCE, side="right"))
        end = max(end, first + 1)
        yield first, end
        first = end


def _scaled(values: NDArray, low: float, high: float) -> NDArray:
    """Map [low, high] to [0, 1]; where all are equal, to 1."""
    if high * (1 - _SAME) <= low:
        return np.ones_like(values)
    scaled: NDArray = (values - low) / (high - low)
    return scaled


@torch.no_grad()
def by_embedding(table: Tensor, n_items: int, among: Tensor | None = None) -> SimilarItems:
    """Take for each item the one whose vector has the greatest product with its own.

    Scores are scaled to [0, 1] by the least and the greatest of all products, those of items with
    themselves included (so is the published code's; unlike it, neither padding nor special tokens
    are candidates).

    Parameters
    ----------
    table
        ``float[I+1 or more, d]``: the vectors of the items ``1..I``; other rows are not read.
    among
        ``int64[K]``: the items that training knows, where these are not all. Others have no similar
        item and are none: their vectors have learnt nothing.

    Examples
    --------
    >>> table = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> by_embedding(table, n_items=3).item.tolist()
    [0, 2, 1, 2]
    """
    device = table.device
    if among is None:
        among = torch.arange(1, n_items + 1, device=device)
    item = torch.zeros(n_items + 1, dtype=torch.int64, device=device)
    score = torch.zeros(n_items + 1, dtype=torch.float32, device=device)
    if len(among) < 2:
        return SimilarItems(item, score, n_items)
    vectors = table.detach()[among].float()
    lows, highs, best, chosen = [], [], [], []
    at_once = max(1, _PAIRS_AT_ONCE // len(among))
    for start in range(0, len(among), at_once):
        rows = torch.arange(start, min(start + at_once, len(among)), device=device)
        products = vectors[rows] @ vectors.T
        lows.append(products.amin())
        highs.append(products.amax())
        products.scatter_(1, rows[:, None], -torch.inf)
        chosen.append(products.argmax(dim=1))
        best.append(products.gather(1, chosen[-1][:, None])[:, 0])
    low, high = torch.stack(lows).amin(), torch.stack(highs).amax()
    scaled = (torch.cat(best) - low) / (high - low)
    item[among] = among[torch.cat(chosen)]
    score[among] = torch.where(high > low, scaled, torch.ones_like(scaled))
    return SimilarItems(item, score, n_items)


def better_of(first: SimilarItems, second: SimilarItems) -> SimilarItems:
    """Take for each item the candidate with the greater score; `first` where they are equal.

    Examples
    --------
    >>> one = SimilarItems(torch.tensor([0, 2, 0]), torch.tensor([0.0, 0.5, 0.0]), n_items=2)
    >>> two = SimilarItems(torch.tensor([0, 1, 1]), torch.tensor([0.0, 0.4, 0.0]), n_items=2)
    >>> better_of(one, two).item.tolist()
    [0, 2, 1]
    """
    chosen = (second.score > first.score) | (first.item == 0)
    return SimilarItems(
        torch.where(chosen, second.item, first.item),
        torch.where(chosen, second.score, first.score),
        first.n_items,
    )
