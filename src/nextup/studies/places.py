"""Where a study keeps things: results (small, to be kept), runs and prepared data (large)."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextup.errors import InputError, suggest


@dataclass(frozen=True)
class Places:
    """The folders a study writes to.

    Parameters
    ----------
    results
        Results, figures and the report.
    runs
        Run folders (``studies/<name>``) and prepared data sets (``data/<name>``).
    under
        Where in `runs` the run folders are.
    """

    results: Path = Path("results")
    runs: Path = Path("runs")
    under: str = "studies"

    def run(self, name: str) -> Path:
        """Return the run folder of a cell."""
        return self.runs / self.under / name

    def beside(self, name: str, what: str) -> Path:
        """Return a file about a cell's run that is not in the run folder itself."""
        return self.runs / self.under / f"{name}.{what}"

    def to_json(self) -> dict[str, str]:
        """Return the places as plain JSON."""
        return {"results": str(self.results), "runs": str(self.runs), "under": self.under}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Places:
        """Read what `to_json` returned; earlier versions knew one folder of runs alone."""
        under = stored.get("under", cls.under)
        return cls(Path(stored["results"]), Path(stored["runs"]), under)

    @property
    def stages(self) -> Path:
        """Return the folder of trained stages that several runs share (teachers)."""
        return self.runs / "stages"

    def prepared(self, dataset: str) -> Path:
        """Return the folder of a prepared dataset; a public set is prepared at the first call.

        Raises
        ------
        InputError
            If it is neither a folder of a dataset nor a public set, or the files of the public set
            are not there.
        """
        from nextup.data.public import PUBLIC, read_public

        given = Path(dataset)
        if (given / "card.json").is_file():
            return given
        if dataset not in PUBLIC:
            raise InputError(
                f"dataset `{dataset}`: is neither a prepared dataset nor a public set"
                f"{suggest(dataset, PUBLIC)}"
            )
        folder = self.runs / "data" / dataset
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{dataset}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "card.json").is_file():
                read_public(dataset, attributes=True).save(folder)
        return folder


@contextmanager
def held(file: Path) -> Iterator[bool]:
    """Hold a lock while inside; yields whether it was free. It ends with its process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
