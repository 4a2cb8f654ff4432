"""`nextup doctor`: whether everything that nextup stands on is there, and what to do if not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nextup.cores import cores

NEEDED = (
    "torch",
    "numpy",
    "lightning-fabric",
    "polars",
    "pydantic",
    "typer",
    "rich",
    "safetensors",
    "scipy",
)
EXTRAS = {"pandas": "data frames of pandas", "matplotlib": "plots of results"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Parameters
    ----------
    what, found
        What was looked at, and what was there.
    advice
        What to do about it; empty if nothing.
    fatal
        Whether nextup cannot work like this.
    """

    what: str
    found: str
    advice: str = ""
    fatal: bool = False

    @property
    def mark(self) -> str:
        """``ok``, ``note`` (something could be better) or ``FAIL``."""
        return "FAIL" if self.fatal else "note" if self.advice else "ok"


def examine() -> list[Finding]:
    """Look at the installation and the machine."""
    parts = (_environment(), _packages(), _devices(), _extras(), _folders(Path.cwd()))
    return [finding for part in parts for finding in part]


def _environment() -> Iterator[Finding]:
    import nextup

    yield Finding("nextup", f"{nextup.__version__} in {Path(nextup.__file__).parent}")
    own = "a virtual environment" if sys.prefix != sys.base_prefix else "the system's"
    yield Finding("Python", f"{platform.python_version()} ({own}: {sys.prefix})")
    yield Finding("machine", f"{platform.system()} {platform.release()}, {platform.machine()}")


def _packages() -> Iterator[Finding]:
    for package in NEEDED:
        try:
            import_module(package.replace("-", "_"))
            yield Finding(package, version(package))
        except PackageNotFoundError:
            again = f"pip install --force-reinstall {package}"
            yield Finding(package, "no version known", again)
        except Exception as error:  # a broken binary package can raise nearly anything
            reason = f"cannot be imported: {error}".splitlines()[0]
            yield Finding(package, reason, f"pip install --force-reinstall {package}", fatal=True)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception:  # said by _packages
        return
    threads, present = torch.get_num_threads(), cores()
    advice = ""
    if threads > present:
        advice = f"more threads than cores slow training down: set OMP_NUM_THREADS={present}"
    elif threads < present and os.environ.get("OMP_NUM_THREADS"):
        advice = f"OMP_NUM_THREADS leaves {present - threads} cores idle; unset it to use them"
    yield Finding("CPU", f"{present} cores, {threads} threads", advice)
    if memory := _memory():
        few = "large catalogues may not fit; --set loss=sampled_softmax needs less"
        yield Finding("memory", f"{memory:.1f} GiB", few if memory < 3 else "")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            found = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}"
            yield Finding(f"cuda:{index}", found)
    elif _has_nvidia():
        built = torch.version.cuda or "without CUDA"
        yield Finding(
            "CUDA",
            f"an NVIDIA device is here, but PyTorch ({built}) cannot use it",
            "install a PyTorch built for your driver: see pytorch.org/get-started",
        )
    else:
        yield Finding("CUDA", "none; training runs on the CPU")


def _extras() -> Iterator[Finding]:
    for package, purpose in EXTRAS.items():
        try:
            yield Finding(package, f"{version(package)} (optional: {purpose})")
        except PackageNotFoundError:
            found = f"not installed (optional: {purpose}; pip install {package})"
            yield Finding(package, found)


def _folders(here: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(here).free / 2**30
    advice = "free some space before fitting" if free < 1 else ""
    if not os.access(here, os.W_OK):
        advice = "cannot be written to: change into another folder, or name --out and --run"
    yield Finding("this folder", f"{here}, {free:.1f} GiB free", advice)
    for folder, marker, make in (
        ("data", "card.json", "nextup prepare LOG"),
        ("runs", "config.json", "nextup fit DATASET"),
    ):
        names = sorted(path.parent.name for path in (here / folder).glob(f"*/{marker}"))
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        yield Finding(f"{folder}/", listed or f"nothing yet ({make})")
    if where := os.environ.get("NEXTUP_DATA"):
        missing = "" if Path(where).is_dir() else "there is no such folder; tests skip real data"
        yield Finding("NEXTUP_DATA", where, missing)


def _memory() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return None


def _has_nvidia() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
