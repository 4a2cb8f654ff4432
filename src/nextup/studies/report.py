"""The report: everything in the results folder as Markdown, figures and one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nextup.errors import RunError
from nextup.evaluation.significance import RESAMPLES
from nextup.studies.at_once import measured_at_once
from nextup.studies.document import (
    Block,
    Details,
    Grid,
    Heading,
    Paragraph,
    Picture,
    markdown_pages,
    pictures,
)
from nextup.studies.figures import (
    check_matplotlib,
    curves_picture,
    steady_picture,
    sweep_picture,
    table_picture,
)
from nextup.studies.measured import Block as Measured
from nextup.studies.measured import measured_runs, planned_part
from nextup.studies.page import page
from nextup.studies.records import older_records
from nextup.studies.results import Result, Results
from nextup.studies.study import Part, Study, find_study, studies
from nextup.studies.tables import block_of, every_run, missing_of, span_text
from nextup.train.run import write_whole

Drawing = Callable[[str, Part, Sequence[Measured]], Picture | None]

_SHOWN = ("HR@10", "NDCG@10")
_HOW_TO_READ = (
    "Every run is fitted on the training items, its epoch picked on validation, and its test items "
    "ranked once. **ours** is the mean over seeds; its interval covers users (bootstrap, the same "
    "resamples for all methods of a table) and, with more than one seed, the seeds; **sd** is the "
    "deviation between seeds. With one seed nothing is known of what another would give. "
    "Differences pair users, each averaged over the seeds that both methods have. p is of sign "
    "flips over users: it holds the trained models fixed, so where seeds differ the interval is "
    "the more careful of the two; it is not adjusted for the number of rows. Unless a table names "
    "it, the reference is the baseline that is best on validation. † marks a published figure that "
    "cannot come from the same ranks as the one at the next smaller cutoff, rounding allowed for."
)


def write_report(
    results: Path,
    out: Path,
    names: Sequence[str] | None = None,
    figures: bool = True,
    resamples: int = RESAMPLES,
    further: Sequence[Block] = (),
    processes: int = 1,
) -> list[Path]:
    """Write ``studies.md``, pages of each study and part, ``report.html`` and ``figures/*.png``.

    Returns their paths.

    Parameters
    ----------
    results
        The results folder.
    out
        Where to write.
    names
        Which studies; by default all.
    figures
        Whether to draw.
    resamples
        Of users, for intervals and tests.
    further
        What else stands at the end of it.
    processes
        How many measure at once, see `nextup.studies.at_once.measured_at_once`.

    Raises
    ------
    ConfigError
        For an unknown study, or if matplotlib is not there.
    RunError
        If a result is damaged, impossible, or cannot be compared with the others, or something
        cannot be written.
    """
    chosen = [find_study(name) for name in names] if names else list(studies().values())
    if figures:
        check_matplotlib()
    for below in (*(["figures"] if figures else []), *map(_folder_of, chosen)):
        _make(out / below)
    found = report_blocks(Results(results), chosen, figures, resamples, processes)
    blocks = [*found, *further]
    written = []
    for each in pictures(blocks):
        file = out / "figures" / f"{each.name}.png"
        file.write_bytes(each.light)
        written.append(file)
    files = {**markdown_pages(blocks, "studies.md"), "report.html": page("nextup: studies", blocks)}
    for name, text in files.items():
        write_whole(out / name, text)
        written.append(out / name)
    if not names:
        for folder in map(_folder_of, chosen):
            for old in set((out / folder).glob("*.md")) - set(written):
                if old.read_text(encoding="utf-8").startswith("[studies]("):
                    old.unlink()  # of a part that is no more
    return written


def _folder_of(study: Study) -> str:
    return f"study-{study.name}"


def _make(folder: Path) -> None:
    """Make a folder before anything is measured, so that nothing is measured in vain."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made a folder ({error.strerror}); move what is in its way, or "
            "name another folder with --out"
        ) from None


def report_blocks(
    results: Results, chosen: Sequence[Study], figures: bool, resamples: int, processes: int = 1
) -> Iterator[Block]:
    """Yield everything the report consists of; parameters and errors as of `write_report`."""
    yield Heading("Studies", 1)
    yield Paragraph(
        f"Made by `nextup report` from the {len(results.all)} results in `runs/`. {_HOW_TO_READ}"
    )
    measured = _measured_studies(chosen, results, resamples, processes)
    for study, parts in zip(chosen, measured, strict=True):
        yield from study_blocks(study, parts, figures)
    yield from _other_runs(results, list(studies().values()), resamples)
    if results.all:
        yield Heading("Every run", 2)
        yield Paragraph(
            "Each is made again by `nextup study runs RUN --seeds SEED`. Settings, versions, the "
            "log of the epochs and all checksums are in `runs/*.json`."
        )
        for run in results.all:
            run.check()
        yield Details(f"{len(results.all)} runs", (every_run(results.all),))
    older = older_records(results.folder)
    if older is not None:
        yield Heading("Older records", 2)
        yield Paragraph(
            "Made before runs were kept with their ranks, so without intervals and tests: full "
            "ranking, seen items excluded, ties mean, leave-one-out; selected on validation only. "
            "Their settings and commits are in `quality/*.json`."
        )
        yield older


def _measured_studies(
    chosen: Sequence[Study], results: Results, resamples: int, processes: int
) -> list[list[list[Measured]]]:
    """Measure studies: for each its parts, for each of those its datasets."""
    planned = [
        [planned_part(study, part, results, resamples) for part in study.parts] for study in chosen
    ]
    comparisons = [each.comparison for parts in planned for part in parts for each in part]
    found = iter(measured_at_once(comparisons, processes))
    return [[[each.block(next(found)) for each in part] for part in parts] for parts in planned]


def study_blocks(
    study: Study, measured: Sequence[Sequence[Measured]], figures: bool
) -> Iterator[Block]:
    """Yield a study: its parts, each with a figure and its tables.

    Parameters
    ----------
    study
        Which.
    measured
        Of each part what was measured on each dataset.
    figures
        Whether to draw.
    """
    yield Heading(study.title, 2, f"{_folder_of(study)}.md")
    if study.about:
        yield Paragraph(study.about)
    for part, found in zip(study.parts, measured, strict=True):
        yield Heading(part.title, 3, f"{_folder_of(study)}/{part.name}.md")
        if part.about:
            yield Paragraph(part.about)
        drawing: Drawing = table_picture
        if part.curves is not None:
            drawing = curves_picture
        elif part.is_sweep:
            drawing = sweep_picture
        elif part.consistency:
            drawing = steady_picture
        drawn = drawing(f"{study.name}-{part.name}", part, found) if figures else None
        if drawn is not None:
            yield drawn
        shown = block_of if part.curves is None else missing_of
        for block in found:
            yield from shown(study, part, block)


def _other_runs(results: Results, known: Sequence[Study], resamples: int) -> Iterator[Block]:
    """Yield the runs that belong to no study."""
    families = {
        study.cell(method, dataset, 0).family
        for study in known
        for part in study.parts
        for dataset in study.datasets_of(part)
        for method in part.methods
        if method.absent() is None
    }
    others = results.others(families)
    if not others:
        return
    yield Heading("Other runs", 2)
    yield Paragraph("Runs that no study asks for, each measured by itself.")
    by_name: dict[str, dict[int, Result]] = {}
    for result in others:
        by_name.setdefault(result.name.removesuffix(f"-seed{result.seed}"), {})[result.seed] = (
            result
        )
    rows: list[tuple[str, ...]] = []
    for name, runs in sorted(by_name.items()):
        found = measured_runs({name: runs}, _SHOWN, None, resamples)
        first = next(iter(runs.values()))
        means = [found[name, metric].value for metric in _SHOWN]
        shown = [f"{mean.mean:.4f} ({span_text(mean)})" for mean in means]
        protocol = f"{first.protocol.describe()}; split {first.cell.split}"
        rows.append((name, protocol, str(len(runs)), *shown))
    yield Grid(("run", "protocol", "seeds", *_SHOWN), tuple(rows), left=2)
