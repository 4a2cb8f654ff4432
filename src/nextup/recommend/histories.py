"""Histories read from a file, as a recommender numbers their items."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextup.data.plain import whole_text
from nextup.data.rawids import RawId
from nextup.data.sequences import Sequences
from nextup.data.source import all_bytes, check_file, plain_suffix
from nextup.errors import InputError
from nextup.recommend.recommender import LoadedRecommender

if TYPE_CHECKING:
    from nextup.data.dataset import Dataset


@dataclass(frozen=True)
class Histories:
    """Histories of a file: numbers in the recommender's catalogue, 0 where it lacks the item."""

    users: list[Any]
    named: NDArray[np.bool_]
    """``bool[users]``: whether it is a name that the file gives (else the number of its line)."""
    sequences: Sequences
    raws: list[RawId]
    raw_at: NDArray[np.int64]
    """``raws[raw_at[i]]`` is the raw id of ``sequences.items[i]``."""

    def names(self, rows: slice) -> list[RawId | None]:
        """Return the users that the file names, None for the others."""
        pairs = zip(self.users[rows], self.named[rows].tolist(), strict=True)
        return [user if named else None for user, named in pairs]

    def unknown_counts(self) -> NDArray[np.int64]:
        """``int64[users]``: how many items of each history the recommender does not know."""
        row = np.repeat(np.arange(len(self.sequences)), self.sequences.lengths)
        return np.bincount(row[self.sequences.flat() == 0], minlength=len(self.sequences))

    def unknown(self, row: int) -> list[RawId]:
        """Return the items of a history that the recommender does not know."""
        span = slice(self.sequences.starts[row], self.sequences.ends[row])
        missing = np.flatnonzero(self.sequences.items[span] == 0)
        return [self.raws[at] for at in self.raw_at[span][missing].tolist()]


def known_items(sequences: Sequences) -> Sequences:
    """Return the histories less their unknown items."""
    items = sequences.items[sequences.positions()]
    row = np.repeat(np.arange(len(sequences)), sequences.lengths)
    lengths = np.bincount(row[items > 0], minlength=len(sequences))
    ends = np.cumsum(lengths)
    return Sequences(items[items > 0], ends - lengths, ends)


def of_log(log: Dataset, recommender: LoadedRecommender) -> Histories:
    """Return the histories of a log of events."""
    raws = log.catalog.ids.tolist()
    number = np.concatenate(([0], recommender.catalog.numbers_of(raws))).astype(np.int32)
    items = log.sequences.items
    spans = Sequences(number[items], log.sequences.starts, log.sequences.ends)
    everyone = np.ones(len(log.users), dtype=bool)
    return Histories(log.users.tolist(), everyone, spans, raws, items.astype(np.int64) - 1)


def history_lines(
    source: Path, recommender: LoadedRecommender, format: str | None
) -> Histories | None:
    """Read ``{"user": ..., "history": [...]}`` lines; None if the file is of another form."""
    if plain_suffix(source) not in ("jsonl", "ndjson") and format != "jsonl":
        return None
    check_file(source)
    users: list[Any] = []
    named: list[bool] = []
    histories: list[list[Any]] = []
    for number, line in enumerate(all_bytes(source).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not JSON ({error}); write one object a line") from None
        if not users and not (isinstance(entry, dict) and "history" in entry):
            return None
        history = entry.get("history") if isinstance(entry, dict) else None
        if not isinstance(history, list) or any(isinstance(i, (list, dict)) for i in history):
            raise InputError(
                f'{where}: has no list of item ids as "history"; '
                'write {"user": ..., "history": [...]}'
            )
        named.append("user" in entry)
        users.append(_raw_id(entry.get("user", number), f"{where}: the user"))
        histories.append([_raw_id(raw, f"{where}: an item") for raw in history])
    if not users:
        raise InputError(f"{source}: holds no history; write one object a line")
    if len({type(user) for user in users}) > 1:
        users = [str(user) for user in users]
    raws = [raw for history in histories for raw in history]
    lengths = np.fromiter(map(len, histories), np.int64, len(histories))
    ends = np.cumsum(lengths)
    numbers = recommender.catalog.numbers_of(raws).astype(np.int32)
    spans = Sequences(numbers, ends - lengths, ends)
    return Histories(users, np.array(named), spans, raws, np.arange(len(raws)))


def _raw_id(raw: Any, what: str) -> RawId:
    """Return an id as JSON has it: text, or a whole number, if need be with a point."""
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    if not isinstance(raw, (str, int)) or isinstance(raw, bool):
        raise InputError(f"{what} is {raw!r}, neither text nor a whole number")
    return whole_text(raw) if isinstance(raw, str) else raw
