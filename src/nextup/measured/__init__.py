"""What was measured of the models and is shipped with them: seconds of a training epoch.

``epochs.json`` is written by ``benchmarks/epoch_seconds.py --ship``, and holds for each model its
last measurement with the conditions it was made under. A model not measured is not in it.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

FILE = "epochs.json"


class StageSeconds(BaseModel):
    """Seconds of an epoch of one stage of training, from so many of its steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    batch_size: int | None
    seconds: float
    steps_timed: int
    steps_per_epoch: int
    foreign_cores: float | None = None
    """Cores that other processes kept busy meanwhile; above about 0.1 distrust the seconds."""

    @property
    def extrapolated(self) -> bool:
        """Whether only some of the epoch's steps were timed."""
        return self.steps_timed < self.steps_per_epoch


class EpochSeconds(BaseModel):
    """The last measurement of a model, and its conditions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str | None
    dataset: str
    date: str
    commit: str | None
    hardware: dict[str, Any]
    threads: int
    stages: list[StageSeconds]

    @property
    def conditions(self) -> str:
        """The conditions but for the recipe, in one line."""
        hardware = self.hardware.get("gpu") or self.hardware.get("processor") or "unknown"
        commit = (self.commit or "no commit")[:9]
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.dataset}, {hardware}, {threads}, {self.date[:10]}, {commit}"

    @property
    def seconds(self) -> str:
        """The seconds of each stage in words, and the recipe if it is not the paper's."""
        said = " + ".join(in_words(stage.seconds) for stage in self.stages)
        counted = all(stage.batch_size is None for stage in self.stages)
        recipe = "defaults" if self.recipe is None else self.recipe.rpartition("/")[2]
        return said if counted or recipe.startswith("paper") else f"{said} ({recipe})"


def in_words(seconds: float) -> str:
    """Return seconds with three digits.

    Examples
    --------
    >>> in_words(1234.5), in_words(98.76), in_words(0.01234)
    ('1,234', '98.8', '0.0123')
    """
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def epoch_seconds() -> dict[str, EpochSeconds]:
    """Return the last measurement of each model that was measured, by name."""
    text = (resources.files("nextup.measured") / FILE).read_text(encoding="utf-8")
    return {name: EpochSeconds(**said) for name, said in json.loads(text).items()}


def ship(found: dict[str, EpochSeconds], folder: Path) -> Path:
    """Write measurements over those of the same models in the file of a checkout's package."""
    path = folder / FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known.update({name: each.model_dump(mode="json") for name, each in found.items()})
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")
    return path
