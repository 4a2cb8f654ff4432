"""What of a study is done and what is missing, as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nextup.studies.cell import Cell
from nextup.studies.results import Results
from nextup.studies.study import Part, Study, Wanted, absent_methods, studies, wanted_cells

Row = tuple[str, ...]


def missing_cells(wanted: Iterable[Wanted], results: Results) -> list[Wanted]:
    """Return the cells that have no result, or one made with other settings."""
    return [each for each in wanted if results.find(each.cell) is None]


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


def queue_of(cells: Sequence[Cell], results: Results) -> list[Row]:
    """Return a row a cell in the order of running: its name, and whether it is done."""
    rows: list[Row] = []
    for cell in cells:
        changed = results.outdated(cell)
        state = "done" if results.find(cell) else "missing"
        rows.append((cell.name, f"to be made anew: {changed}" if changed else state))
    return rows
