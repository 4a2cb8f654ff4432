"""The results folder: what each run of a study left, small enough to be kept under version control.

A result is ``runs/<name>.json`` (settings, origin, metrics, the log of the epochs) and
``runs/<name>.npz`` (the rank of every test case, one byte each), so that every table, interval and
paired test follows from the results folder alone (see `nextup.studies.codes`). The test items may
have been ranked by further protocols as well; each has its own metrics and ranks beside the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.errors import ConfigError, RunError
from nextup.evaluation.metrics import EXPECTED, case_values, feasible, metrics, parse_metric
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell, registered
from nextup.studies.codes import checksum, packed, unpacked
from nextup.studies.storing import FORMAT

LARGEST_CUTOFF = 100


@dataclass(frozen=True)
class Result:
    """One run's result; made by `store`, read by `Results`.

    Parameters
    ----------
    file
        Its JSON file.
    document
        What stands there.
    place
        Which measurement of the test items is meant: 0 is by the run's own protocol, others are
        those of ``further``; see `under`.
    """

    file: Path
    document: Mapping[str, Any]
    place: int = 0

    def under(self, protocol: Protocol) -> Result | None:
        """Return the result as a protocol measured it, None if it was not measured so."""
        for place in range(1 + len(self.document.get("further", ()))):
            found = replace(self, place=place)
            if found.protocol.ranks_like(protocol):
                return found
        return None

    @property
    def holds(self) -> Asked:
        """What was measured besides the ranks by the run's own protocol."""
        others = [Protocol(**each["protocol"]) for each in self.document.get("further", ())]
        return Asked(tuple(others), self.consistency is not None)

    def lacking(self, asked: Asked) -> Asked:
        """Return what of the measurements asked for it does not hold."""
        return Asked(
            tuple(each for each in asked.protocols if self.under(each) is None),
            asked.consistency and self.consistency is None,
        )

    @property
    def consistency(self) -> dict[str, Any] | None:
        """How consistent the recommendations are (`Consistency.to_json`), if it was measured."""
        found: dict[str, Any] | None = self.document.get("consistency")
        return found

    @property
    def name(self) -> str:
        """What its files are called."""
        return self.file.stem

    @property
    def seed(self) -> int:
        """What decided everything random."""
        return int(self.document["seed"])

    @property
    def cell(self) -> Cell:
        """What was run."""
        return Cell.from_json(self.document["cell"])

    @property
    def protocol(self) -> Protocol:
        """How the test cases were ranked."""
        own = self.document["cell"] if self.place == 0 else self._measurement
        return Protocol(**own["protocol"])

    @property
    def test(self) -> dict[str, float]:
        """The metrics on test."""
        return dict(self._measurement["test"])

    @property
    def _measurement(self) -> Mapping[str, Any]:
        if self.place == 0:
            return self.document
        found: Mapping[str, Any] = self.document["further"][self.place - 1]
        return found

    @property
    def valid(self) -> dict[str, float]:
        """The metrics on validation; empty where it was learnt from."""
        return dict(self.document.get("valid") or {})

    @property
    def log(self) -> dict[str, list[Any]]:
        """The log of the epochs, a list a column; None where an epoch has no such entry."""
        return dict(self.document.get("log", {}))

    @property
    def cases(self) -> str:
        """A checksum of whose cases were ranked and of what had to be found."""
        return str(self.document["cases_sha256"])

    @cached_property
    def ranks(self) -> CaseRanks:
        """The ranks of the test cases, exact for cutoffs of at most 100; users by number.

        Raises
        ------
        RunError
            If the file of ranks is missing, or is not the one this result was stored with.
        """
        file = self.file.with_suffix(".npz")
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            found = unpacked(arrays, self.place, self.protocol)
            sound = checksum(*packed(found, self.place).values())
        except FileNotFoundError:
            raise RunError(f"{file}: is missing; remove {self.file} and run it again") from None
        except Exception as error:
            raise RunError(
                f"{file}: cannot be read ({error}); remove it and {self.file}, and run it again"
            ) from None
        if sound != self._measurement["codes_sha256"]:
            raise RunError(
                f"{file}: is not the file that {self.file.name} was stored with; remove both and "
                "run it again"
            )
        return found

    def values(self, metric: str) -> NDArray[np.float64]:
        """``float64[u]``: a metric of each user's cases, averaged.

        Raises
        ------
        ConfigError
            If the metric needs ranks beyond those that are stored exactly.
        """
        _, cutoff = parse_metric(metric.removeprefix(EXPECTED))
        if cutoff is None or cutoff > LARGEST_CUTOFF:
            raise ConfigError(
                f"metric {metric}: results hold ranks up to {LARGEST_CUTOFF}; use a cutoff within"
            )
        each = len(self.ranks) // int(self.ranks.users[-1] + 1)
        mean: NDArray[np.float64] = case_values(self.ranks, metric).reshape(-1, each).mean(axis=1)
        return mean

    def check(self) -> None:
        """Check that the metrics are those of the ranks, and possible at all.

        Raises
        ------
        RunError
            If they are not: the files were edited or damaged.
        """
        within = [k for k in self.protocol.cutoffs if k <= LARGEST_CUTOFF]
        plain = replace(
            self.ranks, above=None
        )  # what is expected is slow, and its arrays are sound
        found = metrics(plain, within) if within else {}
        wrong = [
            f"{name} is {self.test.get(name)}, its ranks give {value:.6f}"
            for name, value in found.items()
            if "@" in name and not abs(self.test.get(name, np.nan) - value) < 1e-9
        ]
        wrong += feasible(self.test, half_ranks=self.protocol.ties == "mean")
        if wrong:
            raise RunError(
                f"{self.file}: {wrong[0]}; the file was edited or damaged: remove it and run it "
                "again"
            )


class Results:
    """All results of a folder.

    Raises
    ------
    RunError
        If one of its files is not a result.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        files = sorted((self.folder / "runs").glob("*.json"))
        self.all = [found for file in files if (found := _read(file)) is not None]
        self._by_identity = {result.document["identity"]: result for result in self.all}
        self._by_name = {result.name: result for result in self.all}

    def find(self, cell: Cell) -> Result | None:
        """Return the result of a cell; None where it was not run, or with other settings."""
        found = self._by_identity.get(cell.identity)
        if found is not None and cell.difference(found.document["decided"]) is None:
            return found
        return None

    def outdated(self, cell: Cell) -> str | None:
        """Return in what a stored result of the cell's name departs from it; None if in nothing."""
        if self.find(cell) is not None:
            return None
        found = self._by_identity.get(cell.identity) or self._by_name.get(cell.name)
        return None if found is None else cell.difference(found.document["decided"])

    def seeds(self, cell: Cell) -> dict[int, Result]:
        """Return the results that differ from a cell in nothing but the seed, by seed."""
        found = {}
        for result in self.all:
            if result.document["family"] == cell.family:
                stored = {**result.document["decided"], "seed": cell.decided["seed"]}
                if cell.difference(stored) is None:
                    found[result.seed] = result
        return dict(sorted(found.items()))

    def others(self, families: Iterable[str]) -> list[Result]:
        """Return the results that are none of these families', if their models are here."""
        known = set(families)
        return [
            result
            for result in self.all
            if result.document["family"] not in known and registered(result.document["model"])
        ]


def _read(file: Path) -> Result | None:
    """Read a result; None if it has just gone, since another process is writing it anew."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']}")
        for key in ("identity", "family", "decided", "seed", "cell", "test", "codes_sha256"):
            document[key]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file}: is not a result of a study ({error!r}); remove it and run it again"
        ) from None
    return Result(file, document)
