"""Recipes: where the settings of a run come from, all checked against typed configs."""

from __future__ import annotations

import sys
from importlib import resources
from typing import Any

from nextup.errors import ConfigError, suggest
from nextup.models.base import ModelConfig
from nextup.models.registry import model_class
from nextup.settings import make_config
from nextup.train.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def recipes(model: str | None = None) -> dict[str, dict[str, Any]]:
    """Return all recipes by name (``model/recipe``), or those of one model.

    A recipe is a TOML file with `about`, and tables ``[model]`` and ``[train]`` of settings.
    """
    found: dict[str, dict[str, Any]] = {}
    root = resources.files("nextup.recipes")
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        if not folder.is_dir() or (model is not None and folder.name != model):
            continue
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".toml"):
                content = tomllib.loads(file.read_text(encoding="utf-8"))
                found[f"{folder.name}/{file.name.removesuffix('.toml')}"] = content
    return found


def check_of_use(model: str, settings: dict[str, Any]) -> None:
    """Check that each setting does something: a model that counts is not trained.

    A study gives one setting to all its models, where this is no error.

    Raises
    ------
    ConfigError
        If the model is unknown, or learns by counting and a setting is one of training.
    """
    known = model_class(model)
    for key in settings:
        training = key in TrainConfig.model_fields and key not in known.Config.model_fields
        if training and known.learns_by == "counting":
            raise ConfigError(
                f"model {model}: learns by counting, so `{key}` would do nothing; leave it out"
            )


def resolve(
    model: str, recipe: str | None = None, settings: dict[str, Any] | None = None
) -> tuple[ModelConfig, TrainConfig]:
    """Combine a recipe and single settings into the typed configs of model and training.

    Parameters
    ----------
    model
        Name of a registered model.
    recipe
        Name of one of its recipes (``"paper"`` or ``"sasrec/paper"``), or None for the defaults.
    settings
        Single settings that win over the recipe; a key may belong to the model or to training.

    Raises
    ------
    ConfigError
        For an unknown model, recipe, key, or value.

    Examples
    --------
    >>> resolve("sasrec", settings={"droput": 0.2})
    Traceback (most recent call last):
    ...
    nextup.errors.ConfigError: model sasrec: unknown key `droput`; did you mean `dropout`?
    """
    config_class = model_class(model).Config
    chosen = _read(model, recipe)
    for key, value in (settings or {}).items():
        if key in config_class.model_fields:
            chosen["model"][key] = value
        elif key in TrainConfig.model_fields:
            chosen["train"][key] = value
        else:
            keys = [*config_class.model_fields, *TrainConfig.model_fields]
            raise ConfigError(f"model {model}: unknown key `{key}`{suggest(key, keys)}")
    make_config(config_class, chosen["model"], f"model {model}")  # or says what is wrong
    chosen["model"] = config_class.with_recipes(chosen["model"], read_recipe)
    return (
        make_config(config_class, chosen["model"], f"model {model}"),
        make_config(TrainConfig, chosen["train"], "training"),
    )


def _read(model: str, recipe: str | None) -> dict[str, dict[str, Any]]:
    """Return the settings of model and training that a recipe says; none without one."""
    chosen: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
    if recipe is None:
        return chosen
    known = recipes(model)
    name = recipe if recipe in known else f"{model}/{recipe}"
    if name not in known:
        if not known:
            raise ConfigError(f"model {model} has no recipes; leave the recipe out")
        names = [key.split("/", 1)[1] for key in known]
        raise ConfigError(f"model {model}: unknown recipe `{recipe}`{suggest(recipe, names)}")
    for table in chosen:
        chosen[table].update(known[name].get(table, {}))
    return chosen


def read_recipe(
    model: str, recipe: str | None, otherwise: str | None = None
) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Read a recipe for a part of a model.

    Parameters
    ----------
    model
        Name of a registered model.
    recipe
        One of its recipes; None to choose.
    otherwise
        The recipe to choose if the model has it; then ``paper``, then ``tuned``, then none.

    Returns
    -------
    tuple
        The recipe's name, its settings of the model, and its settings of training.

    Raises
    ------
    ConfigError
        If model or recipe are unknown.
    """
    model_class(model)
    if recipe is None:
        known = recipes(model)
        wanted = (otherwise, "paper", "tuned")
        found = (name for name in wanted if name and f"{model}/{name}" in known)
        recipe = next(found, None)
    chosen = _read(model, recipe)
    return recipe, chosen["model"], chosen["train"]
