"""Tables measured in several processes at once: none needs what another finds."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nextup.cores import cores
from nextup.errors import RunError
from nextup.studies.measured import Comparison
from nextup.studies.statistics import Measured

_WORTH_A_PROCESS = 1 << 33
"""Values resampled that take longer than a process takes to start (some seconds)."""
_MOST = 61  # more are not started on Windows
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measured_at_once(
    comparisons: Sequence[Comparison], processes: int = 1
) -> list[dict[tuple[str, str], Measured]]:
    """Measure comparisons; but for rounding, the number of processes does not change a figure.

    Parameters
    ----------
    comparisons
        What is to be measured.
    processes
        How many at most; fewer start where the work is little. With more than one, a script that
        calls this needs the guard ``if __name__ == "__main__":``, as with any that starts
        processes.

    Returns
    -------
    In the same order; see `nextup.studies.measured.measured_runs`.

    Raises
    ------
    RunError
        If a result is damaged, or ranked other cases than others of its comparison; if a process
        was ended from outside.
    ConfigError
        If a metric needs ranks beyond those that results hold.
    """
    costs = [each.cost for each in comparisons]
    worth = sum(costs) // _WORTH_A_PROCESS
    processes = min(processes, sum(cost > 0 for cost in costs), worth, _MOST)
    with _bar(worth > 0) as bar:
        shown = bar.add_task("measuring", total=len(comparisons))
        if processes > 1:
            return _in_processes(comparisons, costs, processes, lambda: bar.advance(shown))
        found = []
        for each in comparisons:
            found.append(each.measured())
            bar.advance(shown)
        return found


def _in_processes(
    comparisons: Sequence[Comparison],
    costs: Sequence[int],
    processes: int,
    tell: Callable[[], None],
) -> list[dict[tuple[str, str], Measured]]:
    longest_first = sorted(range(len(costs)), key=lambda at: -costs[at])
    try:
        with _pool(processes) as pool:
            with _deaf(), _threads_each(max(1, cores() // processes)):  # as processes start
                started = {at: pool.submit(_measure, comparisons[at]) for at in longest_first}
            for future in started.values():
                future.add_done_callback(lambda _: tell())
            done, _ = wait(started.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()  # of what failed, to say so before the others are at their end
            return [started[at].result() for at in range(len(costs))]
    except BrokenProcessPool:
        raise RunError(
            "a process that measured was ended from outside; if memory ran out, try fewer --jobs"
        ) from None


def _measure(comparison: Comparison) -> dict[tuple[str, str], Measured]:
    return comparison.measured()


def _bar(shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end at once when something goes wrong here, or this process is killed.

    Each holds one end of a pipe; that the other end is closed tells them.
    """
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, _end_with, (theirs,))
    try:
        yield pool
    except BaseException:
        ours.close()
        pool.shutdown(cancel_futures=True)
        raise
    else:
        pool.shutdown()
    finally:
        ours.close()
        theirs.close()


def _end_with(pipe: connection.Connection) -> None:
    """Make this process end when the other end of a pipe is closed."""

    def look() -> None:
        connection.wait([pipe])
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that start here not hear Ctrl-C, which a terminal sends to all of them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _threads_each(threads: int) -> Iterator[None]:
    """Give processes that start here so many threads each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
