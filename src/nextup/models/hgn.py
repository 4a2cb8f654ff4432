"""HGN: hierarchical gating networks, light and with a vector for each user.

Ma, Kang & Liu, *Hierarchical Gating Networks for Sequential Recommendation*, KDD 2019. A user u
and the last L items (inputs E, outputs W, both tables learnt):

* feature gate (eq. 1): ``f_l = e_l * sigmoid(W1 e_l + W2 u + b)``;
* instance gate (eq. 3): ``a_l = sigmoid(w . f_l + (u U)_l)``, one column of U a place, and the
  group ``s = sum a_l f_l / sum a_l`` (eq. 4, average pooling);
* score (eq. 6): ``u . W_j + s . W_j + sum_l e_l . W_j + b_j``, which factors into the query
  ``u + s + sum e_l`` and the table W.

Trained as the authors do: windows of L = 5 items that predict the next T = 3, one negative for
each, BPR, L2 on all weights. With ``window_targets=0`` every prefix is a row of its own with one
target instead, and a short history is read without padding: with windows, a third of the users of
the 5-core sets (three training items) is one row that reads nothing but padding.

Departures
----------
* The loss is the mean over pairs, the authors' the sum; `l2` is in their units and is divided by
  the number of pairs too. Adam cannot tell that from theirs where gradients are far above its
  epsilon (1e-8); what L2 alone moves, such as a vector no pair has met yet, shrinks more slowly.
* The instance gate is trained. In the public code its two tensors are no registered parameters
  and stay as drawn; ``train_instance_gate=false`` is that.
* Padding has a vector of its own, learnt as theirs is, and is never drawn as a negative. With
  windows, then, the answer to a short history depends on it, as in their code.
* Negatives are drawn afresh for every target, not from a pool made once an epoch for each user.
* A user never seen in training gets the vector that their last L items suggest
  (`nextup.models.users`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Losses, ModelConfig
from nextup.models.registry import register
from nextup.models.users import UserVectors, WithUserVectors, mean_vector
from nextup.models.windows import WindowConfig, WindowRecommender
from nextup.nn.packing import Packing


class HGNConfig(WindowConfig):
    """Settings of HGN."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"] = Field(
        "bpr", description="what training minimises; softmax is over the whole catalogue"
    )
    width: int = Field(50, ge=1, description="width of user and item vectors (d)")
    l2: float = Field(1e-3, ge=0, description="L2 on all weights, against the summed loss")
    train_instance_gate: bool = Field(True, description="false: as drawn, as in the public code")


@register
class HGN(WithUserVectors, WindowRecommender):
    """Gates over the features and places of the last few items, for each user."""

    name = "hgn"
    paper = "Ma et al., Hierarchical Gating Networks for Sequential Recommendation, KDD 2019"
    kind = "gating"
    Config: ClassVar[type[ModelConfig]] = HGNConfig
    config: HGNConfig

    def __init__(self, config: HGNConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, length = config.width, config.max_length
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.outputs = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.users = UserVectors(width, described_by=width, std=1 / width)
        self.padding = nn.Parameter(torch.randn(width) / width) if config.window_targets else None
        self.item_gate = nn.Linear(width, width)
        self.user_gate = nn.Linear(width, width)
        self.place_by_item = nn.Parameter(torch.empty(width, 1))
        self.place_by_user = nn.Parameter(torch.empty(width, length))
        for table in (self.items, self.outputs):
            nn.init.normal_(table.weight, std=1 / width)
            with torch.no_grad():
                table.weight[0].zero_()
        for gate in (self.place_by_item, self.place_by_user):
            nn.init.xavier_uniform_(gate)
            gate.requires_grad_(config.train_instance_gate)

    def describe(self, batch: Batch) -> Tensor:
        """``[B, width]``: the mean of the items' vectors."""
        return mean_vector(self.items.weight, batch)

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[B, d]``: user, group and items together, whatever `last_only`."""
        user = self.user_vectors(batch)
        if self.padding is None:
            return self._of_real_items(batch.cut(self.config.max_length), user)
        places = batch.latest(self.config.max_length)
        items = nn.functional.embedding(places, self.items.weight, padding_idx=0)
        items = torch.where((places != 0).unsqueeze(2), items, self.padding)
        features = items * torch.sigmoid(self.item_gate(items) + self.user_gate(user)[:, None])
        by_user = (user @ self.place_by_user)[:, :, None]
        weights = torch.sigmoid(features @ self.place_by_item + by_user)
        group = (weights * features).sum(dim=1) / weights.sum(dim=1)
        result: Tensor = user + group + items.sum(dim=1)
        return result

    def _of_real_items(self, rows: Batch, user: Tensor) -> Tensor:
        """As `encode`, of places that hold an item, end to end; the last place is the latest."""
        packing = Packing(rows.lengths, rows.device)
        row, place = packing.row_of, packing.slots(self.config.max_length)
        items = nn.functional.embedding(rows.tokens, self.items.weight, padding_idx=0)
        features = items * torch.sigmoid(self.item_gate(items) + self.user_gate(user)[row])
        by_user = (user @ self.place_by_user)[row, place][:, None]
        weights = torch.sigmoid(features @ self.place_by_item + by_user)
        each = torch.cat([weights * features, weights, items], dim=1)
        sums = each.new_zeros(len(rows), each.shape[1]).index_add(0, row, each)
        group, total, together = torch.split(sums, [items.shape[1], 1, items.shape[1]], dim=1)
        result: Tensor = user + group / total + together
        return result

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the step's targets, and L2."""
        losses = super().loss(batch)
        if not self.config.l2:
            return losses
        tables = (self.items.weight, self.outputs.weight, self.bias)
        penalised = [p[1:] if any(p is t for t in tables) else p for p in self.parameters()]
        # A norm's gradient is one pass over its table, a sum of squares' several.
        norms = [torch.linalg.vector_norm(p) for p in penalised if p.requires_grad]
        squares = torch.stack(norms).square().sum()
        share = len(batch) / batch.row_total  # of several processes each adds its own
        penalty = share * self.config.l2 / (2 * batch.target_total) * squares
        return Losses(losses.total + penalty, losses.parts)

    def item_vectors(self) -> Tensor:
        """``[I + 1, d]``: the output table."""
        return self.outputs.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, d]``: the input table."""
        return self.items.weight

    def item_bias(self) -> Tensor:
        """``[I + 1]``: the bias of each item."""
        return self.bias
