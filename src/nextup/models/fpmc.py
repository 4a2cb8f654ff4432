"""FPMC: matrix factorisation and a factorised Markov chain, added up.

Rendle, Freudenthaler & Schmidt-Thieme, *Factorizing Personalized Markov Chains for Next-Basket
Recommendation*, WWW 2010. With baskets of one item the score of item i for user u after item l is
``U_u . V_i + A_l . B_i`` (section 4; the third term of the pairwise factorisation, between
user and last item, is the same for every i and drops out). Users and last items stand side by
side in the query, and so do the two tables of items scored: ``[U_u, A_l] . [V_i, B_i]``.

Trained as the paper does (S-BPR, section 5): every item of a history but its first is a target,
compared with an item the user has not met, with L2 on the vectors of a sample. Every other loss
of the family is a setting; a softmax over the catalogue learns much more.

Departures: steps of many samples with Adam, where the paper takes one sample a step with a plain
gradient. Of losses with one set of negatives for a step each negative counts in the L2 once, of a
softmax none does. With ``targets="every"`` the targets are among the last `max_length` + 1 items of
a history; with dropout the L2 is on what dropout left. A user never seen in training gets the
vector U that the mean of their items' V suggests (`nextup.models.users`); the chain needs no user.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding

from nextup.data.batches import Batch
from nextup.models.base import ModelConfig
from nextup.models.next_item import NextItemConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.models.users import UserVectors, WithUserVectors, mean_vector, running_mean
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing


class FPMCConfig(NextItemConfig):
    """Settings of FPMC."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"] = Field(
        "bpr", description="what training minimises; softmax is over the whole catalogue"
    )
    width: int = Field(32, ge=1, description="width of each of the four tables")
    l2: float = Field(1e-3, ge=0, description="regulariser of the vectors of a sample")
    dropout: float = Field(0.0, ge=0, lt=1, description="on user and last item; not in the paper")
    initial_std: float = Field(0.01, gt=0, description="standard deviation of fresh vectors")


@register
class FPMC(WithUserVectors, NextItemRecommender):
    """What a user likes, plus what follows the last item."""

    name = "fpmc"
    paper = "Rendle et al., Factorizing Personalized Markov Chains, WWW 2010"
    kind = "factors"
    Config: ClassVar[type[ModelConfig]] = FPMCConfig
    config: FPMCConfig

    def __init__(self, config: FPMCConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, std = config.width, config.initial_std
        self.users = UserVectors(width, described_by=width, std=std)
        self.last_items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.outputs = nn.Embedding(n_items + 1, 2 * width, padding_idx=0)
        self.drop = Dropout(config.dropout)
        for table in (self.last_items, self.outputs):
            nn.init.normal_(table.weight, std=std)
            with torch.no_grad():
                table.weight[0].zero_()

    def describe(self, batch: Batch) -> Tensor:
        """``[B, width]``: the mean of the items' vectors V."""
        return mean_vector(self._liked, batch)

    @property
    def _liked(self) -> Tensor:
        return self.outputs.weight[:, : self.config.width]

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[N, 2 width]`` after every item, or ``[B, 2 width]`` after each row's last."""
        if last_only:
            users, last = self.user_vectors(batch), batch.tokens[batch.last_at]
        else:
            packing = Packing(batch.lengths, batch.device, batch.copies)
            users = self.users(
                batch.users[packing.row_of],
                lambda at: running_mean(self._liked, batch, packing)[at],
            )
            last = batch.tokens
        result: Tensor = self.drop(torch.cat([users, self.last_items(last)], dim=1))
        return result

    def target_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean over targets, each with the regulariser of its vectors."""
        states = self.encode(batch, last_only=self.targets != "every")
        total, losses = self.losses_of(states, batch)
        if self.config.l2:
            total = total + self.config.l2 * self._squares(states, batch) / batch.target_total
        return total, losses

    def _squares(self, states: Tensor, batch: Batch) -> Tensor:
        """Return the squared norms of the vectors of a step's samples, added up."""
        assert batch.targets is not None
        items = batch.targets
        if batch.negatives is not None:
            items = torch.cat([items, batch.negatives.reshape(-1)])
        return states.square().sum() + embedding(items, self.outputs.weight).square().sum()

    def item_vectors(self) -> Tensor:
        """``[I + 1, 2 width]``: V and B side by side."""
        return self.outputs.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, width]``: the items as what was taken last."""
        return self.last_items.weight
