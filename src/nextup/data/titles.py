"""How near a title comes to what a person typed."""

from __future__ import annotations

import re

EQUAL, EQUAL_BUT_YEAR, ARTICLE_MOVED, NAME_ALONE, BEGINS, HAS_WORDS, HOLDS = range(7)
"""From nearest: the title itself; less its year; ``X, The`` as ``The X``; less article and what
stands in parentheses; whole words at its beginning; whole words inside; anything inside."""

_YEAR = re.compile(r"\s*\(\d{4}\)$")
_MOVED = re.compile(r"^(?P<name>.+), (?P<article>the|an|a)$")
_LEADING = re.compile(r"^(?:the|an|a) (?=\S)")


def core_of(wanted: str) -> str:
    """Return what every title that fits must hold: the text less a leading article and a year."""
    return _YEAR.sub("", _LEADING.sub("", wanted)) or wanted


def nearness(title: str, wanted: str) -> int | None:
    """Return how near a title comes, lower is nearer; None if it does not hold the text at all.

    Parameters
    ----------
    title, wanted
        A title and what was typed, both in the case of `str.casefold`.

    Examples
    --------
    >>> titles = ["up (2009)", "up", "up close and personal (1996)", "wake up", "cup", "down"]
    >>> [nearness(title, "up") for title in titles]
    [1, 0, 4, 5, 6, None]
    >>> nearness("matrix, the (1999)", "the matrix"), nearness("matrix, the (1999)", "matrix")
    (2, 3)
    """
    if title == wanted:
        return EQUAL
    less_year = _YEAR.sub("", title)
    if less_year == wanted:
        return EQUAL_BUT_YEAR
    named, plain = _article_first(less_year)
    year = title[len(less_year) :]
    if wanted in (named, named + year):
        return ARTICLE_MOVED
    before, _, _ = less_year.partition(" (")
    if wanted in (plain, *_article_first(before)):
        return NAME_ALONE
    places = [form.find(wanted) for form in (title, named)]
    if max(places) < 0:
        return None
    whole = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    if whole.match(title) or whole.match(named):
        return BEGINS
    return HAS_WORDS if whole.search(title) or whole.search(named) else HOLDS


def _article_first(name: str) -> tuple[str, str]:
    """Return ``X, The`` as ``The X`` and as ``X``; other names as they are."""
    moved = _MOVED.match(name)
    if moved is None:
        return name, name
    return f"{moved['article']} {moved['name']}", moved["name"]
