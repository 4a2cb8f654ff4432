"""Self-attention over packed rows.

On a CPU a short sequence costs more in bookkeeping than in arithmetic, so there the forward and
the backward pass over all windows and heads are one autograd node, written out by hand;
elsewhere PyTorch's `scaled_dot_product_attention` does the work (but for twins, whose masks it
cannot share). Tests hold the two against each other.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextup.nn.answering import equal_rows
from nextup.nn.noise import dropout, keep_mask, twins
from nextup.nn.packing import Packing, Slots, Windows


def packed_attention(
    queries: Tensor,
    keys_values: Tensor,
    packing: Packing,
    *,
    heads: int,
    causal: bool = True,
    last_only: bool = False,
    slots: Slots | None = None,
    dropout_rate: float = 0.0,
    training: bool = False,
) -> Tensor:
    """Scaled dot-product attention of every row to itself.

    Parameters
    ----------
    queries
        ``[N, d]`` packed, or ``[B, d]``, one for the last item of each row, with `last_only`, or
        ``[M, d]``, one for each of the `slots`.
    keys_values
        ``[N, 2 d]`` packed: keys, then values.
    packing
        Where the rows stand.
    heads
        Number of heads; must divide ``d``.
    causal
        Whether an item sees only itself and what came before it in its row.
    last_only
        Only the last item of each row asks; it sees its whole row, causal or not.
    slots
        Only these tokens ask (there is no padding then).
    dropout_rate, training
        Dropout on the attention probabilities.

    Returns
    -------
    Tensor
        ``[N, d]``, or ``[B, d]`` with `last_only`, or ``[M, d]`` with `slots`.

    Raises
    ------
    ValueError
        If padding is kept and not every token asks.
    """
    rate = dropout_rate if training else 0.0
    if packing.padding is not None and (last_only or slots is not None):
        raise ValueError("where padding is kept, neither last_only nor slots leaves it out")
    if len(packing.lengths) == 1 and packing.padding is None and (slots is None or not causal):
        return _one_row(queries, keys_values, heads, causal and not last_only, rate)
    if last_only:
        return _last_attention(queries, keys_values, packing, heads, rate)
    if slots is None and rate == 0.0 and (rows := equal_rows(packing)) is not None:
        return rows.attend(queries, keys_values, heads, causal)
    if queries.device.type == "cpu" or twins():
        # Autocast would change the type of some operations within, but not of what is written into.
        with torch.autocast(queries.device.type, enabled=False):
            mixed: Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call]
                queries, keys_values, packing, slots, heads, causal, rate
            )
    else:
        asking = packing if slots is None else slots
        (q,) = _take(asking, queries, 1, heads)
        k, v = _take(packing, keys_values, 2, heads)
        mask = asking.mask(causal, q.dtype)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate)
        mixed = asking.collect(mixed.permute(1, 2, 0, 3).flatten(2))
    return mixed


def _one_row(queries: Tensor, keys_values: Tensor, heads: int, causal: bool, rate: float) -> Tensor:
    """One history to answer: nothing to tell apart, and every operation counts."""
    keys, values = keys_values.view(1, len(keys_values), 2, heads, -1).transpose(1, 3).unbind(2)
    asked = queries.view(1, len(queries), heads, -1).transpose(1, 2)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        asked, keys, values, dropout_p=rate, is_causal=causal
    )
    return mixed.transpose(1, 2).reshape(len(queries), -1)


def _last_attention(
    queries: Tensor, keys_values: Tensor, packing: Packing, heads: int, rate: float
) -> Tensor:
    """One query a row: products and sums along the packed rows, without windows or padding."""
    keys, values = keys_values.reshape(len(keys_values), 2, heads, -1).unbind(1)
    asked = queries.reshape(len(queries), heads, -1)
    row = packing.row_of
    scores = (asked.index_select(0, row) * keys).sum(-1) * math.sqrt(heads / queries.shape[1])
    with torch.no_grad():
        highest = scores.new_full((len(queries), heads), -torch.inf)
        highest.scatter_reduce_(0, row[:, None].expand_as(scores), scores, "amax")
    raised = torch.exp(scores - highest.index_select(0, row))
    sums = raised.new_zeros(len(queries), heads).index_add(0, row, raised)
    weights = dropout(raised / sums.index_select(0, row), rate)
    weighted = (weights[:, :, None] * values).flatten(1)
    return weighted.new_zeros(queries.shape).index_add(0, row, weighted)


def _take(where: Windows, packed: Tensor, parts: int, heads: int) -> Tensor:
    """``[N, parts * d]`` to ``[parts, heads, windows, width, d / heads]``."""
    spread = where.spread(packed)
    shape = (where.windows, where.width, parts, heads, -1)
    return spread.view(shape).permute(2, 3, 0, 1, 4)


def _give(where: Windows, value: Tensor) -> Tensor:
    """The inverse of `_take`: ``[parts, heads, windows, width, size]`` to ``[N, parts * d]``."""
    return where.collect(value.permute(2, 3, 0, 1, 4).flatten(2))


class _PackedAttention(torch.autograd.Function):
    """All windows and heads in one node, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys_values: Tensor,
        packing: Packing,
        slots: Slots | None,
        heads: int,
        causal: bool,
        rate: float,
    ) -> Tensor:
        asking = packing if slots is None else slots
        scale = math.sqrt(heads / queries.shape[1])
        q = _take(asking, queries, 1, heads)[0].flatten(0, 1)
        k, v = _take(packing, keys_values, 2, heads).contiguous().flatten(1, 2)
        mask = asking.mask(causal, q.dtype)
        if mask is None:
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        else:
            rows = mask.expand(packing.windows, asking.width, packing.width)
            scores = rows.repeat(heads, 1, 1).baddbmm_(q, k.transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, dim=-1)
        dropped, factor = weights, None
        if rate > 0.0:
            apart = (heads, packing.windows, *weights.shape[1:])
            keep, up = keep_mask(apart, rate, weights.device, half=1)
            factor = keep.view(weights.shape).to(weights.dtype).mul_(up)
            dropped = weights * factor
        mixed = torch.bmm(dropped, v)
        ctx.save_for_backward(q, k, v, weights, dropped, factor)
        ctx.geometry = (packing, asking, heads, scale)
        return _give(asking, mixed.view(1, heads, asking.windows, asking.width, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        packing, asking, heads, scale = ctx.geometry
        q, k, v, weights, dropped, factor = ctx.saved_tensors
        g = _take(asking, gradient, 1, heads)[0].flatten(0, 1)
        both = k.new_empty(2, *k.shape)
        torch.bmm(dropped.transpose(1, 2), g, out=both[1])
        inner = torch.bmm(g, v.transpose(1, 2))
        if factor is not None:
            inner.mul_(factor)
        inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype).mul_(scale)
        torch.bmm(inner.transpose(1, 2), q, out=both[0])
        asked = (1, heads, asking.windows, asking.width, -1)
        grad_queries = _give(asking, torch.bmm(inner, k).view(asked))
        shape = (2, heads, packing.windows, packing.width, -1)
        return grad_queries, _give(packing, both.view(shape)), None, None, None, None, None
