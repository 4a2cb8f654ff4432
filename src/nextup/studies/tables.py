"""The tables of a report: published, ours, and how sure the difference is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nextup.evaluation.significance import Interval
from nextup.studies.consistent import consistency_blocks
from nextup.studies.document import Block, Details, Grid, Heading, Items, Paragraph
from nextup.studies.measured import Block as Measured
from nextup.studies.measured import Row
from nextup.studies.results import Result
from nextup.studies.spelling import cell_text
from nextup.studies.study import Part, Study

IMPOSSIBLE, SECOND_HAND = "†", "‡"


def block_of(study: Study, part: Part, found: Measured) -> Iterator[Block]:
    """Yield the tables of a part on one dataset, with what is to be said below them."""
    yield Heading(found.dataset, 4)
    yield Paragraph(_protocol(found))
    others = [metric for metric in part.metrics if metric not in part.headline]
    if not any(row.measured for row in found.rows):
        yield from _published_only(part, found)
        others = []
    else:
        yield from (_grid(found, metric) for metric in part.headline)
    if part.consistency:
        yield from consistency_blocks(found)
    yield from _logged(part, found)
    if others:
        grids = tuple(_grid(found, metric) for metric in others)
        yield Details(f"{', '.join(others)} on {found.dataset}", grids)
    notes = [*_impossible(found), *_sources(found), *_changed(found)]
    if notes:
        yield Items(tuple(notes))
    yield from missing_of(study, part, found)


def _protocol(found: Measured) -> str:
    cases = f"; {found.cases:,} cases" if found.cases else ""
    against = f"; differences and p against **{found.reference}**" if found.reference else ""
    return f"{found.protocol}{cases}{against}."


def _published_only(part: Part, found: Measured) -> Iterator[Block]:
    """Yield what was published, where nothing of ours stands beside it yet."""
    known = [row.published.values for row in found.rows if row.published is not None]
    metrics = [metric for metric in part.metrics if any(metric in values for values in known)]
    rows = [
        (row.method.label, *(_published(row, metric) for metric in metrics))
        for row in found.rows
        if row.published is not None
    ]
    yield Paragraph("No run yet; as published:" if rows else "No run yet.")
    if rows:
        yield Grid(("", *metrics), tuple(rows))


def _published(row: Row, metric: str) -> str:
    value = None if row.published is None else row.published.values.get(metric)
    if row.published is None or value is None:
        return "-"
    marks = IMPOSSIBLE if metric in row.impossible else ""
    return f"{value:.{row.published.decimals}f}{marks}{SECOND_HAND if row.published.source else ''}"


def _grid(found: Measured, metric: str) -> Grid:
    against = f"against {found.reference}" if found.reference else "against the reference"
    header = (
        *(metric, "published", "ours", "95%", "seeds", "sd", "ours - published"),
        *(against, "95% of it", "p", "epochs", "minutes"),
    )
    means = [row.measured[metric].value.mean for row in found.rows if metric in row.measured]
    best = max(means, default=None)
    # What has neither a run nor a published figure is told of once, below the tables.
    told = [row for row in found.rows if metric in row.measured or _published(row, metric) != "-"]
    rows = [_cells(row, metric, best) for row in told]
    kept = [at for at in range(len(header)) if at == 0 or any(cells[at] != "-" for cells in rows)]
    return Grid(
        tuple(header[at] for at in kept), tuple(tuple(cells[at] for at in kept) for cells in rows)
    )


def _cells(row: Row, metric: str, best: float | None) -> tuple[str, ...]:
    method = row.method
    label = f"{method.label} (added)" if method.added else method.label
    shown = _published(row, metric)
    if metric not in row.measured:
        return (label, shown, *("-" for _ in range(10)))
    value = None if row.published is None else row.published.values.get(metric)
    ours = row.measured[metric]
    mean = f"{ours.value.mean:.4f}"
    epochs, seconds = row.mean("epochs"), row.mean("seconds")
    return (
        label,
        shown,
        f"**{mean}**" if ours.value.mean == best else mean,
        span_text(ours.value),
        f"{ours.seeds}",
        "-" if ours.spread is None else f"{ours.spread:.4f}",
        "-" if value is None else f"{ours.value.mean - value:+.4f}",
        "-" if ours.difference is None else f"{ours.difference.mean:+.4f}",
        "-" if ours.difference is None else span_text(ours.difference, signed=True),
        "-" if ours.p_value is None else p_text(ours.p_value),
        "-" if epochs is None else f"{epochs:.0f}",
        "-" if seconds is None else f"{seconds / 60:.1f}",
    )


def _logged(part: Part, found: Measured) -> Iterator[Block]:
    """Yield what the log says in the last epoch, a mean over seeds, of the rows that log it."""
    rows = []
    for row in found.rows:
        ends = [[_at_the_end(run.log, name) for name in part.logged] for run in row.runs.values()]
        known = [[end for end in each if end is not None] for each in zip(*ends, strict=True)]
        if any(known):
            texts = (_mean_text(each, len(ends)) for each in known)
            rows.append((row.method.label, str(len(ends)), *texts))
    if rows:
        yield Grid(("in the last epoch", "seeds", *part.logged), tuple(rows))


def _at_the_end(log: Mapping[str, Sequence[Any]], name: str) -> float | None:
    """Return an entry of the last epoch, or of a stage's last one (``STAGE: ENTRY``)."""
    stage, _, entry = name.rpartition(": ")
    values = log.get(entry, [None])
    if stage:
        values = [v for v, at in zip(values, log.get("stage", ()), strict=False) if at == stage]
    value: float | None = values[-1] if values else None
    return value


def _mean_text(known: Sequence[float], runs: int) -> str:
    """Return a mean, and of how many runs it is, where some do not say."""
    if not known:
        return "-"
    mean = f"{sum(known) / len(known):.3g}"
    return mean if len(known) == runs else f"{mean} ({len(known)} of {runs})"


def span_text(interval: Interval, signed: bool = False) -> str:
    """Return an interval as a table shows it."""
    form = "+.4f" if signed else ".4f"
    return f"{interval.low:{form}} to {interval.high:{form}}"


def p_text(p: float) -> str:
    """Return a p-value as a table shows it.

    Examples
    --------
    >>> p_text(0.0004), p_text(0.0312)
    ('<.001', '.031')
    """
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _impossible(found: Measured) -> Iterator[str]:
    for row in found.rows:
        for reason in row.impossible.values():
            yield f"{IMPOSSIBLE} {row.method.label}, as published, cannot be: {reason}."


def _sources(found: Measured) -> Iterator[str]:
    labels: dict[str, list[str]] = {}
    for row in found.rows:
        if row.published is not None and row.published.source:
            labels.setdefault(row.published.source, []).append(row.method.label)
    for source, whose in labels.items():
        yield f"{SECOND_HAND} {', '.join(whose)}: not from the paper; {source}."


def _changed(found: Measured) -> Iterator[str]:
    for row in found.rows:
        if row.outdated:
            yield (
                f"{row.method.label}: a stored result was made with other settings and is not "
                f"shown ({row.outdated})."
            )


def missing_of(study: Study, part: Part, found: Measured) -> Iterator[Block]:
    """Yield what is missing of a part on a dataset, if anything is."""
    missing = tuple(_missing(study, part, found))
    if missing:
        yield Items(missing)


def _missing(study: Study, part: Part, found: Measured) -> Iterator[str]:
    """Yield what is missing, and the command that would run it."""
    lacking = [row for row in found.rows if row.missing or row.unmeasured]
    if lacking:
        words = ["nextup", "study", study.name, part.name, "--datasets", found.dataset]
        whole = len(lacking) == len([row for row in found.rows if row.absent is None])
        if not whole:
            words += ["--methods", ",".join(row.method.label for row in lacking)]
        runs = sum(len(row.missing) for row in lacking)
        others = sum(len(row.unmeasured) for row in lacking)
        count = "1 run is missing" if runs == 1 else f"{runs} runs are missing"
        without = "1 lacks a measurement" if others == 1 else f"{others} lack a measurement"
        said = ", ".join(text for text, many in ((count, runs), (without, others)) if many)
        yield f"{said}: `{shlex.join(words)}`"
    for row in found.rows:
        if row.absent is not None:
            yield f"{row.method.label} cannot be run yet: {row.absent}."


def every_run(results: Sequence[Result]) -> Grid:
    """Return a row a result: figures, and where they come from."""
    header = (
        *("run", "seed", "HR@10", "NDCG@10", "best epoch", "epochs", "minutes"),
        *("date", "commit", "hardware", "threads", "at once", "ranks"),
    )
    return Grid(header, tuple(_run(result) for result in results))


def _run(result: Result) -> tuple[str, ...]:
    found = result.document
    seconds, machine, how = found.get("seconds"), found.get("hardware", {}), found.get("how", {})
    return (
        f"`{cell_text(result.cell)}`",
        str(result.seed),
        *(f"{result.test[m]:.4f}" if m in result.test else "-" for m in ("HR@10", "NDCG@10")),
        str(found.get("best_epoch") or "-"),
        str(found.get("epochs") or "-"),
        "-" if seconds is None else f"{seconds / 60:.1f}",
        str(found.get("date", ""))[:10],
        _commit(found.get("commit")),
        str(machine.get("gpu") or machine.get("processor") or "-"),
        str(found.get("threads", "-")),
        str(how.get("jobs", "-")),
        str(found.get("ranks_sha256", ""))[:8],
    )


def _commit(commit: object) -> str:
    if not commit:
        return "-"
    return str(commit)[:9] + ("+" if str(commit).endswith("+") else "")
