"""What every benchmark child shares: histories, timed spans, a clock for Lightning, the answer.

Only NumPy is imported at module level, so this file works in every peer's own environment.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DIM, BLOCKS, HEADS, MAX_LEN, BATCH, RATE, DROPOUT = 64, 2, 2, 50, 256, 1e-3, 0.5


class Histories(NamedTuple):
    """One array of items (1 and up) and one span per user, oldest item first."""

    items: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def lists(self) -> list[np.ndarray]:
        """Return one array of items per user."""
        return [self.items[a:b] for a, b in zip(self.starts, self.ends, strict=True)]

    def without_last(self, n: int) -> Histories:
        """Return the same users without their last ``n`` items."""
        return Histories(self.items, self.starts, np.maximum(self.ends - n, self.starts))


def read_text(path: str | Path) -> Histories:
    """Read lines ``user item item ...``, gzipped or not, with items numbered from 1."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [np.array(line.split()[1:], dtype=np.int32) for line in lines if line.strip()]
    ends = np.cumsum([len(row) for row in rows])
    return Histories(np.concatenate(rows), np.concatenate([[0], ends[:-1]]), ends)


def save_npz(path: str | Path, sequences: Any) -> None:
    """Write anything with ``items``, ``starts`` and ``ends`` for a child to read."""
    arrays = {name: np.asarray(getattr(sequences, name)) for name in ("items", "starts", "ends")}
    np.savez(path, **arrays)


def load_npz(path: str | Path) -> Histories:
    """Read what ``save_npz`` wrote."""
    with np.load(path) as file:
        return Histories(file["items"], file["starts"], file["ends"])


@dataclass
class Span:
    """Wall seconds of a piece of work, and how busy the machine was meanwhile.

    ``foreign_cores`` is the CPU time that other processes used, in cores; ``stolen_cores`` what
    the host of a virtual machine took away. Both are None where ``/proc/stat`` cannot be read.
    """

    seconds: float = 0.0
    own_cores: float = 0.0
    foreign_cores: float | None = None
    stolen_cores: float | None = None


def _machine_cpu() -> tuple[float, float] | None:
    """Return the busy and the stolen CPU seconds of the machine since it started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[:8]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
    return user + nice + system + irq + softirq, steal


def _own_cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Stopwatch:
    """Start at construction; ``stop`` returns the ``Span`` since."""

    def __init__(self) -> None:
        self._cpu, self._machine = _own_cpu(), _machine_cpu()
        self._wall = time.perf_counter()

    def stop(self) -> Span:
        """Return the span since the stopwatch was made."""
        wall = time.perf_counter() - self._wall
        own, machine = _own_cpu() - self._cpu, _machine_cpu()
        if machine is None or self._machine is None:
            return Span(wall, own / wall)
        busy, stolen = (
            after - before for after, before in zip(machine, self._machine, strict=True)
        )
        return Span(wall, own / wall, max(0.0, busy - own) / wall, stolen / wall)


@contextmanager
def timed() -> Iterator[Span]:
    """Yield a ``Span`` that is filled in when the block ends."""
    span, watch = Span(), Stopwatch()
    yield span
    span.__dict__.update(watch.stop().__dict__)


class EpochClock:
    """Times training epochs; to be mixed into a Lightning ``Callback``.

    Parameters
    ----------
    max_batches
        None: whole epochs are timed, from their start to their end. Otherwise the batches after
        the first one are timed, and the first one is the warm-up.
    """

    def __init__(self, max_batches: int | None) -> None:
        super().__init__()
        self.max_batches = max_batches
        self.spans: list[Span] = []
        self.losses: list[float] = []
        self.batches = 0
        self._watch: Stopwatch | None = None

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock of a whole epoch."""
        self.batches, self._watch = 0, Stopwatch()

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:
        """Count the batch; restart the clock after the warm-up batch of a capped epoch."""
        self.batches += 1
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.losses.append(float(loss))
        if self.max_batches is not None:
            if self.batches == 1:
                self._watch = Stopwatch()
            elif self.batches == self.max_batches and self._watch is not None:
                self.spans.append(self._watch.stop())

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop the clock of a whole epoch."""
        if self.max_batches is None and self._watch is not None:
            self.spans.append(self._watch.stop())

    def report(self, users: int) -> dict[str, Any]:
        """Return the timed spans and what a whole epoch takes by them."""
        return training_report(self.spans, self.batches, self.max_batches, users) | {
            "first_loss": self.losses[0],
            "last_loss": self.losses[-1],
        }


def training_report(
    spans: list[Span], batches: int, max_batches: int | None, users: int
) -> dict[str, Any]:
    """Turn timed spans into seconds per epoch, saying whether they are extrapolated."""
    whole = max_batches is None
    per_epoch = -(-users // BATCH)
    timed_batches = batches if whole else batches - 1
    factor = 1.0 if whole else per_epoch / timed_batches
    return {
        "epoch_seconds": [span.seconds * factor for span in spans],
        "whole_epochs": whole,
        "batches_timed": timed_batches,
        "batches_per_epoch": per_epoch,
        "factor": factor,
        "spans": [asdict(span) for span in spans],
    }


def answer_times(
    recommend: Callable[[int, int], Any], users: int, one: int = 50, many: int = 5
) -> dict[str, Any]:
    """Time top-10 for one user, and for up to 1,000 users, with the model warm.

    Parameters
    ----------
    recommend
        Called with the first user and the number of users; prepares, and returns the function
        that is timed.
    users
        The number of users there are.
    one, many
        How often each is repeated, always with other users.
    """

    def median(count: int, times: int) -> tuple[float, dict[str, Any]]:
        walls, watch = [], Stopwatch()
        for turn in range(times + 2):
            answer = recommend((turn * count) % max(1, users - count), count)
            began = time.perf_counter()
            answer()
            walls.append(1000 * (time.perf_counter() - began))
        return statistics.median(walls[2:]), asdict(watch.stop())

    one_ms, one_span = median(1, one)
    thousand = min(1000, users)
    many_ms, many_span = median(thousand, many)
    return {
        "one_user_ms": one_ms,
        "many_users": thousand,
        "many_users_ms": many_ms,
        "answer_spans": [one_span, many_span],
    }


def arguments(
    description: str, extra: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parse the arguments that all children take, and set the number of threads.

    `extra` may add arguments of its own to the parser.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sequences", help=".npz with items, starts, ends: training histories")
    parser.add_argument("--loss", choices=["bce", "softmax"], default="bce")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="timed spans")
    parser.add_argument("--max-batches", type=int, help="time only so many batches of an epoch")
    parser.add_argument(
        "--ffn-dim", type=int, default=DIM, help="where the package lets one choose"
    )
    parser.add_argument("--repeats", type=int, default=1, help="times all users are answered")
    if extra is not None:
        extra(parser)
    args = parser.parse_args()
    if args.max_batches is not None and args.max_batches < 2:
        parser.error("--max-batches must be at least 2: the first batch is the warm-up")
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return args


def emit(peer: str, packages: list[str], args: argparse.Namespace, **found: Any) -> None:
    """Print the one JSON line that ``run.py`` reads, as the last line of standard output."""
    head = {
        "peer": peer,
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version()},
        "loss": args.loss,
        "threads": args.threads,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    sys.stdout.flush()
    print(json.dumps(head | found))
