"""Run the missing cells of a study, a few at once, until they are done or time is up.

Each cell is a process of its own (`nextup.studies.worker`), so that one that fails takes no
other with it. A cell that is stopped goes on from its last checkpoint at the next call.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from nextup.cores import cores
from nextup.errors import ConfigError, InputError
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell
from nextup.studies.places import Places
from nextup.studies.run_cell import How
from nextup.studies.watch import Running, Watch
from nextup.studies.worker import BUSY, DONE, write_task

_GRACE_SECONDS = 20.0
_GPU_JOBS = 3
WORKER = "nextup.studies.worker"


@dataclass
class Outcome:
    """What became of the cells.

    Parameters
    ----------
    done
        Names of those that were run to their end.
    failed
        What went wrong, and the names of those that met it.
    busy
        Names of those that another process is running.
    left
        Names of those that time did not suffice for.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, list[str]] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def fail(self, reason: str, name: str) -> None:
        """Note that a cell failed."""
        self.failed.setdefault(reason, []).append(name)


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``30m``, ``2h`` or ``1h30m``.

    Examples
    --------
    >>> parse_duration("1h30m"), parse_duration("90s")
    (5400.0, 90.0)

    Raises
    ------
    ConfigError
        If it is not of that form.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(f"{n}{unit}" for n, unit in parts) != text:
        raise ConfigError(f"budget `{text}`: write it as 90s, 30m, 2h or 1h30m")
    return float(sum(float(n) * units[unit] for n, unit in parts))


def jobs_for(device: str, gpus: Sequence[str]) -> int:
    """Return how many cells to run at once: a few on each GPU, else one on each core."""
    if device != "cpu" and gpus:
        return _GPU_JOBS * len(gpus)
    return cores()


def visible_gpus() -> list[str]:
    """Return the GPUs by what ``CUDA_VISIBLE_DEVICES`` calls them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(at) for at in range(torch.cuda.device_count())]


class Runner:
    """Runs cells; used as a context, so that no process outlives it.

    Parameters
    ----------
    cells
        What is to be run, the most valuable first.
    places
        Where.
    how
        How; ``jobs`` of 0 leaves their number to the device.
    budget
        Seconds after which nothing is started and what runs is stopped; None for no end.
    asked
        By family of cells, what is measured besides the ranks by their own protocol.
    worker
        The module that runs the file of a task.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        places: Places,
        how: How,
        budget: float | None = None,
        asked: Mapping[str, Asked] | None = None,
        worker: str = WORKER,
    ) -> None:
        self.gpus = visible_gpus() if how.device != "cpu" else []
        jobs = how.jobs or jobs_for(how.device, self.gpus)
        self.how = replace(how, jobs=min(jobs, max(len(cells), 1)))
        self.places, self.budget, self.asked = places, budget, asked or {}
        self.worker = worker
        self.queue = deque(cells)
        self.running: list[Running] = []
        self.outcome = Outcome()
        self.bad_data: dict[str, str] = {}

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def run(self) -> Outcome:
        """Run all cells, or as many as the budget allows."""
        began = time.monotonic()
        with Watch(len(self.queue), self.budget) as watch:
            while self.queue or self.running:
                if self.budget is not None and time.monotonic() - began >= self.budget:
                    self.stop()
                    break
                while self.queue and len(self.running) < self.how.jobs:
                    self._start(self.queue.popleft(), watch)
                self._collect(watch)
                watch.show(self.running, len(self.queue))
                time.sleep(0.1)
        self.outcome.left += [cell.name for cell in self.queue]
        return self.outcome

    def stop(self) -> None:
        """Stop what is running; each goes on from its checkpoint at the next call."""
        for each in self.running:
            each.process.send_signal(signal.SIGINT)
        until = time.monotonic() + _GRACE_SECONDS
        try:
            for each in self.running:
                each.process.wait(max(until - time.monotonic(), 0.1))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        for each in self.running:
            each.end()
            finished = each.process.returncode == DONE  # it was at its last line
            (self.outcome.done if finished else self.outcome.left).append(each.cell.name)
        self.running = []

    def _start(self, cell: Cell, watch: Watch) -> None:
        if cell.dataset not in self.bad_data:
            try:
                self.places.prepared(cell.dataset)
            except InputError as error:
                self.bad_data[cell.dataset] = str(error)
        if cell.dataset in self.bad_data:
            self.outcome.fail(self.bad_data[cell.dataset], cell.name)
            return
        task, errors = (self.places.beside(cell.name, what) for what in ("task.json", "err"))
        write_task(task, cell, self.places, self.how, self.asked.get(cell.family))
        taken = [each.gpu for each in self.running]
        gpu = min(self.gpus, key=taken.count) if self.gpus else ""
        with errors.open("w", encoding="utf-8") as opened:
            process = subprocess.Popen(
                [sys.executable, "-m", self.worker, str(task)],
                stdin=subprocess.PIPE,  # never written to; its end tells the worker that we ended
                stdout=subprocess.DEVNULL,
                stderr=opened,
                env=self._environment(gpu),
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
            )
        log = self.places.run(cell.name) / "log.jsonl"
        started = Running(cell, process, log, errors, gpu)
        self.running.append(started)
        watch.started(started)

    def _environment(self, gpu: str) -> dict[str, str]:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        variables = {**os.environ, **dict.fromkeys(names, str(self.how.threads))}
        if gpu:
            variables["CUDA_VISIBLE_DEVICES"] = gpu
        return variables

    def _collect(self, watch: Watch) -> None:
        """Take leave of the processes that have ended."""
        for each in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(each)
            each.end()
            code, name = each.process.returncode, each.cell.name
            if code == DONE:
                self.outcome.done.append(name)
            elif code == BUSY:
                self.outcome.busy.append(name)
            else:
                self.outcome.fail(_reason(each, code), name)
            watch.ended(each, code)


def _reason(each: Running, code: int) -> str:
    """Return why a process failed, from the last line it wrote."""
    lines = each.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if lines and lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; if memory ran out, use fewer --jobs" if code == -signal.SIGKILL else ""
        return f"was ended by {name}{memory}; see {each.errors}"
    said = lines[-1] if lines else f"exit code {code}"
    return f"{said}; see {each.errors}"


def clear(places: Places, names: Sequence[str]) -> None:
    """Remove what finished runs need no more: their tasks and checkpoints.

    Locks stay: a lock that is removed while another process opens it is held by two.
    """
    for name in names:
        for what in ("task.json", "err"):
            places.beside(name, what).unlink(missing_ok=True)
        (places.run(name) / "checkpoint" / "state.safetensors").unlink(missing_ok=True)
