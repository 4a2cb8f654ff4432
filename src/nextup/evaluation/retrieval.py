"""The best k items for many histories: exact, without sorting the catalogue.

The catalogue is cut into blocks and only the largest score of each is looked at first. The k-th
largest of these maxima is a bound that at least k scores reach and every score of the top k does;
the few scores that reach it are then put in order. Equal scores go to the lower item number.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.batches import batch_of_one
from nextup.data.sequences import Sequences
from nextup.evaluation.catalogue import Catalogue, Scorer
from nextup.evaluation.scoring import Block, Progress, answering, visit_scores
from nextup.evaluation.threads import one_thread


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` largest scores of each row and their columns, best first.

    Parameters
    ----------
    scores
        ``float[c, n]``; minus infinity marks what must not be chosen.
    k
        How many, at most ``n``.

    Returns
    -------
    values, columns
        ``float[c, k]`` and ``int64[c, k]``; a row with fewer candidates ends in minus infinity
        and -1. Of equal scores the lower column comes first.

    Examples
    --------
    >>> values, columns = top_k(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), 3)
    >>> columns.tolist()
    [[1, 3, 2]]
    """
    if scores.device.type != "cpu":
        return top_k_on_device(scores, k)
    values, columns = top_k_on_host(scores.numpy(), k)
    return torch.from_numpy(values), torch.from_numpy(columns)


def _blocks(n: int, k: int) -> tuple[int, int]:
    """How many columns share a block, and how many blocks: balances the two looks at them."""
    depth = max(1, math.isqrt(n // max(k, 1)))
    return depth, n // depth


def top_k_on_device(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`top_k` without leaving the device."""
    c, n = scores.shape
    values = scores.new_full((c, k), -math.inf)
    columns = torch.full((c, k), -1, dtype=torch.int64, device=scores.device)
    if c == 0 or k == 0:
        return values, columns
    depth, width = _blocks(n, k)
    maxima = scores[:, : depth * width].reshape(c, depth, width).amax(dim=1)
    maxima = torch.cat([maxima, scores[:, depth * width :]], dim=1)
    bound = maxima.topk(k, dim=1, sorted=False).values.amin(dim=1)
    # Where fewer than k candidates are left the bound is -inf, which no candidate has.
    bound = bound.clamp(min=torch.finfo(scores.dtype).min)
    row, column = (scores >= bound[:, None]).nonzero(as_tuple=True)
    value = scores[row, column]
    order = value.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    value, column, row = value[order], column[order], row[order]
    many = torch.bincount(row, minlength=c)
    place = torch.arange(len(row), device=scores.device) - (many.cumsum(0) - many)[row]
    first = place < k
    values[row[first], place[first]] = value[first]
    columns[row[first], place[first]] = column[first]
    return values, columns


def top_k_on_host(
    scores: NDArray[np.floating], k: int
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """`top_k` in NumPy, whose partition and search are several times faster on a CPU."""
    c, n = scores.shape
    values = np.full((c, k), -np.inf, dtype=scores.dtype)
    columns = np.full((c, k), -1, dtype=np.int64)
    if c == 0 or k == 0:
        return values, columns
    depth, width = _blocks(n, k)
    maxima = scores[:, : depth * width].reshape(c, depth, width).max(axis=1)
    maxima = np.concatenate([maxima, scores[:, depth * width :]], axis=1)
    maxima.partition(maxima.shape[1] - k, axis=1)
    bound = np.maximum(maxima[:, -k, None], np.finfo(scores.dtype).min)
    row, column = np.divmod(np.flatnonzero(scores >= bound), n)
    value = scores[row, column]
    order = np.lexsort((-value, row))
    value, column, row = value[order], column[order], row[order]
    many = np.bincount(row, minlength=c)
    place = np.arange(len(row)) - (np.cumsum(many) - many)[row]
    first = place < k
    values[row[first], place[first]] = value[first]
    columns[row[first], place[first]] = column[first]
    return values, columns


def top_k_of_row(scores: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Return the columns that `top_k` would, for one row on the host and without the -1."""
    depth, width = _blocks(len(scores), k)
    maxima = scores[: depth * width].reshape(depth, width).max(axis=0)
    maxima = np.concatenate([maxima, scores[depth * width :]])
    maxima.partition(len(maxima) - k)
    bound = max(maxima[len(maxima) - k], np.finfo(scores.dtype).min)
    columns: NDArray[np.int64] = (scores >= bound).nonzero()[0]
    return np.asarray(columns[(-scores[columns]).argsort(kind="stable")[:k]])


def top_items(
    model: Scorer,
    histories: Sequences,
    k: int,
    *,
    exclude_seen: bool = True,
    seen: Sequences | None = None,
    exclude: NDArray[np.int64] | None = None,
    only: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    catalogue: Catalogue | None = None,
    users: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Recommend `k` items for each history, best first.

    Parameters
    ----------
    model
        What scores, on `device`.
    histories
        ``m`` spans, none empty.
    k
        How many items.
    exclude_seen
        Whether the items of a history (all of it, not only what the model reads) are left out.
    seen
        ``m`` spans: what counts as seen, where that is not the history.
    exclude
        Item numbers left out for everyone.
    only
        Item numbers to choose from; by default all.
    device
        Where the model is.
    batch_size
        Histories encoded together.
    catalogue
        The model's items laid out for `only`, where the caller keeps them.
    users
        ``int64[m]``: whose histories they are (rows of the dataset the model was fitted on); by
        default nobody's.
    progress
        Called with ``(histories done, histories in all)``.

    Returns
    -------
    items, scores
        ``int64[m, k]`` and ``float64[m, k]``; where fewer candidates are left, 0 and minus
        infinity.
    """
    n = model.n_items
    seen = histories if seen is None else seen
    if len(histories) == 1 and only is None and catalogue is not None and 0 < k <= n:
        met = seen[0]
        banned = exclude if exclude is not None else met[:0]
        left_out = np.concatenate([met, banned]) if exclude_seen else banned
        user = None if users is None else int(users[0])
        return _for_one(model, histories, k, left_out, catalogue, device, user)
    wanted = None if only is None else np.unique(only)
    lists = Lists(model, len(histories), k, seen if exclude_seen else None, exclude, wanted)
    if lists.kept and len(histories):
        visit_scores(
            model,
            histories,
            lists,
            device=device,
            batch_size=batch_size,
            only=wanted,
            catalogue=catalogue,
            users=users,
            progress=progress,
        )
    return lists.items, lists.scores


class Lists:
    """Visits blocks of scores and notes the best items of each case.

    It may overwrite what it visits, so it comes last of several visitors.

    Parameters
    ----------
    model
        Whose scores are visited.
    m, k
        How many cases, and items of each.
    seen
        ``m`` spans of items that are left out, or None.
    exclude
        Item numbers left out for everyone.
    wanted
        The item numbers that a block's columns are, ascending; None for all.

    Attributes
    ----------
    items, scores
        ``int64[m, k]`` and ``float64[m, k]``: what was found.
    """

    def __init__(
        self,
        model: Scorer,
        m: int,
        k: int,
        seen: Sequences | None,
        exclude: NDArray[np.int64] | None = None,
        wanted: NDArray[np.int64] | None = None,
    ) -> None:
        n = model.n_items
        self.items = np.zeros((m, k), dtype=np.int64)
        self.scores = np.full((m, k), -np.inf)
        self.seen, self.borrowed = seen, not model.factors
        self.numbers = np.arange(1, n + 1) if wanted is None else wanted
        self.column_of = np.full(n + 1, -1)  # where each item stands in a block, or -1
        self.column_of[self.numbers] = np.arange(len(self.numbers))
        banned = self.column_of[exclude] if exclude is not None else np.empty(0, dtype=np.int64)
        self.banned = banned[banned >= 0]
        self.kept = min(k, len(self.numbers))

    def __call__(self, block: Block) -> None:
        """Note the best items of a block's cases."""
        found = block.scores
        if self.borrowed:  # these scores may be the model's own memory
            found = found.clone(memory_format=torch.contiguous_format)
        if self.seen is not None:
            spans = self.seen.rows(block.cases)
            column = self.column_of[spans.items[spans.positions()]]
            row = np.repeat(np.arange(len(block.cases)), spans.lengths)[column >= 0]
            row_at, column_at = torch.from_numpy(row), torch.from_numpy(column[column >= 0])
            found[row_at.to(found.device), column_at.to(found.device)] = -math.inf
        if len(self.banned):
            found[:, torch.from_numpy(self.banned).to(found.device)] = -math.inf
        values, columns = top_k(found, self.kept)
        places = columns.cpu().numpy()
        self.items[block.cases, : self.kept] = np.where(places >= 0, self.numbers[places], 0)
        self.scores[block.cases, : self.kept] = values.cpu().numpy()


@torch.inference_mode()
def _for_one(
    model: Scorer,
    history: Sequences,
    k: int,
    left_out: NDArray[np.integer],
    catalogue: Catalogue,
    device: torch.device | str,
    user: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Answer one history, where the machinery for many would take most of the time."""
    batch = batch_of_one(history[0], model.max_length, device)
    if user is not None:
        batch = replace(batch, users=torch.full_like(batch.users, user))
    # Up to a few million numbers, waiting for a second core costs more than it gives.
    threads = one_thread if catalogue.items.numel() < 1 << 22 else nullcontext()
    with answering(model), threads:
        found = torch.mm(catalogue.queries(model, batch), catalogue.items).cpu().numpy()[0]
    found[left_out - 1] = -np.inf
    columns = top_k_of_row(found, k)
    items, scores = np.zeros((1, k), dtype=np.int64), np.full((1, k), -np.inf)
    items[0, : len(columns)] = columns + 1
    scores[0, : len(columns)] = found[columns]
    return items, scores
