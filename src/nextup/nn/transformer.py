"""Transformer blocks for packed sequences: the S3-family block and SASRec's original one.

S3-family (Zhou et al., S3-Rec, CIKM 2020; shared by CoSeRec, SRMA and the SASRec baseline of the
LMA4Rec paper): BERT's post-norm block. Original: Kang & McAuley, SASRec, ICDM 2018, whose
published code normalises only the queries and adds the residual to the normalised query.

Every block computes on packed tokens ``[N, d]``. Asked for some tokens only (`asked`: the index of
each row's last, or any `Slots`), it computes queries, residual and feed-forward for those alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nextup.nn.answering import equal_rows, linear
from nextup.nn.attention import packed_attention
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing, Slots


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

    def forward(self, x: Tensor, packing: Packing, asked: Asked = None) -> Tensor:
        """``[N, d]`` to ``[N, d]``, or to ``[B, d]`` or ``[M, d]`` for those that are asked."""
        return self.join(*self.update(x, packing, asked), packing if asked is None else None)

    def update(self, x: Tensor, packing: Packing, asked: Asked = None) -> tuple[Tensor, Tensor]:
        """Return what the feed-forward layer read, and what it is about to add."""
        asking = _taken(x, asked)
        mixed = _attend(
            self.query_key_value,
            asking,
            x,
            packing,
            heads=self.heads,
            causal=self.causal,
            asked=asked,
            dropout_rate=self.attention_dropout if self.training else 0.0,
        )
        x = self.attention_norm(asking + self.attention_drop(linear(self.output, mixed)))
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

    def forward(self, x: Tensor, packing: Packing, asked: Asked = None) -> Tensor:
        """``[N, d]`` to ``[N, d]``, or to ``[B, d]`` or ``[M, d]`` for those that are asked."""
        return self.join(*self.update(x, packing, asked), packing if asked is None else None)

    def update(self, x: Tensor, packing: Packing, asked: Asked = None) -> tuple[Tensor, Tensor]:
        """Return what the feed-forward layer read, and what it is about to add."""
        normed = self.query_norm(_taken(x, asked))
        mixed = _attend(
            self.query_key_value,
            normed,
            x,
            packing,
            heads=self.heads,
            causal=True,
            asked=asked,
            dropout_rate=self.dropout if self.training else 0.0,
        )
        y = self.inner_norm(normed + mixed)
        return y, linear(self.contract, self.expand_drop(torch.relu(linear(self.expand, y))))

    def join(self, y: Tensor, added: Tensor, packing: Packing | None) -> Tensor:
        """Return the block's output, given what `update` returned."""
        result: Tensor = y + self.output_drop(added, packing)
        return result


Asked = Tensor | Slots | None
"""Which tokens are asked for: each row's last, by index, or any slots, or all."""


def _taken(x: Tensor, asked: Asked) -> Tensor:
    if asked is None:
        return x
    return x.index_select(0, asked.at if isinstance(asked, Slots) else asked)


def _attend(
    layer: nn.Linear,
    asking: Tensor,
    x: Tensor,
    packing: Packing,
    *,
    heads: int,
    causal: bool,
    asked: Asked,
    dropout_rate: float,
) -> Tensor:
    """Let `asking` attend to `x` by way of one layer for queries, keys and values."""
    slots = asked if isinstance(asked, Slots) else None
    last_only = asked is not None and slots is None
    if last_only and dropout_rate == 0.0 and (rows := equal_rows(packing)) is not None:
        return rows.attend_last(layer, asking, x, heads)
    width = x.shape[1]
    if asking is x:
        both = linear(layer, x)
        queries, keys_values = both[:, :width], both[:, width:]
    else:
        weight, bias = layer.weight, layer.bias
        queries = nn.functional.linear(asking, weight[:width], bias[:width])
        keys_values = nn.functional.linear(x, weight[width:], bias[width:])
    return packed_attention(
        queries,
        keys_values,
        packing,
        heads=heads,
        causal=causal,
        last_only=last_only,
        slots=slots,
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
    asked: Asked


def begin_blocks(blocks: nn.ModuleList, x: Tensor, packing: Packing, asked: Asked = None) -> Begun:
    """Start on ``x: [N, d]``; the last block answers for what is `asked` alone."""
    if not len(blocks):
        return Begun(_taken(x, asked), None, packing, asked)
    first: Any = blocks[0]
    x, added = first.update(x, packing, asked if len(blocks) == 1 else None)
    return Begun(x, added, packing, asked)


def finish_blocks(blocks: nn.ModuleList, begun: Begun) -> Tensor:
    """Go on with what `begin_blocks` began: ``[N, d]``, or ``[B, d]`` or ``[M, d]``."""
    x, packing = begun.x, begun.packing
    for number, block in enumerate(blocks, start=1):
        asked = begun.asked if number == len(blocks) else None
        if number == 1 and begun.added is not None:
            first: Any = block
            x = first.join(x, begun.added, packing if asked is None else None)
        else:
            x = block(x, packing, asked)
    return x
