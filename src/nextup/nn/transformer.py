"""Transformer blocks for packed sequences: the S3-family block and SASRec's original one.

S3-family (Zhou et al., S3-Rec, CIKM 2020; shared by CoSeRec, SRMA and the SASRec baseline of the
LMA4Rec paper): BERT's post-norm block. Original: Kang & McAuley, SASRec, ICDM 2018, whose
published code normalises only the queries and adds the residual to the normalised query.

Every block computes on packed tokens ``[N, d]``. Asked for the last item of each row only
(`last_at`), it computes queries, residual and feed-forward for those rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nextup.nn.attention import packed_attention
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing


class PostNormBlock(nn.Module):
    """BERT-style block: ``x1 = LN(x + MHA(x))``, ``x2 = LN(x1 + FFN(x1))`` with exact GELU.

    Parameters
    ----------
    width
        Model width ``d``.
    heads
        Attention heads; must divide ``d``.
    inner
        Width of the feed-forward layer inside.
    dropout, attention_dropout
        After the two sub-layers, and on the attention probabilities.
    causal
        Whether items see only the past.
    output_drop
        What drops the feed-forward layer's output, called with the packing (None where each row
        has one token); by default `Dropout`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        attention_dropout: float,
        causal: bool = True,
        output_drop: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.attention_dropout = heads, causal, attention_dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-12)
        self.attention_drop = Dropout(dropout)
        self.output_drop = Dropout(dropout) if output_drop is None else output_drop

    def forward(self, x: Tensor, packing: Packing, last_at: Tensor | None = None) -> Tensor:
        """``[N, d]`` to ``[N, d]``, or to ``[B, d]`` given the last token of each row."""
        return self.join(*self.update(x, packing, last_at), packing if last_at is None else None)

    def update(
        self, x: Tensor, packing: Packing, last_at: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what the feed-forward layer read, and what it is about to add."""
        queries, keys_values = _project(self.query_key_value, x, last_at)
        if last_at is not None:
            x = x.index_select(0, last_at)
        mixed = packed_attention(
            queries,
            keys_values,
            packing,
            heads=self.heads,
            causal=self.causal,
            last_only=last_at is not None,
            dropout_rate=self.attention_dropout,
            training=self.training,
        )
        x = self.attention_norm(x + self.attention_drop(self.output(mixed)))
        return x, self.contract(nn.functional.gelu(self.expand(x)))

    def join(self, x: Tensor, added: Tensor, packing: Packing | None) -> Tensor:
        """Return the block's output, given what `update` returned."""
        result: Tensor = self.output_norm(x + self.output_drop(added, packing))
        return result


class OriginalBlock(nn.Module):
    """SASRec's published block: normalised queries, raw keys and values, ReLU feed-forward.

    ``q = LN(x)``, ``y = LN(q + Attention(q, x, x))``, ``x' = y + FFN(y)``. No output projection;
    the feed-forward layers are as wide as the model, each followed by dropout.

    Parameters
    ----------
    width, heads, dropout
        Model width, attention heads, and the one dropout rate used everywhere.
    output_drop
        As in `PostNormBlock`.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, output_drop: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_norm = nn.LayerNorm(width, eps=1e-8)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.inner_norm = nn.LayerNorm(width, eps=1e-8)
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)
        self.expand_drop = Dropout(dropout)
        self.output_drop = Dropout(dropout) if output_drop is None else output_drop

    def forward(self, x: Tensor, packing: Packing, last_at: Tensor | None = None) -> Tensor:
        """``[N, d]`` to ``[N, d]``, or to ``[B, d]`` given the last token of each row."""
        return self.join(*self.update(x, packing, last_at), packing if last_at is None else None)

    def update(
        self, x: Tensor, packing: Packing, last_at: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what the feed-forward layer read, and what it is about to add."""
        width = x.shape[1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        normed = self.query_norm(x if last_at is None else x[last_at])
        mixed = packed_attention(
            nn.functional.linear(normed, weight[:width], bias[:width]),
            nn.functional.linear(x, weight[width:], bias[width:]),
            packing,
            heads=self.heads,
            last_only=last_at is not None,
            dropout_rate=self.dropout,
            training=self.training,
        )
        y = self.inner_norm(normed + mixed)
        return y, self.contract(self.expand_drop(torch.relu(self.expand(y))))

    def join(self, y: Tensor, added: Tensor, packing: Packing | None) -> Tensor:
        """Return the block's output, given what `update` returned."""
        result: Tensor = y + self.output_drop(added, packing)
        return result


def _project(layer: nn.Linear, x: Tensor, last_at: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries ``[N, d]``, or ``[B, d]`` of the tokens asked for, and keys and values."""
    width = x.shape[1]
    if last_at is None:
        queries, keys_values = layer(x).split([width, 2 * width], dim=-1)
        return queries, keys_values
    weight, bias = layer.weight, layer.bias
    queries = nn.functional.linear(x.index_select(0, last_at), weight[:width], bias[:width])
    return queries, nn.functional.linear(x, weight[width:], bias[width:])


@dataclass
class Begun:
    """Blocks on their way, stopped right before the first block's output dropout.

    What comes before is the same whatever that layer drops, so two passes that differ in it alone
    share it.
    """

    x: Tensor
    added: Tensor | None
    packing: Packing
    last_at: Tensor | None


def begin_blocks(
    blocks: nn.ModuleList, x: Tensor, packing: Packing, last_at: Tensor | None = None
) -> Begun:
    """Start on ``x: [N, d]``; with `last_at` ``[B]`` the last block answers for those alone."""
    if not len(blocks):
        x = x if last_at is None else x.index_select(0, last_at)
        return Begun(x, None, packing, last_at)
    first: Any = blocks[0]
    x, added = first.update(x, packing, last_at if len(blocks) == 1 else None)
    return Begun(x, added, packing, last_at)


def finish_blocks(blocks: nn.ModuleList, begun: Begun) -> Tensor:
    """Go on with what `begin_blocks` began: ``[N, d]``, or ``[B, d]``."""
    x, packing, last_at = begun.x, begun.packing, begun.last_at
    for number, block in enumerate(blocks, start=1):
        asked = last_at if number == len(blocks) else None
        if number == 1 and begun.added is not None:
            first: Any = block
            x = first.join(x, begun.added, packing if asked is None else None)
        else:
            x = block(x, packing, asked)
    return x
