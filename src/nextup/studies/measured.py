"""What the results say about a part of a study on one dataset: every row, measured and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nextup.errors import RunError
from nextup.studies.published import PublishedRow, published
from nextup.studies.results import Result, Results
from nextup.studies.statistics import Measured, measure
from nextup.studies.study import Method, Part, Study


@dataclass(frozen=True)
class Row:
    """A method on a dataset: what was published, and what the runs give.

    Parameters
    ----------
    method
        Which.
    published, impossible
        The published row, and which of its figures cannot be true, with the reason.
    runs
        The results by seed.
    measured
        By metric; empty without runs.
    missing
        The seeds that the study wants and that were not run.
    unmeasured
        The seeds that were run, but not measured as the part shows it.
    outdated
        In what a result that stands there departs from what the study asks for now.
    absent
        Why it cannot be run here yet.
    """

    method: Method
    published: PublishedRow | None = None
    impossible: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[int, Result] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    missing: tuple[int, ...] = ()
    unmeasured: tuple[int, ...] = ()
    outdated: str | None = None
    absent: str | None = None

    def mean(self, key: str) -> float | None:
        """Return the mean over the seeds of ``epochs`` or ``seconds``, None where it has none."""
        found = [run.document.get(key) for run in self.runs.values()]
        known = [float(value) for value in found if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Block:
    """A part of a study on one dataset.

    Parameters
    ----------
    dataset
        Its name.
    rows
        In the part's order.
    reference
        What the rows are tested against, if it was run.
    cases
        How many test cases there are.
    protocol
        How they were ranked, in words.
    """

    dataset: str
    rows: tuple[Row, ...]
    reference: str | None
    cases: int
    protocol: str


@dataclass(frozen=True)
class Comparison:
    """Runs of one dataset that are measured on the same users.

    Parameters
    ----------
    runs
        By label and seed.
    metrics
        What of them.
    reference
        The label of what the others are tested against, if anything.
    resamples
        Of users, for intervals and tests.
    """

    runs: Mapping[str, Mapping[int, Result]]
    metrics: tuple[str, ...]
    reference: str | None
    resamples: int

    @property
    def cost(self) -> int:
        """How many values are resampled, and how often, together."""
        cases = [
            int(run.document["cases"]) for found in self.runs.values() for run in found.values()
        ]
        return max(cases, default=0) * len(self.runs) * len(self.metrics) * self.resamples

    def measured(self) -> dict[tuple[str, str], Measured]:
        """Return what was measured, by label and metric; see `measured_runs`."""
        runs = {  # copies: results keep the ranks they have read, and these are many
            label: {seed: replace(run) for seed, run in found.items()}
            for label, found in self.runs.items()
        }
        return measured_runs(runs, self.metrics, self.reference, self.resamples)


@dataclass(frozen=True)
class Planned:
    """A part of a study on one dataset, before anything is measured.

    Parameters
    ----------
    dataset, rows, protocol
        As in `Block`.
    comparison
        What is to be measured.
    """

    dataset: str
    rows: tuple[Row, ...]
    protocol: str
    comparison: Comparison

    def block(self, found: Mapping[tuple[str, str], Measured]) -> Block:
        """Return it with what was measured."""
        runs, metrics = self.comparison.runs, self.comparison.metrics
        rows = []
        for row in self.rows:
            keys = {metric: (row.method.label, metric) for metric in metrics}
            own = {metric: found[key] for metric, key in keys.items() if key in found}
            rows.append(replace(row, measured=own))
        first = next((run for by_seed in runs.values() for run in by_seed.values()), None)
        cases = 0 if first is None else int(first.document["cases"])
        return Block(self.dataset, tuple(rows), self.comparison.reference, cases, self.protocol)


def planned_part(study: Study, part: Part, results: Results, resamples: int) -> list[Planned]:
    """Return a part on each of its datasets, with what is to be measured.

    Parameters
    ----------
    study, part
        Which.
    results
        Where its runs are looked for.
    resamples
        Of users, for intervals and tests.
    """
    found = []
    for dataset in study.datasets_of(part):
        rows = tuple(_row(study, part, method, dataset, results) for method in part.methods)
        runs = {row.method.label: dict(row.runs) for row in rows if row.runs}
        reference = _reference(study, part, rows)
        protocol = f"{study.protocol_of(part).describe()}; split {study.split}"
        comparison = Comparison(runs, part.metrics, reference, resamples)
        found.append(Planned(Path(dataset).name, rows, protocol, comparison))
    return found


def _row(study: Study, part: Part, method: Method, dataset: str, results: Results) -> Row:
    table, name = published(part.published), Path(dataset).name
    called = method.published or method.label
    known = Row(
        method,
        table.rows.get((name, called)),
        table.impossible(name, called),
        absent=method.absent(),
    )
    if known.absent is not None:
        return known
    cells = {seed: study.cell(method, dataset, seed) for seed in study.seeds}
    wanted = {cell.seed: cell for cell in cells.values()}
    first = next(iter(wanted.values()))
    there = results.seeds(first)
    protocol = study.protocol_of(part)
    under = {seed: run.under(protocol) for seed, run in there.items()}
    runs = {seed: run for seed, run in under.items() if run is not None}
    unmeasured = [seed for seed, run in there.items() if run.lacking(study.asked_of(part))]
    outdated = [results.outdated(cell) for seed, cell in wanted.items() if seed not in there]
    return Row(
        method,
        known.published,
        known.impossible,
        runs,
        missing=tuple(seed for seed in wanted if seed not in there),
        unmeasured=tuple(unmeasured),
        outdated=next((reason for reason in outdated if reason), None),
    )


def measured_runs(
    runs: Mapping[str, Mapping[int, Result]],
    metrics: tuple[str, ...],
    reference: str | None,
    resamples: int,
) -> dict[tuple[str, str], Measured]:
    """Measure runs of one dataset, by label and seed.

    Raises
    ------
    RunError
        If a result is damaged, or ranked other cases than the others.
    """
    first: Result | None = None
    for by_seed in runs.values():
        for run in by_seed.values():
            run.check()
            first = first or run
            if run.cases != first.cases or not run.protocol.ranks_like(first.protocol):
                raise RunError(
                    f"{run.file}: ranked other cases than {first.file.name}, or ranked them "
                    "otherwise; remove the one that is wrong and run it again"
                )
    values = {
        label: {
            metric: np.stack([run.values(metric) for run in by_seed.values()]) for metric in metrics
        }
        for label, by_seed in runs.items()
    }
    seeds = {label: list(by_seed) for label, by_seed in runs.items()}
    return measure(values, reference, resamples=resamples, seeds=seeds)


def _reference(study: Study, part: Part, rows: Sequence[Row]) -> str | None:
    """Return what the rows are tested against: what the part names, else the best baseline.

    The best is chosen on validation: chosen on test, it would have luck on its side.
    """
    if part.reference is not None:
        return (
            part.reference
            if any(r.runs for r in rows if r.method.label == part.reference)
            else None
        )
    scores: dict[str, float] = {}
    for row in rows:
        found = [run.valid.get(study.selection) for run in row.runs.values()]
        known = [value for value in found if value is not None]
        if row.method.role == "baseline" and known:
            scores[row.method.label] = sum(known) / len(known)
    return max(scores, key=lambda label: scores[label]) if scores else None
