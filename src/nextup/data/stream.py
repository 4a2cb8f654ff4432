"""The stream of batches that training reads: shuffled, cut into steps, shared by processes.

Everything random is a function of ``(seed, epoch, step)`` alone, so a run can be resumed at any
step and go on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nextup.data.batches import Batch, gather, items_on
from nextup.data.negatives import NegativeSampler
from nextup.data.sequences import Sequences
from nextup.errors import InputError

TargetMode = Literal["every", "prefix", "last"]


@dataclass(frozen=True)
class Windows:
    """A row is a few items of a history, and its targets are the few that follow (Caser, HGN).

    Every stretch of ``max_length + targets`` items of a history is a row, and a shorter history
    is one row as a whole; its last items are the targets. Where nothing is left to read, the row
    is one token of padding.

    Parameters
    ----------
    targets
        Targets of a row; a history of fewer items has as many as it has items.
    """

    targets: int = 3


Samples = TargetMode | Literal["item", "whole", "whole_prefix"] | Windows
"""What the rows of training are; see `TrainingStream`."""


class Stream(Protocol):
    """What the training loop asks of a stream of batches."""

    def __len__(self) -> int:
        """Steps of an epoch."""
        ...

    @property
    def rows(self) -> int:
        """Rows of an epoch, over all processes."""
        ...

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order in which `epoch` visits the samples."""
        ...

    def batch(self, order: NDArray[np.int64], epoch: int, step: int) -> Batch:
        """Return this process's share of the batch of one step."""
        ...


class TrainingStream:
    """The batches of training, made from one training history a user.

    Parameters
    ----------
    train
        One training history a user.
    targets
        ``"every"``: one row a user, a target after every item. ``"prefix"``: every prefix is a
        row of its own with one target (a span, never a copy). ``"last"``: one row a user, only
        its last item is a target. `Windows`: short rows with a few targets each. ``"item"``: every
        item, a history's first too, is the target of a row that reads nothing (one token of
        padding), for a model that knows its user by number alone. ``"whole"``: a user's whole
        history is a row without targets, for a model that makes its own; ``"whole_prefix"``: so
        is every prefix of it, from one item on.
    max_length
        The most items a row reads.
    batch_size
        Rows of a step, over all processes together.
    negatives
        What draws the items a target is compared with; None where the loss needs none.
    seed
        With the epoch and the step it decides everything random.
    device
        Where the items are kept and the batches are made.
    rank, world
        This process and how many there are; each takes every ``world``-th row of a step.

    Raises
    ------
    InputError
        If there is no row to learn from.

    Examples
    --------
    >>> train = Sequences.from_lists([[1, 2, 3, 4]])
    >>> stream = TrainingStream(train, targets=Windows(2), max_length=2)
    >>> batch = stream.batch(stream.order(0), 0, 0)
    >>> batch.tokens.tolist(), batch.targets.tolist(), batch.until.tolist()
    ([1, 2], [3, 4], [2])
    """

    def __init__(
        self,
        train: Sequences,
        *,
        targets: Samples = "every",
        max_length: int = 50,
        batch_size: int = 256,
        negatives: NegativeSampler | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.targets = targets
        self.max_length = max_length
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        self.items = items_on(train, device)
        self.negatives = negatives
        self.firsts = train.starts
        # A row reads items[starts:reads]; its targets are items[reads:ends], or, with a target
        # after every item, those that follow each it reads.
        self.users, self.starts, self.reads, self.ends = self._spans(train)

    def _spans(self, train: Sequences) -> tuple[NDArray[np.int64], ...]:
        whole, alone = self.targets in ("whole", "whole_prefix"), self.targets == "item"
        users = np.flatnonzero(train.lengths >= (1 if whole or alone else 2))
        if len(users) == 0:
            least = "an item" if whole or alone else "two items"
            raise InputError(f"training: no history has {least}; there is no step to learn from")
        starts, ends = train.starts[users], train.ends[users]
        if isinstance(self.targets, Windows):
            rows = np.maximum(ends - starts - self.max_length - self.targets.targets + 1, 1)
            users, starts, ends = _repeated(rows, users, starts, ends)
            ends = ends - _places_before_the_last(rows)
            return users, starts, np.maximum(ends - self.targets.targets, starts), ends
        if self.targets in ("prefix", "whole_prefix", "item"):
            rows = ends - starts - (0 if whole or alone else 1)
            users, starts, ends = _repeated(rows, users, starts, ends)
            ends = ends - _places_before_the_last(rows)
        if alone:
            return users, ends - 1, ends - 1, ends
        return users, starts, ends if whole else ends - 1, ends

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.users) // self.batch_size)

    @property
    def rows(self) -> int:
        """Rows of an epoch, over all processes."""
        return len(self.users)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order in which `epoch` visits the samples."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.users))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[int, Batch]]:
        """Yield ``(step, batch)`` of an epoch from `first_step` on."""
        order = self.order(epoch)
        for step in range(first_step, len(self)):
            yield step, self.batch(order, epoch, step)

    def batch(self, order: NDArray[np.int64], epoch: int, step: int) -> Batch:
        """Return this process's share of the batch of one step."""
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        # A step with fewer rows than processes repeats rows, so that none stands idle.
        chosen = chosen if len(chosen) >= self.world else np.resize(chosen, self.world)
        read = np.minimum(self.reads[chosen] - self.starts[chosen], self.max_length)
        mine = chosen[np.argsort(read, kind="stable")][self.rank :: self.world]
        empty = self.targets == "item" or isinstance(self.targets, Windows)
        batch = gather(
            self.items,
            self.starts[mine],
            self.reads[mine],
            self.max_length,
            self.users[mine],
            empty_as_padding=empty,
        )
        mine = mine[batch.rows]
        until = self.reads[mine] - self.firsts[self.users[mine]]
        if self.targets in ("whole", "whole_prefix"):
            return _with(batch, row_total=len(chosen), until=until)
        lasts = np.cumsum(batch.lengths) - 1
        if self.targets == "every":
            at = np.arange(len(batch.tokens))
            row = np.repeat(np.arange(len(mine)), batch.lengths)
            follows = at + (self.reads[mine] - lasts)[row]
            total = int(read.sum())
        else:
            counts = self.ends[mine] - self.reads[mine]
            row = np.repeat(np.arange(len(mine)), counts)
            at = lasts[row]
            follows = self.ends[mine][row] - 1 - _places_before_the_last(counts)
            total = int((self.ends[chosen] - self.reads[chosen]).sum())
        owners = self.users[mine][row]
        device = self.items.device
        targets = self.items[torch.from_numpy(follows).to(device)].long()
        sets: dict[str, Any] = {}
        if self.negatives is not None:
            seed = hash_seed(self.seed, epoch, step, self.rank)
            generator = torch.Generator(device=device).manual_seed(seed)
            drawn = self.negatives.draw(torch.from_numpy(owners).to(device), targets, generator)
            sets = {
                "negatives": drawn.items,
                "negative_log_q": drawn.log_q,
                "target_log_q": drawn.target_log_q,
            }
        return _with(
            batch,
            targets=targets,
            target_at=torch.from_numpy(at).to(device),
            target_total=total,
            row_total=len(chosen),
            until=until,
            **sets,
        )


def _with(batch: Batch, **more: Any) -> Batch:
    return Batch(batch.tokens, batch.lengths, batch.rows, batch.users, **more)


def _repeated(rows: NDArray[np.int64], *values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [np.repeat(each, rows) for each in values]


def _places_before_the_last(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of ``counts[g]`` members of each group: how many places it is from the last."""
    return np.repeat(np.cumsum(counts), counts) - 1 - np.arange(int(counts.sum()))


def hash_seed(*parts: int) -> int:
    """Mix whole numbers into one seed of 63 bits; the same parts always give the same seed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
