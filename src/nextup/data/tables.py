"""Delimited text (CSV, TSV, `user item` pairs, MovieLens `::` files) as chunks of a log.

Each block is read by Polars; where that finds anything unusual, the block is read again row by
row, which is slow but knows the line and the fault of every row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nextup.data.collect import Chunk
from nextup.data.columns import (
    ColumnName,
    Mapping,
    Say,
    fields_of,
    guess_delimiter,
    has_header,
    map_columns,
    show,
    spell_delimiter,
)
from nextup.data.source import Block
from nextup.errors import InputError

MOST_RESTARTS = 100


@dataclass
class Layout:
    """How a delimited text is laid out: delimiter, header, columns, roles."""

    delimiter: str
    header: bool
    columns: list[str]
    mapping: Mapping

    @property
    def width(self) -> int:
        """How many columns each row has."""
        return len(self.columns)

    @property
    def quoted(self) -> bool:
        """Whether double quotes hold fields together."""
        return self.delimiter not in ("::", " ")


def find_layout(
    where: str,
    block: Block,
    wanted: dict[str, ColumnName | None],
    required: Sequence[str],
    delimiter: str | None,
    preferred: str,
    header: bool | None,
    say: Say,
) -> Layout:
    """Tell delimiter, header and columns of a text from its first block, saying what is guessed.

    Parameters
    ----------
    where
        The file, for messages.
    block
        The start of the file.
    wanted, required
        As in `map_columns`.
    delimiter, header
        What the user said, or None to guess.
    preferred
        The delimiter that the file's extension stands for.
    say
        Told every guess.

    Raises
    ------
    InputError
        If the columns cannot be found.
    """
    start = block.text[:65536].decode(errors="ignore")
    lines = [line for line in start.split("\n")[:50] if line.strip()]
    lines = lines[:-1] if len(block.text) > 65536 and len(lines) > 1 else lines
    if not lines:
        raise InputError(f"{where}: is empty; give a file with at least one interaction")
    if delimiter is not None:
        parted = spell_delimiter(delimiter)
    else:
        parted = guess_delimiter(lines[:20], preferred)
        if parted and parted != preferred:
            say(f"{where}: delimiter guessed: {show(parted)}")
    if not parted or parted not in lines[0]:
        other = guess_delimiter(lines[:20], ",")
        fails = f"delimiter {show(parted)} does not part" if parted else "no delimiter parts"
        hint = (
            f"it looks like {show(other)}: pass --delimiter {show(other)}"
            if other
            else "name the right one with --delimiter"
        )
        raise InputError(f"{where}: line 1: {fails} this line into columns; {hint}")
    first = [field.strip() for field in fields_of(lines[0], parted)]
    header_here = _header_is_there(where, first, header, parted, wanted, say)
    columns = first if header_here else [str(n) for n in range(1, len(first) + 1)]
    sample = fields_of(lines[1], parted) if header_here and len(lines) > 1 else first
    mapping = map_columns(where, columns, wanted, required, say, header_here, sample, True)
    return Layout(parted, header_here, columns, mapping)


def _header_is_there(
    where: str,
    first: list[str],
    header: bool | None,
    delimiter: str,
    wanted: dict[str, ColumnName | None],
    say: Say,
) -> bool:
    if header is not None:
        return header
    named = [str(c) for c in wanted.values() if c is not None and not str(c).isdecimal()]
    if any(name.strip() in first for name in named):
        return True
    guess = has_header(first, known_only=delimiter in (" ", "::"))
    if not guess and not named:
        say(f"{where}: the first line is taken as data, not as a header")
    return guess or bool(named)


def chunk_of(block: Block, layout: Layout, where: str) -> Chunk:
    """Read the rows of one block.

    Parameters
    ----------
    block
        Whole rows of the file.
    layout
        How they are laid out.
    where
        The file, for messages.

    Raises
    ------
    InputError
        If the block cannot be read as rows at all.
    """
    text, line = block.text, block.line
    if line == 1 and layout.header:
        # A header stands on the first line that is not blank.
        head = len(text) - len(text.lstrip(b"\n"))
        end = text.index(b"\n", head) + 1
        line += text.count(b"\n", 0, end)
        text = text[end:]
    frame = _read_fast(text, layout)
    if frame is not None:
        columns = {role: frame[f"c{at}"] for role, at in layout.mapping.positions.items()}
        return Chunk(columns, line)
    return _read_slowly(text, line, layout, where)


def _read_fast(text: bytes, layout: Layout) -> pl.DataFrame | None:
    """Return the columns needed, or None if any row is out of the ordinary."""
    rows = text.count(b"\n")
    quotes = layout.quoted and b'"' in text
    separators = text.count(layout.delimiter.encode())
    if not quotes and separators != rows * (layout.width - 1):
        return None
    if len(layout.delimiter) > 1:
        text = text.replace(layout.delimiter.encode(), b"\x1f")
    needed = sorted(layout.mapping.positions.values())
    try:
        frame = pl.read_csv(
            text,
            has_header=False,
            separator=layout.delimiter if len(layout.delimiter) == 1 else "\x1f",
            quote_char='"' if layout.quoted else None,
            schema={f"c{at}": pl.String for at in range(layout.width)},
            columns=None if quotes else needed,
        )
        suspects = {*needed, layout.width - 1} if quotes else set(needed)
        usual = not any(frame[f"c{at}"].null_count() for at in suspects)
    except Exception:  # whatever is wrong with it, the slow way says it better
        return None
    return frame if usual and frame.height == rows else None


def _read_slowly(text: bytes, line: int, layout: Layout, where: str) -> Chunk:
    positions = layout.mapping.positions
    values: dict[str, list[str]] = {role: [] for role in positions}
    numbers: list[int] = []
    bad: list[tuple[int, str, str]] = []
    for at, fields, fault in rows_of(Block(text, line), layout, where):
        if fault:
            bad.append((at, "malformed row", fault))
        elif len(fields) != layout.width:
            what = f"{len(fields)} fields where {layout.width} are expected"
            hint = ", so the delimiter may be wrong" if len(fields) == 1 else ""
            bad.append((at, "wrong number of fields", what + hint))
        else:
            numbers.append(at)
            for role, position in positions.items():
                values[role].append(fields[position])
    columns = {role: pl.Series(listed, dtype=pl.String) for role, listed in values.items()}
    return Chunk(columns, np.array(numbers, dtype=np.int64), bad)


def rows_of(block: Block, layout: Layout, where: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield the line, the fields and the fault (or "") of each row; blank lines are no rows.

    Parameters
    ----------
    block, layout, where
        As in `chunk_of`.

    Raises
    ------
    InputError
        If so many quotes are broken that the file is no such table.
    """
    lines, line = block.text.decode().split("\n")[:-1], block.line
    if not layout.quoted:
        for at, row in enumerate(lines, line):
            if row.strip():
                yield at, row.split(None if layout.delimiter == " " else layout.delimiter), ""
        return
    at, restarts = 0, 0
    while at < len(lines):
        start = at
        reader = csv.reader(
            (one + "\n" for one in lines[start:]), delimiter=layout.delimiter, strict=True
        )
        try:
            for fields in reader:
                if fields:
                    yield line + at, fields, ""
                at = start + reader.line_num
        except csv.Error as error:
            # An opening quote that is never closed swallows all that follows: go on after it.
            restarts += 1
            if restarts > MOST_RESTARTS:
                raise InputError(
                    f"{where}: line {line + at}: more than {MOST_RESTARTS} rows have broken "
                    f"quotes ({error}); the file is no {show(layout.delimiter)}-delimited table"
                ) from error
            yield line + at, [], f"its quotes are broken ({error})"
            at += 1
