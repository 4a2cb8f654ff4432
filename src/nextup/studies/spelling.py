"""How a run is written on a command line: ``dataset:model[:recipe][:key=value...]``."""

from __future__ import annotations

import json
from typing import Any

from nextup.errors import ConfigError
from nextup.evaluation.protocol import Protocol
from nextup.settings import make_config
from nextup.studies.cell import Cell, short

_OF_PROTOCOL = ("candidates", "n_negatives", "seen", "ties")
_OF_CELL = ("learn_from", "split")


def parse_cell(text: str) -> Cell:
    """Read ``dataset:model[:recipe][:key=value...]``; the settings' values as JSON, else text.

    Among the keys may be ``learn_from`` and ``split``, and ``candidates``, ``n_negatives``,
    ``seen`` and ``ties`` of the protocol.

    Examples
    --------
    >>> parse_cell("toys:sasrec:tuned:width=128").name
    'toys-sasrec-tuned-width=128-seed0'

    Raises
    ------
    ConfigError
        If it is not of that form.
    """
    dataset, *rest = _apart(text)
    if not dataset or not rest or not rest[0]:
        raise ConfigError(f"run `{text}`: write it as dataset:model[:recipe][:key=value]")
    settings: dict[str, Any] = {}
    recipe: str | None = None
    parts = rest[1:]
    for at, part in enumerate(parts):
        if part.startswith("split=time"):  # whose points stand after a colon, and may hold some
            while len(parts) > at + 1 and "=" not in parts[at + 1]:
                part = f"{part}:{parts.pop(at + 1)}"
        key, equals, value = part.partition("=")
        if equals:
            settings[key] = _scalar(value)
        elif at == 0:
            recipe = part or None
        else:
            raise ConfigError(f"run `{text}`: `{part}` is no setting; write it as key=value")
    protocol = {key: settings.pop(key) for key in _OF_PROTOCOL if key in settings}
    usual = Cell(dataset, rest[0])
    learn_from, split = (str(settings.pop(key, getattr(usual, key))) for key in _OF_CELL)
    made = make_config(Protocol, protocol, f"run `{text}`: protocol")
    return Cell(dataset, rest[0], recipe, settings, 0, learn_from, split, made)


def cell_text(cell: Cell) -> str:
    """Return what `parse_cell` reads as this cell (the seed is told apart from it).

    Examples
    --------
    >>> cell_text(Cell("toys", "pop", learn_from="train+valid"))
    'toys:pop:learn_from=train+valid'
    """
    plain, usual = cell.plain, Cell(cell.dataset, cell.model)
    keys: dict[str, Any] = dict(sorted(plain.settings.items()))
    for key in _OF_CELL:
        if getattr(plain, key) != getattr(usual, key):
            keys[key] = getattr(plain, key)
    for key in _OF_PROTOCOL:
        if getattr(plain.protocol, key) != getattr(usual.protocol, key):
            keys[key] = getattr(plain.protocol, key)
    settings = [f"{key}={short(value)}" for key, value in keys.items()]
    return ":".join([plain.dataset, plain.model, *filter(None, [plain.recipe]), *settings])


def _apart(text: str) -> list[str]:
    """Part a text at its colons, but not at those within brackets of a JSON value."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if sign == ":" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
