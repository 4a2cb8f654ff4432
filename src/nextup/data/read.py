"""Any log of interactions -> a `Log`: the format guessed or named, the columns guessed or named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextup.data.collect import Chunk, Collector, Log
from nextup.data.columns import ColumnName, Say, guess_delimiter, has_header, map_columns
from nextup.data.frames import (
    frame_columns,
    frame_kind,
    frame_series,
    open_parquet,
    parquet_columns,
    parquet_frame,
    slices,
)
from nextup.data.source import (
    Block,
    Fingerprint,
    all_bytes,
    blocks,
    check_file,
    plain_suffix,
    raw_bytes,
)
from nextup.data.tables import chunk_of, find_layout
from nextup.data.texts import (
    dictionary_chunks,
    json_chunk,
    json_columns,
    looks_like_gaps,
    sequence_chunk,
)
from nextup.data.timecolumn import TimeColumn
from nextup.errors import InputError, suggest

FORMATS = {
    "csv": "table, its columns parted by commas or the like",
    "tsv": "tab-separated table",
    "parquet": "Parquet table",
    "jsonl": "JSON lines, one object a line",
    "json": "JSON dictionary {user: [item, ...]}",
    "s3rec": "S3-Rec text, one line `user item item ...` a user",
    "gaps": "S3-Rec text with a tab and time gaps after the items",
    "pairs": "pair text, one line `user item` an interaction",
}
EXTENSIONS = {
    "csv": "csv",
    "tsv": "tsv",
    "inter": "tsv",
    "tab": "tsv",
    "parquet": "parquet",
    "pq": "parquet",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}


@dataclass
class Reading:
    """What the user said about a source; None is to be guessed."""

    columns: dict[str, ColumnName | None] = field(default_factory=dict)
    format: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    encoding: str = "utf-8"
    need_rating: bool = False
    skip_bad_rows: bool = False
    text_ids: bool = False


@dataclass
class Origin:
    """Where a log came from, for the card."""

    name: str
    format: str
    columns: dict[str, dict[str, object]] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the card's entry on the source."""
        seen = self.fingerprint
        entry: dict[str, Any] = {"name": self.name, "format": self.format}
        if seen is not None:
            entry |= {"sha256": seen.sha256, "bytes": seen.bytes}
        return entry


def read_log(source: Any, reading: Reading, say: Say) -> tuple[Log, Origin]:
    """Read a whole log, checking every row.

    Parameters
    ----------
    source
        Path of a file, or a Polars or pandas frame.
    reading
        What is known of it.
    say
        Told every guess.

    Returns
    -------
    The log in its own order, and where it came from.

    Raises
    ------
    InputError
        If the source, or a row of it, cannot be used.
    """
    kind = frame_kind(source)
    if kind:
        return _read_frame(source, f"{kind} frame", reading, say)
    if not isinstance(source, (str, Path)):
        raise InputError(
            f"a {type(source).__name__} cannot be read; give a path, or a pandas or Polars frame"
        )
    path = Path(source)
    check_file(path)
    chosen = reading.format or guess_format(path, reading, say)
    if chosen not in FORMATS:
        raise InputError(f"format `{chosen}` is unknown{suggest(chosen, FORMATS)}")
    if chosen == "parquet":
        return _read_parquet(path, reading, say)
    return _read_text(path, chosen, reading, say)


def guess_format(path: Path, reading: Reading, say: Say) -> str:
    """Tell the format of a file from its extension, else from its content.

    Parameters
    ----------
    path
        The file.
    reading
        What is known of it: encoding and delimiter.
    say
        Told the guess, where it was made from the content.

    Returns
    -------
    A key of `FORMATS`.

    Raises
    ------
    InputError
        If the file is empty or binary.
    """
    suffix = plain_suffix(path)
    if suffix in EXTENSIONS:
        return EXTENSIONS[suffix]
    for start in raw_bytes(path):
        if start.startswith(b"PAR1"):
            say(f"{path}: read as {FORMATS['parquet']}")
            return "parquet"
        break
    first = next(blocks(path, reading.encoding, size=1 << 16))
    guess = _format_of_text(first, reading.delimiter, str(path))
    say(f"{path}: read as {FORMATS[guess]}")
    return guess


def _format_of_text(block: Block, delimiter: str | None, where: str) -> str:
    text = block.text[: 1 << 20].decode(errors="ignore")
    lines = [line for line in text.lstrip().split("\n")[:200] if line.strip()]
    if not lines:
        raise InputError(f"{where}: is empty; give a file with at least one interaction")
    if lines[0].lstrip()[:1] in ("{", "["):
        try:
            row = json.loads(lines[0])
        except (ValueError, RecursionError):
            return "json"
        lists = isinstance(row, dict) and row and all(isinstance(v, list) for v in row.values())
        return "json" if lists or not isinstance(row, dict) else "jsonl"
    if len(lines) > 100:
        lines = lines[:-1]
    if delimiter is not None:
        return "csv"
    if looks_like_gaps(lines):
        return "gaps"
    if guess_delimiter(lines[:20], ",") not in ("", " "):
        return "tsv" if guess_delimiter(lines[:20], "\t") == "\t" else "csv"
    if all(len(line.split()) == 2 for line in lines):
        return "pairs"
    # Names of columns in the first line: a table parted by spaces, not users and their items.
    return "csv" if has_header(lines[0].split(), known_only=True) else "s3rec"


def _wanted(reading: Reading) -> dict[str, ColumnName | None]:
    roles = ["user", "item", "time", "rating"] if reading.need_rating else ["user", "item", "time"]
    wanted = {role: reading.columns.get(role) for role in roles}
    if str(wanted["time"]).lower() == "none" and wanted["time"] is not None:
        del wanted["time"]
    return wanted


def _required(reading: Reading) -> list[str]:
    return ["user", "item", "rating"] if reading.need_rating else ["user", "item"]


def _read_frame(frame: Any, where: str, reading: Reading, say: Say) -> tuple[Log, Origin]:
    columns = frame_columns(frame)
    mapping = map_columns(where, columns, _wanted(reading), _required(reading), say)
    collector = Collector(where, reading.skip_bad_rows, "row", text_ids=reading.text_ids, say=say)
    for chunk in slices(frame_series(frame, mapping, where)):
        collector.add(chunk)
    return collector.finish(), Origin(where, where, mapping.to_json())


def _read_parquet(path: Path, reading: Reading, say: Say) -> tuple[Log, Origin]:
    fingerprint = Fingerprint(path.name)
    where = str(path)
    source = open_parquet(path, fingerprint)
    columns = parquet_columns(source, where)
    mapping = map_columns(where, columns, _wanted(reading), _required(reading), say)
    collector = Collector(where, reading.skip_bad_rows, "row", text_ids=reading.text_ids, say=say)
    frame = parquet_frame(source, list(mapping.names.values()), where)
    for chunk in slices(frame_series(frame, mapping, where)):
        collector.add(chunk)
    return collector.finish(), Origin(path.name, "parquet", mapping.to_json(), fingerprint)


def _read_text(path: Path, chosen: str, reading: Reading, say: Say) -> tuple[Log, Origin]:
    where = str(path)
    fingerprint = Fingerprint(path.name)
    origin = Origin(path.name, chosen, fingerprint=fingerprint)
    sequences = chosen in ("s3rec", "gaps", "json")
    collector = Collector(
        where,
        reading.skip_bad_rows,
        "user" if chosen == "json" else "line",
        users_as_read=sequences,
        text_ids=reading.text_ids,
        times=TimeColumn("gaps") if chosen == "gaps" else None,
        say=say,
    )
    columns = {role: column for role, column in _wanted(reading).items() if column is not None}
    if sequences and (reading.need_rating or columns):
        raise InputError(
            f"{where}: {FORMATS[chosen]} has no columns to choose, and none for ratings or times; "
            "name another format with --format, or leave those settings out"
        )
    if chosen == "pairs" and "time" in columns:
        raise InputError(
            f"{where}: {FORMATS[chosen]} has no column of times; leave --time out, or name another "
            "format with --format"
        )
    for chunk in _chunks(path, chosen, reading, origin, say):
        collector.add(chunk)
    return collector.finish(), origin


def _chunks(path: Path, chosen: str, reading: Reading, origin: Origin, say: Say) -> Iterator[Chunk]:
    where = str(path)
    if chosen == "json":
        yield from dictionary_chunks(all_bytes(path, origin.fingerprint), where)
        return
    quoted = chosen in ("csv", "tsv")
    stream = blocks(path, reading.encoding, origin.fingerprint, quoted=quoted)
    if chosen in ("s3rec", "gaps"):
        for block in stream:
            yield sequence_chunk(block, chosen == "gaps")
        return
    first = next(stream)
    rest = _first_and_rest(first, stream)
    wanted, required = _wanted(reading), _required(reading)
    if chosen == "jsonl":
        columns = json_columns(first, where)
        mapping = map_columns(where, columns, wanted, required, say)
        origin.columns = mapping.to_json()
        types: dict[str, type] = {}
        for block in rest:
            yield json_chunk(block, mapping, types)
        return
    delimiter = " " if chosen == "pairs" else reading.delimiter
    preferred = {"csv": ",", "tsv": "\t"}.get(chosen, " ")
    if chosen == "pairs":
        wanted = {key: wanted[key] for key in ("user", "item")}
    layout = find_layout(where, first, wanted, required, delimiter, preferred, reading.header, say)
    origin.columns = layout.mapping.to_json()
    for block in rest:
        yield chunk_of(block, layout, where)


def _first_and_rest(first: Block, rest: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from rest
