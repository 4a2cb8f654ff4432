"""What is seen while cells run: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nextup.studies.cell import Cell
from nextup.studies.worker import BUSY, DONE

_LINE_EVERY_SECONDS = 60.0


@dataclass
class Running:
    """A cell that is being run: its process, and what its log says so far."""

    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    errors: Path
    gpu: str = ""
    began: float = field(default_factory=time.monotonic)
    epoch: int = 0
    best: float | None = None
    _read: int = 0
    _stage: str | None = None

    def look(self) -> None:
        """Read what was added to the log."""
        try:
            if self.log.stat().st_size < self._read:
                self._read = 0  # it was cut back to a checkpoint
            with self.log.open("rb") as opened:
                opened.seek(self._read)
                added = opened.read()
        except OSError:
            return
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("stage") != self._stage:
                self._stage, self.best = entry.get("stage"), None
            self.epoch = int(entry.get("epoch", self.epoch))
            value = entry.get(self.cell.metric)
            if value is not None and (self.best is None or value > self.best):
                self.best = value

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began

    def end(self) -> None:
        """Make sure that the process has ended, and let go of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def columns(self) -> tuple[str, str, str, str]:
        """Return cell, epoch, best validation and time as text."""
        epoch = f"{self.epoch}/{self.cell.epochs}" if self.cell.epochs else ""
        if self._stage is not None:  # each has epochs of its own
            epoch = f"{self._stage} {self.epoch}"
        best = "" if self.best is None else f"{self.cell.metric} {self.best:.4f}"
        return self.cell.name, epoch, best, clock(self.seconds)


def clock(seconds: float) -> str:
    """Return seconds as ``1:02:03``.

    Examples
    --------
    >>> clock(62.5), clock(3723)
    ('1:02', '1:02:03')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Watch:
    """Shows the cells that run, on standard error.

    Parameters
    ----------
    total
        How many cells there are to run.
    budget
        Seconds there are for them, if there is an end.
    """

    def __init__(self, total: int, budget: float | None) -> None:
        self.total, self.budget = total, budget
        self.done = self.failed = 0
        self.began = self.said = time.monotonic()
        self.console = Console(stderr=True)
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Watch:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def started(self, each: Running) -> None:
        """Note that a cell was started."""
        if self.live is None:
            self._say(f"{each.cell.name}: started")

    def ended(self, each: Running, code: int) -> None:
        """Note that a cell came to its end."""
        each.look()
        self.done += code == DONE
        self.failed += code not in (DONE, BUSY)
        name, epoch, best, took = each.columns()
        word = {DONE: "done", BUSY: "is being run elsewhere"}.get(code, "FAILED")
        said = [f"{name}: {word}", epoch and f"epoch {epoch}", best, took]
        self._say(", ".join(part for part in said if part))

    def show(self, running: Sequence[Running], waiting: int) -> None:
        """Show what is running now."""
        for each in running:
            each.look()
        if self.live is not None:
            self.live.update(self._table(running, waiting))
        elif time.monotonic() - self.said > _LINE_EVERY_SECONDS and running:
            parts = [" ".join(filter(None, each.columns())) for each in running]
            self._say(f"{self._standing(waiting)}; running: " + "; ".join(parts))

    def _table(self, running: Sequence[Running], waiting: int) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("running", "epoch", "best on validation", "time"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for each in running:
            table.add_row(*(Text(cell) for cell in each.columns()))
        return Group(table, Text(self._standing(waiting)))

    def _standing(self, waiting: int) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        passed = time.monotonic() - self.began
        of = "" if self.budget is None else f" of {clock(self.budget)}"
        return f"{self.done} of {self.total} done{failed}, {waiting} waiting, {clock(passed)}{of}"

    def _say(self, line: str) -> None:
        self.said = time.monotonic()
        if self.live is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.console.print(line, markup=False, highlight=False)
