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
    if len(left) and left.min() < n:
        worst = int(left.argmin())
        raise InputError(
            f"sampled evaluation: user number {int(distinct[worst])} has never met only "
            f"{int(left[worst])} of {n_items} items, fewer than the {n} negatives wanted; "
            "use fewer negatives or full ranking"
        )
    stream = hashed(hashed(np.full(1, seed, dtype=np.uint64)) ^ distinct.astype(np.uint64))
    steps = np.arange(n, dtype=np.uint64) * _GOLDEN
    chosen = np.empty((len(distinct), n), dtype=np.int64)
    for step in range(n):
        top = left - n + step
        bits = hashed(stream + steps[step]) >> np.uint64(11)
        drawn = np.floor(bits.astype(np.float64) * 2.0**-53 * (top + 1)).astype(np.int64)
        repeated = (chosen[:, :step] == drawn[:, None]).any(axis=1)
        chosen[:, step] = np.where(repeated, top, drawn)
    # `chosen` counts only items not met; met item i of a row has `items - 1 - i` such below it.
    first = np.cumsum(met) - met
    below = items - 1 - (np.arange(len(items)) - first[rows])
    keys = rows * (n_items + 1) + below
    wanted = np.arange(len(distinct))[:, None] * (n_items + 1) + chosen
    passed = np.searchsorted(keys, wanted.reshape(-1), side="right").reshape(wanted.shape)
    return (chosen + 1 + passed - first[:, None])[which.reshape(-1)]
