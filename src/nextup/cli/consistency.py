"""`nextup consistency`: what a wrong click does to a run's recommendations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextup.cli.console import command, note, show, split_list, stoppable, table

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@command(
    "nextup consistency runs/ml-sasrec",
    "nextup consistency runs/ml-sasrec data/ml --accidents 'wrong click,swap' -k 20 --seed 1",
    "nextup consistency runs/ml-sasrec --json > consistency.json",
)
def consistency(
    run: Annotated[Path, typer.Argument(help="A folder made by `nextup fit`.")],
    dataset: Annotated[
        Path | None,
        typer.Argument(help="The dataset it was fitted on.", show_default="where it was then"),
    ] = None,
    part: Annotated[str, typer.Option(help="test or valid.")] = "test",
    accidents: Annotated[
        str | None,
        typer.Option(help="Of wrong click, swap, splice, forget.", show_default="each"),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Length of the lists.")] = 10,
    persistence: Annotated[
        float, typer.Option(help="How likely a reader looks one place further.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Decides the accidents.")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure how much recommendations jump at a wrong click.

    A wrong click is appended, two neighbours are swapped, a stranger's items are spliced in, the
    older half is forgotten: how much of the list stays (RBO and Jaccard, 1 is all of it), and what
    it costs in accuracy. The means are kept in the run.
    """
    import json

    from nextup.train.consistency import consistency as measure

    with stoppable():
        found = measure(
            run,
            dataset,
            part=part,
            accidents=split_list(accidents),
            k=k,
            p=persistence,
            seed=seed,
            device=device,
        )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
        return
    header, *rows = found.table()
    show(table(header, rows), f"{run}: {part}")
    note(found.describe())
