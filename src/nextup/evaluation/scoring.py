"""Scores of many histories, block by block: the one loop below ranking and top-k.

A block of scores is made in a buffer small enough to stay in a core's cache, handed to a visitor
and overwritten by the next. On a CPU each core works through a portion of its own with one thread,
so that no core waits for another at every small operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.batches import Batch, gather, items_on
from nextup.data.sequences import Sequences
from nextup.evaluation.catalogue import (
    LINE,
    Catalogue,
    Scorer,
    aligned,
    as_float,
    check_finite,
)
from nextup.evaluation.threads import one_thread

CPU_BUFFER, DEVICE_BUFFER = 8 << 20, 512 << 20
"""Bytes of one block of scores: on a CPU what stays in the cache, on a device enough to fill it."""

CPU_TOKENS, DEVICE_TOKENS = 3072, 1 << 20
"""About how many items are encoded together."""

PORTION = 1 << 29
"""Scores for which a core encodes histories, batch after batch, before it makes the first: changing
between the two more often costs a few per cent, as each finds the cache full of the other's."""

Progress = Callable[[int, int], None]
"""Called with ``(cases done, cases in all)``."""


@dataclass(frozen=True)
class Block:
    """Scores of some cases; the scores are overwritten when the visit is over.

    Parameters
    ----------
    cases
        ``int64[c]`` on the host: whose scores they are (rows of the histories given).
    scores
        ``[c, I]``: column ``j`` is item ``j + 1``, so padding is not among them; or ``[c, n]``,
        column ``j`` being the ``j``-th of the `n` items wanted.
    worker
        Which worker made it: visits of one worker never overlap, so it names a visitor's buffers.
    """

    cases: NDArray[np.int64]
    scores: Tensor
    worker: int


@contextmanager
def answering(model: Scorer) -> Iterator[None]:
    """Put the model into its answering mode for a while."""
    if not model.training:
        yield
        return
    model.train(False)
    try:
        yield
    finally:
        model.train(True)


def cut_by_length(lengths: NDArray[np.int64], rows: int, tokens: int) -> list[slice]:
    """Cut histories in order of length into batches of nearly one length.

    Parameters
    ----------
    lengths
        ``int64[m]``, ascending.
    rows
        The most histories of a batch; half of it may be a batch of one length, an eighth one of
        lengths that differ little.
    tokens
        How many items a batch may hold, padded to its longest history.

    Examples
    --------
    >>> cut_by_length(np.array([2, 2, 2, 9, 9]), rows=8, tokens=18)
    [slice(0, 3, None), slice(3, 5, None)]
    """
    batches, at = [], 0
    while at < len(lengths):
        same, alike = np.searchsorted(lengths, lengths[at] * np.array([1, 1.25]), side="right")
        end = int(same) if same >= at + rows // 2 else max(int(alike), at + rows // 8)
        end = min(end, at + rows, len(lengths))
        while end > at + 1 and (end - at) * lengths[end - 1] > tokens:
            end = max(at + 1, min(end - 1, at + int(tokens // lengths[end - 1])))
        batches.append(slice(at, end))
        at = end
    return batches


def visit_scores(
    model: Scorer,
    histories: Sequences,
    visit: Callable[[Block], None],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    only: NDArray[np.int64] | None = None,
    catalogue: Catalogue | None = None,
    users: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> None:
    """Score every item for every history, a block at a time.

    Parameters
    ----------
    model
        What scores, on `device`.
    histories
        ``m`` spans, none empty; read in order of length.
    visit
        Called with each block, from several threads at once but with different cases.
    device
        Where the model is.
    batch_size
        The most histories that are encoded together.
    only
        Item numbers to score; by default all, in order.
    catalogue
        The model's items laid out for `only`, where the caller keeps them.
    users
        ``int64[m]``: whose histories they are (rows of the dataset the model was fitted on); by
        default nobody's.
    progress
        Called as cases are done.

    Raises
    ------
    InputError
        If a history is empty.
    NextupError
        If a score is not finite.
    """
    m, device = len(histories), torch.device(device)
    if m == 0:
        return
    read = np.minimum(histories.lengths, model.max_length)
    buffer_bytes = CPU_BUFFER if device.type == "cpu" else DEVICE_BUFFER
    if not model.factors:  # such a model makes a whole batch of scores at once
        batch_size = max(1, min(batch_size, 16 * buffer_bytes // (8 * (model.n_items + 1))))
    order = np.argsort(read, kind="stable")
    tokens = CPU_TOKENS if device.type == "cpu" else DEVICE_TOKENS
    batches = [order[part] for part in cut_by_length(read[order], batch_size, tokens)]
    batches.reverse()  # the longest first, so that no core is left alone with them at the end
    workers = min(one_thread.threads(), len(batches)) if device.type == "cpu" else 1
    many = min(len(batches), workers * -(-m * model.n_items // (workers * PORTION)))
    portions = [batches[first::many] for first in range(many)]
    items = items_on(histories, device)
    free: SimpleQueue[tuple[int, list[Tensor]]] = SimpleQueue()
    for number in range(workers):
        free.put((number, []))

    def gathered(cases: NDArray[np.int64]) -> Batch:
        owners = None if users is None else users[cases]
        starts, ends = histories.starts[cases], histories.ends[cases]
        return gather(items, starts, ends, model.max_length, owners)

    def blocks(
        portion: list[NDArray[np.int64]], worker: int, kept: list[Tensor]
    ) -> Iterator[Block]:
        if catalogue is None:
            for cases in portion:
                batch = gathered(cases)
                scores = as_float(model.scores(batch))[:, 1 : model.n_items + 1]
                scores = scores if columns is None else scores[:, columns]
                check_finite(model, scores)
                yield Block(cases[batch.rows], scores, worker)
            return
        queries = torch.cat([catalogue.queries(model, gathered(cases)) for cases in portion])
        cases = np.concatenate(portion)
        if not kept:
            rows = buffer_bytes // (catalogue.items.element_size() * max(len(catalogue), 1))
            rows = min(rows // LINE * LINE or max(rows, 1), batch_size, m)
            kept.append(aligned(rows, len(catalogue), queries.dtype, queries.device))
        for at in range(0, len(cases), len(kept[0])):
            some = queries[at : at + len(kept[0])]
            scores = torch.mm(some, catalogue.items, out=kept[0][: len(some)])
            yield Block(cases[at : at + len(some)], scores, worker)

    def work(portion: list[NDArray[np.int64]]) -> int:
        worker, kept = free.get()
        try:
            with torch.inference_mode():
                for block in blocks(portion, worker, kept):
                    visit(block)
        finally:
            free.put((worker, kept))
        return sum(map(len, portion))

    with answering(model), torch.inference_mode():
        numbers = None if only is None else torch.from_numpy(only).to(device)
        columns = None if numbers is None else numbers - 1
        if model.factors and catalogue is None:
            catalogue = Catalogue(model, numbers)
        done = 0
        if workers == 1:
            for portion in portions:
                done += work(portion)
                if progress is not None:
                    progress(done, m)
            return
        with one_thread, ThreadPoolExecutor(workers) as pool:
            pending = {pool.submit(work, portion) for portion in portions}
            try:
                while pending:
                    timeout = None if progress is None else 0.1
                    ready, pending = wait(pending, timeout, return_when=FIRST_EXCEPTION)
                    done += sum(future.result() for future in ready)
                    if progress is not None:
                        progress(done, m)
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
