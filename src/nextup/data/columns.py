"""Which column is which: delimiter, header and column roles, named by the user or guessed."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nextup.data.times import microseconds
from nextup.errors import InputError, suggest

Say = Callable[[str], None]
ColumnName = str | int

ROLES = ("user", "item", "time", "rating")
# Nearest first: where a table has several of them, the first is taken.
NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        *("user", "userid", "uid", "u", "reviewerid", "reviewer", "customer", "customerid"),
        *("member", "memberid", "account", "accountid", "visitor", "visitorid", "client"),
        *("clientid", "personid", "profileid", "player", "playerid", "username", "session"),
        *("sessionid",),
    ),
    "item": (
        *("item", "itemid", "iid", "i", "movie", "movieid", "asin", "product", "productid"),
        *("article", "articleid", "track", "trackid", "song", "songid", "book", "bookid", "isbn"),
        *("business", "businessid", "sku", "video", "videoid", "artist", "artistid", "news"),
        *("newsid", "poi", "poiid", "venue", "venueid", "game", "gameid", "content", "contentid"),
        *("parentasin", "recipeid", "anime", "animeid", "joke", "jokeid"),
    ),
    "time": (
        *("timestamp", "time", "t", "ts", "datetime", "date", "unixreviewtime", "unixtime"),
        *("eventtime", "createdat", "created", "reviewtime", "eventdate", "starttime"),
        *("ratedat", "ratingtime", "position", "order"),
    ),
    "rating": ("rating", "ratings", "overall", "stars", "star", "score", "rate", "reviewscore"),
    "title": ("title", "name", "itemtitle", "itemname", "movietitle", "productname", "label"),
}
DELIMITER_NAMES = {"\\t": "\t", "tab": "\t", "space": " ", "comma": ",", "semicolon": ";"}


@dataclass(frozen=True)
class Mapping:
    """Where each role stands in a table: column name (or number), position and who said so."""

    names: dict[str, str]
    positions: dict[str, int]
    guessed: dict[str, bool]

    def to_json(self) -> dict[str, dict[str, object]]:
        """Return the card's entry: each role's column, and whether it was guessed."""
        return {
            role: {"column": name, "guessed": self.guessed[role]}
            for role, name in self.names.items()
        }


def speak(line: str) -> None:
    """Say something worth knowing on standard error."""
    print(line, file=sys.stderr, flush=True)


def silent(line: str) -> None:
    """Say nothing."""


def plain_name(column: str) -> str:
    """Return a column name as the guesses are written: ``"userid"`` of ``"User_ID:token"``."""
    return re.sub(r"[^a-z0-9]", "", column.split(":")[0].lower())


def looks_like_value(text: str) -> bool:
    """Whether a field is a number or a date, hence no column name."""
    try:
        float(text)
    except ValueError:
        return microseconds(text) is not None
    return True


def has_header(first: Sequence[str], known_only: bool = False) -> bool:
    """Guess whether the first row names the columns: it holds no number, date or empty field.

    With `known_only`, only usual names count as a header.
    """
    known = {name for names in NAMES.values() for name in names}
    if sum(plain_name(field) in known for field in first) >= 2:
        return True
    if known_only:
        return False
    return not any(not field.strip() or looks_like_value(field.strip()) for field in first)


def spell_delimiter(delimiter: str) -> str:
    """Return the characters meant by a delimiter spelt out, such as ``tab``.

    Raises
    ------
    InputError
        If nothing, a quote or a line end is meant.
    """
    meant = DELIMITER_NAMES.get(delimiter.lower(), delimiter)
    if not meant or any(c in meant for c in '"\n\r') or (len(meant) > 1 and meant != "::"):
        raise InputError(
            f"delimiter `{delimiter}` cannot be used; give one character such as , ; | or tab, "
            "or the `::` of MovieLens"
        )
    return meant


def guess_delimiter(lines: Sequence[str], preferred: str) -> str:
    """Return the delimiter that parts the lines, the `preferred` one if it does so at all."""
    present = [line for line in lines if line.strip()]
    for candidate in (preferred, ",", "\t", ";", "|", "::", " "):
        if present and all(candidate in line for line in present):
            return candidate
    return preferred if any(preferred in line for line in present[:1]) else ""


def show(delimiter: str) -> str:
    """Return a delimiter as people write it."""
    return {"\t": "tab", " ": "space"}.get(delimiter, f"`{delimiter}`")


def fields_of(line: str, delimiter: str) -> list[str]:
    """Part one line of text at its delimiter, minding quotes."""
    if len(delimiter) > 1:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # such as a carriage return inside; the rows are checked one by one later
        return line.split(delimiter)


def map_columns(
    where: str,
    columns: Sequence[str],
    wanted: dict[str, ColumnName | None],
    required: Sequence[str],
    say: Say,
    named: bool = True,
    first: Sequence[str] = (),
    delimited: bool = False,
) -> Mapping:
    """Find the column of each role.

    Parameters
    ----------
    where
        The file, for messages.
    columns
        The names in the table's header; ``"1"``, ``"2"``, ... where it has none.
    wanted
        For each role to look for what the user named: a name, a number from 1, or None to guess.
    required
        Roles without which the table cannot be used.
    say
        Told every guess.
    named
        Whether the table has names; if not, roles are guessed by place and by the `first` row.
    delimited
        Whether the columns came of a delimiter, which may be the wrong one.

    Raises
    ------
    InputError
        If a named column is missing, a required one cannot be guessed, or two roles share one.
    """
    names: dict[str, str] = {}
    positions: dict[str, int] = {}
    guessed: dict[str, bool] = {}
    for role, column in wanted.items():
        if column is not None:
            positions[role] = _position(where, columns, column, role)
            names[role], guessed[role] = columns[positions[role]], False
    free = [at for at in range(len(columns)) if at not in positions.values()]
    open_roles = [role for role, column in wanted.items() if column is None]
    guesses = (
        _guess_by_name(columns, open_roles, free)
        if named
        else _guess_by_place(columns, open_roles, free, first)
    )
    for role, at in guesses.items():
        names[role], positions[role], guessed[role] = columns[at], at, True
    for role in required:
        if role not in positions:
            raise InputError(_missing(where, columns, role, named, delimited))
    if len(set(positions.values())) < len(positions):
        pairs = ", ".join(f"{role}=`{name}`" for role, name in names.items())
        raise InputError(f"{where}: one column is named for two roles ({pairs}); name each once")
    told = [role for role in wanted if guessed.get(role)]
    if told:
        pairs = ", ".join(f"{role} = `{names[role]}`" for role in told)
        kept = "item_id" in wanted  # a side file's other columns become attributes
        unused = [c for at, c in enumerate(columns) if at not in positions.values() and not kept]
        tail = f"; not used: {', '.join(f'`{c}`' for c in unused[:6])}" if unused else ""
        say(f"{where}: columns guessed: {pairs}{tail}")
    return Mapping(names, positions, guessed)


def _position(where: str, columns: Sequence[str], column: ColumnName, role: str) -> int:
    text = str(column)
    if text in columns:
        return list(columns).index(text)
    if text.isdecimal() and 1 <= int(text) <= len(columns):
        return int(text) - 1
    stripped = [name.strip() for name in columns]
    if text.strip() in stripped:
        return stripped.index(text.strip())
    raise InputError(
        f"{where}: there is no column `{text}` for the {role}{suggest(text, columns)}; name one "
        f"with --{role.replace('_', '-')} NAME (or its number from 1)"
    )


def _guess_by_name(
    columns: Sequence[str], roles: Sequence[str], free: Sequence[int]
) -> dict[str, int]:
    plain = {at: plain_name(columns[at]) for at in free}
    found: dict[str, int] = {}
    for role in roles:
        # A table of items calls its key just `id`.
        known = (*NAMES["item"], "id") if role == "item_id" else NAMES[role]
        for name in known:
            at = next((at for at, p in plain.items() if p == name), None)
            if at is not None and at not in found.values():
                found[role] = at
                break
    return found


def _guess_by_place(
    columns: Sequence[str], roles: Sequence[str], free: Sequence[int], first: Sequence[str]
) -> dict[str, int]:
    def is_time(at: int) -> bool:
        if at >= len(first):
            return False
        try:
            return float(first[at]) >= 1e8
        except ValueError:
            return microseconds(first[at]) is not None

    left = list(free)
    found: dict[str, int] = {}
    if "time" in roles and len(columns) > 2:
        late = [at for at in left if at >= 2 and is_time(at)]
        if late:
            found["time"] = late[-1]
            left.remove(late[-1])
    for role in roles:
        if role != "time" and left and (role != "rating" or _is_number(first, left[0])):
            found[role] = left.pop(0)
    return found


def _is_number(first: Sequence[str], at: int) -> bool:
    try:
        float(first[at])
    except (ValueError, IndexError):
        return False
    return True


def _missing(where: str, columns: Sequence[str], role: str, named: bool, delimited: bool) -> str:
    option = f"--{role.replace('_', '-')}"
    if len(columns) == 1 and delimited:
        return (
            f"{where}: line 1: only one column (`{columns[0][:60]}`) was found, so the delimiter "
            "is probably wrong; name it with --delimiter (tab, ;, |, ...)"
        )
    shown = ", ".join(f"`{c[:30]}`" for c in columns[:12])
    also = "; if the first line is data, pass --no-header" if named and delimited else ""
    return (
        f"{where}: cannot tell which column is the {role} among {shown}; name it with "
        f"{option} NAME (or its number from 1){also}"
    )
