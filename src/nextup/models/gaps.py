"""SASRec that can also read rows with gaps, in both directions, as pre-training asks.

Several views of rows are read in one go: an item that a view hides is a vector of its own, every
other item sees those on both sides, and of the last block only the states that are asked for are
computed. Reading forward, which is what answers, is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nextup.augment.packed import Packed
from nextup.augment.segments import random_segments
from nextup.models.sasrec import SASRec
from nextup.nn.packing import Packing, Slots
from nextup.nn.transformer import PostNormBlock, begin_blocks


@dataclass(frozen=True)
class View:
    """Rows to read: ``bool[N]`` which tokens are hidden, and whose states are wanted."""

    rows: Packed
    hidden: Tensor
    asked: Tensor


def segment_views(rows: Packed, corpus: Tensor, asked: Tensor) -> list[View]:
    """Draw a segment of each row, and return three views of the rows.

    Parameters
    ----------
    rows
        Rows of at least two items.
    corpus
        ``int64[C]``: histories end to end, of which a stretch stands for another's segment.
    asked
        ``bool[N]``: whose states are wanted.

    Returns
    -------
    list
        The rows without their segments, the segments alone, and those of others in their place.
    """
    drawn = random_segments(rows, corpus)
    others = replace(rows, tokens=drawn.strangers)
    alone = [View(each, ~drawn.inside, asked) for each in (rows, others)]
    return [View(rows, drawn.inside, asked), *alone]


class GapReader(SASRec):
    """A SASRec (of block ``s3``) that reads rows with gaps."""

    def read(self, views: list[View], gap: Tensor, items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Read views in both directions.

        Parameters
        ----------
        views
            Each with at least one state asked for in every row.
        gap
            ``[d]``: what stands for a hidden item.
        items
            ``int64[M]``: whose vectors are wanted as well.

        Returns
        -------
        tuple
            For each view the states it asks for, ``[m, d]``; and the vectors of `items`, ``[M,
            d]``, as they stand in the table.
        """
        if not views:
            return [], self.items(items)
        rows = Packed.concatenate([view.rows for view in views])
        hidden = torch.cat([view.hidden for view in views])
        asked = torch.cat([view.asked for view in views])
        counts = np.add.reduceat(asked.cpu().numpy().astype(np.int64), rows.firsts)
        packing = Packing(rows.lengths, rows.device)
        slots = Slots(packing, torch.nonzero(asked).squeeze(1), counts)
        # One look-up for all, since each has a gradient as large as the whole table.
        found = self.items(torch.cat([rows.tokens, items]))
        x, vectors = found[: len(hidden)], found[len(hidden) :]
        x = torch.where(hidden[:, None], gap, x)
        if self.positions is not None:
            x = self._placed(x, self.positions, packing, None)
        x = self.embedding_drop(self.input_norm(x))
        with self._both_ways():
            states = self.finish(begin_blocks(self.blocks, x, packing, slots))
        split = np.cumsum([0, *(len(view.rows) for view in views)])
        sizes = [int(counts[i:j].sum()) for i, j in pairwise(split)]
        return list(torch.split(states, sizes)), vectors

    @contextmanager
    def _both_ways(self) -> Iterator[None]:
        blocks = [block for block in self.blocks if isinstance(block, PostNormBlock)]
        try:
            for block in blocks:
                block.causal = False
            yield
        finally:
            for block in blocks:
                block.causal = True
