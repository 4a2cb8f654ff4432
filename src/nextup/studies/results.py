"""The results folder: what each run of a study left, small enough to be kept under version control.

A result is ``runs/<name>.json`` (settings, origin, metrics, the log of the epochs) and
``runs/<name>.npz`` (the rank of every test case, one byte each), so that every table, interval and
paired test follows from the results folder alone. A byte holds twice the rank, since ties make
halves: exact up to rank 126.5, hence for every cutoff of at most 100.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.errors import ConfigError, RunError
from nextup.evaluation.metrics import case_values, feasible, metrics, parse_metric
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks
from nextup.studies.cell import Cell, registered
from nextup.train.run import write_whole

FORMAT = "nextup-result"
LARGEST_CUTOFF = 100
_FAR, _NEVER = 254, 255


def encode(ranks: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return one byte a rank: twice the rank, 254 for 127 and beyond, 255 for never.

    Examples
    --------
    >>> encode(np.array([0, 0.5, 99.5, 126.5, 127, 5000, np.inf])).tolist()
    [0, 1, 199, 253, 254, 254, 255]
    """
    doubled = np.where(np.isfinite(ranks), 2 * np.nan_to_num(ranks, posinf=0.0), np.inf)
    whole = np.isinf(doubled) | (doubled == np.floor(doubled))
    if np.isnan(ranks).any() or not (whole & (doubled >= 0)).all():
        raise ValueError("ranks must be whole or half numbers of at least 0, or infinity")
    return np.where(np.isinf(doubled), _NEVER, np.minimum(doubled, _FAR)).astype(np.uint8)


def decode(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the ranks: exact below 127, 127 for all beyond, infinity for never."""
    return np.where(codes == _NEVER, np.inf, codes / 2)


def checksum(*arrays: NDArray[Any]) -> str:
    """Return the sha256 of arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Result:
    """One run's result; made by `store`, read by `Results`."""

    file: Path
    document: Mapping[str, Any]

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
        return Protocol(**self.document["cell"]["protocol"])

    @property
    def test(self) -> dict[str, float]:
        """The metrics on test."""
        return dict(self.document["test"])

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
                codes, users = stored["codes"], int(stored["cases_each"])
        except FileNotFoundError:
            raise RunError(f"{file}: is missing; remove {self.file} and run it again") from None
        except Exception as error:
            raise RunError(
                f"{file}: cannot be read ({error}); remove it and {self.file}, and run it again"
            ) from None
        if checksum(codes) != self.document["codes_sha256"]:
            raise RunError(
                f"{file}: is not the file that {self.file.name} was stored with; remove both and "
                "run it again"
            )
        owners = np.repeat(np.arange(len(codes) // users), users)
        return CaseRanks(owners, decode(codes), self.protocol)

    def values(self, metric: str) -> NDArray[np.float64]:
        """``float64[u]``: a metric of each user's cases, averaged.

        Raises
        ------
        ConfigError
            If the metric needs ranks beyond those that are stored exactly.
        """
        _, cutoff = parse_metric(metric)
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
        found = metrics(self.ranks, within) if within else {}
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


def store(folder: Path, name: str, document: Mapping[str, Any], ranks: CaseRanks) -> Path:
    """Write a result, whole or not at all: it is there once its JSON file is.

    Parameters
    ----------
    folder
        The results folder.
    name
        What the files are called.
    document
        The result; its ``log`` is a list of epochs' entries.
    ranks
        Of the test cases.
    """
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / f"{name}.json"
    codes = encode(ranks.ranks)
    counts = np.unique(ranks.users, return_counts=True)[1]
    each = int(counts[0]) if (counts == counts[0]).all() else 1
    file.unlink(missing_ok=True)
    _write_arrays(file.with_suffix(".npz"), codes=codes, cases_each=np.array(each))
    targets = np.zeros(0, np.int64) if ranks.targets is None else ranks.targets
    whole = {
        "format": FORMAT,
        "name": name,
        **{key: value for key, value in document.items() if key != "log"},
        "cases": len(ranks),
        "cases_sha256": checksum(ranks.users.astype(np.int64), targets.astype(np.int64)),
        "ranks_sha256": checksum(ranks.ranks.astype(np.float64)),
        "codes_sha256": checksum(codes),
    }
    text = json.dumps(whole, indent=1)
    columns = _columns(document.get("log", ()))
    log = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in columns.items())
    write_whole(file, f'{text[:-2]},\n "log": {{\n{log}\n }}\n}}\n')
    return file


def _columns(log: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn epochs' entries into columns, rounded to six digits."""
    lines = list(log)
    names = list(dict.fromkeys(key for line in lines for key in line))
    return {name: [_rounded(line.get(name)) for line in lines] for name in names}


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _write_arrays(file: Path, **arrays: NDArray[Any]) -> None:
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as out:
            np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{file}: could not be written ({error.strerror}); free some space"
        ) from None


class Results:
    """All results of a folder.

    Raises
    ------
    RunError
        If one of its files is not a result.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.all = [_read(file) for file in sorted((self.folder / "runs").glob("*.json"))]
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


def _read(file: Path) -> Result:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']}")
        for key in ("identity", "family", "decided", "seed", "cell", "test", "codes_sha256"):
            document[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file}: is not a result of a study ({error!r}); remove it and run it again"
        ) from None
    return Result(file, document)
