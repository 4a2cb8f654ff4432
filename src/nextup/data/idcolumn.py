"""A column of raw ids, taken in piece by piece as codes, so that no text is held once a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextup.data.rawids import RawIds

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]
Codes = NDArray[np.int32]

ABSENT = ("", "nan", "NaN", "NAN", "null", "NULL", "<NA>")


@dataclass
class Wrong:
    """Rows that cannot be used: why, which (``bool[n]``), and what one of them holds."""

    reason: str
    rows: Mask
    show: Callable[[int], str]


class IdColumn:
    """The ids of one role.

    After `finish`, `strays` marks the rows whose id is no number where nearly all others are,
    `stray` is the first such id, and `remark` says what a person should know of how ids were taken.
    """

    def __init__(self, role: str, as_read: bool = False, text_ids: bool = False) -> None:
        self.role = role
        self.as_read = as_read
        self.text_ids = text_ids
        self.strays: Mask | None = None
        self.stray = ""
        self.remark = ""
        self._parts: list[Integers | tuple[pl.Series, Codes]] = []

    def check(self, series: pl.Series) -> tuple[Callable[[Mask | None], None], list[Wrong]]:
        """Return how to take the rows in, and what is wrong with some of them."""
        integers = _integers(series)
        if integers is not None:
            return self._check_integers(integers)
        texts = series.cast(pl.String).fill_null("").str.strip_chars()
        distinct = texts.unique(maintain_order=True)
        codes = _codes(texts, distinct)
        absent = distinct.is_in(ABSENT).to_numpy()[codes]
        negative = distinct.str.contains(r"^-[0-9]+$").to_numpy()[codes]

        def take(mask: Mask | None) -> None:
            self._parts.append((distinct, codes if mask is None else codes[mask]))

        return take, self._wrongs(absent, negative, lambda row: str(texts[row]))

    def _check_integers(
        self, series: pl.Series
    ) -> tuple[Callable[[Mask | None], None], list[Wrong]]:
        absent = series.is_null().to_numpy()
        values: Integers = series.fill_null(0).to_numpy()

        def take(mask: Mask | None) -> None:
            self._parts.append(values if mask is None else values[mask])

        return take, self._wrongs(absent, values < 0, lambda row: str(values[row]))

    def _wrongs(self, absent: Mask, negative: Mask, show: Callable[[int], str]) -> list[Wrong]:
        wrongs = []
        if absent.any():
            wrongs.append(Wrong(f"absent {self.role} id", absent, lambda row: _absence(show(row))))
        if negative.any():
            wrongs.append(Wrong(f"negative {self.role} id", negative, show))
        return wrongs

    def finish(self) -> tuple[Codes, RawIds]:
        """Return ``int32[n]`` codes and the raw id of each code, in order of numbering.

        Integers are numbered in ascending order (or as read), text in order of first appearance.
        """
        parts, self._parts = self._parts, []
        if all(isinstance(part, np.ndarray) for part in parts) and not self.text_ids:
            values = np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
            parts.clear()
            return number_integers(values, self.as_read)
        codes, distinct = _merge(parts)
        parts.clear()
        if self.text_ids:
            return codes, RawIds.of_text(distinct.to_list())
        numbers = _integers(distinct)
        if numbers is None:
            numbers = self._of_decimals(distinct)
        if numbers is not None:
            return number_integers(numbers.to_numpy()[codes], self.as_read)
        self._find_strays(codes, distinct)
        return codes, RawIds.of_text(distinct.to_list())

    def _of_decimals(self, distinct: pl.Series) -> pl.Series | None:
        """Return whole numbers where all ids are, though some are written like ``1.0``."""
        shorter = distinct.str.replace(r"^(0|[1-9][0-9]*)\.0+$", "${1}")
        changed = int((shorter != distinct).sum())
        numbers = _integers(shorter) if changed else None
        if numbers is not None:
            first = distinct.filter(shorter != distinct)[0]
            self.remark = (
                f"{changed:,} {self.role} ids are written like `{first}`; they are taken as whole "
                "numbers (--text-ids, text_ids=True, keeps them apart)"
            )
        return numbers

    def _find_strays(self, codes: Codes, distinct: pl.Series) -> None:
        odd = ~distinct.str.contains(r"^(0|[1-9][0-9]{0,17})$").to_numpy()
        n_odd = int(odd.sum())
        if n_odd in (0, len(odd)):
            return
        first = str(distinct[int(np.argmax(odd))])
        if len(odd) - n_odd >= 3 and n_odd <= max(1, len(odd) // 100):
            self.stray, self.strays = first, odd[codes]
        else:
            self.remark = (
                f"{self.role} ids are taken as text: {n_odd:,} of {len(odd):,} are no whole "
                f"numbers (first: `{first}`)"
            )


def _absence(text: str) -> str:
    return f"the field holds `{text}`" if text in ABSENT[1:] else "the field is empty"


def number_integers(values: Integers, as_read: bool) -> tuple[Codes, RawIds]:
    """Return the code of each value, and the distinct values in order of their codes."""
    highest = int(values.max(initial=0))
    if highest <= max(1 << 20, 4 * len(values)):  # a table of all values is cheaper than a sort
        present = np.zeros(highest + 1, dtype=bool)
        present[values] = True
        distinct = np.flatnonzero(present)
        table = np.cumsum(present, dtype=np.int32) - np.int32(1)
        codes = table[values]
    else:
        distinct, inverse = np.unique(values, return_inverse=True)
        codes = inverse.astype(np.int32)
    if as_read:
        first = np.full(len(distinct), len(codes))
        np.minimum.at(first, codes, np.arange(len(codes)))
        order = np.argsort(first)
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        codes, distinct = place[codes], distinct[order]
    return codes, RawIds(distinct.astype(np.int64, copy=False))


def _integers(series: pl.Series) -> pl.Series | None:
    """Return the ids as Int64 if all are integers in their shortest form (nulls may be among)."""
    dtype = series.dtype
    if dtype.is_integer():
        numbers: pl.Series = series.cast(pl.Int64, strict=False)
        return numbers if numbers.null_count() == series.null_count() else None
    if dtype != pl.String or (len(series) and not (series[0] or "x")[0].isdigit()):
        return None
    numbers = series.cast(pl.Int64, strict=False)
    if numbers.null_count() or not bool((numbers.cast(pl.String) == series).all()):
        return None
    return numbers


def _codes(texts: pl.Series, distinct: pl.Series) -> Codes:
    numbers = pl.Series(np.arange(len(distinct), dtype=np.int32))
    codes: Codes = texts.replace_strict(distinct, numbers, return_dtype=pl.Int32).to_numpy()
    return codes


def _merge(parts: list[Integers | tuple[pl.Series, Codes]]) -> tuple[Codes, pl.Series]:
    """Bring pieces with their own codes under one list of distinct texts, as first seen."""
    pairs: list[tuple[pl.Series, Codes]] = []
    for part in parts:
        if isinstance(part, np.ndarray):
            texts = pl.Series(part).cast(pl.String)
            distinct = texts.unique(maintain_order=True)
            pairs.append((distinct, _codes(texts, distinct)))
        else:
            pairs.append(part)
    everything = pl.concat([distinct.alias("id") for distinct, _ in pairs])
    distinct = everything.unique(maintain_order=True)
    tables = np.split(
        _codes(everything, distinct), np.cumsum([len(local) for local, _ in pairs])[:-1]
    )
    codes = np.concatenate([table[c] for table, (_, c) in zip(tables, pairs, strict=True)])
    # Ids that stood only in rows left out have no code left.
    used = np.zeros(len(distinct), dtype=bool)
    used[codes] = True
    if used.all():
        return codes, distinct
    place = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return place[codes], distinct.filter(pl.Series(used))
