"""Filters on a log: time window, rating threshold, duplicates and k-core, each counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.errors import InputError

Mask = NDArray[np.bool_]
Codes = NDArray[np.int32]


class Filters:
    """The filters applied to a log so far, and how many rows each removed.

    Parameters
    ----------
    where
        The source, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.applied: list[dict[str, Any]] = []

    def count(self, name: str, value: object, mask: Mask, remedy: str) -> Mask:
        """Enter a filter that keeps the rows where `mask` is true, and return the mask.

        Parameters
        ----------
        name, value
            What the filter is called, and to what it was set.
        mask
            ``bool[n]``: the rows it keeps.
        remedy
            What to do should it keep none.

        Raises
        ------
        InputError
            If no row is kept.
        """
        kept = int(mask.sum())
        removed = len(mask) - kept
        self.applied.append({"filter": name, "value": value, "rows_removed": removed})
        shown = name if value is True else f"{name} {describe(value)}"
        if kept == 0:
            raise InputError(f"{self.where}: {shown} removes all {removed:,} rows; {remedy}")
        return mask


def describe(value: object) -> str:
    """Return a filter's value as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', '-')} {each}" for key, each in value.items())
    return str(value)


def first_of_each(users: Codes, items: Codes) -> Mask:
    """Return ``bool[n]``: whether a row is the first of its (user, item) pair."""
    key = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    _, first = np.unique(key, return_index=True)
    mask = np.zeros(len(key), dtype=bool)
    mask[first] = True
    return mask


def repeats(users: Codes, items: Codes) -> int:
    """Return how many rows repeat a (user, item) pair that stands before them."""
    key = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    key.sort()
    return int((key[1:] == key[:-1]).sum())


def k_core(users: Codes, items: Codes, min_user: int, min_item: int) -> Mask:
    """Return the rows left once every user and every item left has enough of them.

    Rows of users with fewer than `min_user` and of items with fewer than `min_item` rows are
    removed until none is left; what remains does not depend on the order of removal.

    Parameters
    ----------
    users, items
        ``int32[n]``: codes from 0.
    min_user, min_item
        Fewest rows a user and an item may have; 0 or 1 asks for nothing.

    Returns
    -------
    ``bool[n]``, all false where no such core exists.

    Examples
    --------
    >>> users, items = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
    >>> k_core(users, items, 2, 2)
    array([ True,  True,  True,  True, False])
    """
    n_users, n_items = int(users.max(initial=-1)) + 1, int(items.max(initial=-1)) + 1
    rows = np.arange(len(users), dtype=np.int32 if len(users) < 2**31 else np.int64)
    left = len(rows) + 1
    while len(rows) and len(rows) < left:
        left = len(rows)
        enough = np.bincount(users[rows], minlength=n_users) >= min_user
        rows = rows[enough[users[rows]]]
        enough = np.bincount(items[rows], minlength=n_items) >= min_item
        rows = rows[enough[items[rows]]]
    mask = np.zeros(len(users), dtype=bool)
    mask[rows] = True
    return mask


def core_remedy(users: Codes, items: Codes, min_user: int, min_item: int) -> str:
    """Return which threshold of a k-core that removes everything is at fault, and lower ones.

    Parameters
    ----------
    users, items, min_user, min_item
        As in `k_core`, which found nothing.
    """
    longest, most = int(np.bincount(users).max()), int(np.bincount(items).max())
    if longest < min_user:
        return f"the most active user has {longest} rows: lower min-user to {longest} at most"
    if most < min_item:
        return f"the most popular item has {most} rows: lower min-item to {most} at most"
    for k in range(max(min_user, min_item) - 1, 0, -1):
        lower = min(min_user, k), min(min_item, k)
        if k_core(users, items, *lower).any():
            return (
                "users and items drag each other out: lower both, "
                f"min-user {lower[0]} with min-item {lower[1]} leaves something"
            )
    return "lower min-user and min-item"
