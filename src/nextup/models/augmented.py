"""What a model that augments its data shares: operators, and which items are alike.

A mixin's base beside `nextup.augment`, which knows neither models nor epochs: here the settings of
the operators are read, similar items are found among training items before training, and, where
settings ask, looked for again among the model's own embeddings as it learns.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nextup.augment import Augmenter, SimilarItems, ViewPolicy, short_set
from nextup.augment.similarity import better_of, by_embedding, co_occurrence
from nextup.data.sequences import Sequences
from nextup.models.base import item_counts
from nextup.models.next_item import NextItemConfig, NextItemRecommender


class AugmentedConfig(NextItemConfig):
    """Settings of augmentation."""

    augment: bool = Field(True, description="augment the data; else views differ by dropout alone")
    operators: str = Field(
        "CMR", description="operators, by initials: Crop, Mask, Reorder, Substitute, Insert"
    )
    short_operators: str = Field("SIM", description="operators of short sequences")
    threshold: int | None = Field(
        None, ge=0, description="longest history that counts as short; null: none does"
    )
    distinct: bool = Field(False, description="two views of a row meet two different operators")
    crop_rate: float = Field(0.2, gt=0, lt=1, description="share of items that crop keeps")
    mask_rate: float = Field(0.7, gt=0, lt=1, description="share of items that mask hides")
    reorder_rate: float = Field(0.2, gt=0, lt=1, description="share of items that are reordered")
    substitute_rate: float = Field(0.1, gt=0, lt=1, description="share of items substituted")
    insert_rate: float = Field(0.4, gt=0, lt=1, description="share of places inserted before")
    mask_with: Literal["nothing", "token"] = Field(
        "nothing", description="what stands for a masked item"
    )
    neighbours: Literal["co_occurrence", "embedding", "hybrid"] = Field(
        "co_occurrence", description="what substitute and insert take for similar items"
    )
    hybrid_from: int = Field(
        160, ge=0, description="epoch from which hybrid looks at embeddings as well"
    )


class AugmentedRecommender(NextItemRecommender):
    """A next-item model that can draw views of its data."""

    config: AugmentedConfig
    augmenter: Augmenter | None = None
    neighbours: SimilarItems | None = None
    known_items: Tensor
    near_item: Tensor
    near_score: Tensor

    def __init__(self, config: AugmentedConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        if self.needs_neighbours and config.neighbours != "co_occurrence":
            # Part of the state, so that a run killed within an epoch goes on with the same ones.
            self.register_buffer("near_item", torch.zeros(n_items + 1, dtype=torch.int64))
            self.register_buffer("near_score", torch.zeros(n_items + 1))

    @property
    def special_tokens(self) -> int:
        """One, where a token stands for masked items."""
        return 1 if self.config.mask_with == "token" else 0

    @property
    def augments(self) -> bool:
        """Whether views are augmented."""
        return self.config.augment

    @cached_property
    def policy(self) -> ViewPolicy:
        """Which operators a sequence may meet, and how strong they are."""
        c = self.config
        return ViewPolicy(
            crop=c.crop_rate,
            mask=c.mask_rate,
            reorder=c.reorder_rate,
            substitute=c.substitute_rate,
            insert=c.insert_rate,
            long=short_set(c.operators),
            short=short_set(c.short_operators),
            threshold=c.threshold,
        )

    @property
    def needs_neighbours(self) -> bool:
        """Whether an operator in use takes similar items."""
        return self.augments and bool(self.policy.in_use & {"substitute", "insert"})

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Find which items occur together in training inputs (a history less its last target)."""
        super().prepare(train, device)
        if self.needs_neighbours:
            inputs = train.without_last(1)
            if self.config.neighbours != "embedding":
                self.neighbours = co_occurrence(inputs, self.n_items).to(device)
            met = np.flatnonzero(item_counts(inputs, self.n_items))
            self.known_items = torch.from_numpy(met).to(device)
        self.augmenter = None

    def begin_epoch(self, epoch: int) -> None:
        """Look for similar items among the embeddings as they now are, where settings ask."""
        super().begin_epoch(epoch)
        kind = self.config.neighbours
        due = kind == "embedding" or (kind == "hybrid" and epoch >= self.config.hybrid_from)
        if self.needs_neighbours and due:
            vectors = self.item_vectors().detach()
            found = by_embedding(vectors, self.n_items, among=self.known_items)
            self.near_item.copy_(found.item)
            self.near_score.copy_(found.score)
            self.augmenter = None

    def drawer(self) -> Augmenter:
        """Return what draws views, with similar items as they are now known."""
        if self.augmenter is None:
            similar = self.neighbours
            if hasattr(self, "near_item") and bool(self.near_item.any()):
                near = SimilarItems(self.near_item, self.near_score, self.n_items)
                similar = near if similar is None else better_of(similar, near)
            token = self.n_items + 1 if self.config.mask_with == "token" else None
            self.augmenter = Augmenter(self.policy, similar, self.config.max_length, token)
        return self.augmenter
