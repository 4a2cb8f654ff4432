"""What each mask of learnable dropout cost a step, by which its logits learn.

Each row's mask is credited with what it changed. A mask for each token touches the states of its
own token and of those after it; in the last layer its own alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nextup.data.batches import Batch
from nextup.models.streams import Streams
from nextup.nn.learnable_dropout import LearnableDropout


@dataclass(frozen=True)
class Credit:
    """The cost of the first masks of a step over the second ones.

    Parameters
    ----------
    streams, batch
        The rows that met the masks, and the histories with targets among them.
    each
        ``[M]``: how much larger the loss of each target was, as a share of the step's mean.
    of_views
        ``[2 V]``: by how much each view's mask made the contrastive loss larger; None: not heeded.
    every
        Whether there is a target after every item, or one a row.
    """

    streams: Streams
    batch: Batch
    each: Tensor
    of_views: Tensor | None
    every: bool

    def of_rows(self) -> Tensor:
        """``float64[R]``: the cost of the mask of each row of the streams' batch."""
        lengths = self.batch.lengths if self.every else np.ones_like(self.batch.lengths)
        owner = torch.from_numpy(np.repeat(np.arange(len(self.batch)), lengths))
        order = torch.from_numpy(self.streams.order).to(self.each.device)
        rows = self.each.new_zeros(len(order), dtype=torch.float64)
        rows.index_add_(0, owner.to(rows.device), self.each.double())
        if self.of_views is not None:
            rows[len(self.batch) :] = self.of_views
        return rows[order]

    def of(self, drop: LearnableDropout, last: bool) -> Tensor:
        """``float64[masks]``: the cost of each mask that a layer drew.

        Parameters
        ----------
        drop
            The layer; its masks are of rows or of tokens.
        last
            Whether no layer mixes tokens after it.
        """
        assert drop.noise is not None
        of_row = self.of_rows()
        if len(drop.noise) == len(of_row):
            return of_row
        lengths = torch.from_numpy(self.streams.batch.lengths).to(of_row.device)
        of_token = of_row.repeat_interleave(lengths)
        if not self.every:
            return of_token
        own = self.each.double()
        if not last:
            own = _sums_to_the_end(own, self.batch.lengths)
        return of_token.index_copy(0, self.streams.targets_at, own)


def _sums_to_the_end(values: Tensor, lengths: np.ndarray) -> Tensor:
    """Return for each packed entry the sum from it to the end of its row."""
    total = values.flip(0).cumsum(0).flip(0)
    ends = torch.from_numpy(np.cumsum(lengths)).to(values.device)
    after = torch.cat([total, total.new_zeros(1)])[ends]
    return total - after.repeat_interleave(torch.from_numpy(lengths).to(values.device))
