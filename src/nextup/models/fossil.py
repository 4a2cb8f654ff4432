"""Fossil: item similarity and a short Markov chain whose steps weigh differently for each user.

He & McAuley, *Fusing Similarity Models with Markov Chains for Sparse Sequential Recommendation*,
ICDM 2016. After the items ``s_1 .. s_t`` of user u the score of item j is

    b_j + Q_j . ( t^-alpha sum_i P_{s_i} + sum_{k=1..K} (eta_k + eta_k^u) P_{s_{t-k+1}} ),

with a table P of items read and another Q of items scored. With K = 0 it is FISM. Trained by
S-BPR: every item of a history but its first is a target, compared with an item the user has not
met, with L2 on the vectors of a sample.

Departures
----------
* The sum is over the items before the target. The paper's is over all feedback of the user but
  the target, which in training includes what came after it.
* Only the last `max_length` items are summed, as in every model here.
* Steps of many samples with Adam, where the paper takes one sample a step with a plain gradient.
  With ``targets="every"`` the samples of a history share a row, whose items read and whose user
  count once in the L2, not once a sample; and they are of its last `max_length` + 1 items.
* The weights eta_k that all share have no L2. Of losses with one set of negatives for a step each
  negative counts in it once, of a softmax none does.
* A user never seen in training gets the weights eta^u that the mean of their items' P suggests
  (`nextup.models.users`); nothing else depends on the user.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from nextup.data.batches import Batch
from nextup.models.base import ModelConfig
from nextup.models.next_item import NextItemConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.models.users import UserVectors, WithUserVectors, mean_vector, running_mean
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing
from nextup.nn.running import running_sum


class FossilConfig(NextItemConfig):
    """Settings of Fossil."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"] = Field(
        "bpr", description="what training minimises; softmax is over the whole catalogue"
    )
    width: int = Field(64, ge=1, description="width of item vectors")
    order: int = Field(3, ge=0, description="how many of the last items have a weight each (K)")
    alpha: float = Field(
        0.2, ge=0, description="exponent of the number of items: 0 adds them up, 1 takes the mean"
    )
    bias: bool = Field(True, description="an own bias for each item")
    l2: float = Field(1e-3, ge=0, description="regulariser of the vectors of a sample")
    dropout: float = Field(0.0, ge=0, lt=1, description="on states; not in the paper")
    initial_std: float = Field(0.01, gt=0, description="standard deviation of fresh vectors")


@register
class Fossil(WithUserVectors, NextItemRecommender):
    """All items of a history added up, the last few once more by place and user."""

    name = "fossil"
    paper = "He & McAuley, Fusing Similarity Models with Markov Chains, ICDM 2016"
    kind = "factors"
    Config: ClassVar[type[ModelConfig]] = FossilConfig
    config: FossilConfig

    def __init__(self, config: FossilConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, std = config.width, config.initial_std
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.outputs = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(n_items + 1)) if config.bias else None
        self.steps = nn.Parameter(torch.zeros(config.order)) if config.order else None
        self.users = UserVectors(config.order, described_by=width, std=0.01)
        self.drop = Dropout(config.dropout)
        for table in (self.items, self.outputs):
            nn.init.normal_(table.weight, std=std)
            with torch.no_grad():
                table.weight[0].zero_()

    def describe(self, batch: Batch) -> Tensor:
        """``[B, width]``: the mean of the items' vectors P."""
        return mean_vector(self.items.weight, batch)

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[N, width]`` after every item, or ``[B, width]`` after each row's last."""
        states = self._last(batch) if last_only else self._every(batch)
        result: Tensor = self.drop(states)
        return result

    def _every(self, batch: Batch) -> Tensor:
        packing = Packing(batch.lengths, batch.device, batch.copies)
        items, places = self.items(batch.tokens), packing.indices()
        states = running_sum(items, packing) * self._scale(places + 1)[:, None]
        if self.steps is None:
            return states
        own = self.users(
            batch.users[packing.row_of],
            lambda at: running_mean(self.items.weight, batch, packing)[at],
        )
        weights = self.steps + own
        for back in range(min(self.config.order, len(items))):
            earlier = nn.functional.pad(items[: len(items) - back], (0, 0, back, 0))
            states = states + (weights[:, back] * (places >= back))[:, None] * earlier
        return states

    def _last(self, batch: Batch) -> Tensor:
        """One weighted sum of item vectors a row."""
        ends = np.cumsum(batch.lengths)
        row = np.repeat(np.arange(len(batch)), batch.lengths)
        rows = torch.from_numpy(row).to(batch.device)
        weights = self._scale(torch.from_numpy(batch.lengths).to(batch.device))[rows]
        if self.steps is not None:
            back = torch.from_numpy(ends[row] - 1 - np.arange(len(row))).to(batch.device)
            near = (back < self.config.order).nonzero().squeeze(1)
            own = (self.steps + self.user_vectors(batch))[rows[near], back[near]]
            weights = weights.index_add(0, near, own)
        starts = torch.from_numpy(ends - batch.lengths).to(batch.device)
        states: Tensor = embedding_bag(
            batch.tokens, self.items.weight, starts, mode="sum", per_sample_weights=weights
        )
        return states

    def _scale(self, counts: Tensor) -> Tensor:
        """By what the sum of so many items is multiplied."""
        return counts.to(self.items.weight.dtype) ** -self.config.alpha

    def target_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean over targets, with the regulariser of the step's vectors."""
        total, losses = super().target_losses(batch)
        if self.config.l2:
            total = total + self.config.l2 * self._squares(batch) / batch.target_total
        return total, losses

    def _squares(self, batch: Batch) -> Tensor:
        """Return the squared norms of the vectors of all that is read and compared, added up."""
        assert batch.targets is not None
        asked = batch.targets
        if batch.negatives is not None:
            asked = torch.cat([asked, batch.negatives.reshape(-1)])
        squares: Tensor = self.items(batch.tokens).square().sum()
        squares = squares + embedding(asked, self.outputs.weight).square().sum()
        if self.bias is not None:
            squares = squares + self.bias[asked].square().sum()
        if self.steps is not None:
            squares = squares + self.user_vectors(batch).square().sum()
        return squares

    def item_vectors(self) -> Tensor:
        """``[I + 1, width]``: the table Q."""
        return self.outputs.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, width]``: the table P."""
        return self.items.weight

    def item_bias(self) -> Tensor | None:
        """``[I + 1]``: the bias of each item, if the settings ask for one."""
        return self.bias
