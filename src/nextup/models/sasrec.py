"""SASRec: self-attentive sequential recommendation.

Kang & McAuley, *Self-Attentive Sequential Recommendation*, ICDM 2018. Three forms, by config:

``block="s3"`` (default)
    The block of S3-Rec's public code (Zhou et al., CIKM 2020): BERT's post-norm block with exact
    GELU, LayerNorm on the embedded input, weights from N(0, 0.02^2), scores by the item
    embedding itself. With ``loss="bce"`` it is the "SASRec" of the S3-Rec, CoSeRec and LMA4Rec
    tables.
``block="original"``
    The authors' published code: item embedding scaled by sqrt(d), queries normalised but keys
    and values not, the residual added to the normalised query, ReLU feed-forward of the model's
    own width, Glorot initialisation, a last LayerNorm.
``loss="softmax"`` or ``"sampled_softmax"``
    Either block with a (sampled) softmax over the catalogue; Klenitskiy & Vasilev, RecSys 2023.

Positions are slots counted from the end of the history (the published codes pad on the left), so
a position means "how many items ago". With a target after every item, most targets are then
predicted from slots that no answer is ever read from; ``positions="start"`` counts from the start
instead and has no such gap between training and answering. A user is nothing but a history: one
never met in training is answered like any other.

Departures: padding is never computed on, hence no masks for it; negatives come from ``1..I``
only, and by default may be the user's later items (the public S3-Rec code draws the mask token
too, and excludes validation and test items: `exclude_future`).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Kind, ModelConfig
from nextup.models.next_item import NextItemConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing
from nextup.nn.transformer import (
    Begun,
    OriginalBlock,
    PostNormBlock,
    begin_blocks,
    finish_blocks,
)


class SASRecConfig(NextItemConfig):
    """Settings of SASRec."""

    block: Literal["s3", "original"] = Field("s3", description="which published form")
    width: int = Field(64, ge=1, description="width of embeddings and states (d)")
    layers: int = Field(2, ge=0, description="number of blocks")
    heads: int = Field(2, ge=1, description="attention heads; must divide width")
    positions: Literal["recency", "start", "none"] = Field(
        "recency",
        description="count places from the end of the history, as the published codes do by "
        "padding on the left, or from its start, or not at all",
    )
    inner: int | None = Field(
        None, ge=1, description="s3: feed-forward width, by default 4 * width"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="on embeddings and after sub-layers")
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="s3: on attention probabilities; by default as `dropout`"
    )
    feed_forward_dropout: float | None = Field(
        None, ge=0, lt=1, description="after the feed-forward layer; by default as `dropout`"
    )
    initial_std: float = Field(0.02, gt=0, description="s3: standard deviation of fresh weights")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> SASRecConfig:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


@register
class SASRec(NextItemRecommender):
    """Self-attention over the last `max_length` items."""

    name = "sasrec"
    paper = "Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018"
    kind: ClassVar[Kind] = "attention"
    Config: ClassVar[type[ModelConfig]] = SASRecConfig
    config: SASRecConfig

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, rate = config.width, config.dropout
        self.items = nn.Embedding(n_items + 1 + self.special_tokens, width, padding_idx=0)
        self.positions = (
            None if config.positions == "none" else nn.Embedding(config.max_length, width)
        )
        self.embedding_drop = Dropout(rate)
        own_rate = config.feed_forward_dropout
        feed_forward_rate = rate if own_rate is None else own_rate
        blocks: list[nn.Module]
        if config.block == "s3":
            attention_rate = rate if config.attention_dropout is None else config.attention_dropout
            inner = config.inner or 4 * width
            self.input_norm: nn.Module = nn.LayerNorm(width, eps=1e-12)
            self.output_norm: nn.Module = nn.Identity()
            blocks = [
                PostNormBlock(
                    width,
                    config.heads,
                    inner,
                    rate,
                    attention_rate,
                    output_drop=self.output_dropout(width, feed_forward_rate),
                )
                for _ in range(config.layers)
            ]
        else:
            self.input_norm = nn.Identity()
            self.output_norm = nn.LayerNorm(width, eps=1e-8)
            blocks = [
                OriginalBlock(
                    width, config.heads, rate, self.output_dropout(width, feed_forward_rate)
                )
                for _ in range(config.layers)
            ]
        self.blocks = nn.ModuleList(blocks)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                if self.config.block == "s3":
                    nn.init.normal_(module.weight, std=self.config.initial_std)
                else:  # queries, keys and values are one matrix; each is drawn by its own size
                    width = self.config.width
                    three = module.weight.shape == (3 * width, width)
                    for piece in module.weight.chunk(3 if three else 1):
                        nn.init.xavier_uniform_(piece)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def embed(self, batch: Batch, packing: Packing) -> Tensor:
        """``[N, d]``: items plus slots, normalised and dropped."""
        x = self.items(batch.tokens)
        if self.config.block == "original":
            x = x * math.sqrt(self.config.width)
        if self.positions is not None:
            x = self._placed(x, self.positions, packing, batch.ago)
        result: Tensor = self.embedding_drop(self.input_norm(x))
        return result

    def _placed(
        self, x: Tensor, positions: nn.Embedding, packing: Packing, ago: Tensor | None
    ) -> Tensor:
        """``[N, d]``: to each token the vector of its place added."""
        length = packing.even
        if length is None or ago is not None:
            found: Tensor = positions(self._places(packing, ago))
            return x + found
        first = 0 if self.config.positions == "start" else self.config.max_length - length
        slots = positions.weight[first : first + length]
        return (x.view(-1, length, x.shape[1]) + slots).view(x.shape)

    def _places(self, packing: Packing, ago: Tensor | None) -> Tensor:
        if self.config.positions == "start":
            if ago is None:
                return packing.indices()
            first = torch.from_numpy(packing.ends - packing.lengths).to(ago.device)
            return ago[first][packing.row_of] - ago  # from the first item that is left
        if ago is not None:
            return self.config.max_length - 1 - ago
        return packing.slots(self.config.max_length)

    def begin(self, batch: Batch, last_only: bool) -> Begun:
        """Encode up to the first layer of `output_dropout`."""
        padding = batch.tokens == 0 if batch.keeps_padding else None
        packing = Packing(batch.lengths, batch.device, batch.copies, padding)
        last_at = batch.last_at if last_only else None
        return begin_blocks(self.blocks, self.embed(batch, packing), packing, last_at)

    def finish(self, begun: Begun) -> Tensor:
        """States of all tokens ``[N, d]``, or of each row's last ``[B, d]``."""
        result: Tensor = self.output_norm(finish_blocks(self.blocks, begun))
        return result

    def item_vectors(self) -> Tensor:
        """``[I + 1, d]``: the item embedding (tied)."""
        return self.items.weight[: self.n_items + 1] if self.special_tokens else self.items.weight
