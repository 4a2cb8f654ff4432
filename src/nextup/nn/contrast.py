"""Agreement between views: how alike two views of a sequence are, and what a pair is worth.

Chen et al., *SimCLR*, ICML 2020, as CL4SRec, CoSeRec, SRMA and LMA4Rec use it (LMA4Rec, eq. 8):
every row of a batch has a partner, the other view of its sequence; all further rows are its
negatives.

The public CoSeRec code contrasts a sequence's states of all 50 slots laid end to end, most of
them padding. `slot_products` gives the products of such vectors over real slots alone, without
laying them out: slots are counted back from the end of a row, and one that few rows reach costs
few products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class _Block:
    """Some slots: the rows that reach them (from `rows_from` on) and where their tokens stand."""

    rows_from: int
    width: int
    tokens: Tensor
    places: Tensor


class SlotLayout:
    """Where the tokens of a packed batch stand, slot by slot from the end of their rows.

    Parameters
    ----------
    row
        ``int64[N]``: the row of each token.
    ago
        ``int64[N]``: how many places before the end of its row each token stands.
    n_rows
        Rows ``R``, each with a token; its tokens stand together, the last one last.

    Attributes
    ----------
    ends
        ``int64[R]``: the last token of each row.
    """

    def __init__(self, row: Tensor, ago: Tensor, n_rows: int) -> None:
        self.n_rows, self.device, self.row, self.ago = n_rows, row.device, row, ago
        of, at = row.cpu().numpy(), ago.cpu().numpy()
        reach = np.zeros(n_rows, dtype=np.int64)
        np.maximum.at(reach, of, at + 1)
        order = np.argsort(reach, kind="stable")
        rank = np.empty(n_rows, dtype=np.int64)
        rank[order] = np.arange(n_rows)
        reach = reach[order]
        self.blocks: list[_Block] = []
        first, longest = 0, int(reach[-1]) if n_rows else 0
        while first < longest:
            width = min(max(1, first // 2), longest - first)
            rows_from = int(np.searchsorted(reach, first, side="right"))
            inside = np.flatnonzero((at >= first) & (at < first + width))
            places = (rank[of[inside]] - rows_from) * width + at[inside] - first
            self.blocks.append(_Block(rows_from, width, self._to(inside), self._to(places)))
            first += width
        self.rank = self._to(rank)
        ends = np.empty(n_rows, dtype=np.int64)
        ends[of] = np.arange(len(of))  # of several writes to a row the last one stands
        self.ends = self._to(ends)

    def _to(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def spread(self, block: _Block, states: Tensor) -> Tensor:
        """``[rows, width * d]``: the states of a block's slots, zero where a row has no token."""
        rows = self.n_rows - block.rows_from
        flat = states.new_zeros(rows * block.width, states.shape[1])
        flat.index_copy_(0, block.places, states.index_select(0, block.tokens))
        return flat.view(rows, -1)

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """``[R, R]``: row by row the sum over slots of ``left . right``, both ``[N, d]``."""
        sums = left.new_zeros(self.n_rows, self.n_rows)
        for block in self.blocks:
            ours = self.spread(block, left)
            theirs = ours if right is left else self.spread(block, right)
            sums[block.rows_from :, block.rows_from :].addmm_(ours, theirs.T)
        return sums[self.rank[:, None], self.rank]

    def gradient(self, states: Tensor, upstream: Tensor) -> Tensor:
        """``[N, d]``: the gradient of ``products(states, states)`` for `states`."""
        sums = torch.empty_like(upstream)
        sums[self.rank[:, None], self.rank] = upstream + upstream.T
        result = torch.zeros_like(states)
        for block in self.blocks:
            part = sums[block.rows_from :, block.rows_from :] @ self.spread(block, states)
            part = part.view(-1, states.shape[1]).index_select(0, block.places)
            result.index_copy_(0, block.tokens, part)
        return result


class _SlotProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, layout: SlotLayout) -> Tensor:
        ctx.layout = layout
        ctx.save_for_backward(states)
        return layout.products(states, states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (states,) = ctx.saved_tensors
        return ctx.layout.gradient(states, upstream), None


def slot_products(states: Tensor, layout: SlotLayout, other: Tensor | None = None) -> Tensor:
    """Products of rows laid out slot by slot, over real slots alone.

    Parameters
    ----------
    states
        ``[N, d]``: a state for each token.
    layout
        Where the tokens stand.
    other
        ``[N, d]``: other states of the same tokens, to multiply with (no gradient then).

    Returns
    -------
    ``[R, R]``: entry ``(m, n)`` is the sum over slots of ``states`` of row m times ``other`` of
    row n, by default times ``states``.
    """
    wide = torch.promote_types(states.dtype, torch.float32)  # see `all_products`
    states = states.to(wide)
    if other is not None:
        return layout.products(states.detach(), other.detach().to(wide))
    result: Tensor = _SlotProducts.apply(states, layout)  # type: ignore[no-untyped-call]
    return result


def row_means(states: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """``[R, d]``: the mean state of each row of a packed batch."""
    states = states.to(torch.promote_types(states.dtype, torch.float32))  # sums of many
    counts = torch.bincount(row, minlength=n_rows).clamp_(min=1).to(states.dtype)
    return states.new_zeros(n_rows, states.shape[1]).index_add(0, row, states) / counts[:, None]


def all_products(one: Tensor, other: Tensor) -> Tensor:
    """``[R, S]``: vectors ``[R, d]`` times vectors ``[S, d]``, in single precision at least.

    Such products reach hundreds, and what counts is their differences: bf16 would round those away.
    """
    with torch.autocast(one.device.type, enabled=False):
        wide = torch.promote_types(one.dtype, torch.float32)
        return one.to(wide) @ other.to(wide).T


def contrastive_losses(alike: Tensor, partner: Tensor) -> Tensor:
    """``[R]``: for each row the cross-entropy of its partner among all other rows.

    Parameters
    ----------
    alike
        ``[R, R]``: how alike rows are; the diagonal takes no part.
    partner
        ``int64[R]``: the row that each should find.

    Examples
    --------
    >>> views = torch.eye(2).repeat(2, 1)  # two sequences, two equal views of each
    >>> contrastive_losses(views @ views.T, torch.tensor([2, 3, 0, 1])).round(decimals=4)
    tensor([0.5514, 0.5514, 0.5514, 0.5514])
    """
    others = alike.masked_fill(_diagonal(alike), -torch.inf)
    return _log_sum(others) - alike.gather(1, partner[:, None]).squeeze(1)


def matching_losses(alike: Tensor, left_out: Tensor | None = None) -> Tensor:
    """``[R]``: for each row the cross-entropy of its own column among all (InfoNCE).

    ``-[a(i, i) - log sum_j exp a(i, j)]``: van den Oord et al., *Representation Learning with
    Contrastive Predictive Coding*, 2018, eq. 4; Kong et al. (InfoWord), ICLR 2020; SSI, IJCAI 2021,
    eq. 3.

    Parameters
    ----------
    alike
        ``[R, R]``: how alike row i and column j are.
    left_out
        ``bool[R, R]``: columns that are no negatives of a row (they are its own, too); a row's own
        column always takes part.

    Examples
    --------
    >>> matching_losses(torch.tensor([[0.3]])), matching_losses(torch.zeros(2, 2))
    (tensor([0.]), tensor([0.6931, 0.6931]))
    """
    others = alike
    if left_out is not None:
        others = alike.masked_fill(left_out & ~_diagonal(alike), -torch.inf)
    return _log_sum(others) - alike.diagonal()


def swap_differences(alike: Tensor, swapped: Tensor, partner: Tensor) -> Tensor:
    """Return what the mean contrastive loss loses when one row alone is exchanged, for each row.

    Entry ``r`` is ``L(all rows) - L(all rows, but r exchanged)``, the mean over rows of
    `contrastive_losses`. Since the other rows are a valid independent draw, it is an unbiased
    credit for row r's own noise, and needs no encoding beyond the exchanged rows themselves.

    Parameters
    ----------
    alike
        ``[R, R]``: row m against row n.
    swapped
        ``[R, R]``: *exchanged* row m against row n as it is; the diagonal takes no part.
    partner
        ``int64[R]``: the row that each should find; partners are mutual.

    Returns
    -------
    ``[R]``, in the precision of `alike`.
    """
    if len(alike) == 2:  # a pair alone has nobody to be mistaken for: its loss is always 0
        return torch.zeros_like(alike[0])
    s = alike.detach().clone().fill_diagonal_(-torch.inf)
    t = swapped.detach().clone().fill_diagonal_(-torch.inf)
    total = _log_sum(s)
    # [m, r]: by how much the log of m's sum grows once r is exchanged. A column that is nearly all
    # of a sum cannot be taken off it; the sum without the largest is therefore made by itself.
    before, now = s - total[:, None], t.T - total[:, None]
    grown = torch.log1p(_exp(now.clamp(max=_LARGE)) - _exp(before))
    grown = torch.where(now < _LARGE, grown, now)
    top = s.argmax(dim=1, keepdim=True)
    without = _log_sum(s.scatter(1, top, -torch.inf))[:, None]
    exact = torch.logaddexp(without, t.T.gather(1, top)) - total[:, None]
    change = grown.scatter_(1, top, exact).fill_diagonal_(0.0).sum(dim=0)
    change += _log_sum(t) - total  # the row's own sum
    at = partner[:, None]
    change -= 2 * (t.gather(1, at) - s.gather(1, at)).squeeze(1)  # its own pair, seen from both
    return -change / len(s)


_LARGE = 40.0
"""Above it ``log(1 + e^x - e^y)`` with ``y <= 0`` is x in double precision."""

_NEGLIGIBLE = -60.0
"""Terms that many nats below a sum add nothing in any precision. As denormal numbers or infinities
they would make exponentials and products several times slower, so they are held there."""


def _exp(logs: Tensor) -> Tensor:
    return logs.clamp(min=_NEGLIGIBLE).exp()


def _log_sum(logs: Tensor) -> Tensor:
    """Log of the sum of exponentials along rows."""
    most = logs.detach().amax(dim=1)
    return _exp(logs - most[:, None]).sum(dim=1).log() + most


def _diagonal(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)
