"""GRec: a sequential recommender that learns by filling gaps with what stands on both sides.

Yuan, He, Jiang, Guo, Xiong, Xu & Xiong, *Future Data Helps Training: Modeling Future Contexts for
Session-based Recommendation*, WWW 2020. Some items of a training history, never its first, are
hidden. An encoder of convolutions that look both ways reads the history with its gaps; a causal
decoder reads it as it is. Their sum at an item goes through a projector and the decoder's
causal convolutions, and a softmax over the catalogue finds the item that follows, where that one
is a gap. Nothing leaks: the encoder never sees a hidden item, and the decoder at an item only
that item and those before it. What follows the gap, though, is seen.

To answer, both read what is known, without gaps, and the state after the last item is asked.

Departures from the authors' code:

* A gap has a vector of its own. The code uses the item number 0, which is also padding.
* Padding is neither read, nor computed on, nor ever a gap.
* The projector's GELU is exact.
* A history is its last `max_length` items. The penalty is off unless asked for, as `paper` does.
* The loss is a mean over the gaps of a step. Processes that share a step weigh their gaps by their
  rows, since each knows its own gaps alone.

A user is nothing but a history: one never met in training is answered like any other.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.data.stream import Samples
from nextup.models.base import Losses, ModelConfig, Recommender
from nextup.models.registry import register
from nextup.nn.convolution import (
    Neighbours,
    convolution_blocks,
    mean_half_square,
    truncated_normal,
)
from nextup.nn.linear_cross_entropy import linear_cross_entropy
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing


class GRecConfig(ModelConfig):
    """Settings of GRec."""

    width: int = Field(64, ge=1, description="width of item vectors and states")
    gap_share: float = Field(
        0.5, gt=0, le=1, description="share of a history's items, its first apart, that are hidden"
    )
    encoder_dilations: tuple[PositiveInt, ...] = Field(
        (1, 4, 1, 4), description="encoder: a block each; its second convolution is twice as far"
    )
    decoder_dilations: tuple[PositiveInt, ...] = Field(
        (1, 4, 1, 4), description="decoder: the same"
    )
    kernel: int = Field(3, ge=1, description="taps of a convolution; odd")
    projector: int | None = Field(
        None, ge=1, description="inner width of the projector, by default 2 * width"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="on what a block adds")
    l2: float = Field(
        0.0, ge=0, description="weight of the penalty: mean over weights of half the squared norm"
    )

    @field_validator("kernel")
    @classmethod
    def _has_a_middle(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd: the encoder looks as far back as ahead")
        return value


@register
class GRec(Recommender):
    """Convolutions that look both ways beside causal ones, trained to fill gaps."""

    name = "grec"
    paper = "Yuan et al., Future Data Helps Training, WWW 2020"
    kind = "convolution"
    Config: ClassVar[type[ModelConfig]] = GRecConfig
    config: GRecConfig

    def __init__(self, config: GRecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, kernel = config.width, config.kernel
        self.encoder_items = _table(n_items + 2, width)  # the last row stands for a gap
        self.decoder_items = _table(n_items + 1, width)
        self.encoder = convolution_blocks(
            "b", width, kernel, config.encoder_dilations, causal=False, dropout=config.dropout
        )
        inner = config.projector or 2 * width
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        for layer in (self.widen, self.narrow):
            layer.weight.data.copy_(truncated_normal(tuple(layer.weight.shape)))
            nn.init.zeros_(layer.bias)
        self.drop = Dropout(config.dropout)
        self.decoder = convolution_blocks(
            "b", width, kernel, config.decoder_dilations, dropout=config.dropout
        )
        self.outputs = _table(n_items + 1, width)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))

    @property
    def targets(self) -> Samples:
        """Whole histories; which items are to be found is drawn anew in every step."""
        return "whole"

    def states(self, batch: Batch, seen: Tensor) -> Tensor:
        """``[N, width]``: the state after each item of the batch.

        Parameters
        ----------
        batch
            What the decoder reads.
        seen
            ``int64[N]``: what the encoder reads, gaps being ``I + 1``.
        """
        rows = Neighbours(Packing(batch.lengths, batch.device, batch.copies))
        x = self.encoder_items(seen)
        for block in self.encoder:
            x = block(x, rows)
        x = x + self.decoder_items(batch.tokens)
        x = x + self.drop(self.narrow(nn.functional.gelu(self.widen(x))))
        for block in self.decoder:
            x = block(x, rows)
        return torch.relu(x)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the gaps of the step, and the penalty."""
        gaps = draw_gaps(batch, self.config.gap_share)
        states = self.states(batch, batch.tokens.index_fill(0, gaps, self.n_items + 1))
        share = len(batch) / batch.row_total
        if len(gaps):
            wide = torch.promote_types(states.dtype, torch.float32)
            weights = states.new_full((len(gaps),), share / len(gaps), dtype=wide)
            total, _ = linear_cross_entropy(
                states[gaps - 1], self.outputs.weight, batch.tokens[gaps], weights, self.bias
            )
        else:
            total = 0.0 * states.sum()
        parts = {"softmax": total.detach()}
        if self.config.l2 > 0:
            penalty = self.config.l2 * share * mean_half_square(list(self.parameters()))
            total, parts["l2"] = total + penalty, penalty.detach()
        return Losses(total, parts)

    def query(self, batch: Batch) -> Tensor:
        """``[B, width]``: the state after each row's last item, nothing being hidden."""
        return self.states(batch, batch.tokens)[batch.last_at]

    def item_vectors(self) -> Tensor:
        """``[I + 1, width]``: the softmax's own table."""
        return self.outputs.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, width]``: the table the decoder reads."""
        return self.decoder_items.weight[: self.n_items + 1]

    def item_bias(self) -> Tensor:
        """``[I + 1]``: the softmax's bias."""
        return self.bias


def draw_gaps(batch: Batch, share: float) -> Tensor:
    """Choose which items to hide: ``int64[G]``, ascending, as indices into the batch's tokens.

    Of a row of ``t`` items, ``max(1, round(share (t - 1)))`` are chosen, any but the first equally
    likely; none where there is but one.

    Examples
    --------
    >>> from nextup.data.batches import batch_of_lists
    >>> draw_gaps(batch_of_lists([[7], [8, 9]], 50), share=0.4).tolist()
    [2]
    """
    lengths = batch.lengths
    after = lengths - 1
    count = np.minimum(np.maximum(1, np.rint(share * after).astype(np.int64)), after)
    row = np.repeat(np.arange(len(lengths)), after)
    token = np.arange(len(row)) + row + 1  # all but the first of each row
    device = batch.device
    keys = torch.rand(len(row), dtype=torch.float64, device=device)
    order = torch.argsort(keys + torch.from_numpy(row).to(device))
    place = np.arange(len(row)) - np.repeat(np.cumsum(after) - after, after)
    first = torch.from_numpy(np.flatnonzero(place < count[row])).to(device)
    return torch.from_numpy(token).to(device)[order[first]].sort().values


def _table(rows: int, width: int) -> nn.Embedding:
    weight = truncated_normal((rows, width))
    weight[0].zero_()
    return nn.Embedding(rows, width, padding_idx=0, _weight=weight)
