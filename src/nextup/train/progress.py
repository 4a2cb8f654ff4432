"""What people see while a model trains, and the log that machines read."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Log:
    """``log.jsonl``: one JSON object a line; cut back to a checkpoint when a run goes on.

    Parameters
    ----------
    file
        Where; None keeps no log (processes other than the first).
    length
        Bytes to keep of a log that is there already.
    """

    def __init__(self, file: Path | None, length: int = 0) -> None:
        self.file = file
        if file is not None:
            file.touch()
            os.truncate(file, min(length, file.stat().st_size))

    def write(self, **entry: Any) -> None:
        """Add a line."""
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(entry) + "\n")

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return 0 if self.file is None else self.file.stat().st_size


class Bar:
    """A progress bar over the steps of each epoch, with loss, metric and sequences a second.

    Parameters
    ----------
    shown
        Whether anything is printed at all.
    epochs
        Epochs in all.
    metric
        Name of the validation metric.
    stage
        What the stage of training is called, where there are several.
    """

    def __init__(self, shown: bool, epochs: int, metric: str, stage: str = "") -> None:
        self.shown, self.epochs, self.metric = shown, epochs, metric
        self.label = f"{stage} epoch" if stage else "epoch"
        self.console = Console(stderr=True)
        self.live = shown and self.console.is_terminal
        self.best = ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.task = self.progress.add_task("", total=1, said="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def start_epoch(self, epoch: int, steps: int, done: int) -> None:
        """Begin an epoch of so many steps, some of which may be done already."""
        text = f"{self.label} {epoch + 1}/{self.epochs}"
        self.progress.reset(self.task, total=steps, completed=done, description=text, said="")

    def step(self, loss: float | None, rate: float) -> None:
        """One more step; the loss is given now and then, since asking for it costs time."""
        said = None if loss is None else f"loss {loss:.4f}  {self.best}{rate:,.0f} seq/s"
        if said is None:
            self.progress.advance(self.task)
        else:
            self.progress.update(self.task, advance=1, said=said)

    def end_epoch(self, epoch: int, entry: dict[str, Any], best: bool) -> None:
        """Print a line about an epoch that was validated (every epoch without validation)."""
        if not self.shown:
            return
        value = entry.get(self.metric)
        if best:
            self.best = f"best {self.metric} {value:.4f}  "
        score = "" if value is None else f"  {self.metric} {value:.4f}{' *' if best else '  '}"
        self.console.print(
            f"{self.label} {epoch + 1:>3}  loss {entry['loss']:.4f}{score}  "
            f"{entry['sequences_per_second']:,.0f} seq/s  {entry['seconds']:.1f} s",
            highlight=False,
        )


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)
