"""Places drawn at random in packed rows, on the device, without asking it anything.

Tokens are sorted by (row, random number), after which the first ``k`` of each row are ``k`` random
ones; where the rows begin is known on the host already.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.augment.packed import Packed, spans, to_device

_BITS = 40
"""Random bits of a draw; the other bits of an int64 hold a row, so up to eight million rows."""


def draw(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """``int64[count]``: whole numbers below two to the `_BITS`."""
    return torch.randint(1 << _BITS, (count,), generator=generator, device=device)


def shuffled_places(
    lengths: NDArray[np.int64], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """``int64[N]``: a random order of the places of each row; rows stay one after the other."""
    row = to_device(np.repeat(np.arange(len(lengths)) << _BITS, lengths), device)
    return torch.argsort(row + draw(len(row), device, generator))


def some_places(
    rows: Packed, counts: NDArray[np.int64], generator: torch.Generator | None
) -> Tensor:
    """``int64[sum of counts]``: that many distinct random places of each row, row after row."""
    order = shuffled_places(rows.lengths, rows.device, generator)
    return order[to_device(spans(rows.firsts, counts), rows.device)]


def slice_places(
    rows: Packed, counts: NDArray[np.int64], generator: torch.Generator | None
) -> Tensor:
    """``int64[sum of counts]``: that many consecutive places of each row, from a random start."""
    row = np.repeat(np.arange(len(rows)), counts)
    first = spans(rows.firsts, counts)
    starts = (rows.lengths - counts + 1)[row]
    at = to_device(np.stack([row, first, starts]), rows.device)
    start = draw(len(rows), rows.device, generator)[at[0]]
    return at[1] + start % at[2]


def cloze_places(
    rows: Packed,
    rate: float,
    last_only: float = 0.0,
    generator: torch.Generator | None = None,
    host_generator: torch.Generator | None = None,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Draw the places of each row that a model is to fill in again (a cloze).

    Parameters
    ----------
    rows
        The rows; the draw looks at their lengths alone.
    rate
        A row of ``m`` items has ``max(1, round(rate * m))`` gaps, at random places.
    last_only
        With this probability the last place of a row is its only gap instead, as in answering.
    generator, host_generator
        On the device of the rows, and on the CPU; by default those of PyTorch.

    Returns
    -------
    tuple
        ``int64[M]``, ascending: the gaps; and ``int64[B]`` on the host: how many each row has.

    Examples
    --------
    >>> cloze_places(Packed.from_lists([[7, 8], [5]]), rate=0.1, last_only=1.0)
    (tensor([1, 2]), array([1, 1]))
    """
    counts = np.maximum(np.rint(rate * rows.lengths).astype(np.int64), 1)
    at_end = (torch.rand(len(rows), generator=host_generator) < last_only).numpy()
    counts[at_end] = 1
    ends = rows.firsts + rows.lengths - 1
    last = to_device(np.where(at_end, ends, -1).repeat(counts), rows.device)
    places = torch.where(last >= 0, last, some_places(rows, counts, generator))
    return places.sort().values, counts
