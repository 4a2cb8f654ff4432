"""What a recommender answers, and what it may be asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.data.rawids import RawId
from nextup.errors import ConfigError, InputError


@dataclass(frozen=True)
class Recommendation:
    """Items for one history, best first.

    Parameters
    ----------
    items, titles, scores
        Raw ids, titles (None where the catalogue has none) and the model's scores, which can be
        compared within one list only.
    unknown
        Items of the history that the catalogue lacks; they were skipped.
    note
        What else is to know (popular items were given, or fewer than wanted), or None.
    """

    items: list[RawId]
    titles: list[str | None]
    scores: list[float]
    unknown: list[Any] = field(default_factory=list)
    note: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of plain lists."""
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """Items for many histories as arrays: ``int64[m, k]`` and ``float64[m, k]``, 0 where none."""

    items: NDArray[np.int64]
    scores: NDArray[np.float64]
    popular: NDArray[np.bool_]


def check_k(k: int, n_items: int) -> None:
    """Raise `ConfigError` unless 1 <= k <= n_items."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ConfigError(f"k is {k!r}; ask for a whole number of items, at least 1")
    if k > n_items:
        raise ConfigError(f"k is {k}, but the catalogue holds {n_items} items; ask for fewer")


def note_of(popular: bool, count: int, k: int, had_items: bool) -> str | None:
    """Return what a person should know about a list, or None."""
    notes = []
    if popular:
        why = "no item of the history is known" if had_items else "the history is empty"
        notes.append(f"{why}: these are the most popular items")
    if count < k:
        notes.append(f"only {count} of {k} wanted: no other items are left")
    return "; ".join(notes) or None


def checked_histories(histories: Any) -> list[Any]:
    """Return histories as a list; raise `InputError` unless they are lists in a row."""
    alone = isinstance(histories, (str, bytes)) or not hasattr(histories, "__iter__")
    found = [histories] if alone else list(histories)
    for history in found:
        if isinstance(history, (str, bytes)) or not hasattr(history, "__len__"):
            raise InputError(
                f"recommend: {history!r} stands where a history should; histories are a list of "
                "lists: for one user give [[item, item, ...]]"
            )
    return found


def listed(raws: Any, name: str) -> list[Any]:
    """Return raw ids as a list; a text is no list of ids."""
    if isinstance(raws, (str, bytes)):
        raise InputError(f"recommend: `{name}` is a list of raw ids, not the text {raws!r}")
    return list(raws)
