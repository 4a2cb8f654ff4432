"""What came of a search: the best trial, and the recipe that it makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextup.errors import RunError
from nextup.models.registry import model_class
from nextup.train.recipe import read_recipe
from nextup.train.run import write_whole
from nextup.tuning.search import METRIC, is_done

Document = Mapping[str, Any]


def score(trial: Document) -> float | None:
    """Return a trial's figure on validation, None if it has none."""
    valid = trial.get("valid")
    return None if valid is None else float(valid[METRIC])


def best_trial(document: Document) -> dict[str, Any] | None:
    """Return the trial that is best on validation, the first of equals; None if none is done."""
    done = [trial for trial in document["trials"] if score(trial) is not None]
    return max(done, key=lambda trial: (score(trial), -trial["number"])) if done else None


def base_trial(document: Document) -> dict[str, Any]:
    """Return the trial of the base recipe itself."""
    found: dict[str, Any] = document["trials"][0]
    return found


def is_complete(document: Document) -> bool:
    """Whether every trial of a search has an outcome."""
    return all(is_done(trial) for trial in document["trials"])


def recipe_name(document: Document) -> str:
    """Return what the recipe of a search is called: ``<model>/tuned-<dataset>``."""
    return f"{document['model']}/tuned-{document['dataset']}"


def recipe_text(document: Document) -> str:
    """Return the best trial as a recipe in TOML, without the limit of seconds.

    Raises
    ------
    RunError
        If no trial has a figure.
    """
    trial = best_trial(document)
    if trial is None:
        raise RunError(f"{document['dataset']}-{document['model']}: no trial came to anything")
    budget = document["budget"]
    _, model, train = read_recipe(document["model"], document["recipe"])
    if document["recipe"] is None:
        model, train = {}, {}
    fields = model_class(document["model"]).Config.model_fields
    for key, value in trial["settings"].items():
        (model if key in fields else train)[key] = value
    train["metric"] = METRIC
    about = (
        f"Best of {len(document['trials'])} trials of {budget['seconds']:g} s on {METRIC} of the "
        f"validation part of {document['dataset']}, seed {budget['seed']}; by `nextup tune`"
    )
    parts = [f"about = {_value(about)}"]
    for name, table in (("model", model), ("train", train)):
        if table:
            lines = [f"{key} = {_value(value)}" for key, value in table.items()]
            parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts) + "\n"


def write_recipe(document: Document, folder: Path) -> Path:
    """Write the best trial as ``<folder>/<model>/tuned-<dataset>.toml``.

    Raises
    ------
    RunError
        If another recipe stands there, or it cannot be written.
    """
    file, text = folder / f"{recipe_name(document)}.toml", recipe_text(document)
    if file.exists() and (not file.is_file() or file.read_text(encoding="utf-8") != text):
        raise RunError(f"{file}: is there already and differs; remove it, or name another folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)
    return file


def _value(value: Any) -> str:
    """Return a value as TOML writes it; strings, numbers and lists as JSON does."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value)}]"
    return json.dumps(value)
