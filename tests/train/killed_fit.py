"""A fit that kills itself at a given moment: ``killed_fit.py RUN SETTINGS MOMENT COUNT``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_data import dataset, quick

from nextup.train import checkpoint
from nextup.train.loop import Loop
from nextup.train.progress import Log
from nextup.train.run import Run

MOMENTS: dict[str, tuple[Any, str, bool]] = {
    "before a step": (Loop, "_step", False),
    "after a step": (Loop, "_step", True),
    "while validating": (Loop, "_validate", False),
    "after a line of the log": (Log, "write", True),
    "while writing a checkpoint": (checkpoint, "save_file", True),
    "after a checkpoint": (checkpoint, "save", True),
    "when all is measured and nothing saved": (Run, "note", True),
}
"""Where a fit can be killed: what is called there, and whether before or after the call."""


def die_at(moment: str, count: int) -> None:
    place, name, after = MOMENTS[moment]
    original: Callable[..., Any] = getattr(place, name)
    calls = [0]

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        result = original(*args, **kwargs) if after or calls[0] != count else None
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, deadly)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run, settings, moment, count = sys.argv[1:]
    if moment != "never":
        die_at(moment, int(count))
    quick(dataset(), Path(run), resume=True, **json.loads(settings))
