"""Trained stages, kept so that another run need not train them again.

A stage is known by everything that decides its weights: the model and its settings, the settings
of training, the data, the split and the seed. A teacher that one run has trained is then there for
every other student, and for the run of that teacher alone. What another version of nextup has
trained is trained again: a checksum of the code is kept beside the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nextup.errors import RunError
from nextup.models.base import Stage
from nextup.train.config import TrainConfig


@cache
def code_mark() -> str:
    """Return a checksum of the code of nextup that decides what training comes to."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for room in ("augment", "data", "evaluation", "models", "nn", "train"):
        for file in sorted((package / room).glob("*.py")):
            digest.update(f"{room}/{file.name}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _file(folder: Path, key: str) -> Path:
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def key_of(stage: Stage, config: TrainConfig, about: dict[str, Any], processes: int) -> str | None:
    """Return everything that decides a stage's weights, as text; None if it is never shared.

    Parameters
    ----------
    stage
        The stage; what it says of the model is its ``key``.
    config
        The settings of training in it.
    about
        What decides besides: the data, the split, the protocol of validation, the seed.
    processes
        How many train together.
    """
    if stage.key is None or config.max_seconds is not None:
        return None  # what a clock has ended, no settings decide
    idle = {"checkpoint_seconds", "max_seconds"}
    if not stage.validates:
        idle |= {"metric", "patience", "validate_every"}
        about = {name: value for name, value in about.items() if name != "protocol"}
    said = {"stage": stage.key, "training": config.model_dump(mode="json", exclude=idle), **about}
    if processes > 1:
        said["processes"] = processes
    return json.dumps(said, sort_keys=True)


def make_place(folder: Path) -> None:
    """Make the folder where stages are kept, before hours are spent on the first.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{folder}: trained stages cannot be kept there ({reason})") from None


def keep(folder: Path, key: str, weights: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Keep the weights that a stage left, whole or not at all.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    file = _file(folder, key)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    ready = {name: t.detach().cpu().clone().contiguous() for name, t in weights.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        said = {"key": key, "facts": json.dumps(facts), "code": code_mark()}
        save_file(ready, partial, metadata=said)
        with partial.open("rb") as opened:
            os.fsync(opened.fileno())
        partial.replace(file)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{file}: a trained stage could not be kept there ({error})") from None


def find(folder: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return weights and facts of a stage that was kept under just this key; None if there is none.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    file = _file(folder, key)
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            noted = opened.metadata() or {}
            if noted.get("key") != key or noted.get("code") != code_mark():
                return None
            names = list(opened.keys())
            return {name: opened.get_tensor(name) for name in names}, json.loads(noted["facts"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(
            f"{file}: is not a readable stage ({error}); remove it, and it is trained again"
        ) from None
