"""A process of its own for one cell: ``python -m nextup.studies.worker FILE`` runs a task.

`nextup.studies.runner` writes the files and starts several of these at once. The process ends when
the one that started it does.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from nextup.errors import NextupError
from nextup.studies.asked import Asked
from nextup.studies.places import Places
from nextup.studies.run_cell import BusyError, How, run_cell

if TYPE_CHECKING:
    from nextup.studies.cell import Cell

DONE, FAILED, BUSY, STOPPED = 0, 2, 75, 130
"""Exit codes; busy means that another process runs the same cell."""


def write_task(
    file: Path, cell: Cell, places: Places, how: How, asked: Asked | None = None
) -> None:
    """Write the file that describes a task for a process of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "cell": cell.to_json(),
        "places": places.to_json(),
        "how": asdict(how),
        "asked": (asked or Asked()).to_json(),
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_task(document: Mapping[str, Any]) -> tuple[Cell, Places, How]:
    """Return what the file of a task says, and take to its number of threads."""
    import torch

    from nextup.studies.cell import Cell

    how = How(**document["how"])
    torch.set_num_threads(how.threads)
    return Cell.from_json(document["cell"]), Places.from_json(document["places"]), how


def _run_task(document: Mapping[str, Any]) -> Path:
    # A runner that was started before measurements could be asked for says nothing of them.
    return run_cell(*read_task(document), Asked.from_json(document.get("asked", {})))


def _end_with_the_starter() -> None:
    """Stop once the process that started this one has gone: the other end of the pipe closes."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        _thread.interrupt_main()
        time.sleep(60)
        os._exit(STOPPED)

    Thread(target=wait, daemon=True).start()


def main(
    arguments: list[str] | None = None, work: Callable[[Mapping[str, Any]], Path] = _run_task
) -> int:
    """Run the task of a file; what went wrong is the last line on standard error.

    Parameters
    ----------
    arguments
        The file; by default as this process was called.
    work
        What is done with what the file says.
    """
    (file,) = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments is None:
            # A shell's background jobs ignore it, and so would their children.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _end_with_the_starter()
        work(json.loads(Path(file).read_text(encoding="utf-8")))
    except BusyError as error:
        print(f"error: {error}", file=sys.stderr)
        return BUSY
    except NextupError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return STOPPED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
