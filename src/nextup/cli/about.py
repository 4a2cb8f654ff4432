"""`nextup models`, `doctor` and `demo`: what there is, whether it works, and a first look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextup.cli.console import command, next_command, note, show, stoppable, table


@command("nextup models", "nextup models sasrec", "nextup models --page > models.md")
def models(
    name: Annotated[
        str | None, typer.Argument(help="Show the paper, settings and recipes of this one.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Print all there is to say of all, as Markdown.")
    ] = False,
) -> None:
    """List the models, or what can be set of one."""
    if page:
        from nextup.model_page import models_page

        print(models_page(), end="")
    elif name is None:
        _all_models()
    else:
        _one_model(name)


def _all_models() -> None:
    from nextup.describe import N_ITEMS, conditions_of_seconds, describe_models

    found = [(m.name, m.kind, m.paper, m.needs, m.parameters, m.seconds) for m in describe_models()]
    show(table(("model", "kind", "paper", "needs", "parameters", "s/epoch"), found))
    note(f"parameters: at the defaults, for {N_ITEMS:,} items")
    for line in conditions_of_seconds() or ["not measured yet"]:
        note(f"s/epoch: the paper's recipe, a figure for each stage; {line}")
    next_command("models", "sasrec")


def _one_model(name: str) -> None:
    from nextup.describe import describe_model, describe_settings, recipe_names

    show(table(("", name), describe_model(name)))
    for title, settings in describe_settings(name).items():
        show(table(("setting", "type", "default", "meaning"), settings), title)
    if recipes := recipe_names(name):
        show(table(("recipe", "what it is"), recipes))
    key = "epochs=20" if len(describe_settings(name)) > 1 else "max_length=1"
    next_command("fit", "DATASET", "--model", name, "--set", key)


@command("nextup doctor")
def doctor() -> None:
    """Check the installation, and say what to do.

    Looks at versions, devices, threads, memory, optional packages and folders.
    """
    from nextup.doctor import examine

    findings = examine()
    show(table(("", "what", "found"), [(f.mark, f.what, f.found) for f in findings]))
    for finding in findings:
        if finding.advice:
            note(f"{finding.what}: {finding.advice}")
    if any(finding.fatal for finding in findings):
        raise typer.Exit(1)
    next_command("demo")


@command(
    "nextup demo",
    "nextup demo --data ratings.csv --titles movies.csv",
    "make demo DATA=ratings.csv TITLES=movies.csv",
)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="A log to use.", show_default="a simulated shop"),
    ] = None,
    titles: Annotated[Path | None, typer.Option(help="Titles of the log's items.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to keep everything.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
) -> None:
    """Fit three models, compare them and recommend, in a minute.

    The models are POP, MC1 and SASRec. Without --data, a shop is simulated whose best possible
    ranking is known, so the table also shows the ceiling. Then type a history of your own and see
    what comes next.
    """
    with stoppable():
        from nextup.demo import run_demo

        run_demo(data, titles, out, seed=seed)
