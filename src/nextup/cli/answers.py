"""`nextup recommend` and `similar`: a run answers, in raw ids and titles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nextup.cli.console import (
    column,
    command,
    next_command,
    note,
    show,
    split_list,
    stoppable,
    table,
)
from nextup.cli.reading import (
    Delimiter,
    Encoding,
    Format,
    Header,
    Item,
    SkipBadRows,
    TextIds,
    Time,
    User,
)
from nextup.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from nextup.data.rawids import RawId
    from nextup.recommend.answers import Recommendation
    from nextup.recommend.recommender import LoadedRecommender

RunFolder = Annotated[Path, typer.Argument(help="A folder made by `nextup fit`.")]
K = Annotated[int | None, typer.Option("-k", help="How many items.", show_default="10")]
USUAL = 10
"""How many items are listed where nothing is said (fewer where there are fewer)."""
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@command(
    'nextup recommend runs/ml-sasrec "Toy Story" Alien 2571',
    "nextup recommend runs/ml-sasrec                        (no history: the popular items)",
    "nextup recommend runs/ml-sasrec --input new.csv --output lists.csv -k 20",
    "nextup recommend runs/ml-sasrec 318 --exclude 296,593 --include-seen --json",
)
def recommend(
    run: RunFolder,
    items: Annotated[
        list[str] | None,
        typer.Argument(help="A history, oldest first: raw ids or pieces of titles."),
    ] = None,
    k: K = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="Histories: a log, or JSON lines of user, history."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv, .tsv, .parquet or .jsonl file.")
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Items of the history may be recommended.")
    ] = False,
    exclude: Annotated[
        str | None, typer.Option(help="Ids to leave out: a,b,c or @FILE of one a line.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Ids to choose from: a,b,c or @FILE.")] = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    format: Format = None,
    delimiter: Delimiter = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    skip_bad_rows: SkipBadRows = False,
    text_ids: TextIds = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output.")] = False,
    as_json: AsJson = False,
    device: Device = "cpu",
) -> None:
    """Recommend what comes next, after one history or many.

    Nothing but the run is needed, and the user need not have been seen before; users of --input
    whom the model learnt something of are answered with that. Items of the history that the run
    does not know are skipped and reported. The options from --user to --text-ids say how --input
    is read.
    """
    if (input is None) != (output is None):
        missing = "--output" if output is None else "--input"
        raise ConfigError(f"recommend: {missing} is missing; a file needs both of them")
    if input is not None and items:
        raise ConfigError("recommend: give items or --input, not both")
    if input is None and (user or item or time):
        raise ConfigError(
            "recommend: --user, --item and --time name columns of --input; for one user give the "
            "items of their history"
        )
    reads = format or delimiter or header is not None or encoding != "utf-8"
    if input is None and (reads or skip_bad_rows or text_ids or overwrite):
        raise ConfigError("recommend: the options from --format to --overwrite are for --input")
    if input is not None and as_json:
        raise ConfigError("recommend: --json is for one history; name --output lists.jsonl instead")
    from nextup.recommend.recommender import load

    recommender = load(run, device=device)
    k = min(USUAL, recommender.n_items) if k is None else k
    left_out, chosen = split_list(exclude), split_list(only)
    if input is not None and output is not None:
        from nextup.recommend.files import recommend_file

        with stoppable():
            summary = recommend_file(
                recommender,
                input,
                output,
                k,
                exclude_seen=not include_seen,
                exclude=left_out,
                only=chosen,
                user=column(user),
                item=column(item),
                time=column(time),
                format=format,
                delimiter=delimiter,
                header=header,
                encoding=encoding,
                skip_bad_rows=skip_bad_rows,
                text_ids=text_ids,
                overwrite=overwrite,
                say=note,
            )
        note(f"{output}: {summary.describe()}")
        return
    history = _history(recommender, items or [])
    found = recommender.recommend(
        [history], k, exclude_seen=not include_seen, exclude=left_out, only=chosen
    )[0]
    _show(found, as_json)
    model = recommender.model
    if found.items and (model.factors or callable(getattr(model, "similar", None))):
        next_command("similar", run, found.items[0])
    else:
        next_command("recommend", run, "--input", "LOG", "--output", "lists.csv")


@command(
    'nextup similar runs/ml-sasrec "Toy Story"',
    "nextup similar runs/ml-sasrec 2571 -k 5 --json",
)
def similar(
    run: RunFolder,
    item: Annotated[str, typer.Argument(help="A raw id or a piece of a title.")],
    k: K = None,
    as_json: AsJson = False,
    device: Device = "cpu",
) -> None:
    """List the items most like one (cosine of their vectors)."""
    from nextup.recommend.recommender import load
    from nextup.recommend.typed import typed_items

    recommender = load(run, device=device)
    typed = typed_items(recommender.catalog, [item])[0]
    if not typed.found:
        raise InputError(typed.note)
    note(f"like {typed.raw}  {typed.note}")
    k = max(1, min(USUAL, recommender.n_items - 1)) if k is None else k
    _show(recommender.similar_items(typed.raw, k), as_json)


def _history(recommender: LoadedRecommender, texts: list[str]) -> list[RawId]:
    """Find the typed items and tell what each was taken for."""
    from nextup.recommend.typed import typed_items

    typed = typed_items(recommender.catalog, texts)
    for each in typed:
        note(f"after {each.raw}  {each.note}" if each.found else each.note)
    return [each.raw for each in typed]


def _show(found: Recommendation, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    show(recommendation_table(found))
    if found.note:
        note(found.note)


def recommendation_table(found: Recommendation) -> Table:
    """Return a list of items as a table; without titles where the catalogue has none."""
    rows = list(zip(range(1, len(found) + 1), found.items, found.titles, found.scores, strict=True))
    if any(found.titles):
        return table(("", "item", "title", "score"), rows)
    return table(("", "item", "score"), [(n, raw, score) for n, raw, _, score in rows])
