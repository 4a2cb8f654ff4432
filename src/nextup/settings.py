"""Typed settings made of what somebody wrote, with errors that somebody can act on."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nextup.errors import ConfigError, suggest

ConfigType = TypeVar("ConfigType", bound=BaseModel)


def make_config(cls: type[ConfigType], values: dict[str, Any], where: str) -> ConfigType:
    """Check `values` against a typed config, with an error a person can act on.

    Raises
    ------
    ConfigError
        For an unknown key (names the nearest known) or a value out of range.
    """
    for key in values:
        if key not in cls.model_fields:
            raise ConfigError(f"{where}: unknown key `{key}`{suggest(key, cls.model_fields)}")
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # the settings contradict each other
            raise ConfigError(f"{where}: {said}") from None
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: `{key}`: {said} (given: {first['input']!r})") from None
