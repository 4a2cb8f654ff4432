"""A column of times: numbers, ISO dates or datetimes, all turned into ``int64``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextup.data.idcolumn import Mask, Wrong
from nextup.data.times import guess_unit, microseconds

LARGEST = 2.0**62
# Length of the text and its format; all else is read value by value.
FORMATS = {10: "%Y-%m-%d", 19: "%Y-%m-%d %H:%M:%S"}


class TimeColumn:
    """The times of a log; the first value says whether they are numbers or dates.

    Parameters
    ----------
    unit
        The unit of the numbers if it is known; else it is guessed from their size.
    """

    def __init__(self, unit: str | None = None) -> None:
        self.unit = unit
        self._kind = ""
        self._parts: list[NDArray] = []

    def check(self, series: pl.Series) -> tuple[Callable[[Mask | None], None], list[Wrong]]:
        """Return how to take the rows in, and what is wrong with some of them."""
        values, wrong = self._parse(series)

        def take(mask: Mask | None) -> None:
            self._parts.append(values if mask is None else values[mask])

        if not wrong.any():
            return take, []
        kind = {"date": "an ISO date", "number": "a number"}.get(self._kind)
        what = f"{kind} like the others" if kind else "a number or an ISO date"
        ways = "--time names another column, --time none goes by the order of the log"

        def show(row: int) -> str:
            return f"`{series[row]}` is not {what} ({ways})"

        return take, [Wrong("unparseable time", wrong, show)]

    def _parse(self, series: pl.Series) -> tuple[NDArray, Mask]:
        if series.dtype.is_temporal():
            self._kind = self._kind or "date"
            wrong = series.is_null().to_numpy()
            moments = series.cast(pl.Datetime("us"), strict=False).dt.epoch("us")
            return moments.fill_null(0).to_numpy(), wrong
        if self._kind != "date" and series.dtype != pl.String:
            self._kind = "number"
        if self._kind != "date":
            values, wrong = _numbers(series)
            if not wrong.any() or self._kind == "number":
                self._kind = "number"
                return values, wrong
        texts = series.cast(pl.String).fill_null("").str.strip_chars()
        dates, no_date = _dates(texts)
        if self._kind == "date" or not no_date.any():
            self._kind = "date"
            return dates, no_date
        # The first value that is either a number or a date says which all must be.
        first_date, first_number = int(np.argmin(no_date)), int(np.argmin(wrong))
        if wrong[first_number] or (not no_date[first_date] and first_date < first_number):
            self._kind = "" if no_date.all() else "date"
            return dates, no_date
        self._kind = "number"
        return values, wrong

    def finish(self) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Return ``int64[n]`` and the card's entry: the unit and whether it was guessed.

        Numbers with fractions are counted in millionths of the log's unit.
        """
        parts, self._parts = self._parts, []
        times = np.concatenate(parts)
        parts.clear()
        if self._kind == "date":
            return times.astype(np.int64), {"unit": "us", "guessed": False, "from": "dates"}
        scale = 1
        if times.dtype == np.float64:
            whole = bool((times == np.floor(times)).all())
            if not whole and float(np.abs(times).max(initial=0)) < 9e12:
                scale = 1_000_000
            times = np.round(times * scale) if scale > 1 else np.floor(times)
        times = times.astype(np.int64, copy=False)
        unit = self.unit or guess_unit(times)
        card = {"unit": unit, "guessed": self.unit is None, "from": "numbers"}
        if scale > 1:
            card["scaled_by"] = scale
        return times, card


def _numbers(series: pl.Series) -> tuple[NDArray, Mask]:
    """Return the values as ``int64`` if all are integers, else ``float64``, and the wrong ones."""
    if series.dtype == pl.String:
        integers = series.cast(pl.Int64, strict=False)
        if integers.null_count() == 0:
            return integers.to_numpy(), np.zeros(len(series), dtype=bool)
        series = series.str.strip_chars()
    elif series.dtype.is_integer() and series.null_count() == 0:
        integers = series.cast(pl.Int64, strict=False)
        if integers.null_count() == 0:
            return integers.to_numpy(), np.zeros(len(series), dtype=bool)
    values = series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    wrong = ~(np.abs(values) < LARGEST)
    return np.where(wrong, 0.0, values), wrong


def _dates(texts: pl.Series) -> tuple[NDArray[np.int64], Mask]:
    """Return microseconds since 1970 and which texts are no ISO date."""
    length = texts.str.len_bytes().to_numpy()
    usual = FORMATS.get(int(length[0]) if len(length) else 0)
    if usual and bool((length == length[0]).all()):
        plain = texts.str.replace("T", " ", literal=True) if length[0] == 19 else texts
        parsed = plain.str.to_datetime(usual, time_unit="us", strict=False)
        if parsed.null_count() == 0:
            return parsed.dt.epoch("us").to_numpy(), np.zeros(len(texts), dtype=bool)
    known: dict[str, int | None] = {}
    moments = []
    for text in texts.to_list():
        if text not in known:
            known[text] = microseconds(text)
        moments.append(known[text])
    wrong = np.array([moment is None for moment in moments], dtype=bool)
    return np.array([moment or 0 for moment in moments], dtype=np.int64), wrong
