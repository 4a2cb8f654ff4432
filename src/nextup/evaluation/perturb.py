"""Small accidents of a history: a wrong click, two items swapped, strangers' items, a gap.

Each is drawn for all histories at once and depends on the seed and on the cases alone, never on a
model, so that all models meet the same accidents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextup.data.sequences import Sequences
from nextup.data.split import Cases
from nextup.evaluation.negatives import draw_negatives

LONGEST_GRAM = 3


@dataclass(frozen=True)
class Perturbed:
    """Histories after an accident.

    Parameters
    ----------
    rows
        ``int64[c]``: the cases whose history changed, in order; others are left out.
    histories
        ``c`` spans: what is read now.
    added
        ``int64[c, a]``: items that were not the user's own doing, 0 where there are fewer.
    """

    rows: NDArray[np.int64]
    histories: Sequences
    added: NDArray[np.int64]


def wrong_click(cases: Cases, whole: Sequences, n_items: int, seed: int) -> Perturbed:
    """Append an item that the user never met, drawn uniformly from the catalogue.

    Parameters
    ----------
    cases
        Whose histories.
    whole
        Everything each user did, one span a user.
    n_items
        Items of the catalogue.
    seed
        Decides which.

    Raises
    ------
    InputError
        If a user has met every item.
    """
    clicks = draw_negatives(whole, cases.users, n_items, 1, seed)
    flat, lengths = _flat(cases.histories)
    longer = np.insert(flat, np.cumsum(lengths), clicks[:, 0].astype(flat.dtype))
    return Perturbed(np.arange(len(cases)), _spans(longer, lengths + 1), clicks)


def swap(cases: Cases, whole: Sequences, n_items: int, seed: int) -> Perturbed:
    """Exchange two neighbouring items, any pair being equally likely.

    Histories of one item have no neighbours, and equal neighbours change nothing: such cases are
    left out.
    """
    rng = np.random.default_rng([seed, 1])
    places = rng.random(len(cases))
    lengths = cases.histories.lengths
    first = cases.histories.starts + np.floor(places * np.maximum(lengths - 1, 1)).astype(np.int64)
    items = cases.histories.items
    pair = np.minimum(first + 1, len(items) - 1)
    rows = np.flatnonzero((lengths > 1) & (items[first] != items[pair]))
    flat, kept = _flat(cases.histories.rows(rows))
    at = np.cumsum(kept) - kept + (first - cases.histories.starts)[rows]
    flat[at], flat[at + 1] = flat[at + 1], flat[at]
    return Perturbed(rows, _spans(flat, kept), _none(rows))


def splice(cases: Cases, whole: Sequences, n_items: int, seed: int) -> Perturbed:
    """Insert one to three neighbouring items of another user's history at any place.

    The other user, the length (as far as that history has it), where the items are taken from and
    where they are put (before, between or after the own ones) are uniform. Nothing is left out
    unless all cases are of one user.
    """
    rng = np.random.default_rng([seed, 2])
    chances = rng.random((4, len(cases)))
    donors, rows = _other_users(cases.users, chances[0])
    donors, chances = donors[rows], chances[:, rows]
    given = cases.histories.rows(donors)
    grams = np.minimum(1 + np.floor(LONGEST_GRAM * chances[1]).astype(np.int64), given.lengths)
    starts = given.starts + np.floor(chances[2] * (given.lengths - grams + 1)).astype(np.int64)
    flat, lengths = _flat(cases.histories.rows(rows))
    place = np.floor(chances[3] * (lengths + 1)).astype(np.int64)
    strange = Sequences(given.items, starts, starts + grams)
    taken = strange.items[strange.positions()]
    longer = np.insert(flat, np.repeat(np.cumsum(lengths) - lengths + place, grams), taken)
    added = np.zeros((len(rows), LONGEST_GRAM), dtype=np.int64)
    added[np.arange(LONGEST_GRAM) < grams[:, None]] = taken
    return Perturbed(rows, _spans(longer, lengths + grams), added)


def forget(cases: Cases, whole: Sequences, n_items: int, seed: int) -> Perturbed:
    """Drop the oldest half of a history (rounded down, so that at least one item stays).

    Histories of one item have nothing to drop and are left out.
    """
    rows = np.flatnonzero(cases.histories.lengths > 1)
    kept = cases.histories.rows(rows)
    later = Sequences(kept.items, kept.starts + kept.lengths // 2, kept.ends)
    return Perturbed(rows, later, _none(rows))


Perturbation = Callable[[Cases, Sequences, int, int], Perturbed]

PERTURBATIONS: dict[str, Perturbation] = {
    "wrong click": wrong_click,
    "swap": swap,
    "splice": splice,
    "forget": forget,
}
"""All of them by name: called with the cases, everything each user did, the catalogue's size and a
seed."""


def _flat(histories: Sequences) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return a copy of the items of all spans, one after the other, and the spans' lengths."""
    return histories.items[histories.positions()], histories.lengths


def _spans(flat: NDArray[np.int32], lengths: NDArray[np.int64]) -> Sequences:
    ends = np.cumsum(lengths)
    return Sequences(flat, ends - lengths, ends)


def _none(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.zeros((len(rows), 0), dtype=np.int64)


def _other_users(
    users: NDArray[np.int64], chances: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw for each case another user's case; also return the cases for which there is one."""
    order = np.argsort(users, kind="stable")
    _, which, many = np.unique(users, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    first, own = (np.cumsum(many) - many)[which], many[which]
    others = len(users) - own
    drawn = np.floor(chances * others).astype(np.int64)
    drawn += np.where(drawn >= first, own, 0)  # the user's own cases stand together in `order`
    rows = np.flatnonzero(others > 0)
    donors = np.zeros(len(users), dtype=np.int64)
    donors[rows] = order[drawn[rows]]
    return donors, rows
