"""What the fast code must compute, written the plain way: padded, looped, stock operations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, softmax


def rows_of(packed: Tensor, lengths: np.ndarray) -> list[Tensor]:
    """Cut packed tokens into one tensor a row."""
    return list(packed.split([int(n) for n in lengths]))


def attention(
    queries: Tensor, keys_values: Tensor, lengths: np.ndarray, heads: int, causal: bool
) -> Tensor:
    """Attention of every row to itself, row by row and head by head: ``[N, d]``."""
    width = queries.shape[1]
    size = width // heads
    keys, values = keys_values.split(width, dim=1)
    done = []
    for q, k, v in zip(
        rows_of(queries, lengths), rows_of(keys, lengths), rows_of(values, lengths), strict=True
    ):
        parts = []
        for h in range(heads):
            s = slice(h * size, (h + 1) * size)
            scores = q[:, s] @ k[:, s].T / math.sqrt(size)
            if causal:
                future = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
                scores = scores.masked_fill(future, -torch.inf)
            parts.append(softmax(scores, dim=1) @ v[:, s])
        done.append(torch.cat(parts, dim=1))
    return torch.cat(done)


def left_padded(packed: Tensor, lengths: np.ndarray, window: int) -> Tensor:
    """``[N, d]`` to ``[B, window, d]``, the last token of every row in the last slot."""
    out = packed.new_zeros(len(lengths), window, packed.shape[1])
    for number, row in enumerate(rows_of(packed, lengths)):
        out[number, window - len(row) :] = row
    return out


def from_left_padded(padded: Tensor, lengths: np.ndarray) -> Tensor:
    """The inverse of `left_padded`."""
    return torch.cat([row[len(row) - n :] for row, n in zip(padded, lengths, strict=True)])


def _padded_heads(q: Tensor, k: Tensor, v: Tensor, real: Tensor, heads: int) -> Tensor:
    """Causal attention over left-padded rows, padding hidden by -10000 as in the public codes."""
    b, t, d = q.shape

    def cut(x: Tensor) -> Tensor:
        return x.view(b, t, heads, d // heads).transpose(1, 2)

    scores = cut(q) @ cut(k).transpose(2, 3) / math.sqrt(d / heads)
    sees = real[:, None, None, :] & torch.ones(t, t, dtype=torch.bool).tril()
    scores = scores + torch.where(sees, 0.0, -10000.0).to(scores.dtype)
    return (softmax(scores, dim=-1) @ cut(v)).transpose(1, 2).reshape(b, t, d)


def post_norm_block(block: nn.Module, x: Tensor, real: Tensor, heads: int) -> Tensor:
    """The S3-family block on padded rows ``[B, T, d]``, with the weights of `block`."""
    w = dict(block.named_parameters())
    d = x.shape[2]
    q, k, v = linear(x, w["query_key_value.weight"], w["query_key_value.bias"]).split(d, dim=2)
    mixed = linear(_padded_heads(q, k, v, real, heads), w["output.weight"], w["output.bias"])
    x1 = layer_norm(
        x + mixed, (d,), w["attention_norm.weight"], w["attention_norm.bias"], eps=1e-12
    )
    inner = gelu(linear(x1, w["expand.weight"], w["expand.bias"]))
    outer = linear(inner, w["contract.weight"], w["contract.bias"])
    return layer_norm(x1 + outer, (d,), w["output_norm.weight"], w["output_norm.bias"], eps=1e-12)


def original_block(block: nn.Module, x: Tensor, real: Tensor, heads: int) -> Tensor:
    """SASRec's published block on padded rows: padding is zeroed after it, as its code does."""
    w = dict(block.named_parameters())
    d = x.shape[2]
    weights, biases = w["query_key_value.weight"], w["query_key_value.bias"]
    normed = layer_norm(x, (d,), w["query_norm.weight"], w["query_norm.bias"], eps=1e-8)
    q = linear(normed, weights[:d], biases[:d])
    k = linear(x, weights[d : 2 * d], biases[d : 2 * d])
    v = linear(x, weights[2 * d :], biases[2 * d :])
    y = normed + _padded_heads(q, k, v, real, heads)
    y = layer_norm(y, (d,), w["inner_norm.weight"], w["inner_norm.bias"], eps=1e-8)
    inner = linear(y, w["expand.weight"], w["expand.bias"]).relu()
    return (y + linear(inner, w["contract.weight"], w["contract.bias"])) * real[:, :, None]


def finite_differences(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Gradient of a scalar function by central differences in double precision."""
    step = 1e-6
    gradient = torch.zeros_like(at)
    for place in range(at.numel()):
        nudge = torch.zeros(at.numel(), dtype=at.dtype)
        nudge[place] = step
        up, down = at + nudge.view(at.shape), at - nudge.view(at.shape)
        gradient.view(-1)[place] = (function(up) - function(down)) / (2 * step)
    return gradient


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Fail with the worst place if two tensors differ."""
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
