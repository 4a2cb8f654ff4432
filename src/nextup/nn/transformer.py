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

from nextup.nn.answering import equal_rows, linear
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
        asked = x if last_at is None else x.index_select(0, last_at)
        mixed = _attend(
            self.query_key_value,
            asked,
            x,
            packing,
            heads=self.heads,
            causal=self.causal,
            last_only=last_at is not None,
            dropout_rate=self.attention_dropout if self.training else 0.0,
        )
        x = self.attention_norm(asked + self.attention_drop(linear(self.output, mixed)))
        return x, linear(self.contract, nn.functional.gelu(linear(self.expand, x)))

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
        normed = self.query_norm(x if last_at is None else x[last_at])
        mixed = _attend(
            self.query_key_value,
            normed,
            x,
            packing,
            heads=self.heads,
            causal=True,
            last_only=last_at is not None,
            dropout_rate=self.dropout if self.training else 0.0,
        )
        y = self.inner_norm(normed + mixed)
        return y, linear(self.contract, self.expand_drop(torch.relu(linear(self.expand, y))))

    def join(self, y: Tensor, added: Tensor, packing: Packing | None) -> Tensor:
        """Return the block's output, given what `update` returned."""
        result: Tensor = y + self.output_drop(added, packing)
        return result


def _attend(
    layer: nn.Linear,
    asked: Tensor,
    x: Tensor,
    packing: Packing,
    *,
    heads: int,
    causal: bool,
    last_only: bool,
    dropout_rate: float,
) -> Tensor:
    """Let `asked` attend to `x` by way of one layer for queries, keys and values."""
    if last_only and dropout_rate == 0.0 and (rows := equal_rows(packing)) is not None:
        return rows.attend_last(layer, asked, x, heads)
    width = x.shape[1]
    if asked is x:
        both = linear(layer, x)
        queries, keys_values = both[:, :width], both[:, width:]
    else:
        weight, bias = layer.weight, layer.bias
        queries = nn.functional.linear(asked, weight[:width], bias[:width])
        keys_values = nn.functional.linear(x, weight[width:], bias[width:])
    return packed_attention(
        queries,
        keys_values,
        packing,
        heads=heads,
        causal=causal,
        last_only=last_only,
        dropout_rate=dropout_rate,
        training=dropout_rate > 0.0,
    )


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
