"""Segments of packed rows, and items and segments of strangers to tell them from.

Everything is drawn on the device, for all rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nextup.augment.packed import Packed, to_device


@dataclass(frozen=True)
class Segments:
    """One segment of each row, and another's in its place.

    Parameters
    ----------
    inside
        ``bool[N]``: which tokens lie in the segment of their row.
    strangers
        ``int64[N]``: what stands there instead; 0 outside of segments.
    """

    inside: Tensor
    strangers: Tensor


def random_segments(rows: Packed, corpus: Tensor) -> Segments:
    """Draw a segment of each row, and a stretch of `corpus` as long.

    Parameters
    ----------
    rows
        Rows of at least two items. A row of ``m`` has a segment of 1 to ``m // 2`` items, every
        length as likely, and every start.
    corpus
        ``int64[C]``: histories end to end; every stretch of it is as likely.

    Examples
    --------
    >>> rows = Packed.from_lists([[7, 8], [4, 5, 6]])
    >>> found = random_segments(rows, torch.tensor([9]))
    >>> int(found.inside.sum()), found.strangers[found.inside].tolist()  # one of each row
    (2, [9, 9])
    """
    device, count = rows.device, len(rows)
    total = to_device(rows.lengths, device)
    chance = torch.rand(3, count, dtype=torch.float64, device=device)
    length = 1 + (chance[0] * (total // 2)).long()
    start = (chance[1] * (total - length + 1)).long()
    other = (chance[2] * (len(corpus) - length + 1)).long()
    row = torch.arange(count, device=device)
    row = row.repeat_interleave(total, output_size=len(rows.tokens))
    within = torch.arange(len(rows.tokens), device=device)
    within = within - (to_device(rows.firsts, device) + start)[row]
    inside = (within >= 0) & (within < length[row])
    at = torch.where(inside, other[row] + within, 0)
    return Segments(inside, torch.where(inside, corpus[at], 0))


def items_not_in_row(rows: Packed, asked: Tensor, n_items: int) -> Tensor:
    """``int64[M]``: for each of the tokens `asked`, a random item that its row has not.

    No row may hold all of the items ``1..n_items``: the draw would never end.
    """
    total = to_device(rows.lengths, rows.device)
    row = torch.arange(len(rows), device=rows.device)
    base = row.repeat_interleave(total, output_size=len(rows.tokens)) * (n_items + 1)
    known, base = torch.unique(base + rows.tokens), base[asked]
    items = torch.randint(1, n_items + 1, (len(asked),), device=rows.device)
    while True:
        at = torch.searchsorted(known, base + items).clamp_(max=len(known) - 1)
        again = torch.nonzero(known[at] == base + items).squeeze(1)
        if len(again) == 0:
            return items
        items[again] = torch.randint(1, n_items + 1, (len(again),), device=rows.device)
