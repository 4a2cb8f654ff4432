"""Tables measured in several processes at once: none needs what another finds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nextup.studies.measured import Comparison
from nextup.studies.statistics import Measured

Found = dict[tuple[str, str], Measured]

_WORTH_A_PROCESS = 1 << 26
"""Values resampled below which processes take longer to start than they save."""


def measured_at_once(comparisons: Sequence[Comparison], processes: int = 1) -> list[Found]:
    """Measure comparisons; what is found does not depend on the number of processes.

    Parameters
    ----------
    comparisons
        What is to be measured.
    processes
        How many at most. With more than one, a script that calls this needs the guard
        ``if __name__ == "__main__":``, as with any that starts processes.

    Returns
    -------
    In the same order; see `nextup.studies.measured.measured_runs`.

    Raises
    ------
    RunError
        If a result is damaged, or ranked other cases than others of its comparison.
    """
    costs = [each.cost for each in comparisons]
    processes = min(processes, sum(cost > 0 for cost in costs), sum(costs) // _WORTH_A_PROCESS)
    with _bar() as bar:
        shown = bar.add_task("measuring", total=len(comparisons))
        if processes <= 1:
            found = []
            for each in comparisons:
                found.append(each.measured())
                bar.advance(shown)
            return found
        with _one_thread_each(), _pool(processes) as pool:
            started: dict[int, Future[Found]] = {}
            for at in sorted(range(len(costs)), key=lambda at: -costs[at]):  # the longest first
                started[at] = pool.submit(_measure, comparisons[at])
                started[at].add_done_callback(lambda _: bar.advance(shown))
            return [started[at].result() for at in range(len(costs))]


def _measure(comparison: Comparison) -> Found:
    return comparison.measured()


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of which nothing is waited for once something has gone wrong."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _end_with_parent() -> None:
    """Make this process end when the one that started it does, however that ends."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def look() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give processes that are started here one thread each: there is one for every core."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
