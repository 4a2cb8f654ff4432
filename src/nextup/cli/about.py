"""`nextup models`, `doctor` and `demo`: what there is, whether it works, and a first look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextup.cli.console import command, next_command, note, show, stoppable, table


@command("nextup models", "nextup models sasrec")
def models(
    name: Annotated[str | None, typer.Argument(help="Show what can be set of this one.")] = None,
) -> None:
    """List the models, or what can be set of one."""
    from nextup.describe import describe_models, describe_settings, recipe_names

    if name is None:
        show(table(("model", "learns by", "paper"), describe_models()))
        next_command("models", "sasrec")
        return
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
