"""Results that say how they came about: command, commit, hardware, threads and versions."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from nextup.studies.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def record(name: str, payload: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``results/<name>.json`` with the payload and how it came about; return its path."""
    document = {**provenance(also=[ROOT / "benchmarks"]), **payload}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def interleaved(
    ways: Mapping[str, Callable[[], object]], repeats: int, warm: int = 1
) -> dict[str, dict[str, float]]:
    """Time each way in turn, `repeats` times over, so that all meet the same disturbances.

    Returns
    -------
    For each way ``median_s``, ``least_s``, ``most_s``; ``cpu_s``, the median of the processor time
    of all its threads; and ``foreign_cores``, the mean number of cores that other processes kept
    busy meanwhile (above about 0.1 wall times are not to be trusted, with one thread ``cpu_s`` is).
    """
    for _ in range(warm):
        for way in ways.values():
            way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    foreign: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
            way()
            spent = time.perf_counter() - start
            used[name].append(time.process_time() - own)
            others = _busy_seconds() - busy - used[name][-1]
            times[name].append(spent)
            foreign[name].append(max(0.0, others / spent))
    return {
        name: {
            "median_s": median(spans),
            "least_s": min(spans),
            "most_s": max(spans),
            "cpu_s": median(used[name]),
            "foreign_cores": round(median(foreign[name]), 2),
        }
        for name, spans in times.items()
    }


def _busy_seconds() -> float:
    """Seconds of processor time that all processes together have used since the start."""
    try:
        first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft = (int(part) for part in first[:7])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
