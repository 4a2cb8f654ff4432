"""`read`: any log of interactions, read, cleaned, put in order and numbered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextup.data.attributes import COLUMN, read_attributes
from nextup.data.catalog import Catalog
from nextup.data.clean import Filters, core_remedy, describe, first_of_each, k_core, repeats
from nextup.data.columns import ColumnName, Say, silent, speak
from nextup.data.dataset import FORMAT, VERSION, Dataset
from nextup.data.order import order_of
from nextup.data.rawids import RawIds
from nextup.data.read import Origin, Reading, read_log
from nextup.data.sequences import Sequences
from nextup.data.sideitems import build_catalog
from nextup.data.times import UNIT_NAMES, parse_point, told
from nextup.errors import InputError

if TYPE_CHECKING:
    import pandas
    import polars

    from nextup.data.collect import Log

TIE_RULE = "ordered by time within a user; rows of equal time keep the order of the log"
LOG_RULE = "the log has no times; within a user its rows are in the order of the log"
LEAST_FOR_SPLIT = 3


def read(
    source: str | Path | pandas.DataFrame | polars.DataFrame | polars.LazyFrame,
    *,
    user: ColumnName | None = None,
    item: ColumnName | None = None,
    time: ColumnName | None = None,
    rating: ColumnName | None = None,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str = "utf-8",
    items: str | Path | pandas.DataFrame | polars.DataFrame | None = None,
    item_id: ColumnName | None = None,
    title: ColumnName | None = None,
    items_encoding: str | None = None,
    attributes: str | Path | pandas.DataFrame | polars.DataFrame | dict[Any, Any] | None = None,
    min_rating: float | None = None,
    since: object = None,
    until: object = None,
    min_user: int = 0,
    min_item: int = 0,
    drop_duplicates: bool = False,
    skip_bad_rows: bool = False,
    text_ids: bool = False,
    name: str | None = None,
    say: Say | None = None,
    quiet: bool = False,
) -> Dataset:
    """Read a log of interactions and make a dataset of it.

    Parameters
    ----------
    source
        A file (CSV, TSV, Parquet, JSON lines, S3-Rec text, pair text, a JSON dictionary; each
        also gzipped), or a pandas or Polars frame.
    user, item, time, rating
        The columns, by name or by number from 1; guessed from the usual names where None. Without
        a time (none found, or ``time="none"``), the log's order is the order. Ratings are read
        only for `min_rating`.
    format
        ``csv``, ``tsv``, ``parquet``, ``jsonl``, ``json``, ``s3rec``, ``gaps`` or ``pairs``; by
        default told from the file's extension, else from its content.
    delimiter, header, encoding
        How a text table is laid out; delimiter and header are guessed where None.
    items
        A side file or frame of items: titles and attributes.
    item_id, title, items_encoding
        Its id and title columns, and its encoding.
    attributes
        A file or frame of items' attributes, any number for each: a JSON dictionary
        ``{item: [attribute, ...]}``, or a table of items and attributes. `item_id` and
        `items_encoding` hold for it as well.
    min_rating
        Leave out interactions rated lower.
    since, until
        Leave out interactions before `since`, and at or after `until`: numbers in the log's own
        unit, or ISO dates (UTC).
    min_user, min_item
        Leave out users and items with fewer interactions, until all left have enough (k-core).
    drop_duplicates
        Keep only the earliest interaction of each user with each item.
    skip_bad_rows
        Leave out (and count) rows that cannot be used, instead of raising an error.
    text_ids
        Keep ids as text even where they look like numbers.
    name
        What to call the dataset; by default the file's name.
    say
        Called with one line for everything guessed, left out or worth knowing; by default these
        lines go to standard error.
    quiet
        Say nothing at all.

    Returns
    -------
    The dataset. Integer ids are numbered in ascending order, text ids in order of first
    appearance (users of S3-Rec text in the order of the file); rows of equal time keep the order
    of the log.

    Raises
    ------
    InputError
        If anything about the source cannot be used: one line that names the file, the line or
        column, and the remedy.
    """
    tell: Say = silent if quiet else say or speak
    _check_settings(min_user, min_item, min_rating, since, until)
    reading = Reading(
        columns={"user": user, "item": item, "time": time, "rating": rating},
        format=format,
        delimiter=delimiter,
        header=header,
        encoding=encoding,
        need_rating=min_rating is not None,
        skip_bad_rows=skip_bad_rows,
        text_ids=text_ids,
    )
    if rating is not None and min_rating is None:
        tell("the ratings are read only for --min-rating (min_rating), so they are not used")
    if items is None and (title is not None or (item_id is not None and attributes is None)):
        raise InputError("item-id and title name columns of a side file; name it with --items")
    log, origin = read_log(source, reading, tell)
    where = origin.name
    filters = Filters(where)
    _filter_rows(log, filters, min_rating, since, until)
    _put_in_order(log)
    log.ratings = None
    if drop_duplicates:
        mask = first_of_each(log.users, log.items)
        log.keep(filters.count("drop-duplicates", True, mask, "leave it out"))
    if min_user > 1 or min_item > 1:
        mask = k_core(log.users, log.items, min_user, min_item)
        remedy = "" if mask.any() else core_remedy(log.users, log.items, min_user, min_item)
        value = {"min_user": min_user, "min_item": min_item}
        log.keep(filters.count("k-core", value, mask, remedy))
    sequences, users, item_ids = _number(log)
    catalog, side = build_catalog(
        items, item_ids, item_id, title, items_encoding, skip_bad_rows, tell
    )
    card = _card(name, origin, log, filters, sequences, len(catalog), side)
    if attributes is not None:
        found, card["attributes_source"] = read_attributes(
            attributes, item_ids, item_id, items_encoding, skip_bad_rows, tell
        )
        catalog = replace(catalog, attributes={**(catalog.attributes or {}), COLUMN: found})
    _tell_of_log(log, tell, where)
    _tell_counts(card, tell, where)
    return Dataset(sequences, catalog, users, log.times, card)


def read_histories(source: Any, reading: Reading, say: Say) -> Dataset:
    """Read a log whose users are only to be answered: nothing is filtered, nothing is held out.

    Parameters
    ----------
    source
        A file or frame, as for `read`.
    reading
        What is known of it.
    say
        Told everything guessed or left out.

    Raises
    ------
    InputError
        If the source, or a row of it, cannot be used.
    """
    log, origin = read_log(source, reading, say)
    _put_in_order(log)
    sequences, users, item_ids = _number(log)
    _tell_of_log(log, say, origin.name)
    return Dataset(sequences, Catalog(item_ids), users, log.times, {"name": name_of(origin.name)})


def name_of(source: str | Path) -> str:
    """Return what a dataset is called by default: the file's name up to its first dot."""
    return Path(source).name.split(".")[0]


def _put_in_order(log: Log) -> None:
    order = order_of(log.users, log.times)
    if order is not None:
        log.users, log.items = log.users[order], log.items[order]
        log.times = None if log.times is None else log.times[order]


def _check_settings(
    min_user: int, min_item: int, min_rating: float | None, since: object, until: object
) -> None:
    for setting, value in (("min-user", min_user), ("min-item", min_item)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise InputError(f"{setting} is {value!r}; it must be a whole number, 0 or more")
    if min_rating is None:
        return
    number = isinstance(min_rating, (int, float, np.integer, np.floating))
    if isinstance(min_rating, bool) or not number or not np.isfinite(min_rating):
        raise InputError(f"min-rating is {min_rating!r}; it must be a number, such as 4 or 3.5")


def _filter_rows(
    log: Log, filters: Filters, min_rating: float | None, since: object, until: object
) -> None:
    for setting, point in (("since", since), ("until", until)):
        if point is None:
            continue
        if log.times is None:
            raise InputError(
                f"{filters.where}: {setting} needs times, and the log has none; name their column "
                "with --time, or leave the window out"
            )
        at = parse_point(point, log.time, setting)
        mask = log.times >= at if setting == "since" else log.times < at
        first, last = (told(int(end), log.time) for end in (log.times.min(), log.times.max()))
        span = f"the log runs from {first} to {last}"
        log.keep(filters.count(setting, str(point), mask, f"{span}; choose a point inside"))
    if min_rating is not None:
        assert log.ratings is not None
        highest = float(log.ratings.max())
        mask = log.ratings >= min_rating
        remedy = f"the highest rating is {highest:g}: lower it to that at most"
        log.keep(filters.count("min-rating", float(min_rating), mask, remedy))


def _number(log: Log) -> tuple[Sequences, RawIds, RawIds]:
    """Number the users and items that are left, and lay the users' histories end to end."""
    n_rows = np.bincount(log.users, minlength=len(log.user_ids))
    present = np.flatnonzero(n_rows)
    ends = np.cumsum(n_rows[present])
    users = log.user_ids if len(present) == len(n_rows) else log.user_ids.take(present)
    used = np.zeros(len(log.item_ids), dtype=bool)
    used[log.items] = True
    number = np.cumsum(used, dtype=np.int32)
    item_ids = log.item_ids if used.all() else log.item_ids.take(np.flatnonzero(used))
    sequences = Sequences(number[log.items], ends - n_rows[present], ends)
    return sequences, users, item_ids


def _card(
    name: str | None,
    origin: Origin,
    log: Log,
    filters: Filters,
    sequences: Sequences,
    n_items: int,
    side: dict[str, Any] | None,
) -> dict[str, Any]:
    from nextup.data.version import version

    lengths = sequences.lengths
    time = None
    if log.times is not None and log.time is not None:
        unit = UNIT_NAMES[log.time["unit"]]
        span = {"first": int(log.times.min()), "last": int(log.times.max())}
        time = {**log.time, "means": unit, **span}
    return {
        "format": FORMAT,
        "version": VERSION,
        "nextup": version(),
        "name": name or name_of(origin.name),
        "counts": {
            "users": len(sequences),
            "items": n_items,
            "interactions": len(sequences.items),
            "repeats": repeats(log.users, log.items),
        },
        "length": {
            "mean": round(float(lengths.mean()), 4),
            "median": float(np.median(lengths)),
            "min": int(lengths.min()),
            "max": int(lengths.max()),
            "users_too_short_to_test": int((lengths < LEAST_FOR_SPLIT).sum()),
        },
        "rows": {
            "read": log.rows_read,
            "left_out": log.left_out,
            "filtered": sum(each["rows_removed"] for each in filters.applied),
            "used": len(sequences.items),
        },
        "filters": filters.applied,
        "columns": origin.columns,
        "time": time,
        "order": LOG_RULE if time is None else TIE_RULE,
        "source": origin.to_json(),
        "items_source": side,
    }


def _tell_of_log(log: Log, say: Say, where: str) -> None:
    for reason, n in log.left_out.items():
        say(f"{where}: {n:,} of {log.rows_read:,} rows left out: {reason}")
    if log.times is None or log.time is None:
        say(f"{where}: no time column: the order of the log is taken as the order in time")
    elif log.time["guessed"]:
        say(f"{where}: times are taken as {UNIT_NAMES[log.time['unit']]}")


def _tell_counts(card: dict[str, Any], say: Say, where: str) -> None:
    for each in card["filters"]:
        what = f"{each['filter']} {describe(each['value'])}"
        say(f"{where}: {what}: {each['rows_removed']:,} rows removed")
    short = card["length"]["users_too_short_to_test"]
    if short:
        say(
            f"{where}: {short:,} users have fewer than {LEAST_FOR_SPLIT} items: learnt from, but "
            "too few for leave-one-out to test (--min-user 3 leaves them out)"
        )
