"""S3-Rec: SASRec whose weights first learn to fill in items, attributes and segments.

Zhou, Wang, Zhao, Zhu, Wang, Zhang, Wang & Wen, *S3-Rec: Self-Supervised Learning for Sequential
Recommendation with Mutual Information Maximization*, CIKM 2020. One `fit` has two stages. In
"pre-train" the encoder reads every prefix of the training histories in both directions, with gaps:

* masked item prediction (``mip_weight``): which item stood in a gap rather than one that the
  prefix has not;
* masked attribute prediction (``map_weight``): which attributes it has;
* associated attribute prediction (``aap_weight``): those of the items that are not hidden;
* segment prediction (``sp_weight``): which stretch of items stood in a longer gap rather than one
  drawn from all histories.

"fine-tune" is SASRec from these weights, and SASRec, to the bit, where there is no pre-training.
What pre-training alone needs is left behind with it, so a saved recommender is a SASRec's.

As in the authors' code, two agreements ``a, b`` are compared by ``-log s(s(a) - s(b))`` with two
sigmoids, which lies between 0.31 and 1.31, and an item without attributes counts as having none.

Departures from that code:

* Stretches to compare with are drawn from training histories, laid end to end (one may be of the
  user's own, or of two); the code's hold validation and test items.
* Fine-tuning may draw a user's later items as negatives, the code's never does: `exclude_future`.
* A prefix of one item has no part in segment prediction, where the code compares it with itself.
* Sums over a batch are divided by its rows; the weights are as published. Adam feels that in an
  epoch's last step alone, where it has fewer rows; other optimisers and a `clip_norm` do.
* Every prefix of a history is read, its last `max_length` items; the code's are those of the last
  `max_length` items only. Padding is not computed on, and is no attribute.

A user is nothing but a history: one never met in training is answered like any other.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nextup.augment.packed import Packed
from nextup.augment.segments import items_not_in_row
from nextup.data.attributes import mark_of, wanted_attributes
from nextup.data.batches import Batch
from nextup.data.catalog import Catalog
from nextup.data.negatives import NegativeSampler, UniformNegatives
from nextup.data.sequences import Sequences
from nextup.data.stream import Samples
from nextup.models.base import Losses, ModelConfig, Stage
from nextup.models.gaps import GapReader, View, segment_views
from nextup.models.next_item import NextItemConfig
from nextup.models.registry import register
from nextup.models.sasrec import SASRecConfig
from nextup.nn.agreement import Heads, told_apart


class S3RecConfig(SASRecConfig):
    """Settings of S3-Rec."""

    pretrain_epochs: int = Field(100, ge=0, description="epochs of pre-training; 0: plain SASRec")
    pretrain_batch_size: int = Field(100, ge=1, description="prefixes of a step of pre-training")
    mask_share: float = Field(
        0.2, ge=0, le=1, description="how often an item is hidden; a prefix's last one always is"
    )
    mip_weight: float = Field(1.0, ge=0, description="weight of masked item prediction; 0: none")
    sp_weight: float = Field(0.5, ge=0, description="weight of segment prediction")
    map_weight: float = Field(
        0.0, ge=0, description="weight of masked attribute prediction; needs items' attributes"
    )
    aap_weight: float = Field(
        0.0, ge=0, description="weight of associated attribute prediction; needs attributes"
    )
    attributes: str = Field(
        "attributes", description="column of the catalogue that holds the items' attributes"
    )

    @model_validator(mode="after")
    def _can_pretrain(self) -> S3RecConfig:
        if self.block != "s3":
            raise ValueError("pre-training reads in both directions, which only block `s3` can")
        if self.pretrain_epochs and not any(self.weights.values()):
            raise ValueError("all weights of pre-training are 0; set pretrain_epochs to 0 instead")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each objective."""
        return {name: getattr(self, f"{name}_weight") for name in ("mip", "map", "aap", "sp")}


@register
class S3Rec(GapReader):
    """SASRec, pre-trained on items, attributes and segments."""

    name = "s3rec"
    paper = "Zhou et al., S3-Rec: Self-Supervised Learning for Sequential Rec., CIKM 2020"
    needs = "attributes (two objectives)"
    Config: ClassVar[type[ModelConfig]] = S3RecConfig
    config: S3RecConfig

    def __init__(self, config: S3RecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.heads: Any = None
        self._has: Tensor | None = None
        self._corpus = torch.zeros(0, dtype=torch.int64)

    def meet(self, catalog: Catalog) -> None:
        """Read which items have which attributes, where an objective needs them."""
        if self.config.pretrain_epochs and (self.config.map_weight or self.config.aap_weight):
            wanted_by, instead = "s3rec: map_weight and aap_weight", "set both weights to 0"
            self._has = wanted_attributes(catalog, self.config.attributes, wanted_by, instead)

    @property
    def catalogue_mark(self) -> str:
        """Which items have which attributes."""
        return "" if self._has is None else mark_of(self._has)

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Keep the training histories, end to end, to take segments of others from."""
        super().prepare(train, device)
        if self.config.pretrain_epochs:
            items = train.items[train.positions()].astype("int64")
            self._corpus = torch.from_numpy(items).to(device)
            if self.config.mip_weight and min(train.lengths.max(), self.max_length) >= self.n_items:
                UniformNegatives(self.n_items, 1, train)  # says if there is nothing to draw

    def stages(self) -> list[Stage]:
        """Pre-training, which does not ask how fine-tuning will learn, then fine-tuning."""
        config, has = self.config, self.catalogue_mark
        fine = Stage("fine-tune", key=f"{self.identity} {has}")
        if not config.pretrain_epochs:
            return [fine]
        settings = {"epochs": config.pretrain_epochs, "batch_size": config.pretrain_batch_size}
        learnt_later = NextItemConfig.model_fields.keys() - ModelConfig.model_fields.keys()
        key = f"{self.name} {config.model_dump_json(exclude=set(learnt_later))} {has}"
        return [Stage("pre-train", settings, key=key, validates=False), fine]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Make what pre-training needs, or leave it behind."""
        self.heads = None
        if name == "pre-train":
            made = Heads(self.config.weights, self.config.width, self.config.initial_std, self._has)
            self.heads = made.to(self.items.weight.device)

    @property
    def targets(self) -> Samples:
        """Every prefix as it is in pre-training, then the targets the settings ask for."""
        return super().targets if self.heads is None else "whole_prefix"

    def negative_sampler(
        self, train: Sequences, device: torch.device, whole: Sequences | None = None
    ) -> NegativeSampler | None:
        """Return the sampler of fine-tuning; pre-training draws its own."""
        return None if self.heads else super().negative_sampler(train, device, whole)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over targets; in pre-training the weighted objectives' mean over rows."""
        if self.heads is None:
            return super().loss(batch)
        weights = self.config.weights
        sums = self.objectives(Packed.of(batch.tokens, batch.lengths))
        parts = {name: each / batch.row_total for name, each in sums.items() if weights[name]}
        total = torch.stack([weights[name] * each for name, each in parts.items()]).sum()
        return Losses(total, {name: each.detach() for name, each in parts.items()})

    def objectives(self, rows: Packed) -> dict[str, Tensor]:
        """Sum of each objective in use over rows; everything is read in one go."""
        heads, tokens = self.heads, rows.tokens
        views: list[View] = []
        last = torch.zeros_like(tokens, dtype=torch.bool)
        last[torch.from_numpy(rows.firsts + rows.lengths - 1).to(rows.device)] = True
        hidden = last | (torch.rand(len(tokens), device=rows.device) < self.config.mask_share)
        gaps = torch.nonzero(hidden).squeeze(1)
        if heads.mip or heads.map or heads.aap:
            # Of the last block's states only those that an objective reads are computed.
            views.append(View(rows, hidden, torch.ones_like(hidden) if heads.aap else hidden))
        others = items_not_in_row(rows, gaps, self.n_items) if heads.mip else gaps[:0]
        long = rows.between(int((rows.lengths < 2).sum()), len(rows))
        if heads.sp and len(long):
            views += segment_views(long, self._corpus, last[-len(long.tokens) :])
        asked_for = torch.cat([tokens[gaps], others]) if heads.mip else others
        states, vectors = self.read(views, heads.gap, asked_for)
        sums: dict[str, Tensor] = {}
        if heads.aap:
            there = heads.aap(states[0][~hidden])
            sums["aap"] = heads.labels_loss(there, tokens[~hidden])
            states[0] = states[0][gaps]
        if heads.map:
            sums["map"] = heads.labels_loss(heads.map(states[0]), tokens[gaps])
        if heads.mip:
            right, wrong = (heads.mip(states[0]) * vectors.view(2, len(gaps), -1)).sum(dim=2)
            sums["mip"] = told_apart(right, wrong)
        if heads.sp and len(long):
            context, own, stranger = heads.sp(states[-3]), states[-2], states[-1]
            sums["sp"] = told_apart((context * own).sum(dim=1), (context * stranger).sum(dim=1))
        elif heads.sp:
            sums["sp"] = 0.0 * heads.sp.weight.sum()
        return sums
