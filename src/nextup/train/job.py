"""What one training needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from nextup.data.sequences import Sequences
from nextup.data.split import Split
from nextup.evaluation.protocol import Protocol
from nextup.models.base import Recommender
from nextup.train.config import TrainConfig


@dataclass
class Job:
    """A model, its settings of training, and what it learns from."""

    fabric: Fabric
    model: Recommender
    config: TrainConfig
    split: Split
    train: Sequences
    protocol: Protocol
    seed: int
    validates: bool
    folder: Path
    shown: bool
    about: dict[str, Any] = field(default_factory=dict)
    """What decides the weights beside model and settings: the data, the split, the seed."""
    kept: Path | None = None
    """Where trained stages are kept and looked for."""
