"""What all neural next-item models share: targets, losses and negatives are settings, not code.

A model of this family says how histories become states (`encode`) and which table the items
stand in; which positions it learns from and which loss compares state and item is chosen by
configuration, for every model alike. (Klenitskiy & Vasilev, RecSys 2023, and Petrov &
Macdonald, RecSys 2022-23, show that these choices matter more than the architecture.)
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.data.negatives import NegativeSampler, PopularityNegatives, UniformNegatives
from nextup.data.sequences import Sequences
from nextup.data.stream import Samples, TargetMode
from nextup.models.base import Losses, ModelConfig, Recommender, item_counts
from nextup.nn.linear_cross_entropy import linear_cross_entropy
from nextup.nn.losses import bce_loss, bpr_loss, gbce_beta, sampled_softmax_loss
from nextup.nn.noise import Dropout


class NextItemConfig(ModelConfig):
    """Settings of every neural next-item model."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce", "bpr"] = Field(
        "softmax", description="what training minimises; softmax is over the whole catalogue"
    )
    targets: TargetMode = Field(
        "every",
        description="which targets a step has: after every item, every prefix as its own sample, "
        "or each history's last item only",
    )
    negatives: int = Field(
        1,
        ge=1,
        description="negatives of each target; sampled_softmax: of a step (not for softmax)",
    )
    negative_power: float = Field(
        0.0, ge=0, le=1, description="sampled_softmax: draw items with probability count^power"
    )
    in_batch: bool = Field(
        False, description="sampled_softmax: the step's other targets are negatives too"
    )
    logq: bool = Field(True, description="sampled_softmax: correct scores for the sampling")
    calibration: float = Field(0.75, ge=0, le=1, description="gbce: t, 0 is plain BCE")
    exclude_future: bool = Field(
        False,
        description="bce, gbce, bpr: never draw a user's validation and test items as negatives, "
        "as the public S3-Rec code does (a mild leak)",
    )
    output_precision: Literal["32", "bf16"] = Field(
        "32", description="softmax: precision of the product with the whole catalogue"
    )

    @field_validator("output_precision", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value


class LastStateConfig(NextItemConfig):
    """Settings of a next-item model that reads a history out after its last item only."""

    targets: Literal["prefix", "last"] = Field(
        "prefix",
        description="which targets a step has: every prefix as its own sample, or each history's "
        "last item only",
    )


class NextItemRecommender(Recommender):
    """Base of models that turn a history into a state and compare it with item vectors.

    A subclass implements `item_vectors`, and either `encode` or, so that learnable dropout can
    share what comes before its first mask between two passes, `begin` and `finish`.
    """

    config: NextItemConfig
    reads_out: ClassVar[Literal["every", "last"]] = "every"
    """Whether `encode` can give the state after every item, or only after each row's last.

    In a model that reads out only the last, a later item may change what is made of an earlier
    one; its settings derive from `LastStateConfig`.
    """

    @property
    def targets(self) -> Samples:
        """The targets the settings ask for."""
        return self.config.targets

    @property
    def special_tokens(self) -> int:
        """How many tokens of its own, numbered from ``I + 1``, the model reads beside items."""
        return 0

    def output_dropout(self, width: int, rate: float) -> nn.Module:
        """Return what drops the output of a layer, called as ``drop(x, packing)``.

        An encoder asks for it wherever its paper drops a layer's output, so that a system which
        drops in another way (learnable dropout) works on any encoder.
        """
        return Dropout(rate)

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """States of all tokens ``[N, D]``, or of each row's last ``[B, D]``."""
        return self.finish(self.begin(batch, last_only))

    def begin(self, batch: Batch, last_only: bool) -> Any:
        """Encode up to the first layer of `output_dropout`; `finish` goes on from there."""
        raise NotImplementedError

    def finish(self, begun: Any) -> Tensor:
        """Return the states, given what `begin` returned, which stays as it is."""
        raise NotImplementedError

    def query(self, batch: Batch) -> Tensor:
        """``[B, D]``: the state after each row's last item."""
        return self.encode(batch, last_only=True)

    def negative_sampler(
        self, train: Sequences, device: torch.device, whole: Sequences | None = None
    ) -> NegativeSampler | None:
        """Return the sampler that the loss needs."""
        config = self.config
        if config.loss == "softmax":
            return None
        if config.loss == "sampled_softmax":
            counts = item_counts(train, self.n_items)[1:]
            return PopularityNegatives(
                counts, config.negatives, config.negative_power, config.in_batch, device
            )
        never = whole if config.exclude_future and whole is not None else train
        return UniformNegatives(self.n_items, config.negatives, never, device)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the step's targets."""
        total, _ = self.target_losses(batch)
        return Losses(total, {self.config.loss: total.detach()})

    def target_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean over ``batch.target_total`` (with gradient) and the ``[M]`` losses."""
        return self.losses_of(self.encode(batch, last_only=self.targets != "every"), batch)

    def losses_of(self, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `target_losses`, given the states ``[M, D]`` that the targets follow."""
        assert batch.targets is not None
        table = self.item_vectors()
        bias = self.item_bias()
        if self.config.loss == "softmax":
            wide = torch.promote_types(states.dtype, torch.float32)  # bf16 would round the mean
            weights = states.new_full((len(states),), 1.0 / batch.target_total, dtype=wide)
            bf16 = self.config.output_precision == "bf16"
            return linear_cross_entropy(
                states, table, batch.targets, weights, bias, torch.bfloat16 if bf16 else None
            )
        losses = self._sampled_losses(states, table, bias, batch)
        return losses.sum() / batch.target_total, losses.detach()

    def _sampled_losses(
        self, states: Tensor, table: Tensor, bias: Tensor | None, batch: Batch
    ) -> Tensor:
        assert batch.targets is not None and batch.negatives is not None
        # One look-up for both, since each has a gradient as large as the whole table.
        both = torch.cat([batch.targets, batch.negatives.reshape(-1)])
        found = torch.nn.functional.embedding(both, table)
        positive = (states * found[: len(states)]).sum(dim=1)
        chosen = found[len(states) :]
        if batch.negatives.dim() == 1:  # one set for all targets
            negative = states @ chosen.T
        elif batch.negatives.shape[1] == 1:
            negative = (states * chosen).sum(dim=1, keepdim=True)
        else:
            shaped = chosen.view(*batch.negatives.shape, -1)
            negative = torch.bmm(shaped, states.unsqueeze(2)).squeeze(2)
        if bias is not None:
            positive, negative = positive + bias[batch.targets], negative + bias[batch.negatives]
        match self.config.loss:
            case "bce":
                return bce_loss(positive, negative)
            case "gbce":
                count = self.config.negatives
                beta = gbce_beta(count, self.n_items, self.config.calibration)
                return bce_loss(positive, negative, beta)
            case "bpr":
                return bpr_loss(positive, negative)
            case _:
                return sampled_softmax_loss(
                    positive,
                    negative,
                    targets=batch.targets,
                    negatives=batch.negatives,
                    target_log_q=batch.target_log_q if self.config.logq else None,
                    negative_log_q=batch.negative_log_q if self.config.logq else None,
                )
