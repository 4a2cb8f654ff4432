"""Histories and views of a step in one packed batch, so that the encoder runs once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.augment import Packed
from nextup.data.batches import Batch
from nextup.nn.contrast import SlotLayout


@dataclass(frozen=True)
class Streams:
    """A step's histories and views in one batch.

    Parameters
    ----------
    batch
        All rows, sorted by length: what the encoder reads.
    order
        ``int64[R]`` on the host: row ``j`` of the batch is row ``order[j]`` of the streams, which
        stand one after the other: the histories, first views, second views.
    n_rows
        How many of them ``Q`` are histories; ``2 V`` are views of all or some of these, or none.
    targets_at
        ``int64[M]``: which state each target follows.
    """

    batch: Batch
    order: NDArray[np.int64]
    n_rows: int
    targets_at: Tensor

    @property
    def has_views(self) -> bool:
        """Whether there is something to contrast."""
        return len(self.order) > self.n_rows

    @property
    def n_pairs(self) -> int:
        """``V``: how many histories there are two views of."""
        return (len(self.order) - self.n_rows) // 2

    @cached_property
    def row_of_token(self) -> NDArray[np.int64]:
        """``int64[N]`` on the host: the row of the streams that each token belongs to."""
        return np.repeat(self.order, self.batch.lengths)

    @cached_property
    def views(self) -> tuple[Tensor, SlotLayout]:
        """Which tokens the views hold, and where these stand in ``2 V`` rows."""
        return self.part(self.n_rows, len(self.order))

    def part(self, first: int, end: int) -> tuple[Tensor, SlotLayout]:
        """Return the tokens of the streams' rows ``[first, end)``, and where these stand."""
        owners = self.row_of_token
        at = np.flatnonzero((owners >= first) & (owners < end))
        device, ago = self.batch.device, self.batch.ago
        assert ago is not None
        tokens = torch.from_numpy(at).to(device)
        row = torch.from_numpy(owners[at] - first).to(device)
        return tokens, SlotLayout(row, ago[tokens], end - first)

    @cached_property
    def view_rows(self) -> Tensor:
        """``int64[2 V]``: where in the batch the rows of the views stand."""
        rank = np.empty(len(self.order), dtype=np.int64)
        rank[self.order] = np.arange(len(self.order))
        return torch.from_numpy(rank[self.n_rows :]).to(self.batch.device)

    @cached_property
    def partner(self) -> Tensor:
        """``int64[2 V]``: which view is of the same history."""
        both = torch.arange(2 * self.n_pairs, device=self.batch.device)
        return both.roll(self.n_pairs)

    @classmethod
    def join(
        cls, batch: Batch, views: list[Packed], *, last_only: bool, keeps_padding: bool = False
    ) -> Streams:
        """Put views beside the histories they are of.

        Parameters
        ----------
        batch
            The histories, with their targets.
        views
            None, or first views and second views of all or some of the histories.
        last_only
            Whether the encoder returns the last state of each row alone.
        keeps_padding
            Whether the views hold padding that is to be read like items.
        """
        assert batch.target_at is not None
        rows = Packed.concatenate([Packed.of(batch.tokens, batch.lengths), *views])
        order = np.argsort(rows.lengths, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        joined = rows.rows(order)
        at = rank[: len(batch)]  # which row of the joined batch each history is
        if not last_only:
            ends = np.cumsum(joined.lengths)[at]
            last = np.repeat(ends - np.cumsum(batch.lengths), batch.lengths)
            at = (np.arange(len(batch.tokens)) + last)[batch.target_at.cpu().numpy()]
        users = batch.users.new_full((len(order),), -1)  # of a view nobody says whose it is
        users[: len(batch)] = batch.users
        read = Batch(
            joined.tokens,
            joined.lengths,
            order,
            users[torch.from_numpy(order).to(batch.device)],
            ago=joined.ago,
            keeps_padding=keeps_padding,
        )
        return cls(read, order, len(batch), torch.from_numpy(at).to(batch.device))


def padded(rows: Packed, width: int) -> Packed:
    """Return rows of `width` slots each, 0 where there is no item or it is masked."""
    row = torch.from_numpy(np.repeat(np.arange(len(rows)), rows.lengths)).to(rows.device)
    tokens = rows.tokens.new_zeros(len(rows), width)
    tokens[row, width - 1 - rows.ago] = rows.tokens
    return Packed.of(tokens.view(-1), np.full(len(rows), width))
