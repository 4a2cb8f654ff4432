"""How a log is read: the options that `nextup prepare` and `nextup recommend --input` share."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def option(help: str, *names: str) -> Any:
    """Return an option whose default needs no showing."""
    return typer.Option(*names, help=help, show_default=False)


User = Annotated[str | None, option("User column, by name or number.")]
Item = Annotated[str | None, option("Item column.")]
Time = Annotated[str | None, option("Time column.")]
Format = Annotated[
    str | None,
    option("csv, tsv, parquet, jsonl, json, s3rec, gaps or pairs; else told by sight."),
]
Delimiter = Annotated[str | None, option("What parts the columns of a line.")]
Header = Annotated[
    bool | None, option("Whether the first line names the columns.", "--header/--no-header")
]
Encoding = Annotated[str, option("Text encoding (MovieLens-1M: latin-1).")]
SkipBadRows = Annotated[
    bool, option("Leave out, and count, rows that cannot be used.", "--skip-bad-rows")
]
TextIds = Annotated[
    bool, option("Keep ids as text even where they look like numbers.", "--text-ids")
]
