"""SHAN: a user's long-term and short-term interest, by attention over attention.

Ying, Zhuang, Zhang, Liu, Xu, Xie, Xiong & Wu, *Sequential Recommender System based on Hierarchical
Attention Network*, IJCAI 2018. With the user's vector u as the one who asks:

* long-term (equations 1 to 3): over the older items, weights ``softmax(u . relu(W1 v + b1))``,
  and their mean by these weights;
* hybrid (equations 4 to 6): the same with W2, b2 over that mean and the last `short` items;
* score: hybrid ``. v_j``, the items' own table (equation 7).

Each prefix is a sample, with one item not taken, BPR and L2 (equation 8).

Departures
----------
* The paper's sets are sessions: the current one is short, all before it long. Here a history has no
  sessions: the last `short` items are short, those before them long (of its last `max_length`). A
  history with no more than `short` items is its own long set, since an empty one would leave the
  first attention nothing.
* An item met twice stands twice among what is attended to.
* L2 is on a sample's user, target and negatives (not on the items it reads), and on W1 and W2 as
  a whole; the paper adds all weights to a sum over samples, in steps of stochastic descent.
  Negatives that a step shares (`sampled_softmax`) count once in it, not once a sample; with
  `in_batch` the targets are among them. Recipe `paper` has 1e-2 on vectors and 1e-4 on attention;
  the defaults have them the other way round, chosen on Beauty's validation.
* A user never seen in training gets the vector that the mean of their items' vectors suggests
  (`nextup.models.users`).
* Fresh weights of W1 and W2 are uniform and of the stated variance; a public port draws them
  between equal bounds, asks its second attention with the long-term interest instead of the user,
  and uses sigmoid for relu.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Losses, ModelConfig
from nextup.models.next_item import LastStateConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.models.users import UserVectors, WithUserVectors, mean_vector


class SHANConfig(LastStateConfig):
    """Settings of SHAN."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"] = Field(
        "bpr", description="what training minimises; softmax is over the whole catalogue"
    )
    width: int = Field(100, ge=1, description="width of user and item vectors (d)")
    short: int = Field(2, ge=1, description="items of the short-term set; all before are long-term")
    vector_l2: float = Field(
        1e-4, ge=0, description="regulariser of a sample's user, target and negatives"
    )
    attention_l2: float = Field(1e-2, ge=0, description="regulariser of W1 and W2")
    initial_std: float = Field(0.01, gt=0, description="standard deviation of fresh vectors")


@register
class SHAN(WithUserVectors, NextItemRecommender):
    """Attention over older items, then over what it found and the latest ones."""

    name = "shan"
    paper = "Ying et al., Sequential Recommender System based on Hierarchical Attention, IJCAI 2018"
    kind = "attention"
    Config: ClassVar[type[ModelConfig]] = SHANConfig
    config: SHANConfig
    reads_out = "last"

    def __init__(self, config: SHANConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, std = config.width, config.initial_std
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.users = UserVectors(width, described_by=width, std=std)
        self.long_term = nn.Linear(width, width)
        self.hybrid = nn.Linear(width, width)
        nn.init.normal_(self.items.weight, std=std)
        for layer in (self.long_term, self.hybrid):
            nn.init.uniform_(layer.weight, -((3 / width) ** 0.5), (3 / width) ** 0.5)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def describe(self, batch: Batch) -> Tensor:
        """``[B, d]``: the mean of the items' vectors."""
        return mean_vector(self.items.weight, batch)

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[B, d]``: the hybrid interest after each row's last item."""
        return self.interest(self.user_vectors(batch), batch)

    def interest(self, user: Tensor, batch: Batch) -> Tensor:
        """``[B, d]``: as `encode`, given each row's user ``[B, d]``."""
        vectors = self.items(batch.tokens)  # one look-up: its gradient is as large as the table
        back = torch.arange(self.config.short, device=batch.device)
        at = batch.last_at[:, None] - back
        absent = back >= torch.from_numpy(batch.lengths).to(batch.device)[:, None]
        long = self.long_interest(user, vectors, batch.lengths)
        both = torch.cat([long[:, None], vectors[at.clamp_(min=0)]], dim=1)
        asked = (torch.relu(self.hybrid(both)) @ user[:, :, None]).squeeze(2)
        asked = asked.masked_fill(nn.functional.pad(absent, (1, 0)), -torch.inf)
        return (torch.softmax(asked, dim=1)[:, None] @ both).squeeze(1)

    def long_interest(self, user: Tensor, vectors: Tensor, lengths: np.ndarray) -> Tensor:
        """``[B, d]``: the mean of the older items' vectors that the user's attention makes.

        Given each row's user ``[B, d]``, and the vectors ``[N, d]`` of packed rows.
        """
        at, row = (torch.from_numpy(x).to(user.device) for x in older(lengths, self.config.short))
        vectors = vectors.index_select(0, at)
        scores = (torch.relu(self.long_term(vectors)) * user.index_select(0, row)).sum(dim=1)
        with torch.no_grad():
            highest = scores.new_full((len(user),), -torch.inf)
            highest.scatter_reduce_(0, row, scores, "amax")
        raised = torch.exp(scores - highest.index_select(0, row))
        sums = raised.new_zeros(len(user)).index_add(0, row, raised)
        weighted = (raised / sums.index_select(0, row))[:, None] * vectors
        return weighted.new_zeros(user.shape).index_add(0, row, weighted)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the step's targets, and L2."""
        assert batch.targets is not None
        config, user = self.config, self.user_vectors(batch)
        total, _ = self.losses_of(self.interest(user, batch), batch)
        parts: dict[str, Tensor] = {config.loss: total.detach()}
        if config.vector_l2:
            touched = [batch.targets]
            if batch.negatives is not None:
                touched.append(batch.negatives.reshape(-1))
            cost = self.items(torch.cat(touched)).square().sum() + user.square().sum()
            total = total + config.vector_l2 / batch.target_total * cost
        if config.attention_l2:
            cost = self.long_term.weight.square().sum() + self.hybrid.weight.square().sum()
            share = len(batch.targets) / batch.target_total  # of this process
            total = total + config.attention_l2 * share * cost
        return Losses(total, parts)

    def item_vectors(self) -> Tensor:
        """``[I + 1, d]``: the items' vectors."""
        return self.items.weight


def older(lengths: np.ndarray, short: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the tokens of packed rows that are not among the last `short` of their row.

    Returns
    -------
    tuple
        ``int64[n]``, the tokens, and ``int64[n]``, their rows. All tokens of a row that has no
        other are taken.

    Examples
    --------
    >>> at, row = older(np.array([1, 4]), short=2)
    >>> at.tolist(), row.tolist()
    ([0, 1, 2], [0, 1, 1])
    """
    counts = np.where(lengths > short, lengths - short, lengths)
    row = np.repeat(np.arange(len(lengths)), counts)
    moved = (np.cumsum(lengths) - lengths) - (np.cumsum(counts) - counts)
    return np.arange(int(counts.sum())) + moved[row], row
