"""The few errors a user can meet: each says what is wrong, where, and what to do about it.

Everything a person can cause (a broken file, a typing error in a setting, a folder that exists
already) is a `NextupError`. The command line prints its message on one line; any other exception
is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NextupError(Exception):
    """Base of all errors that a user of nextup can cause and mend."""


class InputError(NextupError):
    """The data given cannot be used: names the file, the line or column, and the remedy."""


class ConfigError(NextupError, ValueError):
    """A setting is unknown or out of range: names the setting and what would be allowed."""


class RunError(NextupError):
    """A run folder cannot be read, resumed or written: names the folder and the remedy."""


class DivergedError(NextupError):
    """Training came to a loss or to scores that are not finite: other settings are needed."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean `x`?"`` for the nearest of `known`, or a list of all.

    Examples
    --------
    >>> suggest("droput", ["dropout", "layers"])
    '; did you mean `dropout`?'
    >>> suggest("zzz", ["dropout", "layers"])
    '; known are: dropout, layers'
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; known are: {', '.join(names)}" if names else ""
