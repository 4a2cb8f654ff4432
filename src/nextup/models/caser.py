"""Caser: convolutions over the last few items, and a vector for each user.

Tang & Wang, *Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding*,
WSDM 2018. The vectors of the last L items are an image X of L x d.

* Horizontal filters (section 3.2): of every height h = 1 .. L there are n_h of size h x d, slid
  down the image; ReLU, then the maximum over all places.
* Vertical filters (section 3.2): n_v weighted sums of the L rows, without a nonlinearity.
* Both, dropped and through one layer with ReLU (section 3.3), give z, and item j
  scores ``W_j . [z, p_u] + b_j`` with an output table of its own.

Trained as the authors' code does: windows of L = 5 items that predict the next T = 3, binary
cross-entropy with as many negatives as targets (section 3.4). With ``window_targets=0`` every
prefix is a row of its own with one target instead: with windows, a third of the users of the
5-core sets (three training items) is one row that reads nothing but padding.

All horizontal filters are one product with a matrix that holds each at every place it can stand
at: images are so small that the zeros in it cost less than anything that avoids them. Of images of
more than a dozen items only the places that were best have a gradient (`nextup.nn.peaks`).

Fresh vectors of a table are normal with a deviation of one over their own width, as in the authors'
code; items as they are scored have twice the width.

Departures
----------
* The image's padding has a vector of its own, learnt as the code's padding row is, and padding is
  never drawn as a negative.
* A window's three negatives are drawn one for each target; the loss is the same.
* A user never seen in training gets the vector that the mean of their last L items' vectors
  suggests (`nextup.models.users`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import ModelConfig
from nextup.models.registry import register
from nextup.models.users import UserVectors, WithUserVectors, mean_vector
from nextup.models.windows import WindowConfig, WindowRecommender
from nextup.nn.image_filters import ImageFilters
from nextup.nn.noise import Dropout


class CaserConfig(WindowConfig):
    """Settings of Caser."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"] = Field(
        "bce", description="what training minimises; softmax is over the whole catalogue"
    )
    width: int = Field(50, ge=1, description="width of user and item vectors (d)")
    horizontal: int = Field(16, ge=0, description="horizontal filters of each height (n_h)")
    vertical: int = Field(4, ge=0, description="vertical filters (n_v)")
    activation: Literal["relu", "tanh"] = Field(
        "relu", description="after horizontal filters and the layer"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="on what the filters found")

    @model_validator(mode="after")
    def _has_filters(self) -> CaserConfig:
        if not (self.horizontal or self.vertical):
            raise ValueError("horizontal and vertical are both 0; no filter would read the history")
        return self


@register
class Caser(WithUserVectors, WindowRecommender):
    """Filters over the image of the last few items, for each user."""

    name = "caser"
    paper = "Tang & Wang, Convolutional Sequence Embedding (Caser), WSDM 2018"
    kind = "convolution"
    Config: ClassVar[type[ModelConfig]] = CaserConfig
    config: CaserConfig

    def __init__(self, config: CaserConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, length = config.width, config.max_length
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.outputs = nn.Embedding(n_items + 1, 2 * width, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.users = UserVectors(width, described_by=width, std=1 / width)
        self.padding = nn.Parameter(torch.randn(width) / width)
        self.filters = ImageFilters(
            length, width, config.horizontal, config.vertical, tanh=config.activation == "tanh"
        )
        self.drop = Dropout(config.dropout)
        self.layer = nn.Linear(self.filters.found, width)
        for table in (self.items, self.outputs):
            nn.init.normal_(table.weight, std=1 / table.embedding_dim)
            with torch.no_grad():
                table.weight[0].zero_()

    def describe(self, batch: Batch) -> Tensor:
        """``[B, width]``: the mean of the items' vectors."""
        return mean_vector(self.items.weight, batch)

    def image(self, batch: Batch) -> Tensor:
        """``[B, L, width]``: the vectors of each row's last L items, after padding."""
        places = batch.latest(self.config.max_length)
        items = nn.functional.embedding(places, self.items.weight, padding_idx=0)
        return torch.where((places != 0).unsqueeze(2), items, self.padding)

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[B, 2 width]``: what the filters make of each row, and its user's vector."""
        found = self.layer(self.drop(self.filters(self.image(batch))))
        tanh = self.config.activation == "tanh"
        z = torch.tanh(found) if tanh else torch.relu(found)
        return torch.cat([z, self.user_vectors(batch)], dim=1)

    def item_vectors(self) -> Tensor:
        """``[I + 1, 2 width]``: the output table."""
        return self.outputs.weight

    def item_inputs(self) -> Tensor:
        """``[I + 1, width]``: the input table."""
        return self.items.weight

    def item_bias(self) -> Tensor:
        """``[I + 1]``: the bias of each item."""
        return self.bias
