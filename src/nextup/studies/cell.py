"""A cell: one run of a study, told apart by what decides its numbers and by nothing else.

Two studies that need the same run share it. A setting that says what the recipe says anyway is
dropped, so ``contrast_weight=0.1`` of a sweep is the plain run where the recipe has 0.1. A setting
that is added to nextup later, with a default that changes nothing, leaves every old identity as
it was: only what departs from the defaults is hashed, and everything else is compared in full.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from nextup.errors import ConfigError
from nextup.evaluation.protocol import Protocol
from nextup.models.registry import available_models, model_class
from nextup.train.config import TrainConfig
from nextup.train.recipe import is_file, recipes, resolve

_LONGEST_NAME = 120
_DECIDES_NOTHING = ("checkpoint_seconds",)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Parameters
    ----------
    dataset
        A public set by name, or the folder of a prepared dataset.
    model, recipe, settings
        As `nextup.train.fit.fit` takes them.
    seed
        Decides everything random; a model that only counts has none, so its seed is 0.
    learn_from, split, protocol
        As `nextup.train.fit.fit` takes them.
    """

    dataset: str
    model: str
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    learn_from: str = "train"
    split: str = "leave-one-out"
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        if self.recipe is not None:
            if is_file(self.recipe):
                raise ConfigError(
                    f"recipe {self.recipe}: studies know recipes by their names, so that anybody "
                    "can run them again; put it into src/nextup/recipes/, or give its settings"
                )
            object.__setattr__(self, "recipe", self.recipe.removeprefix(f"{self.model}/"))

    @cached_property
    def plain(self) -> Cell:
        """The same run without settings that repeat the recipe, and without a seed of no use."""
        base = _configs(self.model, self.recipe, "{}")
        mine = self._resolved
        settings = {
            key: value
            for key, value in self.settings.items()
            if any(key in part and part[key] != base[at][key] for at, part in enumerate(mine))
        }
        counts = model_class(self.model).learns_by == "counting"
        return replace(self, settings=settings, seed=0 if counts else self.seed)

    @cached_property
    def _resolved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return _configs(self.model, self.recipe, json.dumps(dict(self.settings), sort_keys=True))

    @property
    def dataset_name(self) -> str:
        """The dataset's name, without the folders that lead to it."""
        return Path(self.dataset).name

    @property
    def metric(self) -> str:
        """The validation metric that picks the epoch."""
        return str(self._resolved[1].get("metric", ""))

    @property
    def epochs(self) -> int:
        """The most epochs; 0 for a model that counts."""
        return int(self._resolved[1].get("epochs", 0))

    @cached_property
    def name(self) -> str:
        """What the run's files are called: ``toys-lma4rec-paper-toys-contrast_weight=0.3-seed0``.

        Raises
        ------
        ConfigError
            If model, recipe or a setting is unknown.
        """
        plain = self.plain
        parts = [plain.dataset_name, plain.model, *([plain.recipe] if plain.recipe else [])]
        parts += [f"{key}={short(value)}" for key, value in sorted(plain.settings.items())]
        if plain.learn_from != "train":
            parts.append(plain.learn_from)
        if plain.split != "leave-one-out":
            parts.append(plain.split)
        if not plain.protocol.ranks_like(Protocol()):
            parts.append(_protocol_name(plain.protocol))
        name = re.sub(r"[^\w.+=-]+", "-", "-".join(parts))
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            name = f"{name[:_LONGEST_NAME]}-{digest}"
        return f"{name}-seed{plain.seed}"

    @cached_property
    def decided(self) -> dict[str, Any]:
        """Everything that decides the numbers, in full, as plain JSON."""
        model_config, train_config = self._resolved
        ranks_as = self.protocol.model_dump(mode="json", exclude={"cutoffs"})
        if self.protocol.candidates == "full":
            ranks_as = {k: v for k, v in ranks_as.items() if k not in ("n_negatives", "seed")}
        return {
            "dataset": self.dataset_name,
            "model": self.model,
            "model_config": model_config,
            "train_config": train_config,
            "split": self.split,
            "protocol": ranks_as,
            "learn_from": self.learn_from,
            "seed": self.plain.seed,
        }

    @cached_property
    def identity(self) -> str:
        """A hash of `decided`, without what stands at its default."""
        return _digest({**self._reduced, "seed": self.decided["seed"]})

    @cached_property
    def family(self) -> str:
        """The identity without the seed: equal for the runs whose mean a table shows."""
        return _digest(self._reduced)

    @property
    def _reduced(self) -> dict[str, Any]:
        known = {key: value for key, value in self.decided.items() if key != "seed"}
        for key, defaults in zip(
            ("model_config", "train_config"), _defaults(self.model), strict=True
        ):
            known[key] = {k: v for k, v in known[key].items() if v != defaults.get(k)}
        return known

    def difference(self, decided: Mapping[str, Any]) -> str | None:
        """Return in what the stored `decided` of a run departs from this cell; None if in nothing.

        A setting that one of the two does not know departs only if it is not at its default.
        """
        mine = self.decided
        defaults = dict(zip(("model_config", "train_config"), _defaults(self.model), strict=True))
        for key, value in mine.items():
            there = decided.get(key)
            if key not in defaults or not isinstance(there, dict):
                if there != value:
                    return f"{key} {there} then, {value} now"
                continue
            for name in sorted({*value, *there}):
                default = defaults[key].get(name)
                before, now = there.get(name, default), value.get(name, default)
                if before != now:
                    return f"{name} {before} then, {now} now"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the cell as plain JSON."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "recipe": self.recipe,
            "settings": dict(self.settings),
            "seed": self.seed,
            "learn_from": self.learn_from,
            "split": self.split,
            "protocol": self.protocol.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Cell:
        """Read what `to_json` returned."""
        return cls(**{**stored, "protocol": Protocol(**stored["protocol"])})


def registered(model: str) -> bool:
    """Whether there is a model of this name here."""
    return model in available_models()


def known_recipes(model: str) -> list[str]:
    """Return the names of a model's recipes, without the model's own."""
    return list(_recipe_names(model))


@cache
def _recipe_names(model: str) -> tuple[str, ...]:
    return tuple(name.partition("/")[2] for name in recipes(model))


@cache
def _configs(
    model: str, recipe: str | None, settings: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of model and training; those of training only where it trains."""
    model_config, train_config = resolve(model, recipe, json.loads(settings))
    training = train_config.model_dump(mode="json", exclude=set(_DECIDES_NOTHING))
    if model_class(model).learns_by == "counting":
        training = {}
    return model_config.model_dump(mode="json"), training


@cache
def _defaults(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    configs = (model_class(model).Config, TrainConfig)
    first, second = (config.model_construct().model_dump(mode="json") for config in configs)
    return first, second


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def short(value: object) -> str:
    """Return a setting's value as names show it, and as `json` or plain text reads it."""
    if isinstance(value, bool | list | dict) or value is None:
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _protocol_name(protocol: Protocol) -> str:
    parts = [] if protocol.seen == "excluded" else ["seen"]
    if protocol.candidates != "full":
        parts.append(f"{protocol.candidates}{protocol.n_negatives}-{protocol.seed}")
    if protocol.ties != "mean":
        parts.append(protocol.ties)
    return "-".join(parts)
