"""`nextup prepare`: a log becomes a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nextup.cli.console import column, command, next_command, note, show, stoppable, table

LAYOUT, CHOOSE, SIDE = "How the log is laid out", "What is kept", "Titles of items"


def _option(group: str, help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, show_default=False)


@command(
    "nextup prepare ratings.csv",
    "nextup prepare ratings.csv --items movies.csv --min-rating 4 --out data/ml",
    "nextup prepare events.parquet --user visitor --item product --min-user 5 --min-item 5",
    "nextup prepare ratings.dat --delimiter :: --no-header --user 1 --item 2 --time 4",
    "nextup prepare Beauty.txt            (lines of: user item item ...)",
)
def prepare(
    source: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet, JSON lines or text; also .gz")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder to make (default data/NAME).")
    ] = None,
    user: Annotated[str | None, _option(LAYOUT, "User column, by name or number.")] = None,
    item: Annotated[str | None, _option(LAYOUT, "Item column.")] = None,
    time: Annotated[str | None, _option(LAYOUT, "Time column.")] = None,
    rating: Annotated[str | None, _option(LAYOUT, "Rating column (for --min-rating).")] = None,
    format: Annotated[
        str | None,
        _option(
            LAYOUT, "csv, tsv, parquet, jsonl, json, s3rec, gaps or pairs; else told by sight."
        ),
    ] = None,
    delimiter: Annotated[str | None, _option(LAYOUT, "What parts the columns of a line.")] = None,
    header: Annotated[
        bool | None,
        _option(LAYOUT, "Whether the first line names the columns.", "--header/--no-header"),
    ] = None,
    encoding: Annotated[str, _option(LAYOUT, "Text encoding (MovieLens-1M: latin-1).")] = "utf-8",
    skip_bad_rows: Annotated[
        bool, _option(LAYOUT, "Leave out, and count, rows that cannot be used.", "--skip-bad-rows")
    ] = False,
    text_ids: Annotated[
        bool, _option(LAYOUT, "Keep ids as text even where they look like numbers.", "--text-ids")
    ] = False,
    items: Annotated[
        Path | None, _option(SIDE, "A file of items: ids, titles, attributes.")
    ] = None,
    item_id: Annotated[str | None, _option(SIDE, "Its id column.")] = None,
    title: Annotated[str | None, _option(SIDE, "Its title column.")] = None,
    items_encoding: Annotated[str | None, _option(SIDE, "Its text encoding.")] = None,
    min_rating: Annotated[float | None, _option(CHOOSE, "Leave out lower ratings.")] = None,
    since: Annotated[str | None, _option(CHOOSE, "Leave out what is earlier (2018-01-31).")] = None,
    until: Annotated[str | None, _option(CHOOSE, "Leave out what is at or after this.")] = None,
    min_user: Annotated[int, _option(CHOOSE, "Least interactions of a user (iterated).")] = 0,
    min_item: Annotated[int, _option(CHOOSE, "Least interactions of an item (iterated).")] = 0,
    drop_duplicates: Annotated[
        bool, _option(CHOOSE, "Keep a user's first of equal items.", "--drop-duplicates")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call it (default the file's).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an old dataset.")] = False,
) -> None:
    """Read a log of interactions and save it as a dataset.

    Columns are guessed from the usual names, and the guess is printed. Rows of equal time keep the
    order of the log. Rows that cannot be used are an error that names the line, or counted and
    reported with --skip-bad-rows. Nothing half-written is ever left behind.
    """
    from nextup.data.prepare import read

    with stoppable():
        data = read(
            source,
            user=column(user),
            item=column(item),
            time=column(time),
            rating=column(rating),
            format=format,
            delimiter=delimiter,
            header=header,
            encoding=encoding,
            items=items,
            item_id=column(item_id),
            title=column(title),
            items_encoding=items_encoding,
            min_rating=min_rating,
            since=since,
            until=until,
            min_user=min_user,
            min_item=min_item,
            drop_duplicates=drop_duplicates,
            skip_bad_rows=skip_bad_rows,
            text_ids=text_ids,
            name=name,
            say=note,
        )
        path = data.save(out or Path("data") / data.name, overwrite=overwrite)
    length = data.card["length"]
    rows = [
        ("users", f"{data.n_users:,}"),
        ("items", f"{data.n_items:,}"),
        ("interactions", f"{data.n_interactions:,}"),
        ("of a user", f"median {length['median']:g}, {length['min']} to {length['max']}"),
    ]
    show(table(("dataset", str(path)), rows))
    next_command("fit", path)
