"""Corruptions of sequences by what others did: n-grams of another user, spliced in.

SSI, section 2.3 (persona consistency), see `nextup.augment.ngrams`. The paper's figure puts n-grams
of another user in, its text other items; both are here. Items drawn at random are rarer than those
people have, which alone would give them away; other users' n-grams are as popular as one's own.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from nextup.augment.ngrams import LONGEST, TRIES, Bools, Cut, Ints, host_generator
from nextup.augment.packed import Packed, spans, to_device
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError


class Strangers:
    """Where the items that take the place of a user's own come from.

    Parameters
    ----------
    train
        The training histories of all users, by their numbers; nothing else is ever drawn.
    n_items
        Items of the catalogue.
    replace_with
        ``"user"``: n-grams of another user, all of them as likely. ``"items"``: any items.

    Raises
    ------
    ConfigError
        If there is no such source.
    """

    def __init__(
        self, train: Sequences, n_items: int, replace_with: Literal["user", "items"] = "user"
    ) -> None:
        if replace_with not in ("user", "items"):
            raise ConfigError(f"augment: no source `{replace_with}`; use `user` or `items`")
        self.n_items, self.replace_with = n_items, replace_with
        self.items = train.items[train.positions()].astype(np.int64)
        lengths = train.lengths
        self.owner = np.repeat(np.arange(len(train)), lengths)
        self.keys = np.unique(self.owner * (n_items + 1) + self.items)
        # An n-gram of so many items may begin here.
        room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(self.items))
        self.begins = [np.flatnonzero(room >= size) for size in range(1, LONGEST + 1)]

    def owns(self, users: Ints, items: Ints) -> Bools:
        """``bool[n]``: whether an item is in its user's training history."""
        keys = users * (self.n_items + 1) + items
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: Bools = self.keys[at] == keys
        return found

    def draw(self, users: Ints, sizes: Ints, rng: np.random.Generator) -> tuple[Ints, Bools]:
        """Draw an n-gram for each of `users`, of `sizes`; most will do, some will not.

        Returns
        -------
        tuple
            ``int64[sum of sizes]``, the n-grams, and ``bool[G]``: which are another user's and hold
            nothing of the user's own.
        """
        owners = np.repeat(users, sizes)
        piece = np.repeat(np.arange(len(users)), sizes)
        if self.replace_with == "items":
            drawn = rng.integers(1, self.n_items + 1, len(owners))
            return drawn, np.bincount(piece, self.owns(owners, drawn), len(users)) == 0
        starts = np.zeros(len(users), dtype=np.int64)
        fits = np.zeros(len(users), dtype=np.bool_)
        for size, begins in enumerate(self.begins, start=1):
            these = np.flatnonzero(sizes == size)
            if len(these) and len(begins):
                starts[these] = begins[rng.integers(0, len(begins), len(these))]
                fits[these] = self.owner[starts[these]] != users[these]
        drawn = self.items[np.minimum(spans(starts, sizes), len(self.items) - 1)]
        return drawn, fits & (np.bincount(piece, self.owns(owners, drawn), len(users)) == 0)


def splice_strangers(
    rows: Packed, users: Ints, strangers: Strangers, generator: np.random.Generator | None = None
) -> tuple[Packed, Bools]:
    """Put others' n-grams in the place of some of each row's, at most half of its items.

    Each n-gram of a row is chosen with probability one half, and one at least, as far as half of
    the items reach.

    Parameters
    ----------
    rows
        The rows.
    users
        ``int64[B]`` on the host: whose they are.
    strangers
        Where the n-grams come from.
    generator
        What draws; by default seeded by PyTorch's.

    Returns
    -------
    tuple
        The rows, and ``bool[B]``: which of them changed. A row of one item does not, nor does one
        of a user who has everything that others have.
    """
    rng = host_generator() if generator is None else generator
    lengths, firsts = rows.lengths, rows.firsts
    tokens = rows.tokens.cpu().numpy().copy()
    changed = np.zeros(len(rows), dtype=np.bool_)
    long = np.flatnonzero(lengths > 1)
    if not len(long):
        return rows, changed
    half = lengths[long] // 2
    cut = Cut.of(lengths[long], rng.integers(1, np.minimum(LONGEST, half) + 1))
    keys = rng.random(len(cut.row))
    order = np.lexsort((keys, cut.row))
    chosen = cut.chosen(np.ones_like(half), keys)[order]
    taken = np.cumsum(np.where(chosen, cut.size[order], 0))
    pieces = np.bincount(cut.row, minlength=len(long))
    before = np.repeat((np.r_[0, taken])[np.cumsum(pieces) - pieces], pieces)
    piece = order[chosen & (taken - before <= half[cut.row[order]])]
    row, size = cut.row[piece], cut.size[piece]
    within = cut.first[piece] - (np.cumsum(lengths[long]) - lengths[long])[row]
    first, user = firsts[long][row] + within, users[long][row]
    left = np.arange(len(piece))
    for _ in range(TRIES):
        if not len(left):
            break
        drawn, fits = strangers.draw(user[left], size[left], rng)
        at, kept = spans(first[left], size[left]), np.repeat(fits, size[left])
        tokens[at[kept]] = drawn[kept]
        changed[long[row[left[fits]]]] = True
        left = left[~fits]
    return Packed(to_device(tokens, rows.device), lengths, rows.ago), changed
