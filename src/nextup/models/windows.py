"""What models of short windows share: a few items of a history that predict the few that follow."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nextup.data.batches import Batch
from nextup.data.stream import Samples, Windows
from nextup.models.next_item import NextItemConfig, NextItemRecommender


class WindowConfig(NextItemConfig):
    """Settings of a model that learns from windows, or from prefixes cut to a window."""

    max_length: int = Field(5, ge=1, description="items of a window (L)")
    window_targets: int = Field(
        3, ge=0, description="targets of a window (T); 0: rows and targets are those of `targets`"
    )
    targets: Literal["every", "prefix", "last"] = Field(
        "prefix", description="without windows: every prefix as its own sample, or the last only"
    )

    @model_validator(mode="after")
    def _reads_out_once(self) -> WindowConfig:
        if not self.window_targets and self.targets == "every":
            raise ValueError("targets must be `prefix` or `last`: a history is read out once")
        return self


class WindowRecommender(NextItemRecommender):
    """Base of models that read a history out once, after the last `max_length` items."""

    config: WindowConfig
    reads_out = "last"

    @property
    def targets(self) -> Samples:
        """Windows, or what the settings ask for instead."""
        config = self.config
        return Windows(config.window_targets) if config.window_targets else config.targets

    def target_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean over targets, each with the state of its window; see the base class."""
        assert batch.target_at is not None
        states = self.query(batch)
        rows = torch.searchsorted(batch.last_at, batch.target_at)
        return self.losses_of(states[rows] if len(rows) > len(states) else states, batch)
