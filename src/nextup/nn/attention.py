"""Self-attention over packed rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nextup.nn.noise import dropout
from nextup.nn.packing import Group, Packing


def packed_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
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
    keys, values
        ``[N, d]`` packed.
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
    outputs = []
    for group in packing.groups:
        if last_only:
            q = queries[group.first_row : group.end_row].unsqueeze(1)
        elif group.width == 1:
            # One item attends to itself with probability one; dropout still acts on that one.
            v = values[group.first_token : group.end_token]
            ones = v.new_ones(group.rows, heads, 1)
            weight = dropout(ones, dropout_rate, training)
            outputs.append((v.view(group.rows, heads, -1) * weight).reshape(group.rows, -1))
            continue
        else:
            q = group.pad(queries)
        mixed = _group_attention(
            _split(q, heads),
            _split(group.pad(keys), heads),
            _split(group.pad(values), heads),
            _mask(group, causal and not last_only, queries.device, queries.dtype),
            dropout_rate if training else 0.0,
        )
        mixed = mixed.transpose(1, 2).reshape(group.rows, -1, queries.shape[1])
        outputs.append(mixed.squeeze(1) if last_only else group.pack(mixed))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _split(x: Tensor, heads: int) -> Tensor:
    """``[rows, T, d]`` to ``[rows, heads, T, d / heads]``."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _mask(group: Group, causal: bool, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """Additive mask that broadcasts to ``[rows, heads, queries, keys]``, or None."""
    if causal:
        future = torch.ones(group.width, group.width, dtype=torch.bool, device=device).triu_(1)
        return torch.zeros(future.shape, dtype=dtype, device=device).masked_fill_(
            future, -torch.inf
        )
    if group.padding is None:
        return None
    padding = group.padding[:, None, None, :]
    return torch.zeros(padding.shape, dtype=dtype, device=device).masked_fill_(padding, -torch.inf)


def _group_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float) -> Tensor:
    if q.device.type != "cpu":
        mask = None if mask is None else mask.to(q.dtype)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate)
    scores = torch.matmul(q, k.transpose(-2, -1)).mul_(1.0 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores.add_(mask)
    return torch.matmul(dropout(torch.softmax(scores, dim=-1), rate), v)
