"""S3-Rec: SASRec whose weights first learn to fill in items, attributes and segments.

Zhou, Wang, Zhao, Zhu, Wang, Zhang, Wang & Wen, *S3-Rec: Self-Supervised Learning for Sequential
Recommendation with Mutual Information Maximization*, CIKM 2020. One `fit` has two stages. In
"pre-train" the encoder reads every prefix of the training histories in both directions, with gaps:

* masked item prediction (``mip_weight``): which item stood in a gap rather than one that the
  prefix has not;
* masked attribute prediction (``map_weight``): which attributes it has;
* associated attribute prediction (``aap_weight``): those of the items that are not hidden;
* segment prediction (``sp_weight``): which stretch of items stood in a longer gap rather than one
  of somebody else.

"fine-tune" is SASRec from these weights, and SASRec, to the bit, where there is no pre-training.
What pre-training alone needs is left behind with it, so a saved recommender is a SASRec's.

As in the authors' code, two agreements ``a, b`` are compared by ``-log s(s(a) - s(b))`` with two
sigmoids, which lies between 0.31 and 1.31, and an item without attributes counts as having none.

Departures from that code:

* Segments of others are taken from training histories; the code's hold validation and test items.
* A prefix of one item has no part in segment prediction, where the code compares it with itself.
* Sums over a batch are divided by its rows, which Adam does not feel; the weights are as published.
* Padding is not computed on, and is no attribute.

A user is nothing but a history: one never met in training is answered like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import softplus

from nextup.augment.packed import Packed
from nextup.augment.segments import items_not_in_row, random_segments
from nextup.data.attributes import attribute_matrix
from nextup.data.batches import Batch
from nextup.data.catalog import Catalog
from nextup.data.negatives import NegativeSampler, UniformNegatives
from nextup.data.sequences import Sequences
from nextup.data.stream import Samples
from nextup.errors import ConfigError
from nextup.models.base import Losses, ModelConfig, Stage, register
from nextup.models.sasrec import SASRec, SASRecConfig
from nextup.nn.packing import Packing, Slots
from nextup.nn.transformer import PostNormBlock, begin_blocks


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
        if self.pretrain_epochs and not (self.mip_weight or self.sp_weight or self.knows_items):
            raise ValueError("all weights of pre-training are 0; set pretrain_epochs to 0 instead")
        return self

    @property
    def knows_items(self) -> bool:
        """Whether an objective looks at attributes."""
        return self.map_weight > 0 or self.aap_weight > 0


OBJECTIVES = ("mip", "map", "aap", "sp")


@dataclass(frozen=True)
class View:
    """Rows to read: ``bool[N]`` which tokens are hidden, and whose states are wanted."""

    rows: Packed
    hidden: Tensor
    asked: Tensor


class _Heads(nn.Module):
    """What pre-training needs besides the encoder; a layer for each objective that has a weight."""

    def __init__(self, config: S3RecConfig, n_attributes: int) -> None:
        super().__init__()
        width, std = config.width, config.initial_std
        self.gap = nn.Parameter(torch.randn(width) * std)
        for name in OBJECTIVES:
            layer = nn.Linear(width, width) if getattr(config, f"{name}_weight") else None
            if layer is not None:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
            setattr(self, name, layer)
        self.attributes = (
            nn.Parameter(torch.randn(n_attributes, width) * std) if config.knows_items else None
        )


@register
class S3Rec(SASRec):
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

    # ---- what is looked at once ---------------------------------------------------------------
    def meet(self, catalog: Catalog) -> None:
        """Read which items have which attributes, where an objective needs them."""
        config = self.config
        if not (config.knows_items and config.pretrain_epochs):
            return
        column = (catalog.attributes or {}).get(config.attributes)
        if column is None:
            known = ", ".join(f"`{name}`" for name in catalog.attributes or {}) or "none"
            raise ConfigError(
                f"s3rec: map_weight and aap_weight need a column `{config.attributes}` of items' "
                f"attributes, and the catalogue has {known}; give them with `nextup prepare "
                "--attributes FILE`, name the column (attributes), or set both weights to 0"
            )
        self._has = attribute_matrix(column)
        if self._has.shape[1] == 0:
            raise ConfigError(f"s3rec: no item has a value in the column `{config.attributes}`")

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Keep the training histories, end to end, to take segments of others from."""
        super().prepare(train, device)
        if self.config.pretrain_epochs:
            items = torch.from_numpy(train.items[train.positions()].astype("int64"))
            self._corpus = items.to(device)
            if int(train.lengths.max()) >= self.n_items:  # then nothing may be left to draw
                UniformNegatives(self.n_items, 1, train)

    # ---- stages -------------------------------------------------------------------------------
    def stages(self) -> list[Stage]:
        """Pre-training, then fine-tuning."""
        config, fine = self.config, Stage("fine-tune")
        if not config.pretrain_epochs:
            return [fine]
        epochs = config.pretrain_epochs
        settings = {"epochs": epochs, "validate_every": epochs, "patience": 0}
        return [Stage("pre-train", {**settings, "batch_size": config.pretrain_batch_size}), fine]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Make what pre-training needs, or leave it behind."""
        self.heads = None
        if name == "pre-train":
            kinds = 0 if self._has is None else self._has.shape[1]
            self.heads = _Heads(self.config, kinds).to(self.items.weight.device)
            if self._has is not None:
                self._has = self._has.to(self.items.weight.device)

    @property
    def targets(self) -> Samples:
        """Every prefix as it is in pre-training, then the targets the settings ask for."""
        return super().targets if self.heads is None else "whole_prefix"

    def negative_sampler(
        self, train: Sequences, device: torch.device, whole: Sequences | None = None
    ) -> NegativeSampler | None:
        """Return the sampler of fine-tuning; pre-training draws its own."""
        return None if self.heads else super().negative_sampler(train, device, whole)

    # ---- pre-training -------------------------------------------------------------------------
    def loss(self, batch: Batch) -> Losses:
        """Mean loss over targets; in pre-training the weighted objectives' mean over rows."""
        if self.heads is None:
            return super().loss(batch)
        weights = {name: getattr(self.config, f"{name}_weight") for name in OBJECTIVES}
        sums = self.objectives(Packed.of(batch.tokens, batch.lengths))
        parts = {name: each / batch.row_total for name, each in sums.items() if weights[name]}
        total = torch.stack([weights[name] * each for name, each in parts.items()]).sum()
        return Losses(total, {name: each.detach() for name, each in parts.items()})

    def objectives(self, rows: Packed) -> dict[str, Tensor]:
        """Sum of each objective in use over rows; everything is read in one go."""
        heads, config, tokens = self.heads, self.config, rows.tokens
        views: list[View] = []
        last = torch.zeros_like(tokens, dtype=torch.bool)
        last[torch.from_numpy(rows.firsts + rows.lengths - 1).to(rows.device)] = True
        hidden = last | (torch.rand(len(tokens), device=rows.device) < config.mask_share)
        gaps = torch.nonzero(hidden).squeeze(1)
        if heads.mip or heads.map or heads.aap:
            # Of the last block's states only those that an objective reads are computed.
            views.append(View(rows, hidden, torch.ones_like(hidden) if heads.aap else hidden))
        others = items_not_in_row(rows, gaps, self.n_items) if heads.mip else gaps[:0]
        short = int((rows.lengths < 2).sum())
        long = rows.between(short, len(rows))
        if heads.sp and len(long):
            drawn, end = random_segments(long, self._corpus), last[short:]
            other = replace(long, tokens=drawn.strangers)
            views.append(View(long, drawn.inside, end))
            views += [View(each, ~drawn.inside, end) for each in (long, other)]
        asked_for = torch.cat([tokens[gaps], others]) if heads.mip else others
        states, vectors = self.read(views, asked_for)
        sums: dict[str, Tensor] = {}
        if heads.aap:
            sums["aap"] = self._attribute_loss(heads.aap, states[0][~hidden], tokens[~hidden])
            states[0] = states[0][gaps]
        if heads.map:
            sums["map"] = self._attribute_loss(heads.map, states[0], tokens[gaps])
        if heads.mip:
            right, wrong = (heads.mip(states[0]) * vectors.view(2, len(gaps), -1)).sum(dim=2)
            sums["mip"] = told_apart(right, wrong)
        if heads.sp and len(long):
            context, own, stranger = heads.sp(states[-3]), states[-2], states[-1]
            sums["sp"] = told_apart((context * own).sum(dim=1), (context * stranger).sum(dim=1))
        elif heads.sp:
            sums["sp"] = 0.0 * heads.sp.weight.sum()
        return sums

    def read(self, views: list[View], items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the states that each view asks for, and the vectors of `items`, unread."""
        if not views:
            return [], self.items(items)
        rows = Packed.concatenate([view.rows for view in views])
        hidden = torch.cat([view.hidden for view in views])
        asked = torch.cat([view.asked for view in views])
        counts = np.add.reduceat(asked.cpu().numpy().astype(np.int64), rows.firsts)
        packing = Packing(rows.lengths, rows.device)
        slots = Slots(packing, torch.nonzero(asked).squeeze(1), counts)
        # One look-up for all, since each has a gradient as large as the whole table.
        found = self.items(torch.cat([rows.tokens, items]))
        x, vectors = found[: len(hidden)], found[len(hidden) :]
        x = torch.where(hidden[:, None], self.heads.gap, x)
        if self.positions is not None:
            x = self._placed(x, self.positions, packing, None)
        x = self.embedding_drop(self.input_norm(x))
        with self._both_ways():
            states = self.finish(begin_blocks(self.blocks, x, packing, slots))
        split = np.cumsum([0, *(len(view.rows) for view in views)])
        sizes = [int(counts[i:j].sum()) for i, j in pairwise(split)]
        return list(torch.split(states, sizes)), vectors

    def _attribute_loss(self, layer: nn.Linear, states: Tensor, items: Tensor) -> Tensor:
        """Sum over items and attributes of the binary cross-entropy."""
        assert self._has is not None
        asked, table = layer(states), self.heads.attributes
        own = torch.sparse.mm(self._has, table)[items]
        total: Tensor = softplus(asked @ table.T).sum() - (asked * own).sum()
        return total

    @contextmanager
    def _both_ways(self) -> Iterator[None]:
        blocks = [block for block in self.blocks if isinstance(block, PostNormBlock)]
        try:
            for block in blocks:
                block.causal = False
            yield
        finally:
            for block in blocks:
                block.causal = True


def told_apart(right: Tensor, wrong: Tensor) -> Tensor:
    """Sum of ``-log s(s(right) - s(wrong))``, as the authors' code compares two agreements."""
    return softplus(wrong.sigmoid() - right.sigmoid()).sum()
