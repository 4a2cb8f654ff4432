"""Models and their settings in words, as `nextup models` shows them."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from nextup.models.base import available_models, model_class
from nextup.train.config import TrainConfig
from nextup.train.recipe import recipes


def describe_models() -> list[tuple[str, str, str]]:
    """Return name, way of learning and paper of each model."""
    return [(name, cls.learns_by, cls.paper) for name, cls in available_models().items()]


def describe_settings(name: str) -> dict[str, list[tuple[str, str, str, str]]]:
    """Return the settings of a model, and of training where it is trained, by heading.

    Each is a key, its type, its default and its meaning.

    Raises
    ------
    ConfigError
        If there is no such model.
    """
    cls = model_class(name)
    shown = {f"{name}: {cls.paper}": _fields(cls.Config)}
    if cls.learns_by == "gradient":
        shown["training"] = _fields(TrainConfig)
    return shown


def recipe_names(name: str) -> list[tuple[str, str]]:
    """Return the recipes of a model, and what each is."""
    return [(key, str(content.get("about", ""))) for key, content in recipes(name).items()]


def type_in_words(annotation: Any) -> str:
    """Return a type as a person would write it.

    Examples
    --------
    >>> type_in_words(int), type_in_words(typing.Literal["a", "b"]), type_in_words(int | None)
    ('int', 'a | b', 'int | null')
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_in_words(each) for each in arguments)
    if origin is not None:
        return f"{origin.__name__} of {', '.join(type_in_words(each) for each in arguments)}"
    return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _fields(config: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    rows = []
    for key, field in config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = (
            "required" if default is PydanticUndefined else "null" if default is None else default
        )
        rows.append((key, type_in_words(field.annotation), str(shown), field.description or ""))
    return rows
