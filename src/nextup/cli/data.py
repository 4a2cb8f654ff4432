"""`nextup prepare`: a log becomes a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextup.cli.console import column, command, next_command, note, show, stoppable, table
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
    option,
)


@command(
    "nextup prepare ratings.csv",
    "nextup prepare ratings.csv --items movies.csv --min-rating 4 --out data/ml",
    "nextup prepare events.parquet --user visitor --item product --min-user 5 --min-item 5",
    "nextup prepare ratings.dat --delimiter :: --no-header --user 1 --item 2 --time 4",
    "nextup prepare Beauty.txt --attributes Beauty_item2attributes.json",
    "nextup prepare Beauty.txt            (lines of: user item item ...)",
)
def prepare(
    source: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet, JSON lines or text; also .gz")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder to make (default data/NAME).")
    ] = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    rating: Annotated[str | None, option("Rating column (for --min-rating).")] = None,
    format: Format = None,
    delimiter: Delimiter = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    skip_bad_rows: SkipBadRows = False,
    text_ids: TextIds = False,
    items: Annotated[Path | None, option("A file of items: ids, titles, attributes.")] = None,
    item_id: Annotated[str | None, option("Its id column.")] = None,
    title: Annotated[str | None, option("Its title column.")] = None,
    items_encoding: Annotated[str | None, option("Its text encoding.")] = None,
    attributes: Annotated[
        Path | None,
        option("A file of items' attributes: JSON {item: [attribute, ...]} or columns of both."),
    ] = None,
    min_rating: Annotated[float | None, option("Leave out lower ratings.")] = None,
    since: Annotated[str | None, option("Leave out what is earlier (2018-01-31).")] = None,
    until: Annotated[str | None, option("Leave out what is at or after this.")] = None,
    min_user: Annotated[int, option("Least interactions of a user (iterated).")] = 0,
    min_item: Annotated[int, option("Least interactions of an item (iterated).")] = 0,
    drop_duplicates: Annotated[
        bool, option("Keep a user's first of equal items.", "--drop-duplicates")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call it (default the file's).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an old dataset.")] = False,
) -> None:
    """Read a log of interactions and save it as a dataset.

    Columns are guessed from the usual names, and the guess is printed. Rows of equal time keep the
    order of the log. Rows that cannot be used are an error that names the line, or counted and
    reported with --skip-bad-rows. Nothing half-written is ever left behind.
    """
    from nextup.data.dataset import check_place
    from nextup.data.prepare import name_of, read

    path = out or Path("data") / (name or name_of(source))
    with stoppable():
        check_place(path, overwrite)  # before the whole log is read
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
            attributes=attributes,
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
        data.save(path, overwrite=overwrite)
    length = data.card["length"]
    rows = [
        ("users", f"{data.n_users:,}"),
        ("items", f"{data.n_items:,}"),
        ("interactions", f"{data.n_interactions:,}"),
        ("of a user", f"median {length['median']:g}, {length['min']} to {length['max']}"),
    ]
    if attributes is not None:
        rows.append(("attributes", f"{data.card['attributes_source']['attributes']:,}"))
    show(table(("dataset", str(path)), rows))
    next_command("fit", path)
