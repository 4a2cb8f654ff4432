"""From chunks of rows to one log: every value checked, ids turned into codes, memory kept low."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextup.data.columns import Say, silent
from nextup.data.idcolumn import IdColumn, Wrong
from nextup.data.rawids import RawIds
from nextup.data.timecolumn import TimeColumn
from nextup.errors import InputError

Mask = NDArray[np.bool_]


@dataclass
class Chunk:
    """Some rows of a log.

    Parameters
    ----------
    columns
        The roles (``user``, ``item``, ``time``, ``rating``) as series of one length.
    lines
        The line of the first row (the others follow), or ``int64[n]``: the line of each row.
    bad
        Rows that could not even be parted into columns: line, reason, what exactly is wrong.
    """

    columns: dict[str, pl.Series]
    lines: int | NDArray[np.int64]
    bad: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass
class Log:
    """Interactions in the order of the log, one entry a row.

    Parameters
    ----------
    users, items
        ``int32[n]``: codes ``0..``, positions in `user_ids` and `item_ids`.
    times
        ``int64[n]`` or None.
    ratings
        ``float64[n]`` or None.
    user_ids, item_ids
        The raw id of each code, in the order in which users and items are to be numbered.
    rows_read, left_out
        How many rows the source had, and how many of them were left out for each reason.
    time
        The card's entry on the times: unit, and whether it was guessed; None without times.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64] | None
    ratings: NDArray[np.float64] | None
    user_ids: RawIds
    item_ids: RawIds
    rows_read: int
    left_out: dict[str, int]
    time: dict[str, Any] | None

    def keep(self, mask: Mask) -> None:
        """Drop the rows where `mask` is false."""
        self.users = self.users[mask]
        self.items = self.items[mask]
        self.times = None if self.times is None else self.times[mask]
        self.ratings = None if self.ratings is None else self.ratings[mask]


class RatingColumn:
    """Ratings as ``float64``; text that is no number is wrong."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float64]] = []

    def check(self, series: pl.Series) -> tuple[Callable[[Mask | None], None], list[Wrong]]:
        """Return how to take the rows in, and what is wrong with some of them."""
        numbers = series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        wrong = ~np.isfinite(numbers)

        def take(mask: Mask | None) -> None:
            self._parts.append(numbers if mask is None else numbers[mask])

        if not wrong.any():
            return take, []
        return take, [Wrong("rating is no number", wrong, lambda row: f"rating `{series[row]}`")]

    def finish(self) -> NDArray[np.float64]:
        """Return all ratings."""
        return np.concatenate(self._parts)


class Collector:
    """Takes in chunks, refuses or counts the rows that cannot be used, and gives the log.

    Parameters
    ----------
    where
        The file or frame, for messages.
    skip_bad_rows
        Whether such rows are left out and counted; if not, the first one is an error.
    unit
        What the position of a row is called: ``"line"`` or ``"row"``.
    users_as_read
        Whether integer users are numbered as they first appear (else in ascending order).
    text_ids
        Whether ids that look like numbers are kept as text.
    times
        Where times go, if more than the series itself is known of them.
    say
        Told how ids were taken, where that may surprise.
    """

    def __init__(
        self,
        where: str,
        skip_bad_rows: bool,
        unit: str = "line",
        users_as_read: bool = False,
        text_ids: bool = False,
        times: TimeColumn | None = None,
        say: Say = silent,
    ) -> None:
        self.where = where
        self.skip = skip_bad_rows
        self.unit = unit
        self.say = say
        self.left_out: Counter[str] = Counter()
        self.rows_read = 0
        self._lines: list[tuple[int, int | NDArray[np.int64]]] = []
        self._columns: dict[str, IdColumn | TimeColumn | RatingColumn] = {
            "user": IdColumn("user", users_as_read, text_ids),
            "item": IdColumn("item", False, text_ids),
        }
        if times is not None:
            self._columns["time"] = times

    def add(self, chunk: Chunk) -> None:
        """Take in some rows.

        Raises
        ------
        InputError
            Naming the first row that cannot be used, unless such rows are to be skipped.
        """
        n = len(chunk.columns["user"])
        self.rows_read += n + len(chunk.bad)
        takes, wrongs = [], []
        for role, series in chunk.columns.items():
            takes_it, wrong = self._column(role).check(series)
            takes.append(takes_it)
            wrongs += wrong
        self._refuse(chunk, wrongs)
        keep: Mask | None = None
        if wrongs:
            keep = np.ones(n, dtype=bool)
            for each in wrongs:
                self.left_out[each.reason] += int((each.rows & keep).sum())
                keep &= ~each.rows
        for take in takes:
            take(keep)
        if keep is None:
            self._lines.append((n, chunk.lines))
        else:
            self._lines.append((int(keep.sum()), _lines_of(chunk)[keep]))

    def finish(self) -> Log:
        """Return the log.

        Raises
        ------
        InputError
            If no row is left, or some ids are numbers and a few are not.
        """
        if sum(n for n, _ in self._lines) == 0:
            self._nothing_left()
        # One column after the other, each freed before the next is built.
        finished: dict[str, Any] = {}
        strays: Mask | None = None
        for role in list(self._columns):
            column = self._columns.pop(role)
            finished[role] = column.finish()
            if isinstance(column, IdColumn) and column.remark:
                self.say(f"{self.where}: {column.remark}")
            if isinstance(column, IdColumn) and column.strays is not None:
                self._refuse_strays(column)
                strays = column.strays if strays is None else strays | column.strays
        users, user_ids = finished["user"]
        items, item_ids = finished["item"]
        times, time = finished.get("time", (None, None))
        ratings = finished.get("rating")
        counts = dict(self.left_out)
        log = Log(users, items, times, ratings, user_ids, item_ids, self.rows_read, counts, time)
        if strays is not None:
            self.left_out["mixed types"] += int(strays.sum())
            log.left_out = dict(self.left_out)
            log.keep(~strays)
            if len(log.users) == 0:
                self._nothing_left()
        return log

    def _column(self, role: str) -> IdColumn | TimeColumn | RatingColumn:
        if role not in self._columns:
            self._columns[role] = TimeColumn() if role == "time" else RatingColumn()
        return self._columns[role]

    def _refuse(self, chunk: Chunk, wrongs: list[Wrong]) -> None:
        if self.skip:
            for _, reason, _ in chunk.bad:
                self.left_out[reason] += 1
            return
        first: list[tuple[int, str]] = [(line, what) for line, _, what in chunk.bad]
        for wrong in wrongs:
            row = int(np.argmax(wrong.rows))
            first.append((int(_lines_of(chunk)[row]), f"{wrong.reason}: {wrong.show(row)}"))
        if first:
            line, what = min(first)
            raise InputError(
                f"{self.where}: {self.unit} {line}: {what}; mend it, or pass --skip-bad-rows "
                "(skip_bad_rows=True) to leave such rows out"
            )

    def _refuse_strays(self, column: IdColumn) -> None:
        assert column.strays is not None
        if self.skip:
            return
        row = int(np.argmax(column.strays))
        for n, lines in self._lines:
            if row < n:
                at = lines + row if isinstance(lines, int) else int(lines[row])
                raise InputError(
                    f"{self.where}: {self.unit} {at}: mixed types: {column.role} id "
                    f"`{column.stray}` is no whole number as the others are; mend it, pass "
                    "--skip-bad-rows to leave such rows out, or --text-ids (text_ids=True) if "
                    "all ids are text"
                )
            row -= n

    def _nothing_left(self) -> None:
        if self.left_out:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.left_out.items())
            raise InputError(
                f"{self.where}: none of the {self.rows_read:,} rows can be used ({reasons}); "
                "check the delimiter and which column is which"
            )
        raise InputError(
            f"{self.where}: is empty but for its header; give at least one interaction"
        )


def _lines_of(chunk: Chunk) -> NDArray[np.int64]:
    if isinstance(chunk.lines, int):
        return np.arange(chunk.lines, chunk.lines + len(chunk.columns["user"]))
    return chunk.lines
