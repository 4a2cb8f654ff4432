"""Polars frames, pandas frames and Parquet files as chunks of a log."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nextup.data.collect import Chunk
from nextup.data.columns import Mapping
from nextup.data.source import Fingerprint, all_bytes, raw_bytes
from nextup.data.texts import text_of
from nextup.errors import InputError

SLICE = 1 << 20


def is_frame(source: object) -> bool:
    """Whether `source` is a Polars or pandas frame."""
    return frame_kind(source) != ""


def frame_kind(source: object) -> str:
    """Return ``"polars"``, ``"pandas"`` or ``""``, without importing either."""
    root = type(source).__module__.partition(".")[0]
    named = type(source).__name__ in ("DataFrame", "LazyFrame")
    return root if named and root in ("polars", "pandas") else ""


def frame_columns(frame: Any) -> list[str]:
    """Return the names of a frame's columns."""
    if isinstance(frame, pl.LazyFrame):
        return frame.collect_schema().names()
    return [str(column) for column in frame.columns]


def frame_series(frame: Any, mapping: Mapping, where: str) -> Chunk:
    """Take the columns needed out of a frame, and the rows of them that hold mixed types.

    Parameters
    ----------
    frame
        A Polars or pandas frame.
    mapping
        Which column holds which role.
    where
        What to call the frame in messages.

    Raises
    ------
    InputError
        If a column holds lists, truth values or the like.
    """
    types: dict[str, type] = {}
    bad: list[tuple[int, str, str]] = []
    if frame_kind(frame) == "polars":
        if isinstance(frame, pl.LazyFrame):
            frame = _collected(frame, list(mapping.names.values()), where)
        columns = {role: frame[name] for role, name in mapping.names.items()}
    else:
        columns = {
            role: _from_pandas(frame.iloc[:, at], role, types, bad)
            for role, at in mapping.positions.items()
        }
    for role, series in columns.items():
        columns[role] = _plain(series, role, where, types, bad)
    wrong = sorted({row for row, _, _ in bad})
    if wrong:
        keep = np.ones(len(columns["user"]), dtype=bool)
        keep[wrong] = False
        mask = pl.Series(keep)
        columns = {role: series.filter(mask) for role, series in columns.items()}
        reasons = {row: (row, reason, what) for row, reason, what in reversed(bad)}
        rows = np.flatnonzero(keep)
        return Chunk(columns, rows, list(reasons.values()))
    return Chunk(columns, 0)


def _collected(frame: pl.LazyFrame, columns: list[str], where: str) -> pl.DataFrame:
    try:
        return frame.select(columns).collect()
    except pl.exceptions.PolarsError as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise InputError(f"{where}: cannot be collected ({reason}); collect it yourself") from error


def slices(chunk: Chunk) -> Iterator[Chunk]:
    """Part a long chunk into shorter ones."""
    n = len(chunk.columns["user"])
    for start in range(0, max(n, 1), SLICE):
        part = {role: series.slice(start, SLICE) for role, series in chunk.columns.items()}
        at = chunk.lines
        lines = at + start if isinstance(at, int) else at[start : start + SLICE]
        yield Chunk(part, lines, chunk.bad if start == 0 else [])


def open_parquet(path: Path, fingerprint: Fingerprint) -> Path | io.BytesIO:
    """Check a Parquet file's frame and checksum; return what Polars can read it from.

    Raises
    ------
    InputError
        If it is no Parquet file, or is truncated.
    """
    start = end = b""
    zipped = False
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped:
        content = all_bytes(path, fingerprint)
        start, end = content[:4], content[-4:]
    else:
        for piece in raw_bytes(path, fingerprint):
            start = start or piece[:4]
            end = (end + piece[-4:])[-4:]
    if start != b"PAR1":
        raise InputError(f"{path}: is no Parquet file; name its format with --format")
    if end != b"PAR1":
        raise InputError(f"{path}: the Parquet file is truncated; fetch or make the file again")
    return io.BytesIO(content) if zipped else path


def parquet_columns(source: Path | io.BytesIO, where: str) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    try:
        with _without_stderr():
            return list(pl.read_parquet_schema(source))
    except BaseException as error:
        raise damaged(error, where) from error


def parquet_frame(source: Path | io.BytesIO, columns: list[str] | None, where: str) -> pl.DataFrame:
    """Read a Parquet file.

    Parameters
    ----------
    source
        What `open_parquet` returned.
    columns
        The names of the columns to read; None for all.
    where
        The file, for messages.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    try:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        with _without_stderr():
            return pl.read_parquet(source, columns=columns)
    except BaseException as error:
        raise damaged(error, where) from error


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep a reader's panics off the terminal: they are printed before they can be caught."""
    try:
        kept = os.dup(2)
    except OSError:  # no such stream: nothing to keep clean
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def damaged(error: BaseException, where: str) -> BaseException:
    """Turn whatever a reader of damaged Parquet raises into an `InputError`.

    The reader's own panics are no `Exception`; a keyboard interrupt stays what it is.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return error
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return InputError(
        f"{where}: the Parquet file is damaged ({reason}); fetch or make the file again"
    )


def _from_pandas(
    column: Any, role: str, types: dict[str, type], bad: list[tuple[int, str, str]]
) -> pl.Series:
    # Through numpy, since pandas' own way to Polars needs pyarrow.
    kind = getattr(column.dtype, "kind", "O")
    if isinstance(column.dtype, np.dtype) and kind in "iuf":
        return pl.Series(column.to_numpy())
    if kind == "M":
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return pl.Series(column.to_numpy().astype("datetime64[us]"))
    missing = column.isna().to_numpy()
    listed = column.to_numpy(dtype=object).tolist()
    values = [None if gone else value for value, gone in zip(listed, missing, strict=True)]
    return _from_objects(values, role, types, bad)


def _from_objects(
    values: list[Any], role: str, types: dict[str, type], bad: list[tuple[int, str, str]]
) -> pl.Series:
    if role == "time" and any(hasattr(value, "isoformat") for value in values):
        values = [v.isoformat() if hasattr(v, "isoformat") else v for v in values]
    texts: list[str | None] = []
    for row, value in enumerate(values):
        text, fault = text_of(value, role, types)
        if fault:
            bad.append((row, fault.split(":")[0], fault))
        texts.append(text)
    return pl.Series(texts, dtype=pl.String)


def _plain(
    series: pl.Series,
    role: str,
    where: str,
    types: dict[str, type],
    bad: list[tuple[int, str, str]],
) -> pl.Series:
    dtype = series.dtype
    if dtype in (pl.Categorical, pl.Enum):
        return cast_text(series)
    if dtype == pl.Object:
        return _from_objects(series.to_list(), role, types, bad)
    if dtype == pl.Null:
        return cast_text(series)
    if dtype.is_decimal():
        series = series.cast(pl.Float64)
        dtype = pl.Float64()
    if role == "time" and dtype in (pl.Datetime, pl.Date):
        return series
    if dtype == pl.String or dtype.is_integer() or (dtype.is_float() and role != "user"):
        return _whole(series, role, bad) if dtype.is_float() and role == "item" else series
    if dtype.is_float():
        return _whole(series, role, bad)
    raise InputError(
        f"{where}: column `{series.name}` for the {role} holds {dtype}; convert it to numbers or "
        "text first"
    )


def cast_text(series: pl.Series) -> pl.Series:
    """Return the values as text."""
    texts: pl.Series = series.cast(pl.String)
    return texts


def _whole(series: pl.Series, role: str, bad: list[tuple[int, str, str]]) -> pl.Series:
    """Turn float ids, as pandas makes of integers with gaps, back into integers."""
    values = series.fill_null(float("nan")).to_numpy()
    gone = np.isnan(values)
    odd = ~gone & ~((values == np.floor(values)) & (np.abs(values) < 2.0**53))
    bad += [
        (int(row), f"fractional {role} id", f"fractional {role} id: {values[row]}")
        for row in np.flatnonzero(odd)
    ]
    integers = pl.Series(np.where(gone | odd, 0.0, values).astype(np.int64))
    return integers.set(pl.Series(gone), None) if gone.any() else integers
