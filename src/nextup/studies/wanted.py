"""Which runs the parts of a study want, the most valuable first, and what is shown of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nextup.errors import ConfigError, suggest
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell
from nextup.studies.study import Method, Part, Study, studies


@dataclass(frozen=True)
class Wanted:
    """A cell, with what decides how soon it is run, and what the chosen parts show of it."""

    cell: Cell
    method: Method
    turn: tuple[int, ...]
    shown: Asked = field(default_factory=Asked)


def wanted_cells(
    study: Study,
    parts: Iterable[Part],
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Wanted]:
    """Return the cells of some parts, each once, the most valuable first.

    The first seed of everything comes before any second one; within a seed, what the paper
    compares comes before controls, and the datasets in the study's order.

    Raises
    ------
    ConfigError
        If a dataset or method that was chosen is unknown, or no part is about the datasets.
    """
    chosen = list(parts)
    _check_methods(study, chosen, methods)
    _check_datasets(study, chosen, datasets)
    found: dict[str, Wanted] = {}
    for place, part in enumerate(chosen):
        for dataset in study.datasets_of(part, datasets):
            for row, method in enumerate(study.methods_of(part, methods)):
                if method.absent() is not None:
                    continue
                for round_, seed in enumerate(study.seeds if seeds is None else seeds):
                    cell = study.cell(method, dataset, seed)
                    if cell.seed != seed and round_ > 0:
                        continue  # a model without randomness is run once
                    late = int(method.role == "control" or part.is_sweep)
                    turn = (round_, late, study.place_of(dataset), place, row)
                    shown, before = (
                        study.asked_of(part).beside(cell.protocol),
                        found.get(cell.identity),
                    )
                    first = Wanted(cell, method, turn)
                    if before is not None:
                        first = before if before.turn <= turn else first
                        shown = before.shown | shown
                    found[cell.identity] = replace(first, shown=shown)
    return sorted(found.values(), key=lambda wanted: wanted.turn)


def absent_methods(parts: Iterable[Part]) -> dict[str, str]:
    """Return the methods that cannot be run here yet, by label, and why."""
    why = {method.label: method.absent() for part in parts for method in part.methods}
    return {label: reason for label, reason in why.items() if reason is not None}


def _check_methods(study: Study, parts: Sequence[Part], chosen: Sequence[str] | None) -> None:
    labels = {method.label.casefold(): method.label for part in parts for method in part.methods}
    for label in chosen or ():
        if label.casefold() not in labels:
            raise ConfigError(
                f"study {study.name}: unknown method `{label}`{suggest(label, labels.values())}"
            )


def _check_datasets(study: Study, parts: Sequence[Part], chosen: Sequence[str] | None) -> None:
    if parts and not any(study.datasets_of(part, chosen) for part in parts):
        where = "; ".join(
            f"{part.name} is about {', '.join(Path(each).name for each in study.datasets_of(part))}"
            for part in parts
        )
        raise ConfigError(
            f"study {study.name}: nothing to run on {', '.join(chosen or ())}: {where}"
        )


def asked_by_all() -> dict[str, Asked]:
    """Return by family of cells what any study shows of them beside their own protocol."""
    found: dict[str, Asked] = {}
    for study in studies().values():
        for family, asked in study.asked().items():
            found[family] = found.get(family, Asked()) | asked
    return found
