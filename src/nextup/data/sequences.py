"""Sequences: one flat array of item numbers, and the span of each user in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextup.errors import InputError


@dataclass(frozen=True)
class Sequences:
    """Many histories as spans over one array; a split or a prefix is other spans, never a copy.

    Parameters
    ----------
    items
        ``int32[n]``: the items of all users, user after user, oldest first. Numbers are ``1..I``;
        0 is padding and never stands here.
    starts, ends
        ``int64[u]``: history ``r`` is ``items[starts[r]:ends[r]]``.
    times
        ``int64[n]``: when each of `items` happened, where that is known.

    Examples
    --------
    >>> s = Sequences.from_lists([[1, 2, 3], [2, 4]])
    >>> s.lengths
    array([3, 2])
    >>> s.without_last(1)[0]
    array([1, 2], dtype=int32)
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    times: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.starts.shape != self.ends.shape:
            raise InputError(
                f"sequences: {len(self.starts)} starts but {len(self.ends)} ends; "
                "each history needs one of both"
            )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.items[self.starts[row] : self.ends[row]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``int64[u]``: how many items each history has."""
        return self.ends - self.starts

    def without_last(self, n: int) -> Sequences:
        """Return the same histories less their last `n` items (shorter ones become empty)."""
        ends = np.maximum(self.ends - n, self.starts)
        return Sequences(self.items, self.starts, ends, self.times)

    def rows(self, index: NDArray[np.integer] | slice) -> Sequences:
        """Return the histories named by `index`, over the same array."""
        return Sequences(self.items, self.starts[index], self.ends[index], self.times)

    def flat(self) -> NDArray[np.int32]:
        """Return only the items inside the spans, in order (copies unless the spans touch)."""
        if len(self) and bool((self.starts[1:] == self.ends[:-1]).all()):
            return self.items[self.starts[0] : self.ends[-1]]
        return self.items[self.positions()]

    def positions(self) -> NDArray[np.int64]:
        """``int64[sum of lengths]``: where in `items` each item of each history stands."""
        lengths = self.lengths
        offsets = np.cumsum(lengths) - lengths
        moved: NDArray[np.int64] = np.repeat(self.starts - offsets, lengths)
        return moved + np.arange(len(moved))

    @classmethod
    def from_lists(cls, histories: Iterable[Iterable[int]]) -> Sequences:
        """Build from Python lists of item numbers."""
        arrays = [np.asarray(list(history), dtype=np.int32) for history in histories]
        lengths = np.array([len(a) for a in arrays], dtype=np.int64)
        ends = np.cumsum(lengths)
        items = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls(items.astype(np.int32), ends - lengths, ends)
