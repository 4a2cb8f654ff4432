"""BPR-MF: matrix factorisation that learns to rank what a user took above what they did not.

Rendle, Freudenthaler, Gantner & Schmidt-Thieme, *BPR: Bayesian Personalized Ranking from Implicit
Feedback*, UAI 2009. The score of item j for user u is ``p_u . q_j + b_j``, and
training minimises ``-log sigmoid(x_ui - x_uj)`` over interactions (u, i) of training and items j
that u has not met (section 4.1, BPR-Opt), with a regulariser of its own for users, taken items
and items not taken (section 4.3.1). The paper has no biases; Milogradskii et al., RecSys 2024, find
that leaving them out, or the separate regularisers, costs up to half of the quality.

The order of a history plays no part: every interaction of training is a sample, the first of a
history too, and reads nothing.

Departures
----------
* Samples come in a shuffled order, each once an epoch, not drawn with replacement; the expected
  gradient is the same and no interaction is left out by chance.
* Steps of many samples with Adam, where the paper takes one sample a step with a plain gradient.
* A user never seen in training gets the vector that the mean of their items' vectors suggests
  (`nextup.models.users`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding

from nextup.data.batches import Batch
from nextup.data.negatives import UniformNegatives
from nextup.data.sequences import Sequences
from nextup.data.stream import Samples
from nextup.models.base import Losses, ModelConfig
from nextup.models.registry import register
from nextup.models.users import UserVectors, WithUserVectors, mean_vector
from nextup.nn.losses import bpr_loss


class BPRConfig(ModelConfig):
    """Settings of BPR-MF."""

    width: int = Field(64, ge=1, description="width of user and item vectors")
    bias: bool = Field(True, description="an own bias for each item")
    negatives: int = Field(1, ge=1, description="items not taken that each taken one is held to")
    user_l2: float = Field(1e-3, ge=0, description="regulariser of a sample's user vector")
    item_l2: float = Field(1e-3, ge=0, description="regulariser of a sample's taken item")
    negative_l2: float = Field(1e-3, ge=0, description="regulariser of a sample's items not taken")
    bias_l2: float = Field(1e-3, ge=0, description="regulariser of a sample's item biases")
    initial_std: float = Field(0.02, gt=0, description="standard deviation of fresh vectors")


@register
class BPR(WithUserVectors):
    """A vector for each user and each item, learnt by comparing pairs of items."""

    name = "bpr"
    paper = "Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009"
    kind = "factors"
    Config: ClassVar[type[ModelConfig]] = BPRConfig
    config: BPRConfig

    def __init__(self, config: BPRConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, std = config.width, config.initial_std
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        nn.init.normal_(self.items.weight, std=std)
        with torch.no_grad():
            self.items.weight[0].zero_()
        self.bias = nn.Parameter(torch.zeros(n_items + 1)) if config.bias else None
        self.users = UserVectors(width, described_by=width, std=std, least=1)

    @property
    def targets(self) -> Samples:
        """Every interaction by itself."""
        return "item"

    def negative_sampler(
        self, train: Sequences, device: torch.device, whole: Sequences | None = None
    ) -> UniformNegatives:
        """Return the sampler: uniform over what the user has not met in training."""
        return UniformNegatives(self.n_items, self.config.negatives, train, device)

    def loss(self, batch: Batch) -> Losses:
        """Mean over interactions of the pairwise loss and the regularisers."""
        assert batch.targets is not None and batch.negatives is not None
        config, m = self.config, len(batch.targets)
        # One look-up for both, since each has a gradient as large as the whole table.
        both = torch.cat([batch.targets, batch.negatives.reshape(-1)])
        users, items = self.user_vectors(batch), embedding(both, self.items.weight)
        taken, others = items[:m], items[m:].view(m, config.negatives, -1)
        score = (users * taken).sum(dim=1)
        other_scores = (others @ users.unsqueeze(2)).squeeze(2)
        cost = config.user_l2 * users.square().sum() + config.item_l2 * taken.square().sum()
        cost = cost + config.negative_l2 * others.square().sum()
        if self.bias is not None:
            bias = self.bias[both]
            score, other_scores = score + bias[:m], other_scores + bias[m:].view_as(other_scores)
            cost = cost + config.bias_l2 * bias.square().sum()
        pairwise = bpr_loss(score, other_scores).sum() / batch.target_total
        return Losses(pairwise + cost / batch.target_total, {"bpr": pairwise.detach()})

    def describe(self, batch: Batch) -> Tensor:
        """``[B, width]``: the mean of the items' vectors."""
        return mean_vector(self.items.weight, batch)

    def query(self, batch: Batch) -> Tensor:
        """``[B, width]``: the users' vectors."""
        return self.user_vectors(batch)

    def item_vectors(self) -> Tensor:
        """``[I + 1, width]``: the items' vectors."""
        return self.items.weight

    def item_bias(self) -> Tensor | None:
        """``[I + 1]``: the bias of each item, if the settings ask for one."""
        return self.bias
