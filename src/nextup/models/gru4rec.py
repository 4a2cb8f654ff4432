"""GRU4Rec on whole histories: a gated recurrent network read out after every item.

Hidasi, Karatzoglou, Baltrunas & Tikk, *Session-based Recommendations with Recurrent Neural
Networks*, ICLR 2016. This is the padded-sequence form that most recommendation papers compare
with: one history is one sequence, back-propagation through all of it, a target after every item,
Adam. It departs from the authors' code, which trains session-parallel with one step of
back-propagation, negatives shared by the batch, Adagrad and (2018) BPR-max: `gru4rec_official`.

Padding never enters: the recurrence runs over packed sequences, so the state of a history does
not depend on what it is batched with. Input and output share the item embedding (`tied`), as
"constrained embedding" in the authors' code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Kind, ModelConfig
from nextup.models.next_item import NextItemConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing
from nextup.nn.recurrence import initialise_gates, packed_states


class GRU4RecConfig(NextItemConfig):
    """Settings of GRU4Rec."""

    width: int = Field(64, ge=1, description="width of item embeddings")
    hidden: int = Field(64, ge=1, description="width of the recurrent state")
    layers: int = Field(1, ge=1, description="recurrent layers")
    dropout: float = Field(0.3, ge=0, lt=1, description="on embedded inputs and on states")
    tied: bool = Field(True, description="score with the input embedding")
    bias: bool = Field(True, description="an own bias for each item")


@register
class GRU4Rec(NextItemRecommender):
    """A GRU over the last `max_length` items."""

    name = "gru4rec"
    paper = "Hidasi et al., Session-based Recommendations with RNNs, ICLR 2016"
    kind: ClassVar[Kind] = "recurrent"
    Config: ClassVar[type[ModelConfig]] = GRU4RecConfig
    config: GRU4RecConfig

    def __init__(self, config: GRU4RecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        rows = n_items + 1 + self.special_tokens
        self.items = nn.Embedding(rows, config.width, padding_idx=0)
        self.input_drop = Dropout(config.dropout)
        self.state_drop = self.output_dropout(config.hidden, config.dropout)
        self.recurrence = nn.GRU(config.width, config.hidden, config.layers)
        same = config.hidden == config.width
        self.project: nn.Module = nn.Identity() if same else nn.Linear(config.hidden, config.width)
        self.outputs = (
            None if config.tied else nn.Embedding(n_items + 1, config.width, padding_idx=0)
        )
        self.bias = nn.Parameter(torch.zeros(n_items + 1)) if config.bias else None
        self._initialise()

    def _initialise(self) -> None:
        initialise_gates(self.recurrence)
        for table in (self.items, self.outputs):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
                with torch.no_grad():
                    table.weight[0].zero_()

    def begin(self, batch: Batch, last_only: bool) -> tuple[Tensor, Packing | None]:
        """Run the recurrence: raw states of all tokens ``[N, hidden]``, or of each row's last."""
        x = self.input_drop(self.items(batch.tokens))
        states = packed_states(self.recurrence, x, batch.lengths)
        if last_only:
            return states[batch.last_at], None
        return states, Packing(batch.lengths, batch.device, batch.copies)

    def finish(self, begun: tuple[Tensor, Packing | None]) -> Tensor:
        """States ``[N, width]`` or ``[B, width]``, dropped and brought to the items' width."""
        result: Tensor = self.project(self.state_drop(*begun))
        return result

    def item_vectors(self) -> Tensor:
        """``[I + 1, width]``: the table that states are compared with."""
        if self.outputs is not None:
            return self.outputs.weight
        return self.items.weight[: self.n_items + 1] if self.special_tokens else self.items.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, width]``: the input embedding."""
        return self.items.weight[: self.n_items + 1] if self.special_tokens else self.items.weight

    def item_bias(self) -> Tensor | None:
        """``[I + 1]``: the bias of each item, if the settings ask for one."""
        return self.bias
