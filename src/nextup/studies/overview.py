"""What of a study is done and what is missing, as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nextup.errors import ConfigError
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell
from nextup.studies.results import Result, Results
from nextup.studies.study import Part, Study, studies
from nextup.studies.wanted import Wanted, absent_methods, wanted_cells

Row = tuple[str, ...]


def missing_cells(wanted: Iterable[Wanted], results: Results) -> list[Wanted]:
    """Return the cells without a result, or with one that lacks what is to be shown of it.

    A result that was made with other settings is none.
    """
    missing = []
    for each in wanted:
        found = results.find(each.cell)
        if found is None or found.lacking(each.shown):
            missing.append(each)
    return missing


def lacking_cells(
    cells: Iterable[Cell], results: Results, shown: Mapping[str, Asked]
) -> list[Cell]:
    """Return the cells whose result lacks a measurement; `shown` is as for `queue_of`.

    One that was run by other words for the same (settings that are a recipe by now) is returned
    by those that its result, and so its run folder, is called by, if they still mean the same.
    """
    found = []
    for cell in cells:
        result = results.find(cell)
        if result is not None and result.lacking(shown.get(cell.identity, Asked())):
            found.append(_as_called(result, cell))
    return found


def _as_called(result: Result, cell: Cell) -> Cell:
    stored = replace(result.cell, dataset=cell.dataset)
    try:
        same = (stored.identity, stored.name) == (cell.identity, result.name)
    except ConfigError:  # of a recipe that is no more
        return cell
    return stored if same else cell


def all_parts(results: Results) -> list[Row]:
    """Return a row a part of every study: study, part, what it is, done/all, what is absent."""
    return [row for study in studies().values() for row in parts_of(study, results)]


def parts_of(study: Study, results: Results) -> list[Row]:
    """Return a row a part of one study."""
    rows: list[Row] = []
    for part in study.parts:
        wanted = wanted_cells(study, [part])
        missing = len(missing_cells(wanted, results))
        absent = ", ".join(absent_methods([part]))
        done = f"{len(wanted) - missing}/{len(wanted)}"
        rows.append((study.name, part.name, part.title, done, absent))
    return rows


def methods_of(study: Study, part: Part, results: Results) -> list[Row]:
    """Return a row a method of a part: its name, and done/all on each dataset, or why not."""
    datasets = study.datasets_of(part)
    rows: list[Row] = []
    for method in part.methods:
        reason = method.absent()
        if reason is not None:
            rows.append((method.label, *("-" for _ in datasets), reason))
            continue
        counts = []
        for dataset in datasets:
            wanted = wanted_cells(study, [part], [dataset], [method.label])
            counts.append(f"{len(wanted) - len(missing_cells(wanted, results))}/{len(wanted)}")
        rows.append((method.label, *counts, ""))
    return rows


def queue_of(
    cells: Sequence[Cell], results: Results, shown: Mapping[str, Asked] | None = None
) -> list[Row]:
    """Return a row a cell in the order of running: its name, and whether it is done.

    Parameters
    ----------
    cells
        What would be run.
    results
        What there is.
    shown
        By identity, what is to be shown of cells beside their own protocol.
    """
    rows: list[Row] = []
    for cell in cells:
        changed, found = results.outdated(cell), results.find(cell)
        state = "missing"
        if changed:
            state = f"to be made anew: {changed}"
        elif found is not None:
            lacking = found.lacking((shown or {}).get(cell.identity, Asked()))
            state = f"to be measured: {lacking.describe()}" if lacking else "done"
        rows.append((cell.name, state))
    return rows
