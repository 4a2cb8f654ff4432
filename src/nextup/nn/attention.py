"""Self-attention over packed rows.

On a CPU a short sequence costs more in bookkeeping than in arithmetic, so there the forward and
the backward pass over all groups and heads are one autograd node, written out by hand; elsewhere
PyTorch's `scaled_dot_product_attention` does the work. Tests hold the two against each other.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextup.nn.noise import keep_mask
from nextup.nn.packing import Group, Packing


def packed_attention(
    queries: Tensor,
    keys_values: Tensor,
    packing: Packing,
    *,
    heads: int,
    causal: bool = True,
    last_only: bool = False,
    dropout_rate: float = 0.0,
    training: bool = False,
) -> Tensor:
    """Scaled dot-product attention of every row to itself.

    Parameters
    ----------
    queries
        ``[N, d]`` packed, or ``[B, d]`` (one a row, its last item) with `last_only`.
    keys_values
        ``[N, 2 d]`` packed: keys, then values.
    packing
        Where the rows stand.
    heads
        Number of heads; must divide ``d``.
    causal
        Whether an item sees only itself and what came before it in its row.
    last_only
        Ask only for each row's last item: what answering and prefix training need.
    dropout_rate, training
        Dropout on the attention probabilities.

    Returns
    -------
    Tensor
        ``[N, d]``, or ``[B, d]`` with `last_only`.

    Notes
    -----
    Rows are right-padded inside a group, so that under causality padding is always in the
    future of a real query and needs no mask of its own.
    """
    rate = dropout_rate if training else 0.0
    if queries.device.type == "cpu":
        mixed: Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call]
            queries, keys_values, packing, heads, causal, last_only, rate
        )
        return mixed
    outputs = []
    for group in packing.groups:
        (q,) = _take(group, queries, 1, heads, last_only)
        k, v = _take(group, keys_values, 2, heads)
        mask = _mask(group, causal and not last_only, q)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate)
        mixed = mixed.permute(1, 2, 0, 3).flatten(2)
        outputs.append(mixed.squeeze(1) if last_only else group.pack(mixed))
    return torch.cat(outputs)


def _take(group: Group, packed: Tensor, parts: int, heads: int, by_row: bool = False) -> Tensor:
    """``[N or B, parts * d]`` to the group's ``[parts, heads, rows, T, d / heads]``."""
    if by_row:
        padded = packed[group.first_row : group.end_row].unsqueeze(1)
    else:
        padded = group.pad(packed)
    rows, width = padded.shape[:2]
    return padded.view(rows, width, parts, heads, -1).permute(2, 3, 0, 1, 4)


def _put(packed: Tensor, group: Group, value: Tensor, by_row: bool = False) -> None:
    """The inverse of `_take`: write ``[parts, heads, rows, T, size]`` into the packed tensor."""
    padded = value.permute(2, 3, 0, 1, 4)
    if by_row:
        mine = packed[group.first_row : group.end_row]
    else:
        mine = packed[group.first_token : group.end_token]
    if by_row or group.slots is None:
        mine.view(padded.shape).copy_(padded)
    else:
        torch.index_select(padded.reshape(group.rows * group.width, -1), 0, group.slots, out=mine)


@functools.lru_cache(maxsize=256)
def _future(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[width, width]``: minus infinity above the diagonal."""
    return torch.full((width, width), -torch.inf, dtype=dtype, device=device).triu_(1)


def _mask(group: Group, causal: bool, like: Tensor) -> Tensor | None:
    """Additive mask that broadcasts to ``[heads, rows, queries, keys]``, or None."""
    if causal:
        return _future(group.width, like.dtype, like.device) if group.width > 1 else None
    if group.padding is None:
        return None
    padding = group.padding[:, None, :]
    return torch.zeros_like(padding, dtype=like.dtype).masked_fill_(padding, -torch.inf)


class _PackedAttention(torch.autograd.Function):
    """All groups and heads in one node, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys_values: Tensor,
        packing: Packing,
        heads: int,
        causal: bool,
        last_only: bool,
        rate: float,
    ) -> Tensor:
        output = torch.empty_like(queries, memory_format=torch.contiguous_format)
        scale = math.sqrt(heads / queries.shape[1])
        learn = any(ctx.needs_input_grad)
        kept: list[Tensor] = []
        factors = None
        if rate > 0.0:
            shapes = [g.rows * g.width * (1 if last_only else g.width) for g in packing.groups]
            keep, up = keep_mask(torch.Size([heads * sum(shapes)]), rate, queries.device)
            factors = keep.to(queries.dtype).mul_(up).split([heads * n for n in shapes])
        for number, group in enumerate(packing.groups):
            q = _take(group, queries, 1, heads, last_only).flatten(0, 2)
            k, v = _take(group, keys_values, 2, heads).contiguous().flatten(1, 2)
            mask = _mask(group, causal and not last_only, q)
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
            if mask is not None:
                scores.view(heads, group.rows, -1, group.width).add_(mask)
            weights = torch.softmax(scores, dim=-1)
            dropped = weights
            if factors is not None:
                dropped = weights * factors[number].view_as(weights)
            mixed = torch.bmm(dropped, v)
            _put(output, group, mixed.view(1, heads, group.rows, *mixed.shape[1:]), last_only)
            if learn:
                kept += [q, k, v, weights, dropped]
        ctx.save_for_backward(*kept, *(factors or ()))
        ctx.geometry = (packing, heads, last_only, scale, queries.shape, keys_values.shape)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        packing, heads, last_only, scale, query_shape, key_shape = ctx.geometry
        count = len(packing.groups)
        saved = ctx.saved_tensors
        factors = saved[5 * count :]
        grad_queries, grad_keys = gradient.new_empty(query_shape), gradient.new_empty(key_shape)
        for number, group in enumerate(packing.groups):
            q, k, v, weights, dropped = saved[5 * number : 5 * number + 5]
            g = _take(group, gradient, 1, heads, last_only).flatten(0, 2)
            both = k.new_empty(2, *k.shape)
            torch.bmm(dropped.transpose(1, 2), g, out=both[1])
            inner = torch.bmm(g, v.transpose(1, 2))
            if factors:
                inner.mul_(factors[number].view_as(inner))
            inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype).mul_(scale)
            torch.bmm(inner.transpose(1, 2), q, out=both[0])
            grad = torch.bmm(inner, k)
            _put(grad_queries, group, grad.view(1, heads, group.rows, *grad.shape[1:]), last_only)
            _put(grad_keys, group, both.view(2, heads, group.rows, *k.shape[1:]))
        return grad_queries, grad_keys, None, None, None, None, None
