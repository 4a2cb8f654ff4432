"""Session-parallel batches: lanes side by side, each walking through one history after another.

A step shows each lane the next few items of its history (one, as published) and asks for the items
that follow. A recurrent model carries the state of a lane from step to step, so that it reads a
history as a whole while only a few items of it are in a batch. A lane whose history ends takes the
next that nobody has taken yet, and starts it from nothing; once none is left the batch shrinks, and
the epoch ends with the last lane. (Hidasi et al., ICLR 2016, section 3.1.1; ends of histories lose
nothing here, while some public codes end the epoch with the first lane that runs out.)

Which item stands where is worked out once, for all epochs: the order is fixed, as in the authors'
code, and only the negatives differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.batches import Batch, items_on
from nextup.data.negatives import NegativeSampler
from nextup.data.sequences import Sequences
from nextup.data.stream import hash_seed
from nextup.errors import InputError

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class LaneBatch(Batch):
    """A step of all lanes. A row is a stretch of one history; every item of it has a target.

    Parameters
    ----------
    lanes
        ``int64[B]``: which lane each row is of. A lane whose history ends within a step has rows
        of several histories.
    goes_on
        ``bool[B]``: whether the row starts where its lane's last row of the step before ended, so
        that it starts from the lane's state; the others start from nothing.
    carried
        ``bool[B]``: whether the row's history goes on in the next step; one row of a lane at most.
    """

    lanes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    goes_on: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    carried: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))


class LaneStream:
    """The session-parallel batches of training.

    Parameters
    ----------
    train
        One training history a user; they are walked through by the time of their first item where
        times are known, else in the order they have.
    lanes
        How many histories are under way at once (fewer if there are not so many).
    stretch
        Items that each lane reads in a step.
    max_length
        The most items of a history that are read, its latest.
    negatives
        What draws the items that all targets of a step are compared with, or None.
    seed
        With the epoch and the step it decides the negatives.
    device
        Where the items are kept and the batches are made.

    Raises
    ------
    InputError
        If no history has two items.

    Examples
    --------
    >>> train = Sequences.from_lists([[1, 2, 3], [4, 5], [6, 7]])
    >>> stream = LaneStream(train, lanes=2)
    >>> for step in range(len(stream)):
    ...     batch = stream.batch(stream.order(0), 0, step)
    ...     print(batch.tokens.tolist(), batch.targets.tolist(), batch.goes_on.tolist())
    [1, 4] [2, 5] [False, False]
    [2, 6] [3, 7] [True, False]
    """

    def __init__(
        self,
        train: Sequences,
        *,
        lanes: int,
        stretch: int = 1,
        max_length: int = 1000,
        negatives: NegativeSampler | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        users = np.flatnonzero(train.lengths >= 2)
        if len(users) == 0:
            raise InputError("training: no history has two items; there is no step to learn from")
        if train.times is not None:
            users = users[np.argsort(train.times[train.starts[users]], kind="stable")]
        self.items = items_on(train, device)
        self.firsts = train.starts
        self.negatives, self.seed = negatives, seed
        self.lanes = min(lanes, len(users))
        self.targets = self.lanes * stretch
        reads = np.minimum(train.lengths[users] - 1, max_length)
        lane, begins = schedule(reads, self.lanes)
        self._cut(users, train.ends[users] - 1 - reads, reads, lane, begins, stretch)

    def _cut(
        self,
        users: NDArray[np.int64],
        starts: NDArray[np.int64],
        reads: NDArray[np.int64],
        lane: NDArray[np.int64],
        begins: NDArray[np.int64],
        stretch: int,
    ) -> None:
        """Cut the histories where steps end, and sort the rows by step, length and lane."""
        first, last = begins // stretch, (begins + reads - 1) // stretch
        rows = last - first + 1
        history = np.repeat(np.arange(len(users)), rows)
        step = np.arange(len(history)) - np.repeat(np.cumsum(rows) - rows - first, rows)
        since = np.maximum(step * stretch, begins[history])
        until = np.minimum((step + 1) * stretch, (begins + reads)[history])
        order = np.lexsort((lane[history], until - since, step))
        history, since, until = history[order], since[order], until[order]
        self.first_row = np.concatenate(([0], np.cumsum(np.bincount(step))))
        self.starts = starts[history] + since - begins[history]
        self.lengths = until - since
        self.users = users[history]
        self.until = self.starts + self.lengths - self.firsts[self.users]
        device = self.items.device
        self.lane = torch.from_numpy(lane[history]).to(device)
        self.goes_on = torch.from_numpy(since > begins[history]).to(device)
        self.carried = torch.from_numpy(until < (begins + reads)[history]).to(device)

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self.first_row) - 1

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return len(self.starts)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Nothing: every epoch has the same order."""
        return _NONE

    def batch(self, order: NDArray[np.int64], epoch: int, step: int) -> LaneBatch:
        """Return the batch of one step."""
        rows = slice(int(self.first_row[step]), int(self.first_row[step + 1]))
        lengths, users, device = self.lengths[rows], self.users[rows], self.items.device
        offsets = np.cumsum(lengths) - lengths
        at = np.arange(int(lengths.sum())) + np.repeat(self.starts[rows] - offsets, lengths)
        index = torch.from_numpy(at).to(device)
        targets = self.items[index + 1].long()
        owners = np.repeat(users, lengths)
        drawn: dict[str, Any] = {}
        if self.negatives is not None:
            generator = torch.Generator(device=device)
            generator.manual_seed(hash_seed(self.seed, epoch, step, 0))
            found = self.negatives.draw(torch.from_numpy(owners).to(device), targets, generator)
            drawn = {
                "negatives": found.items,
                "negative_log_q": found.log_q,
                "target_log_q": found.target_log_q,
            }
        return LaneBatch(
            self.items[index].long(),
            lengths,
            np.arange(len(lengths)),
            torch.from_numpy(users).to(device),
            targets=targets,
            target_at=torch.arange(len(targets), device=device),
            # As published, a step of fewer lanes weighs less: it divides by all lanes there are.
            target_total=self.targets,
            row_total=max(self.lanes, len(lengths)),  # (a stretch may hold several histories)
            until=self.until[rows],
            lanes=self.lane[rows],
            goes_on=self.goes_on[rows],
            carried=self.carried[rows],
            **drawn,
        )


def schedule(reads: NDArray[np.int64], lanes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say which lane takes each history, and when; one item of it is read at a time.

    Parameters
    ----------
    reads
        ``int64[u]``: items to read of each history, at least 1, in the order they are taken.
    lanes
        How many there are, at most `u`.

    Returns
    -------
    tuple
        ``int64[u]`` each: the lane, and the time at which its first item is read.

    Examples
    --------
    >>> lane, begins = schedule(np.array([3, 1, 1, 2]), lanes=2)
    >>> lane.tolist(), begins.tolist()
    ([0, 1, 1, 1], [0, 0, 1, 2])
    """
    lane, begins = np.empty(len(reads), np.int64), np.empty(len(reads), np.int64)
    free_at = np.zeros(lanes, np.int64)
    taken = 0
    while taken < len(reads):  # once for each time at which some lane is free, not once a history
        now = free_at.min()
        free = np.flatnonzero(free_at == now)[: len(reads) - taken]
        until = taken + len(free)
        lane[taken:until], begins[taken:until] = free, now
        free_at[free] += reads[taken:until]
        taken = until
    return lane, begins
