"""Titles and attributes of items, from a file or frame beside the log."""

from __future__ import annotations

import json
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextup.data.catalog import Catalog
from nextup.data.columns import ColumnName, Say, map_columns, plain_name
from nextup.data.frames import frame_columns, frame_kind, open_parquet, parquet_frame
from nextup.data.plain import plain
from nextup.data.rawids import RawIds
from nextup.data.source import Block, Fingerprint, blocks, check_file, plain_suffix
from nextup.data.tables import find_layout, rows_of
from nextup.data.texts import json_columns
from nextup.errors import InputError

LISTS = ("genres", "genre", "categories", "category", "tags", "tag", "attributes", "attribute")
Columns = dict[str, list[Any]]


def build_catalog(
    source: Any,
    ids: RawIds,
    item_id: ColumnName | None,
    title: ColumnName | None,
    encoding: str | None,
    skip_bad_rows: bool,
    say: Say,
) -> tuple[Catalog, dict[str, Any] | None]:
    """Join what a side file knows of the items to their raw ids, by text form.

    Parameters
    ----------
    source
        A file (CSV, TSV, `::`, Parquet, JSON lines, JSON dictionary), a frame, or a dictionary
        ``{raw id: title}``, ``{raw id: {"title": ..., ...}}`` or ``{raw id: [attribute, ...]}``;
        None for no titles.
    ids
        The raw ids of the log's items.
    item_id, title
        The columns, None to guess.
    encoding
        Of a text file; UTF-8 where None.
    skip_bad_rows
        Whether malformed rows are left out and counted.
    say
        Told every guess, and how many items and rows found no partner.

    Returns
    -------
    The catalogue, and the card's entry on the side file (None without one).

    Raises
    ------
    InputError
        If the side file cannot be used, or knows none of the items.
    """
    if source is None:
        return Catalog(ids), None
    side = read_side("items", source, item_id, title, encoding, skip_bad_rows, say)
    where, keys, columns, chosen, card = side.where, side.keys, side.columns, side.title, side.card
    at = ids.numbers_of(keys).tolist()
    row_of: dict[int, int] = {}
    for row, number in enumerate(at):
        if number >= 0:
            row_of.setdefault(number, row)
    if not row_of:
        raise InputError(
            f"{where}: none of its {len(keys):,} ids is an item of the log (first: "
            f"`{keys[0] if keys else ''}`; the log has `{ids[0]}`); name its id column with "
            "--item-id"
        )
    unknown = sum(number < 0 for number in at)
    counts = {
        "items_without_row": len(ids) - len(row_of),
        "rows_of_unknown_items": unknown,
        "repeated_rows": len(keys) - unknown - len(row_of),
        "malformed_rows": side.malformed,
    }
    for what, n in counts.items():
        if n:
            say(f"{where}: {n:,} {what.replace('_', ' ')}")
    joined = {
        name: [column[row_of[n]] if n in row_of else None for n in range(len(ids))]
        for name, column in columns.items()
    }
    titles = joined.pop(chosen, None) if chosen else None
    if titles is not None:
        titles = [_title(value) for value in titles]
    else:
        say(f"{where}: no column of titles; name it with --title")
    for name, values in joined.items():
        joined[name] = part_lists(name, values)
    return Catalog(ids, titles, joined or None), {**card, **counts, "title": chosen}


@dataclass(frozen=True)
class Side:
    """What a side file holds, before it is joined to the items of a log.

    Parameters
    ----------
    where
        What to call it in messages.
    keys
        The raw id of each row.
    columns
        The other columns by name, one value a row.
    title
        Which of them holds titles, if one does.
    malformed
        Rows that were left out.
    card
        The card's entry on it.
    """

    where: str
    keys: list[Any]
    columns: Columns
    title: str | None
    malformed: int
    card: dict[str, Any]


def read_side(
    what: str,
    source: Any,
    item_id: ColumnName | None,
    title: ColumnName | None,
    encoding: str | None,
    skip_bad_rows: bool,
    say: Say,
) -> Side:
    """Read a side file, frame or dictionary; the arguments are those of `build_catalog`.

    `what` is what messages call a source without a name.

    Raises
    ------
    InputError
        If it cannot be used.
    """
    where, side = what, _Side(skip_bad_rows)
    if isinstance(source, MappingType):
        keys, columns = _from_dictionary(dict(source), where)
        chosen: str | None = "title" if "title" in columns else None
    else:
        kind = frame_kind(source)
        where = f"{what} ({kind} frame)" if kind else str(source)
        keys, columns, chosen = (
            _from_frame(source, where, item_id, title, say)
            if kind
            else _from_file(Path(source), item_id, title, encoding or "utf-8", side, say)
        )
    card: dict[str, Any] = {"name": Path(where).name, "rows": len(keys)}
    if side.fingerprint is not None:
        card |= {"sha256": side.fingerprint.sha256, "bytes": side.fingerprint.bytes}
    return Side(where, keys, columns, chosen, side.malformed, card)


class _Side:
    """What was learnt of a side file on the way."""

    def __init__(self, skip_bad_rows: bool) -> None:
        self.skip = skip_bad_rows
        self.malformed = 0
        self.fingerprint: Fingerprint | None = None

    def refuse(self, where: str, line: int, what: str) -> None:
        """Count a malformed row, or raise `InputError` for it."""
        if not self.skip:
            raise InputError(
                f"{where}: line {line}: {what}; mend it, or pass --skip-bad-rows "
                "(skip_bad_rows=True) to leave such rows out"
            )
        self.malformed += 1


def _from_file(
    path: Path,
    item_id: ColumnName | None,
    title: ColumnName | None,
    encoding: str,
    side: _Side,
    say: Say,
) -> tuple[list[Any], Columns, str | None]:
    check_file(path)
    side.fingerprint = Fingerprint(path.name)
    suffix, where = plain_suffix(path), str(path)
    if suffix in ("parquet", "pq"):
        source = open_parquet(path, side.fingerprint)
        return _from_frame(parquet_frame(source, None, where), where, item_id, title, say)
    remedy = "--items-encoding ISO-8859-1"
    stream = blocks(path, encoding, side.fingerprint, 1 << 40, remedy, quoted=True)
    block = next(stream)  # side files are small: one block holds it all
    next(stream, None)
    start = block.text.lstrip()[:1]
    if suffix in ("json", "jsonl", "ndjson") or start == b"{":
        try:
            stored = json.loads(block.text)
        except (ValueError, RecursionError):
            return _from_json_lines(block, where, item_id, title, side, say)
        if not isinstance(stored, dict):
            raise InputError(
                f"{where}: is no JSON dictionary {{item: title}} or {{item: [attribute, ...]}}; "
                "give one, JSON lines or a table"
            )
        keys, columns = _from_dictionary(stored, where)
        return keys, columns, "title" if "title" in columns else None
    wanted = {"item_id": item_id, "title": title}
    preferred = {"tsv": "\t", "tab": "\t", "item": "\t", "dat": "::"}.get(suffix, ",")
    layout = find_layout(where, block, wanted, ["item_id"], None, preferred, None, say)
    width = layout.width
    names = layout.columns
    if not layout.header:
        names = [f"column_{n}" for n in range(1, width + 1)]
        if layout.delimiter == "::" and width == 3:
            names[2] = "genres"
    rows: list[list[str]] = []
    header = layout.header
    for line, fields, fault in rows_of(block, layout, where):
        if header:
            header = False
        elif fault or len(fields) != width:
            side.refuse(where, line, fault or f"{len(fields)} fields where {width} are expected")
        else:
            rows.append([text.strip() for text in fields])
    positions = layout.mapping.positions
    chosen = names[positions["title"]] if "title" in positions else None
    columns = {
        name: [row[at] or None for row in rows]
        for at, name in enumerate(names)
        if at != positions["item_id"]
    }
    return [row[positions["item_id"]] for row in rows], columns, chosen


def _from_json_lines(
    block: Block,
    where: str,
    item_id: ColumnName | None,
    title: ColumnName | None,
    side: _Side,
    say: Say,
) -> tuple[list[Any], Columns, str | None]:
    names = json_columns(block, where)
    mapping = map_columns(where, names, {"item_id": item_id, "title": title}, ["item_id"], say)
    rows: list[dict[str, Any]] = []
    for line, text in enumerate(block.text.split(b"\n"), block.line):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get(mapping.names["item_id"])) in (int, str):
            rows.append(row)
        else:
            side.refuse(where, line, "is no JSON object with an item id")
    keys = [row[mapping.names["item_id"]] for row in rows]
    kept = [name for name in names if name != mapping.names["item_id"]]
    columns = {name: [row.get(name) for row in rows] for name in kept}
    return keys, columns, mapping.names.get("title")


def _from_dictionary(stored: dict[Any, Any], where: str) -> tuple[list[Any], Columns]:
    keys = list(stored)
    values = list(stored.values())
    kinds = [_kind(value) for value in values]
    if set(kinds) == {"dictionary"}:
        names = dict.fromkeys(name for value in values for name in value)
        columns = {str(name): [value.get(name) for value in values] for name in names}
        title = next((name for name in columns if plain_name(name) in ("title", "name")), None)
        if title is not None:
            columns = {"title" if name == title else name: c for name, c in columns.items()}
        return keys, columns
    if set(kinds) == {"list"}:
        return keys, {"attributes": values}
    if set(kinds) <= {"title"}:
        return keys, {"title": values}
    said = {kind: key for key, kind in reversed(list(zip(keys, kinds, strict=True)))}
    raise InputError(
        f"{where}: each item needs a title, a list of attributes, or a dictionary, and all the "
        f"same; here is {' and '.join(f'a {kind} for {key!r}' for kind, key in said.items())}"
    )


def _kind(value: Any) -> str:
    """Return what a dictionary says of an item: a title, a list, a dictionary, or something odd."""
    if isinstance(value, (dict, list)):
        return "list" if isinstance(value, list) else "dictionary"
    return "title" if isinstance(value, str | int | float | None) else type(value).__name__


def _from_frame(
    frame: Any, where: str, item_id: ColumnName | None, title: ColumnName | None, say: Say
) -> tuple[list[Any], Columns, str | None]:
    names = frame_columns(frame)
    mapping = map_columns(where, names, {"item_id": item_id, "title": title}, ["item_id"], say)
    if frame_kind(frame) == "polars":
        frame = frame.collect() if hasattr(frame, "collect") else frame
        lists = {name: frame[name].to_list() for name in names}
    else:
        lists = {
            name: [None if v is None or v != v else v for v in frame.iloc[:, at].tolist()]
            for at, name in enumerate(names)
        }
    key = mapping.names["item_id"]
    keys = [int(v) if isinstance(v, float) and v.is_integer() else v for v in lists.pop(key)]
    return ["" if v is None else v for v in keys], lists, mapping.names.get("title")


def _title(value: Any) -> str | None:
    made = plain(value)
    return None if made in (None, "") else str(made)


def part_lists(name: str, values: list[Any]) -> list[Any]:
    """Part texts such as ``"Comedy|Drama"`` where a column is known to hold lists."""
    made = [plain(value) for value in values]
    if plain_name(name) not in LISTS:
        return made
    return [v.split("|") if isinstance(v, str) else v for v in made]
