"""Packed rows of any lengths, and how long before the end of its row each token stands.

The operators of `nextup.augment.operators` turn packed rows into packed rows. How long a row is
stays known on the host throughout, so that nothing ever waits for the device to answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """Return `array` as a tensor on `device`, without waiting for the device."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def spans(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """``int64[sum of lengths]``: the numbers ``starts[r], starts[r] + 1, ...`` of each span.

    Examples
    --------
    >>> spans(np.array([5, 0]), np.array([3, 2]))
    array([5, 6, 7, 0, 1])
    """
    moved: NDArray[np.int64] = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return moved + np.arange(len(moved))


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of items one after the other, without padding, in any order.

    Parameters
    ----------
    tokens
        ``int64[N]``: the items of all rows, row after row, oldest first.
    lengths
        ``int64[B]`` **on the host**: items of each row, each at least 1.
    ago
        ``int64[N]``: how many places before the end of its row each token stands; 0 is the last
        place. It falls along every row, by more than 1 where an item was masked: that item can be
        seen by nobody, but the others stay where they were.

    Examples
    --------
    >>> rows = Packed.from_lists([[7, 8, 9], [4]])
    >>> rows.tokens.tolist(), rows.lengths.tolist(), rows.ago.tolist()
    ([7, 8, 9, 4], [3, 1], [2, 1, 0, 0])
    >>> rows.rows(np.array([1, 0])).as_lists()
    [[4], [7, 8, 9]]
    """

    tokens: Tensor
    lengths: NDArray[np.int64]
    ago: Tensor

    def __post_init__(self) -> None:
        total = int(self.lengths.sum())
        if len(self.tokens) != total or len(self.ago) != total:
            raise ValueError(
                f"packed rows: lengths add up to {total}, but there are {len(self.tokens)} tokens "
                f"and {len(self.ago)} places"
            )
        if self.lengths.min(initial=1) < 1:
            raise ValueError("packed rows: a row is empty")

    @classmethod
    def of(cls, tokens: Tensor, lengths: NDArray[np.int64]) -> Packed:
        """Make rows without gaps: their last tokens stand at the end, the others right before."""
        last = np.repeat(np.cumsum(lengths) - 1, lengths)
        return cls(tokens, lengths, to_device(last - np.arange(len(last)), tokens.device))

    @classmethod
    def from_lists(
        cls, rows: Iterable[Sequence[int]], device: torch.device | str = "cpu"
    ) -> Packed:
        """Make rows without gaps of lists of item numbers (oldest first)."""
        rows = list(rows)
        tokens = torch.tensor([item for row in rows for item in row], dtype=torch.int64)
        return cls.of(tokens.to(device), np.array([len(row) for row in rows], dtype=np.int64))

    @staticmethod
    def concatenate(parts: Sequence[Packed]) -> Packed:
        """Put the rows of all `parts` (at least one) after each other."""
        return Packed(
            torch.cat([part.tokens for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            torch.cat([part.ago for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.tokens.device

    @property
    def firsts(self) -> NDArray[np.int64]:
        """``int64[B]`` on the host: index into `tokens` of the first token of each row."""
        found: NDArray[np.int64] = np.cumsum(self.lengths) - self.lengths
        return found

    def rows(self, index: NDArray[np.integer]) -> Packed:
        """Return the rows that `index` names, in its order; a row may be named several times."""
        lengths = self.lengths[index]
        at = to_device(spans(self.firsts[index], lengths), self.device)
        return Packed(self.tokens[at], lengths, self.ago[at])

    def between(self, first: int, end: int) -> Packed:
        """Return the rows ``first, ..., end - 1``, over the same memory."""
        before, here = int(self.lengths[:first].sum()), self.lengths[first:end]
        inside = slice(before, before + int(here.sum()))
        return Packed(self.tokens[inside], here, self.ago[inside])

    def as_lists(self) -> list[list[int]]:
        """Return the tokens of each row as a list (asks the device)."""
        tokens = self.tokens.tolist()
        ends = np.cumsum(self.lengths).tolist()
        return [tokens[end - n : end] for end, n in zip(ends, self.lengths.tolist(), strict=True)]
