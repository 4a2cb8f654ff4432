"""The page of all models: what each is, needs, departs from, and how it answers strangers.

Everything on it is said by the models themselves: their classes and what their files open with.
 ``docs/models.md`` is this page, and a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nextup.describe import (
    N_ITEMS,
    conditions_of_seconds,
    describe_model,
    describe_models,
    module_text,
)
from nextup.models.base import Recommender
from nextup.models.registry import available_models

COMMAND = "nextup models --page > docs/models.md"

INTRODUCTION = f"""\
# The models

<!-- Made by `{COMMAND}`; change what the models say instead. -->

One line a model; below, what each file opens with: the paper and its equations, where the model
departs from the paper or its authors' code, and why. `nextup models NAME` shows the settings
and the recipes.

Every model answers for any history. Where a model needs users, one that was not there in training
is answered with a vector read off their history by a ridge regression, learnt over all users that
have one. Asked about a history without being told whose it is, it is answered so as well.

Parameters are those at the defaults, for {N_ITEMS:,} items. """


def models_page() -> str:
    """Return the page of all models, as Markdown."""
    conditions = conditions_of_seconds()
    seconds = (
        "Seconds are those of a training epoch of the paper's recipe as last measured, a stage "
        f"each: {'; '.join(conditions)}."
        if conditions
        else "Seconds of a training epoch: not measured yet (`benchmarks/epoch_seconds.py`)."
    )
    head = ("model", "kind", "paper", "needs", "parameters", "seconds an epoch")
    rows = [
        (f"[`{m.name}`](#{m.name})", m.kind, m.paper, m.needs, m.parameters, m.seconds)
        for m in describe_models()
    ]
    sections = [_section(name, cls) for name, cls in available_models().items()]
    return "\n\n".join([INTRODUCTION + seconds, _table(head, rows), *sections]) + "\n"


def _section(name: str, cls: type[Recommender]) -> str:
    facts = [f"- {heading}: {said}" for heading, said in describe_model(name)]
    return "\n\n".join([f"## {name}", "\n".join(facts), _opening(name, cls)])


def _opening(name: str, cls: type[Recommender]) -> str:
    """What the model's file opens with; where a file has several models, under one of them."""
    module = cls.__module__
    beside = [key for key, each in available_models().items() if each.__module__ == module]
    file = module.rpartition(".")[2]
    first = file if file in beside else beside[0]
    if name != first:
        return f"Described with [`{first}`](#{first})."
    return as_markdown(module_text(cls))


def as_markdown(text: str) -> str:
    r"""Return a docstring as Markdown: a heading within it is bold, so that sections stay models.

    Examples
    --------
    >>> print(as_markdown("Departures\n----------\n* One."))
    **Departures**
    <BLANKLINE>
    * One.
    """
    return re.sub(r"^(\S.*)\n-{3,}\n", r"**\1**\n\n", text, flags=re.MULTILINE)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
