"""S3-Rec text, JSON lines and JSON dictionaries as chunks of a log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from nextup.data.collect import Chunk
from nextup.data.columns import Mapping
from nextup.data.source import Block
from nextup.errors import InputError


def looks_like_gaps(lines: Sequence[str]) -> bool:
    """Whether each line is ``user item item ...``, a tab, and one time gap for each item."""
    parts = [line.split("\t") for line in lines]
    return bool(parts) and all(
        len(part) == 2 and len(part[0].split()) == len(part[1].split()) + 1 for part in parts
    )


def sequence_chunk(block: Block, gaps: bool) -> Chunk:
    """Read the lines ``user item item ...``; with `gaps`, a tab and the time gaps follow."""
    users: list[str] = []
    items: list[str] = []
    lengths: list[int] = []
    lines: list[int] = []
    steps: list[str] = []
    bad: list[tuple[int, str, str]] = []
    for at, line in enumerate(block.text.decode().split("\n"), block.line):
        text, _, tail = line.partition("\t") if gaps else (line, "", "")
        fields = text.split()
        if not fields and not tail:
            continue
        if len(fields) < 2:
            what = f"user `{line.strip()[:40]}` has no items"
            bad.append((at, "user without items", what))
            continue
        if gaps and len(tail.split()) != len(fields) - 1:
            what = f"{len(tail.split())} time gaps for {len(fields) - 1} items"
            bad.append((at, "wrong number of time gaps", what))
            continue
        users.append(fields[0])
        items.extend(fields[1:])
        lengths.append(len(fields) - 1)
        lines.append(at)
        steps.extend(tail.split())
    owner = np.repeat(np.arange(len(users)), lengths)
    columns = {
        "user": pl.Series(users, dtype=pl.String).gather(owner),
        "item": pl.Series(items, dtype=pl.String),
    }
    if gaps:
        columns["time"] = _cumulated(steps, np.array(lengths, dtype=np.int64))
    return Chunk(columns, np.repeat(np.array(lines, dtype=np.int64), lengths), bad)


def _cumulated(steps: list[str], lengths: np.ndarray) -> pl.Series:
    """Turn gaps to the interaction before into time since the user's first."""
    gaps = pl.Series(steps, dtype=pl.String).cast(pl.Float64, strict=False)
    known = gaps.is_finite().fill_null(False)  # one that is not would spoil all that follow
    filled = gaps.set(~known, 0.0).to_numpy()
    total = np.cumsum(filled)
    starts = np.cumsum(lengths) - lengths
    since = total - np.repeat(total[starts] if len(starts) else total, lengths)
    return pl.Series(since).set(~known, None)


def json_columns(block: Block, where: str) -> list[str]:
    """Return the keys of the first objects of a JSON-lines text, in order of appearance.

    Raises
    ------
    InputError
        If the first line is no JSON object.
    """
    keys: dict[str, None] = {}
    texts = [line for line in block.text[:1_000_000].split(b"\n") if line.strip()]
    if not block.text.strip():
        raise InputError(f"{where}: is empty; give a file with at least one interaction")
    for at, text in enumerate(texts[:20]):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            keys.update(dict.fromkeys(row))
        elif at == 0:
            raise InputError(
                f"{where}: line {block.line}: is no JSON object; each line must hold one, such as "
                '{"user": 1, "item": 2}'
            )
    return list(keys)


def json_chunk(block: Block, mapping: Mapping, first_types: dict[str, type]) -> Chunk:
    """Read the objects of a JSON-lines block.

    Parameters
    ----------
    block
        Whole lines.
    mapping
        Which key holds which role.
    first_types
        Kept from block to block: whether the ids of a role are numbers or text.
    """
    values: dict[str, list[str | None]] = {role: [] for role in mapping.names}
    lines: list[int] = []
    bad: list[tuple[int, str, str]] = []
    for at, text in enumerate(block.text.split(b"\n"), block.line):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            bad.append((at, "malformed JSON", f"is no JSON ({str(error)[:60]})"))
            continue
        if not isinstance(row, dict):
            bad.append((at, "malformed JSON", "is no JSON object"))
            continue
        found: dict[str, str | None] = {}
        for role, key in mapping.names.items():
            text_form, fault = text_of(row.get(key), role, first_types)
            if fault:
                bad.append((at, fault.split(":")[0], f"{fault} in `{key}`"))
                break
            found[role] = text_form
        else:
            lines.append(at)
            for role, text_form in found.items():
                values[role].append(text_form)
    columns = {role: pl.Series(listed, dtype=pl.String) for role, listed in values.items()}
    return Chunk(columns, np.array(lines, dtype=np.int64), bad)


def text_of(value: Any, role: str, first_types: dict[str, type]) -> tuple[str | None, str]:
    """Return the text form of one value, and what is wrong with it (or "").

    Parameters
    ----------
    value
        Of JSON or of a frame.
    role
        What it is: ``"user"``, ``"item"``, ``"time"`` or ``"rating"``.
    first_types
        Filled in with the type of the first id of each role: ids are all numbers or all text.
    """
    if value is None or value != value:
        return None, ""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (str, int, float, np.integer, np.floating)
    ):
        return None, f"mixed types: {type(value).__name__} where a number or text belongs"
    if isinstance(value, str) and not _is_utf8(value):
        return None, f"malformed text: {value[:40]!a}"
    if role not in ("user", "item"):
        return str(value), ""
    if isinstance(value, (float, np.floating)):
        if not float(value).is_integer():
            return None, f"fractional {role} id: {value}"
        value = int(value)
    kind = str if isinstance(value, str) else int
    first = first_types.setdefault(role, kind)
    if kind is not first:
        here, there = ("text", "numbers") if kind is str else ("a number", "text")
        return None, f"mixed types: {role} id `{value}` is {here} where the ids before are {there}"
    return str(value), ""


def _is_utf8(text: str) -> bool:
    """Whether a text can be written; JSON can escape halves of characters, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dictionary_chunks(content: bytes, where: str) -> Iterator[Chunk]:
    """Read one JSON dictionary ``{user: [item, ...]}``; positions count the users from 1.

    Raises
    ------
    InputError
        If the content is no such dictionary.
    """
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: is no JSON ({str(error)[:80]}); one object a line (--format jsonl) or one "
            "dictionary {user: [item, ...]} can be read"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(v, list) for v in stored.values()):
        raise InputError(
            f"{where}: is no dictionary {{user: [item, ...]}}; give that, or JSON lines"
        )
    types: dict[str, type] = {}
    users: list[str] = []
    items: list[str | None] = []
    rows: list[int] = []
    bad: list[tuple[int, str, str]] = []
    for at, (user, history) in enumerate(stored.items(), 1):
        if not history:
            bad.append((at, "user without items", f"user `{user}` has no items"))
        if not _is_utf8(user):
            bad.append((at, "malformed text", f"malformed text: {user[:40]!a}"))
            continue
        for value in history:
            text, fault = text_of(value, "item", types)
            if fault:
                bad.append((at, fault.split(":")[0], fault))
                continue
            users.append(user)
            items.append(text)
            rows.append(at)
    columns = {"user": pl.Series(users, dtype=pl.String), "item": pl.Series(items, dtype=pl.String)}
    yield Chunk(columns, np.array(rows, dtype=np.int64), bad)
