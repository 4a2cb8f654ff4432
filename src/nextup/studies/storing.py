"""Writing results: a JSON file and the ranks beside it, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.errors import RunError
from nextup.evaluation.metrics import metrics
from nextup.evaluation.ranks import CaseRanks
from nextup.studies.codes import checksum, packed
from nextup.train.run import write_whole

FORMAT = "nextup-result"


def ranks_checksum(ranks: CaseRanks) -> str:
    """Return what a result notes of the ranks before they are cut to a byte."""
    return checksum(ranks.ranks.astype(np.float64))


def store(
    folder: Path,
    name: str,
    document: Mapping[str, Any],
    ranks: CaseRanks,
    further: Sequence[CaseRanks] = (),
) -> Path:
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
    further
        The same cases ranked by other protocols.
    """
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / f"{name}.json"
    arrays = packed(ranks)
    counts = np.unique(ranks.users, return_counts=True)[1]
    each = int(counts[0]) if (counts == counts[0]).all() else 1
    targets = np.zeros(0, np.int64) if ranks.targets is None else ranks.targets
    whole = {
        "format": FORMAT,
        "name": name,
        **{key: value for key, value in document.items() if key not in ("name", "log", "further")},
        "cases": len(ranks),
        "cases_sha256": checksum(ranks.users.astype(np.int64), targets.astype(np.int64)),
        "ranks_sha256": ranks_checksum(ranks),
        "codes_sha256": checksum(*arrays.values()),
    }
    if further:
        whole["further"] = []
    for place, other in enumerate(further, 1):
        more = packed(other, place)
        arrays |= more
        entry = {
            "protocol": other.protocol.model_dump(mode="json"),
            "test": metrics(other),
            "ranks_sha256": ranks_checksum(other),
            "codes_sha256": checksum(*more.values()),
        }
        whole["further"].append(entry)
    file.unlink(missing_ok=True)
    _write_arrays(file.with_suffix(".npz"), cases_each=np.array(each), **arrays)
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
