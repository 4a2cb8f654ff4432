"""Older records of test figures, from before runs were results: rendered as they are."""

from __future__ import annotations

import json
from pathlib import Path

from nextup.errors import RunError
from nextup.evaluation.metrics import feasible
from nextup.studies.document import Grid


def older_records(results: Path) -> Grid | None:
    """Return the records in ``quality/`` of a results folder as a table, None if there are none.

    Raises
    ------
    RunError
        If one of the files cannot be read.
    """
    rows = []
    for file in sorted((results / "quality").glob("*.json")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            goal, facts = found.get("held_against"), found["facts"]
            wrong = feasible(found["test"], half_ranks=True)
            if wrong:
                raise RunError(f"{file}: {wrong[0]}; the file was edited or damaged: remove it")
            rows.append(
                (
                    ":".join(filter(None, (found["dataset"], found["model"], found["recipe"]))),
                    str(found["seed"]),
                    f"{found['test']['HR@10']:.4f}",
                    f"{found['test']['NDCG@10']:.4f}",
                    f"{goal[0]:.4f} / {goal[1]:.4f} ({goal[2]})" if goal else "",
                    str(facts.get("epochs", "")),
                    f"{facts.get('train_seconds', 0) / 60:.1f}",
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file}: is not a record of a run ({error!r}); remove it") from None
    header = ("run", "seed", "HR@10", "NDCG@10", "held against", "epochs", "minutes")
    return Grid(header, tuple(rows)) if rows else None
