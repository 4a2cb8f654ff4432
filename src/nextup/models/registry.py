"""The register of models: every class below `@register`, by name."""

from __future__ import annotations

from typing import Any, TypeVar

from nextup.errors import ConfigError, suggest
from nextup.models.base import Recommender
from nextup.settings import make_config

ModelType = TypeVar("ModelType", bound=type[Recommender])
_REGISTER: dict[str, type[Recommender]] = {}


def register(model: ModelType) -> ModelType:
    """Enter a model class under its `name`; it then takes part in everything, tests included."""
    _REGISTER[model.name] = model
    return model


def available_models() -> dict[str, type[Recommender]]:
    """Return all registered models by name."""
    import nextup.models  # noqa: F401  (importing the room registers its models)

    return dict(sorted(_REGISTER.items()))


def model_class(name: str) -> type[Recommender]:
    """Return the model called `name`.

    Raises
    ------
    ConfigError
        If there is none; names the nearest.
    """
    known = available_models()
    if name not in known:
        raise ConfigError(f"unknown model `{name}`{suggest(name, known)}")
    return known[name]


def make_model(name: str, n_items: int, settings: dict[str, Any] | None = None) -> Recommender:
    """Build a fresh model from its name and settings (unknown settings are an error)."""
    cls = model_class(name)
    return cls(make_config(cls.Config, settings or {}, f"model {name}"), n_items)
