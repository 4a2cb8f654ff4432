"""Models and their settings in words, as `nextup models` shows them."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from nextup.measured import epoch_seconds
from nextup.models.base import Recommender
from nextup.models.registry import available_models, make_model, model_class
from nextup.train.config import TrainConfig
from nextup.train.recipe import recipes

N_ITEMS = 10_000
"""Items of the catalogue for which parameters are counted."""


@dataclass(frozen=True)
class About:
    """What is said of a model in a line."""

    name: str
    kind: str
    paper: str
    needs: str
    parameters: str
    seconds: str


def describe_models() -> list[About]:
    """Return what is said of each model in a line, by name."""
    measured = epoch_seconds()
    return [
        About(
            name,
            cls.kind,
            short_paper(cls.paper),
            cls.needs,
            parameters_in_words(name),
            measured[name].seconds if name in measured else "",
        )
        for name, cls in available_models().items()
    ]


def describe_model(name: str) -> list[tuple[str, str]]:
    """Return what is said of one model besides its settings, by heading.

    Raises
    ------
    ConfigError
        If there is no such model.
    """
    cls = model_class(name)
    said = {
        "paper": full_paper(cls),
        "kind": cls.kind,
        "needs": cls.needs or "histories alone",
        "a user never seen": f"is answered {cls.unseen_users}",
        "parameters": parameters_in_words(name),
    }
    measured = epoch_seconds().get(name)
    if measured is not None:
        how = f"{measured.recipe or 'defaults'}; {measured.conditions}"
        said["seconds an epoch"] = f"{measured.seconds}; {how}"
    return [(heading, text) for heading, text in said.items() if text]


def conditions_of_seconds() -> list[str]:
    """Return how the seconds of an epoch were measured, a line for each set of conditions."""
    found: dict[str, list[str]] = {}
    for name, each in epoch_seconds().items():
        found.setdefault(each.conditions, []).append(name)
    if len(found) == 1:
        return list(found)
    return [f"{conditions}: {', '.join(names)}" for conditions, names in found.items()]


def short_paper(paper: str) -> str:
    """Return authors, venue and year of a paper.

    Examples
    --------
    >>> short_paper("Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018")
    'Kang & McAuley, ICDM 2018'
    >>> short_paper("baseline (first-order Markov chain by counting)")
    'baseline'
    """
    years = re.findall(r"(?:[A-Z][\w-]* )?\b(?:19|20)\d\d\b", paper)
    return f"{paper.partition(',')[0]}, {years[-1]}" if years else paper.partition(" (")[0]


def full_paper(cls: type[Recommender]) -> str:
    """Return authors, titles and venues as the model's file opens with them."""
    for paragraph in module_text(cls).split("\n\n"):
        found = re.match(r".*\*[^*]+\*,[^*]*?\b(?:19|20)\d\d\b", paragraph, re.DOTALL)
        if found is not None:
            return " ".join(found[0].replace("*", "").split())
    return cls.paper


def module_text(cls: type[Recommender]) -> str:
    """Return what the file of a model opens with."""
    return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")


def parameters_in_words(name: str, n_items: int = N_ITEMS) -> str:
    """Return how many weights a model learns at its defaults, and how many more a user adds.

    Where only a part of what learns stays to answer, that part is counted first.
    """
    with torch.random.fork_rng(devices=[]):
        model = make_model(name, n_items)
        extents = model.extents()
        whole, answering = _weights(model), _weights(model.answering)
        further = []
        for key, count in extents.items():
            model.extend({**extents, key: count + 1})
            if more := _weights(model) - whole:
                further.append(f" + {more:,} a {key.rpartition('.')[2].removesuffix('s')}")
            model.extend(extents)
    if not whole:
        return ""
    learning = f" ({whole:,} while learning)" if answering < whole else ""
    return f"{answering:,}{''.join(further)}{learning}"


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


def _weights(model: Recommender) -> int:
    return sum(p.numel() for p in model.parameters())


def _default_in_words(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, list):
        return f"[{', '.join(map(_default_in_words, default))}]"
    return "null" if default is None else str(default)


def _fields(config: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    idle: frozenset[str] = getattr(config, "idle", frozenset())
    return [
        (
            key,
            type_in_words(field.annotation),
            _default_in_words(field.get_default(call_default_factory=True)),
            field.description or "",
        )
        for key, field in config.model_fields.items()
        if key not in idle
    ]
