"""Recipes: where the settings of a run come from, all checked against typed configs.

A recipe is a TOML file with `about`, and tables ``[model]`` and ``[train]`` of settings. Those that
come with nextup have names; one of your own is named by its path.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Any

from nextup.errors import ConfigError, suggest
from nextup.models.base import ModelConfig
from nextup.models.registry import available_models, model_class
from nextup.settings import make_config
from nextup.train.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def recipes(model: str | None = None) -> dict[str, dict[str, Any]]:
    """Return all recipes that come with nextup by name (``model/recipe``), or those of a model."""
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


def is_file(recipe: str) -> bool:
    """Whether a recipe is named by the path of its file."""
    return recipe.endswith(".toml")


def model_of(recipe: str | None) -> str | None:
    """Return the model that a recipe's name says, None if it says none.

    ``"bpr/paper"`` says it, and a file in a folder of the model's name, as ``nextup tune --write``
    makes it.
    """
    if recipe is None:
        return None
    if is_file(recipe):
        folder = Path(recipe).resolve().parent.name
        return folder if folder in available_models() else None
    return recipe.partition("/")[0] if "/" in recipe else None


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
        Name of one of its recipes (``"paper"`` or ``"sasrec/paper"``), the path of a file
        (``"mine.toml"``), or None for the defaults.
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
    if is_file(recipe):
        own = model_of(recipe)
        if own not in (None, model):
            raise ConfigError(f"recipe {recipe}: is one of {own} (its folder), not of {model}")
        content = _content(Path(recipe))
    else:
        known = recipes(model)
        name = recipe if recipe in known else f"{model}/{recipe}"
        if name not in known:
            if not known:
                raise ConfigError(f"model {model} has no recipes; leave the recipe out")
            names = [key.split("/", 1)[1] for key in known]
            raise ConfigError(f"model {model}: unknown recipe `{recipe}`{suggest(recipe, names)}")
        content = known[name]
    for table in chosen:
        chosen[table].update(content.get(table, {}))
    return chosen


def _content(file: Path) -> dict[str, Any]:
    """Return what the file of a recipe says, its form checked."""
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe {file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {file}: is not TOML ({error})") from None
    form = {"about": str, "model": dict, "train": dict}
    for key, value in content.items():
        if not isinstance(value, form.get(key, ())):
            raise ConfigError(
                f"recipe {file}: `{key}` does not belong there; settings stand in the tables "
                '[model] and [train], below a line about = "..."'
            )
    return content


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
