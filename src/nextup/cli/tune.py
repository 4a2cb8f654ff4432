"""`nextup tune`: a seeded search on validation alone, with the same budget for every model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextup.cli import console
from nextup.cli.console import command, next_command, note, show, stoppable, table
from nextup.cli.running import end_if_any_failed, run_all
from nextup.cli.studies import ResultsFolder
from nextup.errors import ConfigError

if TYPE_CHECKING:
    from nextup.studies.cell import Cell
    from nextup.studies.places import Places
    from nextup.tuning.search import Search


@command(
    "nextup tune                                            (what is searched of which model)",
    "nextup tune toys bpr caser sasrec --trials 12 --seconds 300 --jobs 2",
    "nextup tune toys bpr caser sasrec --dry-run            (which trials there would be)",
    "nextup tune data/ml gru4rec --seconds 60 --budget 30m  (stop after half an hour; go on later)",
    "nextup tune toys bpr --write recipes                   (recipes/bpr/tuned-toys.toml)",
    "nextup fit runs/data/toys --recipe recipes/bpr/tuned-toys.toml",
    "nextup study runs toys:bpr:paper:width=128             (then fit what won, and test it)",
)
def tune(
    dataset: Annotated[
        str | None, typer.Argument(help="A public set, or a folder made by `nextup prepare`.")
    ] = None,
    models: Annotated[list[str] | None, typer.Argument(help="What to tune.")] = None,
    trials: Annotated[int, typer.Option(help="For each model, its base recipe among them.")] = 12,
    seconds: Annotated[
        float, typer.Option(help="Of training and validation, for each trial.")
    ] = 300.0,
    seed: Annotated[int, typer.Option(help="Decides what is tried, and each fit.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="32, bf16 or auto.")] = "32",
    budget: Annotated[
        str | None, typer.Option(help="Stop after 90s, 30m or 2h.", show_default="none")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", help="Trials at once.", show_default="cores, or 3 a GPU"),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each trial.", min=1)] = 1,
    results: ResultsFolder = Path("results"),
    runs: Annotated[Path, typer.Option(help="Where runs and prepared data are kept.")] = Path(
        "runs"
    ),
    write: Annotated[
        Path | None,
        typer.Option(help="Write what won as FOLDER/MODEL/tuned-DATASET.toml.", metavar="FOLDER"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the trials.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget an earlier search, and its runs.")
    ] = False,
) -> None:
    """Search settings on validation, each model on the same budget.

    The first trial is the model's base recipe, the others are drawn at random from its space. A
    trial is a fit of its own that ends when its seconds are over, and counts with its best
    validation (NDCG@10 among all items). The test items are cut off before a trial begins.

    Each trial is kept in RESULTS/tuning/DATASET-MODEL.json. Stop whenever you like, with Ctrl-C or
    --budget: the same command goes on, and with more --trials it adds to those that are there.
    """
    if dataset is None:
        _show_spaces()
        return
    if not models:
        raise ConfigError("tune: name the models to tune; `nextup tune` lists those with a space")
    from nextup.studies.places import Places
    from nextup.tuning.search import UNDER, Budget, Search
    from nextup.tuning.space import read_space

    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs: {jobs} is too few; at least 1")
    each = Budget(trials, seconds, seed, device, precision, threads)
    searches = [Search(dataset, read_space(name), each) for name in dict.fromkeys(models)]
    for search in searches:
        if len(search.cells) < trials:
            note(f"{search.model}: its space holds {len(search.cells)} different trials, no more")
    if dry_run:
        _show_trials(searches)
        return
    places = Places(results, runs, UNDER)
    _run(searches, places, jobs or 0, budget, overwrite)
    _show_winners(searches, places, write)


def _run(
    searches: list[Search], places: Places, jobs: int, budget: str | None, overwrite: bool
) -> None:
    """Run the trials that have no outcome yet."""
    from nextup.studies.run_cell import How
    from nextup.studies.runner import Runner, parse_duration
    from nextup.train.device import make_fabric
    from nextup.tuning.search import WORKER, first_of_each

    each = searches[0].budget
    limit = None if budget is None else parse_duration(budget)
    make_fabric(each.device, each.precision)  # a device that is not there is refused once
    with stoppable():
        lists: dict[str, list[Cell]] = {
            search.name: search.missing(search.begin(places, overwrite)) for search in searches
        }
    missing = first_of_each(lists)
    total = sum(len(search.cells) for search in searches)
    note(f"{total - len(missing)} of {total} trials are there already")
    if missing:
        how = How(each.device, each.precision, each.threads, jobs)
        outcome = run_all(Runner(missing, places, how, limit, worker=WORKER), "trial")
        end_if_any_failed(outcome)


def _show_spaces() -> None:
    from nextup.tuning.space import read_space, spaces

    rows = [
        (space.model, space.base or "defaults", ", ".join(space.knobs), space.about)
        for space in map(read_space, spaces())
    ]
    show(table(("model", "base recipe", "searched", "what it is"), rows))
    next_command("tune", "DATASET", "sasrec", "--dry-run")


def _show_trials(searches: list[Search]) -> None:
    from nextup.tuning.search import planned
    from nextup.tuning.table import settings_text

    rows = [
        (search.model, str(number), cell.recipe or "defaults", settings_text(planned(number, cell)))
        for search in searches
        for number, cell in enumerate(search.cells)
    ]
    show(table(("model", "trial", "recipe", "settings"), rows))
    next_command(*(word for word in console.typed if word != "--dry-run"))


def _show_winners(searches: list[Search], places: Places, write: Path | None) -> None:
    """Print a table of the searches, and the recipes of those that are at their end."""
    from nextup.tuning.search import read_search
    from nextup.tuning.table import HEADER, search_row
    from nextup.tuning.winner import best_trial, is_complete, recipe_name, recipe_text, write_recipe

    found = [read_search(search.file(places)) for search in searches]
    show(table(HEADER, map(search_row, found)), f"{searches[0].cells[0].dataset_name}: validation")
    won = [(each, best_trial(each)) for each in found if is_complete(each)]
    runs = [best["run"] for _, best in won if best is not None]
    for document, best in won:
        if best is None:
            note(f"{document['model']}: every trial diverged; no recipe")
        elif write is not None:
            note(f"wrote {write_recipe(document, write)}")
        else:
            show(f"# {recipe_name(document)}.toml\n{recipe_text(document)}")
    if runs:
        next_command("study", "runs", *runs)
