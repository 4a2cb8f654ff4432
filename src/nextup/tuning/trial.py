"""Run one trial: fit (or go on) without the test items, and enter what validation says.

``python -m nextup.tuning.trial FILE`` runs the task a file describes, in a process of its own. The
test items are cut off before the model sees anything, and the run is marked so that nothing ever
measures it on them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nextup.data.dataset import Dataset
from nextup.errors import DivergedError
from nextup.studies.cell import Cell
from nextup.studies.places import Places, held
from nextup.studies.provenance import commit, hardware, now, versions
from nextup.studies.run_cell import BusyError, How, fitted, goes_on
from nextup.studies.worker import main, read_task
from nextup.train.run import Run, write_whole
from nextup.tuning.search import note_outcome


def run_trial(cell: Cell, places: Places, how: How) -> Path:
    """Run a trial to its end, and return the file of its search.

    Settings under which training diverges are an outcome too.

    Parameters
    ----------
    cell
        What to fit, its limit of seconds among the settings.
    places
        Where; the file of the search must be there.
    how
        How.

    Raises
    ------
    NextupError
        If it cannot be run.
    """
    with held(places.beside(cell.name, "lock")) as free:
        if not free:
            raise BusyError(f"{cell.name}: is being run by another process")
        folder = places.run(cell.name)
        data = Dataset.load(places.prepared(cell.dataset))
        begun = places.beside(cell.name, "begun.json")
        again = goes_on(folder, cell, data, how.precision, how.device)
        if not again or not begun.is_file():
            write_whole(begun, json.dumps({"commit": commit(), "date": now()}) + "\n")
        began = time.monotonic()
        try:
            found = _measured(fitted(folder, cell, data, how, again, withhold_test=True))
        except DivergedError as error:
            found = {"diverged": str(error), "seconds": round(time.monotonic() - began, 3)}
        origin = {
            "begun": json.loads(begun.read_text()),
            "date": now(),
            "commit": commit(),
            "hardware": hardware(how.device),
            "versions": versions(),
            "how": asdict(how),
        }
        return note_outcome(places, cell, {**found, **origin})


def _measured(run: Run) -> dict[str, Any]:
    """Return what validation says of a run, and what it took."""
    about = json.loads((run.recommender_folder / "recommender.json").read_text())["about"]
    facts = about["facts"]
    found = {
        "valid": run.metrics["valid"],
        "seconds": facts["train_seconds"],
        "epochs": facts["epochs"],
        "best_epoch": facts["best_epoch"],
        "out_of_time": facts.get("out_of_time", False),
    }
    stages = facts.get("stages")
    return {**found, "stages": stages} if stages else found


def _run_task(document: Mapping[str, Any]) -> Path:
    return run_trial(*read_task(document))


if __name__ == "__main__":
    sys.exit(main(work=_run_task))
