"""Recommendations for whole files: a log or a list of histories in, lists of items out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextup.data.rawids import RawId
from nextup.data.source import plain_suffix
from nextup.errors import InputError, suggest
from nextup.recommend.answers import Answers, check_k, note_of
from nextup.recommend.histories import Histories, history_lines, known_items, of_log
from nextup.recommend.recommender import LoadedRecommender

if TYPE_CHECKING:
    from nextup.data.columns import ColumnName, Say

OUTPUTS = {"csv": "csv", "tsv": "tsv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
AT_ONCE = 8192
NAMED = 5
"""How many unknown items a note of a table names."""


@dataclass(frozen=True)
class FileSummary:
    """What became of a file: users answered, rows written, and what to know about them."""

    users: int
    recommendations: int
    unknown: int
    popular: int
    short: int

    def describe(self) -> str:
        """Return it as one line."""
        parts = [f"{self.recommendations:,} recommendations for {self.users:,} users"]
        if self.unknown:
            parts.append(f"{self.unknown:,} interactions with unknown items skipped")
        if self.popular:
            parts.append(f"{self.popular:,} users without known items got popular ones")
        if self.short:
            parts.append(f"{self.short:,} users had fewer items left than wanted")
        return "; ".join(parts)


def recommend_file(
    recommender: LoadedRecommender,
    source: Path | str,
    output: Path | str,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    exclude: Sequence[RawId] | None = None,
    only: Sequence[RawId] | None = None,
    user: ColumnName | None = None,
    item: ColumnName | None = None,
    time: ColumnName | None = None,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    text_ids: bool = False,
    overwrite: bool = False,
    say: Say | None = None,
    quiet: bool = False,
) -> FileSummary:
    """Recommend `k` items for every user of a file.

    Users whom the recommender learnt a vector of are answered with it.

    Parameters
    ----------
    recommender
        What `nextup.load` returned.
    source
        Any log that `nextup.read` reads (columns user, item and perhaps time), or JSON lines
        ``{"user": ..., "history": [...]}`` with the items oldest first.
    output
        A ``.csv``, ``.tsv`` or ``.parquet`` file of user, rank (from 1), item, title, score, note
        (on a user who got popular items, had unknown ones, or has fewer than `k` left); or a
        ``.jsonl`` file with one object a user, which lists the unknown items apart.
    k, exclude_seen, exclude, only
        As in `LoadedRecommender.recommend`.
    user, item, time, format, delimiter, header, encoding, skip_bad_rows, text_ids
        How to read a log, as in `nextup.read`; guessed where None.
    overwrite
        Whether an existing output is replaced.
    say
        Called with one line for everything guessed; by default these lines go to standard error.
    quiet
        Say nothing at all.

    Raises
    ------
    InputError
        If the file cannot be read, or the output exists, has an unknown ending or cannot be
        written (nothing is left behind then).
    """
    source, output = Path(source), Path(output)
    check_k(k, recommender.n_items)
    kind = plain_suffix(output)
    if kind not in OUTPUTS or output.suffix.lower() == ".gz":
        raise InputError(f"{output}: cannot tell what to write{suggest(kind, OUTPUTS)}")
    if output.exists() and not overwrite:
        raise InputError(
            f"{output}: exists already; choose another path or pass --overwrite (overwrite=True)"
        )
    histories = history_lines(source, recommender, format)
    if histories is None:
        from nextup.data.columns import silent, speak
        from nextup.data.prepare import read_histories
        from nextup.data.read import Reading

        reading = Reading(
            columns={"user": user, "item": item, "time": time},
            format=format,
            delimiter=delimiter,
            header=header,
            encoding=encoding,
            skip_bad_rows=skip_bad_rows,
            text_ids=text_ids,
        )
        log = read_histories(source, reading, silent if quiet else say or speak)
        histories = of_log(log, recommender)
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            writer = _Writer(file, OUTPUTS[kind], recommender, histories, k)
            for rows in _portions(len(histories.users)):
                answers = recommender.answer(
                    known_items(histories.sequences.rows(rows)),
                    k,
                    exclude_seen=exclude_seen,
                    exclude=exclude,
                    only=only,
                    users=histories.names(rows),
                )
                writer.write(rows.start, answers)
            summary = writer.finish()
        partial.replace(output)
    except OSError as error:
        with suppress(OSError):  # a disk that is read-only refuses this too
            partial.unlink(missing_ok=True)
        raise InputError(
            f"{output}: could not be written ({error.strerror or error}); nothing was left behind"
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return summary


class _Writer:
    """Writes answers in one of the formats and counts what is worth telling."""

    def __init__(
        self,
        file: IO[bytes],
        kind: str,
        recommender: LoadedRecommender,
        histories: Histories,
        k: int,
    ) -> None:
        self.file, self.kind, self.recommender, self.k = file, kind, recommender, k
        self.histories, self.unknown = histories, histories.unknown_counts()
        self.frames: list[Any] = []
        # Said once for all portions: one alone may hold no item, or no large number.
        self.whole_users = all(isinstance(u, int) and abs(u) < 2**63 for u in histories.users)
        self.whole_items = recommender.catalog.ids.are_integers
        self.rows = self.popular = self.short = 0

    def write(self, first: int, answers: Answers) -> None:
        counts = (answers.items > 0).sum(axis=1)
        self.rows += int(counts.sum())
        self.popular += int(answers.popular.sum())
        self.short += int((counts < self.k).sum())
        if self.kind == "jsonl":
            self._write_lines(first, answers, counts.tolist())
        else:
            self._write_table(first, answers, counts)

    def _write_lines(self, first: int, answers: Answers, counts: list[int]) -> None:
        raws, titles = self.recommender.raws, self.recommender.catalog.titles
        lengths = self.histories.sequences.lengths
        for at, count in enumerate(counts):
            numbers = answers.items[at, :count].tolist()
            scores = answers.scores[at, :count].tolist()
            items = [
                {"item": raws[n - 1], "title": titles and titles[n - 1], "score": score}
                for n, score in zip(numbers, scores, strict=True)
            ]
            row = first + at
            line = {
                "user": self.histories.users[row],
                "items": items,
                "unknown": self.histories.unknown(row),
                "note": note_of(bool(answers.popular[at]), count, self.k, bool(lengths[row])),
            }
            self.file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def _write_table(self, first: int, answers: Answers, counts: Any) -> None:
        import polars as pl

        raws, titles = self.recommender.raws, self.recommender.catalog.titles
        row, place = np.nonzero(answers.items > 0)
        numbers = (answers.items[row, place] - 1).tolist()
        users = self.histories.users[first : first + len(counts)]
        kinds = {True: pl.Int64, False: pl.String}
        named = users if self.whole_users else list(map(str, users))
        columns = {
            "user": pl.Series(named, dtype=kinds[self.whole_users]).gather(row),
            "rank": place + 1,
            "item": pl.Series([raws[n] for n in numbers], dtype=kinds[self.whole_items]),
            "title": pl.Series("title", [titles and titles[n] for n in numbers], dtype=pl.String),
            "score": answers.scores[row, place],
            "note": pl.Series(self._notes(first, answers, counts), dtype=pl.String).gather(row),
        }
        frame = pl.DataFrame(columns)
        if self.kind == "parquet":
            self.frames.append(frame)
        else:
            separator = "," if self.kind == "csv" else "\t"
            frame.write_csv(self.file, include_header=first == 0, separator=separator)

    def _notes(self, first: int, answers: Answers, counts: NDArray[np.int64]) -> list[str | None]:
        notes: list[str | None] = [None] * len(counts)
        unknown = self.unknown[first : first + len(counts)]
        lengths = self.histories.sequences.lengths
        for at in np.flatnonzero(answers.popular | (unknown > 0) | (counts < self.k)).tolist():
            row = first + at
            had_items = bool(lengths[row])
            said = note_of(bool(answers.popular[at]), int(counts[at]), self.k, had_items)
            parts = [said] if said else []
            if unknown[at]:
                names = list(map(str, self.histories.unknown(row)))
                more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
                parts.append(f"unknown items skipped: {', '.join(names[:NAMED])}{more}")
            notes[at] = "; ".join(parts)
        return notes

    def finish(self) -> FileSummary:
        if self.kind == "parquet":
            import polars as pl

            pl.concat(self.frames).write_parquet(self.file)
        unknown, users = int(self.unknown.sum()), len(self.histories.users)
        return FileSummary(users, self.rows, unknown, self.popular, self.short)


def _portions(n: int) -> Iterator[slice]:
    return (slice(at, min(at + AT_ONCE, n)) for at in range(0, n, AT_ONCE))
