"""Batches: spans gathered into one packed tensor.

A batch is packed: the items of all its histories stand one after the other, without padding, so
that no layer ever computes on padding (86-89 % of a batch padded to 50 would be padding on the
papers' sets). Rows are sorted by length, shortest first, so that rows of equal length are one
block; `padded()` gives the classic right-padded matrix to a model that wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.sequences import Sequences
from nextup.errors import InputError

_EMPTY = "a history is empty; give at least one known item or ask for popular ones"


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
        ``int64[B]``: whose history it is (row in the dataset), -1 where nobody said.
    targets, target_at
        ``int64[M]``: the items to find, and for each the index into `tokens` of the item it
        follows. None outside of training.
    negatives
        ``int64[M, n]``, one set for each target, or ``int64[n]``, one set for all.
    negative_log_q, target_log_q
        What the logQ correction takes off their scores: the log of how often each is expected
        among the step's draws. Shaped like `negatives` and `targets`.
    until
        ``int64[B]`` on the host: how many items of its user's training history each row has
        read, were it not cut, by its end. None outside of training.
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
    until: NDArray[np.int64] | None = None

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

    def met(self, n_items: int, *more: Tensor) -> Tensor:
        """``int64[k]``: items read, to be found or drawn against, and `more`; ascending, each once.

        Parameters
        ----------
        n_items
            The largest item number; what lies beyond are tokens of the model's own.
        more
            Further item numbers, of any shape.
        """
        said = [self.tokens, self.targets, self.negatives, *more]
        ids = torch.cat([each.reshape(-1) for each in said if each is not None])
        ids = torch.unique(ids)  # type: ignore[no-untyped-call]
        found: Tensor = ids[(ids > 0) & (ids <= n_items)]
        return found

    def latest(self, count: int) -> Tensor:
        """``int64[B, count]``: the last `count` items of each row, padded with 0 on the left."""
        back = torch.arange(count - 1, -1, -1, device=self.device)
        at = self.last_at[:, None] - back
        lengths = torch.from_numpy(self.lengths).to(self.device)
        return self.tokens[at.clamp_(min=0)].masked_fill_(back >= lengths[:, None], 0)

    def cut(self, max_length: int) -> Batch:
        """Return the rows cut to their last `max_length` items, without targets."""
        if int(self.lengths.max()) <= max_length:
            return Batch(self.tokens, self.lengths, self.rows, self.users, ago=self.ago)
        lengths = np.minimum(self.lengths, max_length)
        ends = np.cumsum(self.lengths)
        after = np.repeat(ends, self.lengths) - np.arange(len(self.tokens))
        kept = torch.from_numpy(np.flatnonzero(after <= max_length)).to(self.device)
        ago = None if self.ago is None else self.ago[kept]
        return Batch(self.tokens[kept], lengths, self.rows, self.users, ago=ago)

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
    *,
    empty_as_padding: bool = False,
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
        ``int64[B]``: whose spans they are; by default nobody's (-1).
    empty_as_padding
        Make one token of padding of an empty span instead of refusing it.

    Raises
    ------
    InputError
        If a span is empty: there is nothing to read.
    """
    starts = np.maximum(starts, ends - max_length)
    lengths = ends - starts
    if len(lengths) and lengths.min() < 1:
        if not empty_as_padding:
            raise InputError(_EMPTY)
        return _with_padding(items, starts, ends, max_length, users)
    order = np.argsort(lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    offsets = np.cumsum(lengths) - lengths
    index = np.arange(int(lengths.sum())) + np.repeat(starts - offsets, lengths)
    tokens = items[torch.from_numpy(index).to(items.device)].long()
    owners = np.full(len(order), -1) if users is None else users[order]
    return Batch(tokens, lengths, order, torch.from_numpy(owners).to(items.device))


def _with_padding(
    items: Tensor,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_length: int,
    users: NDArray[np.int64] | None,
) -> Batch:
    """Gather as if each empty span were some other item, then make padding of it."""
    empty = ends <= starts
    batch = gather(items, np.where(empty, 0, starts), np.where(empty, 1, ends), max_length, users)
    hidden = torch.from_numpy(np.repeat(empty[batch.rows], batch.lengths)).to(items.device)
    return replace(batch, tokens=batch.tokens.masked_fill(hidden, 0))


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
    unknown = torch.full((1,), -1, device=device)
    return Batch(tokens, np.array([len(tokens)]), np.zeros(1, dtype=np.int64), unknown)


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
