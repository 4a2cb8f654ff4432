"""What is searched of a model: a base recipe, and for some settings a list or a range.

Spaces lie in a folder of their own (``nextup/spaces/<model>.toml``), since every TOML file in a
model's folder of recipes is a recipe. What ``shared.toml`` says holds for every model that has the
setting, unless the model's own space says otherwise.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nextup.errors import ConfigError, suggest
from nextup.models.registry import model_class
from nextup.settings import make_config
from nextup.train.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHARED = "shared"
_KINDS = ("choices", "uniform", "log_uniform", "integers")


class Knob(BaseModel):
    """What a setting may be: one of several values, or a number of a range.

    A choice that is a table sets several settings at once, where they only make sense together;
    the knob's name is then no setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: list[Any] | None = Field(None, min_length=1, description="one of these, all as likely")
    uniform: tuple[float, float] | None = Field(None, description="a number between two")
    log_uniform: tuple[float, float] | None = Field(None, description="the same by its logarithm")
    integers: tuple[int, int] | None = Field(None, description="a whole number, both ends included")

    @model_validator(mode="after")
    def _one_kind(self) -> Knob:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"say just one of {', '.join(_KINDS)}")
        if self.choices is None:
            low, high = getattr(self, given[0])
            if not low < high:
                raise ValueError(f"the range {low} to {high} is empty")
            if self.log_uniform is not None and low <= 0:
                raise ValueError("a range of logarithms begins above 0")
        return self

    def at(self, share: float) -> Any:
        """Return the value that lies at a share of the way, 0 to below 1, from end to end."""
        if self.choices is not None:
            return self.choices[int(share * len(self.choices))]
        if self.integers is not None:
            low, high = self.integers
            return low + int(share * (high - low + 1))
        if self.uniform is not None:
            start, end = self.uniform
            return _rounded(start + share * (end - start), start, end)
        assert self.log_uniform is not None
        start, end = self.log_uniform
        return _rounded(start * math.exp(share * math.log(end / start)), start, end)

    @property
    def ends(self) -> list[Any]:
        """Every choice, or both ends of the range."""
        if self.choices is not None:
            return list(self.choices)
        return list(self.uniform or self.log_uniform or self.integers or ())


def _rounded(value: float, low: float, high: float) -> float:
    """Three digits, so that a setting can be typed; within the range."""
    return min(max(float(f"{value:.3g}"), low), high)


@dataclass(frozen=True)
class Space:
    """What is searched of a model.

    Parameters
    ----------
    model
        Its name.
    about
        What it is, in a line.
    base
        The recipe that the search starts from; ``"paper"`` stands for ``paper-<dataset>`` where
        the model has one. None for the model's defaults.
    knobs
        What is varied, by name.
    """

    model: str
    about: str
    base: str | None
    knobs: Mapping[str, Knob]

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the knobs' values mean."""
        found: dict[str, Any] = {}
        for name, value in values.items():
            found.update(value if isinstance(value, dict) else {name: value})
        return found

    def drawn(self, seed: int) -> Iterator[dict[str, Any]]:
        """Yield settings drawn at random, without end; the same for the same model and seed."""
        source = random.Random(f"{self.model} {seed}")
        while True:
            yield self.settings(
                {name: knob.at(source.random()) for name, knob in self.knobs.items()}
            )

    def ends(self) -> Iterator[dict[str, Any]]:
        """Yield settings with one knob at one of its ends, for every end of every knob."""
        for name, knob in self.knobs.items():
            for value in knob.ends:
                yield self.settings({name: value})

    def to_json(self) -> dict[str, Any]:
        """Return base and knobs as plain JSON."""
        knobs = {
            name: knob.model_dump(mode="json", exclude_none=True)
            for name, knob in self.knobs.items()
        }
        return {"base": self.base, "search": knobs}


def spaces() -> list[str]:
    """Return the names of the models that have a space."""
    files = resources.files("nextup.spaces").iterdir()
    names = [file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")]
    return sorted(name for name in names if name != SHARED)


def read_space(model: str) -> Space:
    """Return what is searched of a model.

    Raises
    ------
    ConfigError
        If the model is unknown, has nothing to search, or its space cannot be read.
    """
    cls = model_class(model)
    if cls.learns_by == "counting":
        raise ConfigError(f"model {model}: learns by counting, so there is nothing to tune")
    if model not in spaces():
        raise ConfigError(f"model {model}: has no space to search{suggest(model, spaces())}")
    said = _read(model)
    own = said.get("search", {})
    known = {*cls.Config.model_fields, *TrainConfig.model_fields}
    taken = {
        key for knob in own.values() for each in knob.get("choices", ()) for key in _keys(each)
    }
    shared = _read(SHARED)["search"]
    search = {k: v for k, v in shared.items() if k in known and k not in taken} | own
    for name, knob in search.items():
        tables = [isinstance(each, dict) for each in knob.get("choices", ())]
        if not (tables and all(tables)) and name not in known:
            raise ConfigError(f"space {model}: unknown key `{name}`{suggest(name, known)}")
    knobs = {k: make_config(Knob, v, f"space {model}: {k}") for k, v in search.items()}
    return Space(model, str(said.get("about", "")), said.get("base"), knobs)


def _keys(choice: object) -> list[str]:
    return list(choice) if isinstance(choice, dict) else []


def _read(name: str) -> dict[str, Any]:
    file = resources.files("nextup.spaces") / f"{name}.toml"
    try:
        found: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is no TOML ({error})") from None
    unknown = {*found} - {"about", "base", "search"}
    if unknown:
        raise ConfigError(f"{file}: unknown key `{min(unknown)}`; a space has about, base, search")
    return found
