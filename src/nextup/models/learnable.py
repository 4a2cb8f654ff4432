"""Learnable model augmentation, for any encoder: which units a view loses is learnt.

The mixin behind LMA4Rec. An encoder's output dropout becomes `LearnableDropout`, one mask for
each row (history or view), so that the two views of a history differ by what the model drops as
well as by what the data lost. The logits' gradient compares the loss under the antithetic masks:

* Both passes meet the same views, negatives and ordinary dropout masks; only the learnable masks
  differ. Either the second pass goes on from right before the first learnable mask, drawing the
  same noise again, without gradient (`replayed`), or both are the halves of one doubled batch whose
  ordinary masks are twins (`doubled`). The two give the same numbers; the first costs less where
  only the first pass teaches the weights.
* Credit. The recommendation loss is a sum over histories, so each row's mask is credited with its
  own row's difference. The contrastive loss couples rows through its denominators: there a row is
  credited with what exchanging that row alone does to the whole loss (``swap``, unbiased), or with
  the whole difference (``global``, unbiased and noisy). Crediting a view with its own term alone
  would be biased and is not offered.

The estimate enters the loss as a term of value zero whose gradient it is, so training needs to
know nothing of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Losses, ParameterGroup
from nextup.models.contrastive import ContrastiveConfig, ContrastiveRecommender
from nextup.models.credit import Credit
from nextup.models.streams import Streams
from nextup.nn.contrast import swap_differences
from nextup.nn.learnable_dropout import (
    Estimator,
    LearnableDropout,
    answer_sample,
    antithetic,
    learnable_dropouts,
    negative_entropy,
    random_state,
    replay,
)
from nextup.nn.noise import twin_noise


class LearnableConfig(ContrastiveConfig):
    """Settings of learnable dropout."""

    estimator: Estimator = Field("arm", description="of the gradient of the keep logits")
    keep_share: Literal["sequence", "token"] = Field(
        "sequence", description="one mask for all tokens of a row, or one for each"
    )
    keep_scale: Literal["none", "inverse"] = Field(
        "none", description="masks as they are, or divided by the keep probability"
    )
    initial_keep: float | None = Field(
        None, gt=0, lt=1, description="keep probability at the start; by default 1 - dropout"
    )
    initial_spread: float = Field(
        0.0, ge=0, description="standard deviation of the keep logits at the start"
    )
    keep_rate: float = Field(
        1.0, gt=0, description="step size of the keep logits, in step sizes of the weights"
    )
    keep_loss: Literal["total", "recommendation", "contrast"] = Field(
        "total", description="which loss the keep logits learn from"
    )
    credit: Literal["swap", "global"] = Field(
        "swap", description="how a view's mask is credited with the contrastive loss"
    )
    weights_from: Literal["first", "both"] = Field(
        "first", description="weights learn from the first pass, or from the mean of both"
    )
    passes: Literal["auto", "replayed", "doubled"] = Field(
        "auto", description="the second pass repeats the first's noise, or both are one batch"
    )
    entropy_weight: float = Field(
        0.0, ge=0, description="pull of keep probabilities to one half (none in the paper)"
    )
    answering: Literal["expected", "sampled"] = Field(
        "expected", description="answer with expected masks, or the mean over sampled ones"
    )
    answer_samples: int = Field(10, ge=1, description="sampled: how many masks")

    @model_validator(mode="after")
    def _can_learn_from_one_loss(self) -> LearnableConfig:
        compares = self.estimator not in ("concrete", "straight_through")
        if self.keep_loss != "total" and not (compares and self.keep_scale == "none"):
            raise ValueError(
                "keep_loss is for estimators that compare two passes (arm, disarm), with masks as "
                "they are (keep_scale none); gradients through the masks are of the total loss"
            )
        return self


class LearnableAugmentation(ContrastiveRecommender):
    """Mixin before an encoder's class: its output dropout is learnt."""

    config: LearnableConfig

    def __init__(self, config: LearnableConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.drops = learnable_dropouts(self)
        for number, drop in enumerate(self.drops):
            drop.number = number

    def output_dropout(self, width: int, rate: float) -> nn.Module:
        """Return the learnable layer, which starts at the encoder's own rate."""
        c = self.config
        # A rate of 0 would be a logit of infinity, which nothing could move.
        keep = min(1 - rate, 0.99) if c.initial_keep is None else c.initial_keep
        return LearnableDropout(
            width, keep, c.initial_spread, c.keep_share, c.keep_scale, c.estimator
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The weights, and the keep logits with a step size of their own and no decay."""
        logits = [drop.logits for drop in self.drops if isinstance(drop.logits, nn.Parameter)]
        ours = {id(p) for p in logits}
        weights = [p for p in self.parameters() if p.requires_grad and id(p) not in ours]
        groups = [ParameterGroup(weights)]
        if logits:
            groups.append(ParameterGroup(logits, rate=self.config.keep_rate, decays=False))
        return groups

    # ---- the loss -----------------------------------------------------------------------------
    def loss(self, batch: Batch) -> Losses:
        """Return the joint loss under the first masks, with the logits' estimated gradient."""
        for drop in self.drops:
            drop.clamp()
        share = len(batch) / batch.row_total  # of several processes each adds its own
        if not (self.training and self.drops and self.drops[0].needs_twin):
            return self._regularised(super().loss(batch), share)
        streams = self.streams(batch)
        first, second = self._two_passes(streams)
        both = self.config.weights_from == "both"
        total, each, parts, alike = self._joint(first, streams, batch)
        with torch.set_grad_enabled(both):
            needed = both or self.config.credit == "global"
            other_total, other_each, _, other_alike = self._joint(second, streams, batch, needed)
        if both:
            total = (total + other_total) / 2
        with torch.no_grad():
            credit = self._credit(
                batch, streams, each - other_each, first, second, alike, other_alike
            )
            gradients = [
                drop.estimate(credit.of(drop, last=drop is self.drops[-1])) for drop in self.drops
            ]
        for drop, gradient in zip(self.drops, gradients, strict=True):
            surrogate = (drop.logits * gradient).sum()
            total = total + (surrogate - surrogate.detach())
        return self._regularised(Losses(total, parts), share)

    def _regularised(self, losses: Losses, share: float) -> Losses:
        if self.config.entropy_weight > 0:
            entropy = torch.stack([negative_entropy(drop.keep) for drop in self.drops]).sum()
            losses.total = losses.total + share * self.config.entropy_weight * entropy
        return losses

    def _two_passes(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens under the first masks and under the second."""
        c, batch = self.config, streams.batch
        doubled = c.passes == "doubled" or (
            c.passes == "auto" and (c.weights_from == "both" or batch.device.type != "cpu")
        )
        if doubled:
            with twin_noise():
                states = self.encode(_twice(batch), last_only=self.last_only)
            first, second = states.chunk(2)
            return first, second if c.weights_from == "both" else second.detach()
        begun = self.begin(batch, last_only=self.last_only)
        start = random_state(batch.device)
        first = self.finish(begun)
        replay(start, batch.device)
        with antithetic(self.drops), torch.set_grad_enabled(c.weights_from == "both"):
            second = self.finish(begun)
        return first, second

    def _joint(
        self, states: Tensor, streams: Streams, batch: Batch, contrasts: bool = True
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor | None]:
        """Return the joint loss, the loss of each target, the parts, and how alike views are."""
        total, each = self.losses_of(states[streams.targets_at], batch)
        parts: dict[str, Tensor] = {self.config.loss: total.detach()}
        if not (streams.has_views and contrasts):
            return total, each, parts, None
        alike = self.alike(states, streams)
        contrast = self.contrast_of(alike, streams, batch)
        parts["contrast"] = contrast.detach()
        return total + self.config.contrast_weight * contrast, each, parts, alike

    # ---- credit -------------------------------------------------------------------------------
    def _credit(
        self,
        batch: Batch,
        streams: Streams,
        differences: Tensor,
        first: Tensor,
        second: Tensor,
        alike: Tensor | None,
        other_alike: Tensor | None,
    ) -> Credit:
        """Return by how much the first masks made the loss larger than the second."""
        c, of_views = self.config, None
        each = differences / batch.target_total if c.keep_loss != "contrast" else 0 * differences
        if alike is not None and c.keep_loss != "recommendation":
            if c.credit == "swap":
                swapped = self.alike(second, streams, other=first)
                share = streams.n_rows / batch.row_total  # what the mean weighs of that of all
                of_views = swap_differences(alike, swapped, streams.partner) * share
            else:
                assert other_alike is not None
                both = [self.contrast_of(a, streams, batch) for a in (alike, other_alike)]
                of_views = (both[0] - both[1]).expand(2 * streams.n_pairs)
            of_views = c.contrast_weight * of_views
        return Credit(streams, batch, each, of_views, self.targets == "every")

    # ---- answering ----------------------------------------------------------------------------
    def query(self, batch: Batch) -> Tensor:
        """``[B, D]``: under expected masks, or the mean over sampled ones."""
        if self.config.answering == "expected":
            return super().query(batch)
        found = []
        for sample in range(self.config.answer_samples):
            with answer_sample(sample):
                found.append(super().query(batch))
        return torch.stack(found).mean(dim=0)

    # ---- what the logits do -------------------------------------------------------------------
    def diagnostics(self) -> dict[str, float]:
        """Return what `LearnableDropout.report` says of each layer, as ``keep.1.mean``."""
        return {
            f"keep.{number}.{name}": value
            for number, drop in enumerate(self.drops, start=1)
            for name, value in drop.report().items()
        }


def _twice(batch: Batch) -> Batch:
    """Return the rows twice over, one copy after the other."""
    return replace(
        batch,
        tokens=batch.tokens.repeat(2),
        lengths=np.tile(batch.lengths, 2),
        rows=np.concatenate([batch.rows, batch.rows + len(batch.rows)]),
        users=batch.users.repeat(2),
        ago=None if batch.ago is None else batch.ago.repeat(2),
        copies=2,
    )
