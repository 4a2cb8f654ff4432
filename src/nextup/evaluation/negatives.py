"""The negatives of sampled evaluation: fixed by seed and user, the same for every model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextup.data.sequences import Sequences
from nextup.errors import InputError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64-bit numbers (the finaliser of splitmix64, Steele et al., OOPSLA 2014)."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def unique_pairs(spans: Sequences, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(rows, items)``: the distinct items of each span, sorted by row, then item."""
    rows = np.repeat(np.arange(len(spans)), spans.lengths)
    keys = np.sort(rows * (n_items + 1) + spans.items[spans.positions()])
    first = np.ones(len(keys), dtype=bool)  # several times as fast as np.unique, which hashes
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return np.divmod(keys[first], n_items + 1)


def draw_negatives(
    whole: Sequences, users: NDArray[np.int64], n_items: int, n: int, seed: int
) -> NDArray[np.int64]:
    """Draw for each user `n` distinct items that the user never interacted with.

    Each set of `n` items is equally likely (Floyd's algorithm over the items not met). A user's
    items depend on ``(seed, user, n)`` alone: not on the model, the batch or the other users.

    Parameters
    ----------
    whole
        Everything each user did, one span a user.
    users
        ``int64[m]``: whose negatives are wanted (rows of `whole`; repeats are allowed).
    n_items
        Items of the catalogue, numbered ``1..n_items``.
    n
        How many negatives.
    seed
        Any non-negative number.

    Returns
    -------
    ``int64[m, n]``: item numbers.

    Raises
    ------
    InputError
        If a user has met so many items that fewer than `n` are left.
    """
    distinct, which = np.unique(users, return_inverse=True)
    rows, items = unique_pairs(whole.rows(distinct), n_items)
    met = np.bincount(rows, minlength=len(distinct))
    left = n_items - met
    _enough(left, distinct, n, f"of {n_items} items")
    stream = _streams(seed, distinct)
    steps = np.arange(n, dtype=np.uint64) * _GOLDEN
    chosen = np.empty((len(distinct), n), dtype=np.int64)
    for step in range(n):
        top = left - n + step
        drawn = np.floor(_uniform(stream + steps[step]) * (top + 1)).astype(np.int64)
        repeated = (chosen[:, :step] == drawn[:, None]).any(axis=1)
        chosen[:, step] = np.where(repeated, top, drawn)
    # `chosen` counts only items not met; met item i of a row has `items - 1 - i` such below it.
    first = np.cumsum(met) - met
    below = items - 1 - (np.arange(len(items)) - first[rows])
    keys = rows * (n_items + 1) + below
    wanted = np.arange(len(distinct))[:, None] * (n_items + 1) + chosen
    passed = np.searchsorted(keys, wanted.reshape(-1), side="right").reshape(wanted.shape)
    return (chosen + 1 + passed - first[:, None])[which.reshape(-1)]


def draw_popular(
    whole: Sequences, users: NDArray[np.int64], n_items: int, n: int, seed: int
) -> NDArray[np.int64]:
    """Draw for each user `n` distinct items never met, each with a chance by how often it was met.

    One after the other: the next is drawn among all that are left, in proportion to how many
    interactions of `whole` are with them. As with `draw_negatives`, a user's items depend on
    ``(seed, user, n)`` and `whole` alone.

    Parameters
    ----------
    whole, users, n_items, n, seed
        As in `draw_negatives`.

    Returns
    -------
    ``int64[m, n]``: item numbers.

    Raises
    ------
    InputError
        If fewer than `n` items that somebody met are left for a user.
    """
    distinct, which = np.unique(users, return_inverse=True)
    rows, items = unique_pairs(whole.rows(distinct), n_items)
    counts = np.bincount(whole.items[whole.positions()], minlength=n_items + 1)
    known = int((counts > 0).sum())
    left = known - np.bincount(rows, minlength=len(distinct))
    _enough(left, distinct, n, f"of the {known} items that anybody met")
    keys, before = rows * (n_items + 1) + items, np.cumsum(counts)
    stream = _streams(seed, distinct)
    chosen = np.zeros((len(distinct), n), dtype=np.int64)
    full = np.zeros(len(distinct), dtype=np.int64)  # how many each has
    for step in np.arange(_PATIENCE * n, dtype=np.uint64) * _GOLDEN:
        some = np.flatnonzero(full < n)
        if len(some) == 0:
            break
        spot = _uniform(stream[some] + step) * before[-1]
        drawn = np.searchsorted(before, np.floor(spot).astype(np.int64), side="right")
        key = some * (n_items + 1) + drawn
        at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        new = (keys[at] != key) & (chosen[some] != drawn[:, None]).all(axis=1)
        some = some[new]
        chosen[some, full[some]] = drawn[new]
        full[some] += 1
    for row in np.flatnonzero(full < n):  # what is left is rare: by exponential clocks instead
        free = counts > 0
        free[chosen[row, : full[row]]] = False
        free[items[slice(*np.searchsorted(rows, [row, row + 1]))]] = False
        open_items = np.flatnonzero(free)
        ring = -np.log1p(-_uniform(hashed(stream[row] + open_items.astype(np.uint64))))
        first = np.argsort(ring / counts[open_items], kind="stable")[: n - full[row]]
        chosen[row, full[row] :] = open_items[first]
    return chosen[which.reshape(-1)]


_PATIENCE = 20
"""How many times as many draws as items wanted are made before clocks are worth their cost."""


def _streams(seed: int, users: NDArray[np.int64]) -> NDArray[np.uint64]:
    return hashed(hashed(np.full(1, seed, dtype=np.uint64)) ^ users.astype(np.uint64))


def _uniform(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return numbers in ``[0, 1)``."""
    return np.asarray((hashed(values) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def _enough(left: NDArray[np.int64], users: NDArray[np.int64], n: int, of_what: str) -> None:
    if len(left) and left.min() < n:
        worst = int(left.argmin())
        raise InputError(
            f"sampled evaluation: user number {int(users[worst])} has never met only "
            f"{int(left[worst])} {of_what}, fewer than the {n} negatives wanted; "
            "use fewer negatives or full ranking"
        )
