"""Results that say how they came about: command, commit, hardware, threads and versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def commit() -> str:
    """Return the commit checked out; ``+`` marks changes to tracked files of src or benchmarks."""
    dirty = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks")
    return _git("rev-parse", "HEAD") + ("+" if dirty else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def hardware() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count()}
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory_gib"] = round(memory / 2**30, 1)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def record(name: str, payload: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``results/<name>.json`` with the payload and how it came about; return its path."""
    document = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy")},
        },
        **payload,
    }
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
