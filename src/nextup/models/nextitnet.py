"""NextItNet: dilated causal convolutions over a history, read out after every item.

Yuan, Karatzoglou, Arapakis, Jose & He, *A Simple Convolutional Generative Network for Next Item
Recommendation*, WSDM 2019. Item vectors go through a stack of residual blocks of causal
convolutions (figure 3) whose dilation grows, so that the state after an item has seen
``1 + sum over blocks of 3 (kernel - 1) dilation`` items (blocks of kind b) or
``1 + sum of (kernel - 1) dilation`` (kind a). A softmax over the catalogue, with a table and a
bias of its own, finds the item after each.

Departures from the authors' code:

* Padding is neither read, nor computed on, nor a target. The code pads on the left, convolves the
  padding like an item and learns to predict it; its answers depend on how wide the padding is.
* Dropout (`dropout`) and the weights' penalty (`l2`, the one of the authors' later GREC) are
  off unless asked for; the sets of this library are far smaller than the paper's.
* The sampled softmax is a setting (``loss="sampled_softmax"``) with negatives drawn apart from the
  targets; the code takes a fixed fifth of the catalogue.

A user is nothing but a history: one never met in training is answered like any other.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Losses, ModelConfig
from nextup.models.next_item import NextItemConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.nn.convolution import (
    Neighbours,
    convolution_blocks,
    mean_half_square,
    truncated_normal,
)
from nextup.nn.packing import Packing


class NextItNetConfig(NextItemConfig):
    """Settings of NextItNet."""

    width: int = Field(64, ge=1, description="width of item vectors and states")
    block: Literal["a", "b"] = Field(
        "b",
        description="residual block: b has two convolutions, the second's taps twice as far apart; "
        "a has one, of half as many features",
    )
    dilations: tuple[PositiveInt, ...] = Field(
        (1, 2, 1, 2, 1, 2), description="one block for each, this far between its taps"
    )
    kernel: int = Field(3, ge=1, description="taps of a convolution")
    dropout: float = Field(0.0, ge=0, lt=1, description="on what a block adds")
    tied: bool = Field(False, description="score with the input vectors instead of an own table")
    bias: bool = Field(True, description="an own bias for each item")
    l2: float = Field(
        0.0, ge=0, description="weight of the penalty: mean over weights of half the squared norm"
    )


@register
class NextItNet(NextItemRecommender):
    """Dilated causal convolutions over the last `max_length` items."""

    name = "nextitnet"
    paper = "Yuan et al., A Simple Convolutional Generative Network for Next Item, WSDM 2019"
    kind = "convolution"
    Config: ClassVar[type[ModelConfig]] = NextItNetConfig
    config: NextItNetConfig

    def __init__(self, config: NextItNetConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        rows = n_items + 1 + self.special_tokens
        self.items = _table(rows, config.width)
        self.blocks = convolution_blocks(
            config.block, config.width, config.kernel, config.dilations, dropout=config.dropout
        )
        self.outputs = None if config.tied else _table(n_items + 1, config.width)
        self.bias = nn.Parameter(torch.zeros(n_items + 1)) if config.bias else None

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """States of all tokens ``[N, width]``, or of each row's last ``[B, width]``."""
        rows = Neighbours(Packing(batch.lengths, batch.device, batch.copies))
        x = self.items(batch.tokens)
        for block in self.blocks:
            x = block(x, rows)
        return torch.relu(x[batch.last_at] if last_only else x)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the step's targets, and the penalty."""
        losses = super().loss(batch)
        if self.config.l2 == 0:
            return losses
        assert batch.targets is not None
        # Gradients are summed over processes: each adds its share of the penalty.
        share = len(batch.targets) / batch.target_total
        penalty = self.config.l2 * share * mean_half_square(list(self.parameters()))
        return Losses(losses.total + penalty, {**losses.parts, "l2": penalty.detach()})

    def item_vectors(self) -> Tensor:
        """``[I + 1, width]``: the table that states are compared with."""
        return self.item_inputs() if self.outputs is None else self.outputs.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, width]``: the table that is read."""
        return self.items.weight[: self.n_items + 1] if self.special_tokens else self.items.weight

    def item_bias(self) -> Tensor | None:
        """``[I + 1]``: the bias of each item, if the settings ask for one."""
        return self.bias


def _table(rows: int, width: int) -> nn.Embedding:
    weight = truncated_normal((rows, width))
    weight[0].zero_()
    return nn.Embedding(rows, width, padding_idx=0, _weight=weight)
