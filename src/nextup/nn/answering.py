"""Attention where nothing is learned: what answering can leave out that training needs.

Ranking and answering read histories in order of length, so that the rows of a batch are nearly
equally long. Then the packed tokens are, but for little padding, ``[rows, length]`` already: no
mask keeps rows apart, and PyTorch's fused attention keeps no probabilities for a backward pass.

Of the last layer only each row's last token is asked for. Its query ``q`` meets the key
``W x + b`` of every token ``x`` in ``q (W x + b) = (q W) x + q b``, where ``q b`` is the same for
all tokens and falls out of the softmax. So the query goes through ``W`` once, and keys and values
of the other tokens are never made: what is mixed are the tokens themselves.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nextup.nn.packing import Packing

ROOM = 1.5
"""Rows are nearly equal if, padded to the longest, they hold at most so many times more tokens."""

FEW = 64
"""Up to so many tokens the number of operations counts, not their size."""


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)``; where nothing is learned, the bias is added in place.

    On a CPU `nn.functional.linear` writes the bias to every row first and lets the product add
    to it, which is slower.
    """
    if torch.is_grad_enabled() or len(x) < FEW or x.device.type != "cpu":
        result: Tensor = layer(x)
        return result
    return torch.mm(x, layer.weight.T).add_(layer.bias)


def equal_rows(packing: Packing) -> EqualRows | None:
    """Return the rows as a matrix if gradients are not wanted and the rows are nearly equal."""
    lengths = packing.lengths
    if torch.is_grad_enabled() or packing.padding is not None or len(lengths) < 2:
        return None
    if len(lengths) * int(lengths.max()) > ROOM * packing.n_tokens:
        return None
    return EqualRows(lengths, packing.device)


class EqualRows:
    """Packed rows, each padded on the right to the longest of them.

    Parameters
    ----------
    lengths
        ``int64[B]`` on the host.
    device
        Where index tensors are wanted.
    """

    def __init__(self, lengths: NDArray[np.int64], device: torch.device) -> None:
        self.lengths, self.device = lengths, device
        self.longest = int(lengths.max())
        self.places: Tensor | None = None
        ends = np.cumsum(lengths)
        if int(ends[-1]) < len(lengths) * self.longest:
            moved = np.arange(len(lengths)) * self.longest - (ends - lengths)
            places = np.arange(int(ends[-1])) + np.repeat(moved, lengths)
            self.places = torch.from_numpy(places).to(device)

    def attend(self, queries: Tensor, keys_values: Tensor, heads: int, causal: bool) -> Tensor:
        """``[N, d]`` and ``[N, 2 d]`` to ``[N, d]``, as `nextup.nn.attention.packed_attention`."""
        asked = self._heads(queries, heads)
        keys, values = self._heads(keys_values, 2 * heads).chunk(2, dim=1)
        # What a row is padded with comes after it, so a causal row never sees it.
        mask = None if causal else self._padding(queries.dtype)
        mixed = scaled_dot_product_attention(asked, keys, values, mask, is_causal=causal)
        mixed = mixed.transpose(1, 2).reshape(-1, queries.shape[1])
        return mixed if self.places is None else mixed.index_select(0, self.places)

    def attend_last(self, layer: nn.Linear, asked: Tensor, x: Tensor, heads: int) -> Tensor:
        """Let one token of each row, ``[B, d]``, attend to its whole row of ``x: [N, d]``.

        `layer` makes queries of what is asked, and keys and values of `x`.
        """
        rows, width = asked.shape
        parts = layer.weight.view(3, heads, -1, width)
        queries = nn.functional.linear(asked, layer.weight[:width], layer.bias[:width])
        through = torch.bmm(queries.view(rows, heads, -1).transpose(0, 1), parts[1])
        tokens = self._heads(x, 1)
        mixed = scaled_dot_product_attention(
            through.transpose(0, 1).unsqueeze(1),
            tokens,
            tokens,
            self._padding(x.dtype),
            scale=math.sqrt(heads / width),
        )
        mixed = torch.bmm(mixed.squeeze(1).transpose(0, 1), parts[2].transpose(1, 2))
        return mixed.transpose(0, 1).reshape(rows, width) + layer.bias[2 * width :]

    def _heads(self, packed: Tensor, parts: int) -> Tensor:
        """``[N, parts * s]`` to ``[B, parts, longest, s]``; places without a token are zero."""
        if self.places is not None:
            flat = packed.new_zeros(len(self.lengths) * self.longest, packed.shape[1])
            packed = flat.index_copy_(0, self.places, packed)
        return packed.view(len(self.lengths), self.longest, parts, -1).transpose(1, 2)

    def _padding(self, dtype: torch.dtype) -> Tensor | None:
        """``[B, 1, 1, longest]``: minus infinity where a row has ended."""
        if self.places is None:
            return None
        ended = torch.from_numpy(np.arange(self.longest) >= self.lengths[:, None])
        mask = torch.zeros(ended.shape, dtype=dtype).masked_fill_(ended, -torch.inf)
        return mask[:, None, None].to(self.device)
