"""What the contrastive family shares: views of a sequence, their agreement, a joint loss.

CL4SRec, CoSeRec, SRMA and LMA4Rec learn next items and, from the same histories, that two views
of one sequence are more alike than views of two: ``L = L_rec + lambda L_ssl``. Each system is
this mechanism on an encoder, with its own operators or its own noise; what a view is compared by
(`representation`, `agreement`, `temperature`) is a setting.

One packed batch holds all three streams (the histories and both views of each), so the encoder
runs once. The public CoSeRec code compares the states of all 50 slots, padding included, and a
padding slot there sees the whole row, items to come among them; here ``representation="slots"``
takes real slots alone, unless ``contrast_padding`` asks for that quirk. A masked item is one that
nobody sees, as in that code, unless ``mask_with="token"`` (CL4SRec's paper).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nextup.augment import Augmenter, Packed, SimilarItems, ViewPolicy, short_set
from nextup.augment.similarity import better_of, by_embedding, co_occurrence
from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.models.base import Kind, Losses, item_counts
from nextup.models.next_item import NextItemConfig, NextItemRecommender
from nextup.nn.contrast import SlotLayout, contrastive_losses, row_means, slot_products


class ContrastiveConfig(NextItemConfig):
    """Settings of contrast and of augmentation."""

    contrast_weight: float = Field(0.1, ge=0, description="weight of the contrastive loss (lambda)")
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


@dataclass(frozen=True)
class Streams:
    """A step's histories and views in one batch.

    Parameters
    ----------
    batch
        All rows, sorted by length: what the encoder reads.
    order
        ``int64[R]`` on the host: row ``j`` of the batch is row ``order[j]`` of the streams, which
        stand one after the other: the histories, first views, second views.
    n_rows
        Rows ``Q`` of one stream; there are ``3 Q`` rows, or ``Q`` without views.
    targets_at
        ``int64[M]``: which state each target follows.
    """

    batch: Batch
    order: NDArray[np.int64]
    n_rows: int
    targets_at: Tensor

    @property
    def has_views(self) -> bool:
        """Whether there is something to contrast."""
        return len(self.order) > self.n_rows

    @cached_property
    def row_of_token(self) -> NDArray[np.int64]:
        """``int64[N]`` on the host: the row of the streams that each token belongs to."""
        return np.repeat(self.order, self.batch.lengths)

    @cached_property
    def views(self) -> tuple[Tensor, SlotLayout]:
        """``int64[V]``, which tokens the views hold, and where these stand in ``2 Q`` rows."""
        return self.part(self.n_rows, 3 * self.n_rows)

    def part(self, first: int, end: int) -> tuple[Tensor, SlotLayout]:
        """Return the tokens of the streams' rows ``[first, end)``, and where these stand."""
        owners = self.row_of_token
        at = np.flatnonzero((owners >= first) & (owners < end))
        device, ago = self.batch.device, self.batch.ago
        assert ago is not None
        tokens = torch.from_numpy(at).to(device)
        row = torch.from_numpy(owners[at] - first).to(device)
        return tokens, SlotLayout(row, ago[tokens], end - first)

    @cached_property
    def view_rows(self) -> Tensor:
        """``int64[2 Q]``: where in the batch the rows of the views stand."""
        rank = np.empty(len(self.order), dtype=np.int64)
        rank[self.order] = np.arange(len(self.order))
        return torch.from_numpy(rank[self.n_rows :]).to(self.batch.device)

    @cached_property
    def partner(self) -> Tensor:
        """``int64[2 Q]``: which view is of the same history."""
        both = torch.arange(2 * self.n_rows, device=self.batch.device)
        return both.roll(self.n_rows)


class ContrastiveRecommender(NextItemRecommender):
    """Mixin before an encoder's class: its loss joined by the agreement of views."""

    kind: ClassVar[Kind] = "contrastive"
    config: ContrastiveConfig
    augmenter: Augmenter | None = None
    neighbours: SimilarItems | None = None
    known_items: Tensor
    near_item: Tensor
    near_score: Tensor

    def __init__(self, config: ContrastiveConfig, n_items: int) -> None:
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
        return self.config.augment and self.config.contrast_weight > 0

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

    # ---- similar items ------------------------------------------------------------------------
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

    def _augmenter(self) -> Augmenter:
        if self.augmenter is None:
            similar = self.neighbours
            if hasattr(self, "near_item") and bool(self.near_item.any()):
                near = SimilarItems(self.near_item, self.near_score, self.n_items)
                similar = near if similar is None else better_of(similar, near)
            token = self.n_items + 1 if self.config.mask_with == "token" else None
            self.augmenter = Augmenter(self.policy, similar, self.config.max_length, token)
        return self.augmenter

    # ---- the loss -----------------------------------------------------------------------------
    def streams(self, batch: Batch) -> Streams:
        """Draw two views of every row and put them beside the histories."""
        assert batch.target_at is not None
        histories = Packed.of(batch.tokens, batch.lengths)
        parts = [histories]
        if self.augments:
            parts += self._augmenter().pair(histories, distinct=self.config.distinct)
        elif self.config.contrast_weight > 0:
            parts += [histories, histories]
        if self.config.contrast_padding:
            parts[1:] = [_padded(view, self.config.max_length) for view in parts[1:]]
        rows = Packed.concatenate(parts)
        order = np.argsort(rows.lengths, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        joined = rows.rows(order)
        at = rank[: len(batch)]  # which row of the joined batch each history is
        if not self.last_only:
            ends = np.cumsum(joined.lengths)[at]
            last = np.repeat(ends - np.cumsum(batch.lengths), batch.lengths)
            at = (np.arange(len(batch.tokens)) + last)[batch.target_at.cpu().numpy()]
        read = Batch(
            joined.tokens,
            joined.lengths,
            order,
            batch.users,
            ago=joined.ago,
            keeps_padding=self.config.contrast_padding,
        )
        return Streams(read, order, len(batch), torch.from_numpy(at).to(batch.device))

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
        """``[2 Q, 2 Q]``: how alike views are.

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
        return vectors @ others.T / self.config.temperature

    def contrast_of_streams(self, states: Tensor, streams: Streams, batch: Batch) -> Tensor:
        """Return the contrastive loss of the step, given the states of its streams."""
        return self.contrast_of(self.alike(states, streams), streams, batch)

    def contrast_of(self, alike: Tensor, streams: Streams, batch: Batch) -> Tensor:
        """Mean contrastive loss over the views of the whole step."""
        return contrastive_losses(alike, streams.partner).sum() / (2 * batch.row_total)


def _padded(rows: Packed, width: int) -> Packed:
    """Return rows of `width` slots each, 0 where there is no item or it is masked."""
    row = torch.from_numpy(np.repeat(np.arange(len(rows)), rows.lengths)).to(rows.device)
    tokens = rows.tokens.new_zeros(len(rows), width)
    tokens[row, width - 1 - rows.ago] = rows.tokens
    return Packed.of(tokens.view(-1), np.full(len(rows), width))


def _vectors(states: Tensor, layout: SlotLayout, kind: str) -> Tensor:
    if kind == "mean":
        return row_means(states, layout.row, layout.n_rows)
    return states[layout.ends]
