"""Batches: spans gathered into one packed tensor, and the stream of them that training reads.

A batch is packed: the items of all its histories stand one after the other, without padding, so
that no layer ever computes on padding (86-89 % of a batch padded to 50 would be padding on the
papers' sets). Rows are sorted by length, shortest first, so that rows of equal length are one
block; `padded()` gives the classic right-padded matrix to a model that wants it.

Everything random is a function of ``(seed, epoch, step)`` alone, so a run can be resumed at any
step and go on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.negatives import NegativeSampler
from nextup.data.sequences import Sequences
from nextup.errors import InputError

_EMPTY = "a history is empty; give at least one known item or ask for popular ones"

TargetMode = Literal["every", "prefix", "last"]


@dataclass(frozen=True)
class Batch:
    """A packed batch of histories, and what training must find in it.

    Parameters
    ----------
    tokens
        ``int64[N]``: the items of all rows, row after row, oldest first; no padding.
    lengths
        ``int64[B]`` **on the host**: items of each row, ascending, each at least 1.
    rows
        ``int64[B]`` on the host: which history of the source each row is (rows are sorted).
    users
        ``int64[B]``: whose history it is, where known (otherwise the row's number).
    targets, target_at
        ``int64[M]``: the items to find, and for each the index into `tokens` of the item it
        follows. None outside of training.
    negatives
        ``int64[M, n]``, one set for each target, or ``int64[n]``, one set for all.
    negative_log_q, target_log_q
        Log-probability of having been drawn, shaped like `negatives` and `targets`.
    target_total, row_total
        Targets and rows of the whole step over all processes: what a mean over targets or over
        rows divides by.
    ago
        ``int64[N]``: how many places before the end of its row each token stands, where that is
        not simply the number of tokens after it (a view with hidden items has gaps).
    copies
        The rows are so many copies of the same ones, one after the other (then only the rows of
        a copy are ascending).
    keeps_padding
        Whether tokens of number 0 are slots of padding kept on purpose (a quirk of public codes).
    """

    tokens: Tensor
    lengths: NDArray[np.int64]
    rows: NDArray[np.int64]
    users: Tensor
    targets: Tensor | None = None
    target_at: Tensor | None = None
    negatives: Tensor | None = None
    negative_log_q: Tensor | None = None
    target_log_q: Tensor | None = None
    target_total: int = 0
    row_total: int = 0
    ago: Tensor | None = None
    copies: int = 1
    keeps_padding: bool = False

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.tokens.device

    @property
    def last_at(self) -> Tensor:
        """``int64[B]``: index into `tokens` of the last item of each row."""
        return torch.from_numpy(np.cumsum(self.lengths) - 1).to(self.device)

    def padded(self) -> Tensor:
        """``int64[B, T]``: the rows right-padded with 0 to the longest of the batch."""
        width = int(self.lengths.max())
        items = self.tokens.new_zeros(len(self), width)
        mask = torch.from_numpy(np.arange(width)[None, :] < self.lengths[:, None])
        items[mask.to(self.device)] = self.tokens
        return items

    def in_source_order(self, values: Tensor) -> Tensor:
        """Undo the sorting by length: row ``r`` of the result belongs to history ``r``."""
        if len(self) == 1 or bool((self.rows[1:] > self.rows[:-1]).all()):
            return values
        result = torch.empty_like(values)
        result[torch.from_numpy(self.rows).to(values.device)] = values
        return result


def gather(
    items: Tensor,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_length: int,
    users: NDArray[np.int64] | None = None,
) -> Batch:
    """Collect spans of `items` into a batch; each is cut to its last `max_length` items.

    Parameters
    ----------
    items
        ``int[n]``, on the device the batch is wanted on.
    starts, ends
        ``int64[B]`` on the host; spans must not be empty.
    max_length
        The most items a row keeps (its latest).
    users
        ``int64[B]``: whose spans they are; by default their position.

    Raises
    ------
    InputError
        If a span is empty: there is nothing to read.
    """
    starts = np.maximum(starts, ends - max_length)
    lengths = ends - starts
    if len(lengths) and lengths.min() < 1:
        raise InputError(_EMPTY)
    order = np.argsort(lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    offsets = np.cumsum(lengths) - lengths
    index = np.arange(int(lengths.sum())) + np.repeat(starts - offsets, lengths)
    tokens = items[torch.from_numpy(index).to(items.device)].long()
    owners = order if users is None else users[order]
    return Batch(tokens, lengths, order, torch.from_numpy(owners).to(items.device))


def batch_of_one(
    history: NDArray[np.integer], max_length: int, device: torch.device | str
) -> Batch:
    """Make the batch that `gather` would of one history, which needs none of its arithmetic.

    Raises
    ------
    InputError
        If the history is empty.
    """
    if len(history) == 0:
        raise InputError(_EMPTY)
    tokens = torch.from_numpy(history[-max_length:].astype(np.int64)).to(device)
    first = np.zeros(1, dtype=np.int64)
    return Batch(tokens, np.array([len(tokens)]), first, torch.from_numpy(first).to(device))


def items_on(sequences: Sequences, device: torch.device | str) -> Tensor:
    """``int32[n]``: the items of all spans as a tensor; a memory-mapped array is read in once."""
    items = np.ascontiguousarray(sequences.items)
    return torch.from_numpy(items if items.flags.writeable else items.copy()).to(device)


def batch_of_lists(
    histories: Sequence[Sequence[int]], max_length: int, device: torch.device | str = "cpu"
) -> Batch:
    """Make a batch of lists of item numbers (oldest first), as `recommend` meets them.

    Examples
    --------
    >>> batch = batch_of_lists([[3, 1, 2], [5]], max_length=2)
    >>> batch.padded().tolist(), batch.rows.tolist()
    ([[5, 0], [1, 2]], [1, 0])
    """
    sequences = Sequences.from_lists(histories)
    items = torch.from_numpy(sequences.items).to(device)
    return gather(items, sequences.starts, sequences.ends, max_length)


class TrainingStream:
    """The batches of training: shuffled by ``(seed, epoch)``, cut into steps, shared by processes.

    Parameters
    ----------
    train
        One training history a user.
    targets
        ``"every"``: one row a user, a target after every item. ``"prefix"``: every prefix is a
        row of its own with one target (a span, never a copy). ``"last"``: one row a user, only
        its last item is a target.
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
    """

    def __init__(
        self,
        train: Sequences,
        *,
        targets: TargetMode = "every",
        max_length: int = 50,
        batch_size: int = 256,
        negatives: NegativeSampler | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        long = np.flatnonzero(train.lengths >= 2)
        if len(long) == 0:
            raise InputError("training: no history has two items; there is no step to learn from")
        self.targets = targets
        self.max_length = max_length
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        self.items = items_on(train, device)
        self.negatives = negatives
        self.users, self.starts, self.ends = long, train.starts[long], train.ends[long]
        if targets == "prefix":
            counts = self.ends - self.starts - 1
            self.users = np.repeat(long, counts)
            within = np.arange(len(self.users)) - np.repeat(np.cumsum(counts) - counts, counts)
            self.starts = np.repeat(self.starts, counts)
            self.ends = self.starts + within + 2  # the last item of the span is the target

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.users) // self.batch_size)

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
        starts, ends = self.starts[chosen], self.ends[chosen] - 1
        read = np.minimum(ends - starts, self.max_length)
        total = int(read.sum()) if self.targets == "every" else len(chosen)
        mine = chosen[np.argsort(read, kind="stable")][self.rank :: self.world]
        starts, ends = self.starts[mine], self.ends[mine] - 1
        batch = gather(self.items, starts, ends, self.max_length, self.users[mine])
        starts, ends = starts[batch.rows], ends[batch.rows]
        lasts = np.cumsum(batch.lengths) - 1
        if self.targets == "every":
            at = np.arange(len(batch.tokens))
            follows = at + np.repeat(ends - 1 - lasts, batch.lengths) + 1
            owners = np.repeat(self.users[mine][batch.rows], batch.lengths)
        else:
            at, follows, owners = lasts, ends, self.users[mine][batch.rows]
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
        return Batch(
            tokens=batch.tokens,
            lengths=batch.lengths,
            rows=batch.rows,
            users=batch.users,
            targets=targets,
            target_at=torch.from_numpy(at).to(device),
            target_total=total,
            row_total=len(chosen),
            **sets,
        )


def hash_seed(*parts: int) -> int:
    """Mix whole numbers into one seed of 63 bits; the same parts always give the same seed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
