"""Where a number comes from: command, commit, hardware, threads and versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nextup

PACKAGE = Path(nextup.__file__).resolve().parent


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says, None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def commit(also: Sequence[Path] = ()) -> str | None:
    """Return the commit of nextup's code; ``+`` marks changes that are in no commit.

    None if nextup does not run from a checkout. That it is tracked is asked for, since it may
    be installed below the checkout of something else.

    Parameters
    ----------
    also
        Further files or folders whose changes count, such as the benchmarks.
    """
    if not _git(PACKAGE, "ls-files", "--error-unmatch", "errors.py"):
        return None
    head = _git(PACKAGE, "rev-parse", "HEAD")
    changed = _git(PACKAGE, "status", "--porcelain", "--", ".", *map(str, also))
    return None if head is None else head + ("+" if changed else "")


def command() -> str:
    """Return the command line as it is usually typed, without what is particular to a machine."""
    program = Path(sys.argv[0] or "python")
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    if program.name == "__main__.py" and program.parent.name == "nextup":
        return " ".join(["nextup", *words])
    runs_it = {".py": "python", ".sh": "bash"}.get(program.suffix)
    if runs_it is None:
        return " ".join([program.name, *words])
    try:
        shown = program.resolve().relative_to(PACKAGE.parents[1])
    except ValueError:
        shown = Path(program.name)
    return " ".join([runs_it, shown.as_posix(), *words])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def hardware(device: str = "auto") -> dict[str, Any]:
    """Return what the numbers were made on; the GPU only if `device` may be one."""
    import torch

    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count()}
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory_gib"] = round(memory / 2**30, 1)
    if device != "cpu" and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes."""
    found = {"python": platform.python_version(), "nextup": nextup.__version__}
    for package in ("torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def provenance(also: Sequence[Path] = (), device: str = "auto") -> dict[str, Any]:
    """Return all of it, for the head of a result."""
    import torch

    return {
        "date": now(),
        "command": command(),
        "commit": commit(also),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
