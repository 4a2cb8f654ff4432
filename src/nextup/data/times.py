"""Points in time: which unit a log counts in, and an ISO date in that unit."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.errors import InputError

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
UNIT_NAMES = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970 (UTC)",
    "ns": "nanoseconds since 1970",
    "own": "the log's own numbers",
    "gaps": "seconds since the user's first interaction",
}


def guess_unit(times: NDArray[np.int64]) -> str:
    """Return the unit that makes the middle of `times` a day between 1973 and 2128, or "own"."""
    middle = float(np.median(times[:: max(1, len(times) // 10_000)])) if len(times) else 0.0
    for unit, per_second in PER_SECOND.items():
        if 1e8 * per_second <= middle < 5e9 * per_second:
            return unit
    return "own"


def microseconds(text: str) -> int | None:
    """Return an ISO 8601 date or time as microseconds since 1970, None if it is none.

    Without an offset it is taken as UTC.

    Examples
    --------
    >>> microseconds("1970-01-01T00:00:01Z"), microseconds("1970-01-02"), microseconds("soon")
    (1000000, 86400000000, None)
    """
    cleaned = text.strip()
    if cleaned[-1:] in ("Z", "z"):
        cleaned = cleaned[:-1] + "+00:00"
    if len(cleaned) < 10 or cleaned[4] != "-" or cleaned[7] != "-":
        return None  # newer Pythons also read forms such as 20200101, which is a number here
    if cleaned[10:11] not in ("", " ", "T", "t"):
        return None
    clock, dot, rest = cleaned.partition(".")
    if dot:  # Python 3.10 reads only 3 or 6 digits of a fraction
        digits = len(rest) - len(rest.lstrip("0123456789"))
        cleaned = f"{clock}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    try:
        moment = datetime.fromisoformat(cleaned)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def told(time: int, of: dict[str, Any] | None) -> str:
    """Return a stored time as the log has it, and as `parse_point` reads it.

    Examples
    --------
    >>> told(10_500_000, {"unit": "own", "scaled_by": 1_000_000}), told(7, {"unit": "own"})
    ('10.5', '7')
    """
    scale = int((of or {}).get("scaled_by", 1))
    whole, rest = divmod(time, scale)
    return f"{whole + rest / scale:.6f}".rstrip("0") if rest else str(whole)


def parse_point(point: object, time: dict[str, Any] | None, what: str) -> int:
    """Return a point in time (a number, or an ISO date) in a log's unit.

    Parameters
    ----------
    point
        An integer, its text, an ISO date or time, or a `datetime`.
    time
        The entry ``time`` of a dataset's card: ``{"unit": ...}``, and ``scaled_by`` where
        fractions made the stored times multiples of the log's own.
    what
        Where the point was given, for the message.

    Raises
    ------
    InputError
        If it is neither, or is a date where the log does not count from 1970.
    """
    text = str(point).strip()
    scale = int((time or {}).get("scaled_by", 1))
    try:
        return int(text) * scale
    except ValueError:
        pass
    try:
        return round(float(text) * scale)
    except (ValueError, OverflowError):
        pass
    since = microseconds(text)
    if since is None:
        raise InputError(
            f"{what}: `{text}` is no point in time; give an ISO date such as 2018-01-31 or a "
            "number in the log's own unit"
        )
    unit = (time or {}).get("unit", "own")
    if unit not in PER_SECOND:
        raise InputError(
            f"{what}: `{text}` is a date, but the times of this log are "
            f"{UNIT_NAMES.get(str(unit), str(unit))}; give the point as a number"
        )
    return since * PER_SECOND[unit] // 1_000_000
