"""`nextup study` and `report`: the papers' tables and figures, run again and laid side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextup.cli import console
from nextup.cli.console import (
    command,
    next_command,
    note,
    show,
    split_list,
    table,
)
from nextup.cli.running import end_if_any_failed, run_all
from nextup.errors import ConfigError

if TYPE_CHECKING:
    from nextup.studies.asked import Asked
    from nextup.studies.cell import Cell
    from nextup.studies.places import Places
    from nextup.studies.results import Results
    from nextup.studies.run_cell import How
    from nextup.studies.study import Part, Study

ResultsFolder = Annotated[
    Path, typer.Option("--results", help="Where results are kept, a small file a run.")
]


@command(
    "nextup study                                           (what there is, and what is missing)",
    "nextup study lma4rec table2                            (run what is missing)",
    "nextup study lma4rec table2 table3 --datasets toys --seeds 0-4 --budget 30m",
    'nextup study lma4rec figure4 --methods "weight 0.1" --device cpu --jobs 2',
    "nextup study lma4rec table2 --dry-run                  (what would run, in which order)",
    "nextup study runs toys:sasrec:tuned beauty:gru4rec:tuned:dropout=0.3 --seeds 0,1,2",
    "nextup report                                          (tables, figures, a page)",
)
def study(
    name: Annotated[str | None, typer.Argument(help="A study, or `runs` for runs by name.")] = None,
    parts: Annotated[
        list[str] | None,
        typer.Argument(help="Its tables and figures; or dataset:model[:recipe][:key=value]."),
    ] = None,
    datasets: Annotated[
        str | None, typer.Option(help="Only these.", show_default="the study's")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Only these rows, by label.", show_default="all")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Such as 0,1,2 or 0-4.", show_default="the study's")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="32, bf16 or auto.")] = "32",
    budget: Annotated[
        str | None, typer.Option(help="Stop after 90s, 30m or 2h.", show_default="none")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", help="Runs at once.", show_default="cores, or 3 a GPU"),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each run.", min=1)] = 1,
    results: ResultsFolder = Path("results"),
    runs: Annotated[Path, typer.Option(help="Where runs and prepared data are kept.")] = Path(
        "runs"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would run.")] = False,
) -> None:
    """Run what a paper's tables and figures still need.

    The most valuable runs come first: the first seed of everything before any second one. Each
    leaves a small file in the results folder, and runs that several tables need are made once.
    Stop it whenever you like, with Ctrl-C or --budget: the same command goes on. One that fails is
    reported at the end and stops none of the others. A run that only lacks a measurement, such as
    ranks among sampled candidates, is not fitted again while its folder is there.
    """
    from nextup.studies.overview import lacking_cells
    from nextup.studies.places import Places
    from nextup.studies.results import Results
    from nextup.studies.run_cell import How

    found = Results(results)
    if name is None:
        _show_all(found)
        return
    chosen = _seeds(seeds)
    shown: dict[str, Asked] = {}
    if name == "runs":
        cells = _named_cells(parts or [], chosen, datasets, methods)
    else:
        from nextup.studies.study import find_study
        from nextup.studies.wanted import wanted_cells

        plan = find_study(name)
        if not parts:
            _show_one(plan, found)
            return
        wanted = wanted_cells(
            plan,
            [plan.part(part) for part in parts],
            split_list(datasets),
            split_list(methods),
            chosen,
        )
        cells = [each.cell for each in wanted]
        shown = {each.cell.identity: each.shown for each in wanted}
        _note_absent([plan.part(part) for part in parts])
    if dry_run:
        _show_queue(cells, found, shown)
        return
    missing = [cell for cell in cells if found.find(cell) is None]
    lacking = lacking_cells(cells, found, shown)
    note(f"{len(cells) - len(missing)} of {len(cells)} runs are there already")
    _note_lacking(lacking, Places(results, runs))
    missing += lacking
    if missing:
        if jobs is not None and jobs < 1:
            raise ConfigError(f"jobs: {jobs} is too few; at least 1")
        how = How(device, precision, threads, jobs or 0)
        _run(missing, Places(results, runs), how, budget)
    next_command("report", *(("--results", results) if results != Path("results") else ()))


def _run(missing: list[Cell], places: Places, how: How, budget: str | None) -> None:
    """Run cells, and say what became of them."""
    from nextup.studies.runner import Runner, parse_duration
    from nextup.studies.wanted import asked_by_all
    from nextup.train.device import make_fabric

    seconds = None if budget is None else parse_duration(budget)
    make_fabric(how.device, how.precision)  # a device that is not there is refused once
    end_if_any_failed(run_all(Runner(missing, places, how, seconds, asked_by_all())))


@command(
    "nextup report",
    "nextup report lma4rec --results results --out page",
    "nextup report --no-figures                             (without matplotlib)",
)
def report(
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these studies.", show_default="all")
    ] = None,
    results: ResultsFolder = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where to write.", show_default="the results folder"),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Whether to draw figures.")
    ] = True,
    resamples: Annotated[int, typer.Option(help="Of users, for intervals and tests.")] = 10_000,
    jobs: Annotated[
        int | None,
        typer.Option(help="How many processes measure at once.", show_default="one a core"),
    ] = None,
) -> None:
    """Render all results as tables, figures and one page.

    Writes studies.md with a page for each study (study-NAME.md) and each of its parts, report.html
    (one file, nothing is loaded from elsewhere) and figures/*.png.
    Beside each published value stand ours as a mean over seeds with its interval, the difference,
    and a paired test against the best baseline. Published figures that cannot be true are marked.
    What `nextup tune` found stands in a section of its own.
    """
    from nextup.cores import cores
    from nextup.studies.report import write_report
    from nextup.tuning.table import tuning_blocks

    if resamples < 100:
        raise ConfigError(f"resamples: {resamples} is too few; at least 100")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs: {jobs} is too few; at least 1")
    with console.stoppable():
        further = list(tuning_blocks(results, resamples))
        for file in write_report(
            results, out or results, names or None, figures, resamples, further, jobs or cores()
        ):
            note(f"wrote {file}")


def _show_all(found: Results) -> None:
    from nextup.studies.overview import all_parts

    columns = ("study", "part", "what it is", "done", "not there yet")
    show(table(columns, all_parts(found)), f"studies, with what is done in {found.folder}/")
    next_command("study", "lma4rec", "table2")


def _show_one(plan: Study, found: Results) -> None:
    from nextup.studies.overview import methods_of

    for part in plan.parts:
        names = [Path(dataset).name for dataset in plan.datasets_of(part)]
        rows = methods_of(plan, part, found)
        show(table((part.name, *names, ""), rows), f"{plan.name} {part.name}: {part.title}")
    next_command("study", plan.name, plan.parts[0].name)


def _show_queue(cells: list[Cell], found: Results, shown: dict[str, Asked]) -> None:
    from nextup.studies.overview import queue_of

    show(table(("run", "state"), queue_of(cells, found, shown)))


def _note_lacking(cells: list[Cell], places: Places) -> None:
    from nextup.studies.run_cell import fitted_already

    if cells:
        gone = [cell.name for cell in cells if not fitted_already(cell, places)]
        lacks = "lacks" if len(cells) == 1 else "lack"
        note(f"{len(cells)} of them {lacks} a measurement, which is made now")
        if gone:
            note(f"fitted again, as no such run is in {places.runs}/: {', '.join(gone)}")


def _note_absent(parts: list[Part]) -> None:
    from nextup.studies.wanted import absent_methods

    for label, reason in absent_methods(parts).items():
        note(f"{label} is left out: {reason}")


def _named_cells(
    texts: list[str], seeds: list[int] | None, datasets: str | None, methods: str | None
) -> list[Cell]:
    """Return the runs that are named on the command line, first seeds first."""
    from dataclasses import replace

    from nextup.studies.spelling import parse_cell

    if not texts:
        raise ConfigError("study runs: name some, as dataset:model[:recipe][:key=value]")
    if datasets or methods:
        raise ConfigError("study runs: --datasets and --methods are for studies; name the runs")
    parsed = [parse_cell(text) for text in texts]
    cells = [replace(cell, seed=seed).plain for seed in seeds or [0] for cell in parsed]
    return list({cell.identity: cell for cell in cells}.values())


def _seeds(text: str | None) -> list[int] | None:
    """Read ``0,1,2`` or ``0-4``."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        right = first.isdecimal() and (not dash or (last.isdecimal() and int(first) <= int(last)))
        if not right:
            raise ConfigError(f"seeds `{text}`: write them as 0,1,2 or 0-4")
        seeds += range(int(first), int(last if dash else first) + 1)
    return list(dict.fromkeys(seeds))
