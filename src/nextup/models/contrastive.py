"""What the contrastive family shares: views of a sequence, their agreement, a joint loss.

CL4SRec, CoSeRec, SRMA and LMA4Rec learn next items and, from the same histories, that two views
of one sequence are more alike than views of two: ``L = L_rec + lambda L_ssl``. Each system is
this mechanism on an encoder, with its own operators or its own noise; what a view is compared by
(`representation`, `agreement`, `temperature`) is a setting.

One packed batch holds all three streams (the histories and both views of each), so the encoder
runs once. The public CoSeRec code compares the states of all 50 slots, padding included, and a
padding slot there sees the whole row, items to come among them; here ``representation="slots"``
takes real slots alone, unless ``contrast_padding`` asks for that quirk. A masked item is one that
nobody sees, as in that code, unless ``mask_with="token"`` (CL4SRec's paper). Of several processes
each contrasts the views of its own rows.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nextup.augment import Packed
from nextup.data.batches import Batch
from nextup.models.augmented import AugmentedConfig, AugmentedRecommender
from nextup.models.base import Kind, Losses
from nextup.models.streams import Streams, padded
from nextup.nn.contrast import (
    SlotLayout,
    all_products,
    contrastive_losses,
    row_means,
    slot_products,
)


class ContrastiveConfig(AugmentedConfig):
    """Settings of contrast, beside those of augmentation."""

    contrast_weight: float = Field(0.1, ge=0, description="weight of the contrastive loss (lambda)")
    contrast_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a step's rows that views are drawn of, chosen anew; the loss is the "
        "mean over them. Where every prefix is a row of its own, most say the same again",
    )
    representation: Literal["slots", "mean", "last"] = Field(
        "slots",
        description="what of a view is compared: the states of all real slots laid end to end "
        "(counted from the last), their mean, or the last",
    )
    contrast_padding: bool = Field(
        False,
        description="keep views padded to max_length and contrast these slots too, as the public "
        "CoSeRec code does; several times slower",
    )
    agreement: Literal["dot", "cosine"] = Field("dot", description="how two views are compared")
    temperature: float = Field(1.0, gt=0, description="what the agreement is divided by")

    @model_validator(mode="after")
    def _has_padding_to_contrast(self) -> ContrastiveConfig:
        if self.contrast_padding and self.representation == "last":
            raise ValueError("contrast_padding: a view's last state is none of padding")
        return self


class ContrastiveRecommender(AugmentedRecommender):
    """Mixin before an encoder's class: its loss joined by the agreement of views."""

    kind: ClassVar[Kind] = "contrastive"
    config: ContrastiveConfig

    @property
    def augments(self) -> bool:
        """Whether views are augmented."""
        return self.config.augment and self.config.contrast_weight > 0

    # ---- the loss -----------------------------------------------------------------------------
    def streams(self, batch: Batch) -> Streams:
        """Draw two views of every row and put them beside the histories."""
        histories = self._contrasted(batch)
        views: list[Packed] = []
        if self.augments:
            views = list(self.drawer().pair(histories, distinct=self.config.distinct))
        elif self.config.contrast_weight > 0:
            views = [histories, histories]
        if self.config.contrast_padding:
            views = [padded(view, self.config.max_length) for view in views]
        return Streams.join(
            batch,
            views,
            last_only=self.last_only,
            keeps_padding=self.config.contrast_padding and len(views) > 0,
        )

    def _contrasted(self, batch: Batch) -> Packed:
        """Return the histories that views are drawn of."""
        histories = Packed.of(batch.tokens, batch.lengths)
        if self.config.contrast_share == 1:
            return histories
        count = max(round(self.config.contrast_share * len(batch)), 1)
        return histories.rows(torch.randperm(len(batch))[:count].sort().values.numpy())

    @property
    def last_only(self) -> bool:
        """Whether only the last state of each row is needed."""
        contrasts_last = self.config.representation == "last" or self.config.contrast_weight == 0
        return self.targets != "every" and contrasts_last

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the step's targets, plus the weighted mean over its views."""
        streams = self.streams(batch)
        states = self.encode(streams.batch, last_only=self.last_only)
        total, _ = self.losses_of(states[streams.targets_at], batch)
        parts: dict[str, Tensor] = {self.config.loss: total.detach()}
        if streams.has_views:
            contrast = self.contrast_of_streams(states, streams, batch)
            parts["contrast"] = contrast.detach()
            total = total + self.config.contrast_weight * contrast
        return Losses(total, parts)

    def alike(self, states: Tensor, streams: Streams, other: Tensor | None = None) -> Tensor:
        """``[2 V, 2 V]``: how alike views are.

        Parameters
        ----------
        states
            Of all tokens of the streams' batch, or of each row's last.
        other
            States of the same batch under other noise: then entry ``(m, n)`` compares view m of
            `states` with view n of `other` (without gradient).
        """
        if self.last_only:
            at = streams.view_rows
            return self._compare(states[at], None if other is None else other[at])
        at, layout = streams.views
        return self.agreement(states[at], layout, None if other is None else other[at])

    def agreement(self, states: Tensor, layout: SlotLayout, other: Tensor | None = None) -> Tensor:
        """``[R, R]``: how alike the rows of a layout are, by the representation of the settings."""
        kind = self.config.representation
        if kind != "slots":
            both = [x if x is None else _vectors(x, layout, kind) for x in (states, other)]
            assert both[0] is not None
            return self._compare(both[0], both[1])
        found = slot_products(states, layout, other)
        if self.config.agreement == "cosine":
            squares = found if other is None else slot_products(states, layout, states)
            ours = theirs = squares.diagonal().clamp(min=1e-12).sqrt()
            if other is not None:
                theirs = slot_products(other, layout, other).diagonal().clamp(min=1e-12).sqrt()
            found = found / (ours[:, None] * theirs)
        return found / self.config.temperature

    def _compare(self, vectors: Tensor, others: Tensor | None) -> Tensor:
        others = vectors if others is None else others
        if self.config.agreement == "cosine":
            vectors, others = (torch.nn.functional.normalize(x, dim=1) for x in (vectors, others))
        return all_products(vectors, others) / self.config.temperature

    def contrast_of_streams(self, states: Tensor, streams: Streams, batch: Batch) -> Tensor:
        """Return the contrastive loss of the step, given the states of its streams."""
        return self.contrast_of(self.alike(states, streams), streams, batch)

    def contrast_of(self, alike: Tensor, streams: Streams, batch: Batch) -> Tensor:
        """Mean contrastive loss over the views of the whole step."""
        views = 2 * batch.row_total * streams.n_pairs / streams.n_rows  # over all processes
        return contrastive_losses(alike, streams.partner).sum() / views


def _vectors(states: Tensor, layout: SlotLayout, kind: str) -> Tensor:
    if kind == "mean":
        return row_means(states, layout.row, layout.n_rows)
    return states[layout.ends]
