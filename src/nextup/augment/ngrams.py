"""Corruptions of sequences in whole n-grams: shuffled, or cut out (see also `strangers`).

Yuan, Chen, Song, Zhao & Ding (SSI), *Improving Sequential Recommendation Consistency with
Self-Supervised Imitation*, IJCAI 2021, section 2.3: a model that can tell a session from a
corrupted one has learnt what keeps a session together. The paper names neither sizes nor chances;
here a row is cut into n-grams of one size n, drawn from 1, 2 and 3 and at most half the row, the
last one taking what is left.

Everything is drawn on the host: a corruption that changes nothing, or that a user's own history
would allow, is drawn again, and only the host can wait for that. Rows keep their order and, but for
the cut n-gram, their length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.augment.packed import Packed, spans, to_device
from nextup.errors import ConfigError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ShuffleMode = Literal["blocks", "inside", "swap2"]

LONGEST = 3
"""The largest n-gram that a row is cut into."""

TRIES = 30
"""After so many draws there is said to be no corruption."""


@dataclass(frozen=True)
class Cut:
    """Rows cut into n-grams, which are numbered through.

    Attributes
    ----------
    row, first, size
        ``int64[G]``: of each n-gram its row, its first token and how many it has.
    """

    row: Ints
    first: Ints
    size: Ints

    @classmethod
    def of(cls, lengths: Ints, n: Ints) -> Cut:
        """Cut rows of `lengths` into pieces of `n` and a rest."""
        pieces = -(-lengths // n)
        row = np.repeat(np.arange(len(lengths)), pieces)
        before = spans(np.zeros_like(pieces), pieces) * n[row]
        first = (np.cumsum(lengths) - lengths)[row] + before
        return cls(row, first, np.minimum(n[row], lengths[row] - before))

    def chosen(self, at_least: Ints, keys: NDArray[np.float64]) -> Bools:
        """Choose each n-gram with probability one half, and `at_least` so many of each row.

        Where too few are chosen, the next in order of `keys` are as well.
        """
        order = np.lexsort((keys, self.row))
        rank = np.empty(len(order), dtype=np.int64)
        counts = np.bincount(self.row, minlength=len(at_least))
        rank[order] = spans(np.zeros_like(counts), counts)
        found: Bools = (keys < 0.5) | (rank < at_least[self.row])
        return found


def host_generator(generator: torch.Generator | None = None) -> np.random.Generator:
    """Return a NumPy generator seeded by PyTorch's on the CPU (the default one, or `generator`)."""
    return np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))


def shuffle_ngrams(
    rows: Packed, mode: ShuffleMode = "blocks", generator: np.random.Generator | None = None
) -> tuple[Packed, Bools]:
    """Exchange the order of n-grams, or of items inside them, so that each row changes.

    Parameters
    ----------
    rows
        The rows.
    mode
        ``"blocks"``: each n-gram is chosen with probability one half, and two at least, and those
        chosen change places among themselves in any way but the one they stood in.
        ``"swap2"``: any two n-grams change places. ``"inside"``: n is 2 or 3, each n-gram is chosen
        with probability one half, and one at least, and its items are shuffled in any way.
    generator
        What draws; by default seeded by PyTorch's.

    Returns
    -------
    tuple
        The rows, and ``bool[B]``: which of them changed. A row of one item, or of one item
        repeated, cannot.

    Raises
    ------
    ConfigError
        If there is no such mode.

    Examples
    --------
    >>> shuffle_ngrams(Packed.from_lists([[1, 2], [5]]))[0].as_lists()
    [[2, 1], [5]]
    """
    if mode not in get_args(ShuffleMode):
        raise ConfigError(f"augment: no shuffle `{mode}`; use one of {get_args(ShuffleMode)}")
    rng = host_generator() if generator is None else generator
    tokens, lengths, firsts = rows.tokens.cpu().numpy(), rows.lengths, rows.firsts
    result, changed = tokens.copy(), np.zeros(len(rows), dtype=np.bool_)
    left = np.flatnonzero(lengths > 1)
    for _ in range(TRIES):
        if not len(left):
            break
        at = spans(firsts[left], lengths[left])
        moved = tokens[at[_shuffled(lengths[left], mode, rng)]]
        row = np.repeat(np.arange(len(left)), lengths[left])
        differs = np.bincount(row, moved != tokens[at], len(left)) > 0
        result[at[differs[row]]] = moved[differs[row]]
        changed[left[differs]] = True
        left = left[~differs]
    return Packed(to_device(result, rows.device), lengths, rows.ago), changed


def _shuffled(lengths: Ints, mode: ShuffleMode, rng: np.random.Generator) -> Ints:
    """``int64[N]``: which token comes where, each row of `lengths` at least 2."""
    if mode == "inside":
        cut = Cut.of(lengths, np.where(lengths > 2, rng.integers(2, LONGEST + 1, len(lengths)), 2))
        # A rest of one item has nothing to shuffle, so it is never the one that must be chosen.
        keys = np.where(cut.size > 1, rng.random(len(cut.row)), 2.0)
        chosen = cut.chosen(np.ones_like(lengths), keys)
        piece = np.repeat(np.arange(len(cut.row)), cut.size)
        place = np.arange(len(piece))
        found: Ints = np.lexsort((np.where(chosen[piece], rng.random(len(piece)), place), piece))
        return found
    n = rng.integers(1, np.minimum(LONGEST, lengths // 2) + 1)
    cut = Cut.of(lengths, n)
    keys = rng.random(len(cut.row))
    twos = np.full_like(lengths, 2)
    chosen = cut.chosen(twos, keys if mode == "blocks" else keys + 1.0)
    at = np.flatnonzero(chosen)
    order = np.arange(len(cut.row))
    order[at] = at[_no_identity(cut.row[at], rng)]
    return spans(cut.first[order], cut.size[order])


def _no_identity(group: Ints, rng: np.random.Generator) -> Ints:
    """``int64[G]``: a random order of the members of each group (ascending, two or more each).

    Any order but the one they are in is as likely.
    """
    order = np.arange(len(group))
    left = np.arange(len(group))
    while len(left):
        order[left] = left[np.lexsort((rng.random(len(left)), group[left]))]
        moved = np.bincount(group[left], order[left] != left) > 0
        left = left[~moved[group[left]]]
    return order


def cut_ngram(
    rows: Packed, token: int, most: int = 5, generator: np.random.Generator | None = None
) -> tuple[Packed, Packed, Tensor]:
    """Cut an n-gram out of each row: what is left, and the n-gram alone.

    Its length is drawn from 1 to half the row, at most `most` and at least one; every start is as
    likely.

    Parameters
    ----------
    rows
        The rows.
    token
        What stands for each item cut out.
    most
        The most items of an n-gram.
    generator
        What draws; by default seeded by PyTorch's.

    Returns
    -------
    tuple
        The rows with `token` in place of the n-grams; the n-grams; and ``int64[sum]``: where in the
        rows they stood.

    Examples
    --------
    >>> left, cut, at = cut_ngram(Packed.from_lists([[4], [5]]), token=9)
    >>> left.as_lists(), cut.as_lists(), at
    ([[9], [9]], [[4], [5]], tensor([0, 1]))
    """
    rng = host_generator() if generator is None else generator
    lengths = rows.lengths
    sizes = rng.integers(1, np.clip(lengths // 2, 1, most) + 1)
    starts = rows.firsts + rng.integers(0, lengths - sizes + 1)
    at = to_device(spans(starts, sizes), rows.device)
    left = Packed(rows.tokens.index_fill(0, at, token), lengths, rows.ago)
    return left, Packed.of(rows.tokens[at], sizes), at
