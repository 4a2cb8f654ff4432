"""The place of a run: what may be replaced, what is gone on with, and what a failure leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nextup.data.dataset import Dataset
from nextup.data.folder import beside, clear_leftovers
from nextup.errors import RunError
from nextup.train.assess import check_same_dataset
from nextup.train.recipe import resolve
from nextup.train.run import Run, is_run, write_whole


def check_place(
    run: Run, asked: dict[str, Any], data: Dataset, resume: bool, overwrite: bool
) -> None:
    """Check that a run may be made in its folder, or gone on with; touches no run.

    Only what a process that was killed left is cleared up, so that the run it had set aside stands
    there again.

    Parameters
    ----------
    run
        The run to be.
    asked
        What its ``config.json`` shall hold.
    data
        The dataset.
    resume, overwrite
        Whether a run that stands there is gone on with, or replaced.

    Raises
    ------
    RunError
        If something else stands there, or a run that is not to be replaced or differs.
    """
    path = run.path
    # (Who resumes goes on with the new run, however little came of it yet.)
    clear_leftovers(path, worthless=None if resume else _came_to_nothing)
    if not _holds_something(path):
        return
    if resume and (path / "config.json").is_file():
        _check_same(run, asked, data)
        return
    if not overwrite and not resume:
        hint = "" if run.finished else "--resume to go on, "
        raise RunError(
            f"{path}: exists already; use {hint}--overwrite to replace it, or another name"
        )
    if path.is_symlink():
        raise RunError(
            f"{path}: is a link, which is not overwritten; name the folder it leads to, or remove "
            "the link yourself"
        )
    if not is_run(path):
        raise RunError(f"{path}: exists and is not a run; choose another folder")


def _check_same(run: Run, asked: dict[str, Any], data: Dataset) -> None:
    check_same_dataset(run, data)
    before = run.config
    times = before["dataset"].get("times", data.times_checksum)
    if not run.finished and times != data.times_checksum:  # some models go through them in order
        raise RunError(
            f"{run.path}: was started on the same histories with other times; resume with the "
            "dataset it was started on, or start again with --overwrite"
        )
    # A run of an earlier version lacks settings that came later; they stood at their defaults.
    both = zip(("model_config", "train_config"), resolve(asked["model"]), strict=True)
    defaults = {name: config.model_dump(mode="json") for name, config in both}
    for key in (*asked, *({"test"} & before.keys() - asked.keys())):
        value, then = asked.get(key), before.get(key)
        if key in ("precision", "device") and run.finished:
            continue  # nothing more is computed
        if key in ("precision", "device", "catalogue") and key not in before:
            continue  # of an earlier version, which did not note it
        if key in defaults and isinstance(then, dict):
            then = {**defaults[key], **then}
        if key not in ("dataset", "format") and then != value:
            raise RunError(
                f"{run.path}: was started with another {key} "
                f"({_difference(then, value)}); resume with the same settings, "
                "or start again with --overwrite"
            )


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if before.get(key) != now[key]:
                return f"{key}: {before.get(key)!r} then, {now[key]!r} now"
    return f"{before!r} then, {now!r} now"


@contextmanager
def place_of(run: Run, asked: dict[str, Any], resume: bool) -> Iterator[None]:
    """Make the folder of a run, or clear up the one that is gone on with, while it is filled.

    A run that is replaced is set aside until the new one has come to something: should it fail
    before, the old one is put back. A failure leaves no folder that holds nothing but the settings.

    Parameters
    ----------
    run
        The run; `check_place` has allowed it.
    asked
        What its ``config.json`` holds.
    resume
        Whether a run that stands there is gone on with.

    Raises
    ------
    RunError
        If the folder cannot be made.
    """
    path, old = run.path, None
    if resume and (path / "config.json").is_file():
        run.clear_leftovers()
        yield
        return
    try:
        if (path / "config.json").is_file():
            old = beside(path, "old")
            path.rename(old)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _put_back(old, path)
        raise RunError(f"{path}: cannot be made ({error.strerror})") from None
    try:
        run.clear_leftovers()
        write_whole(path / "config.json", json.dumps(asked, indent=1) + "\n")
        yield
    except BaseException as error:
        # What Ctrl-C interrupted can be gone on with; what failed could only fail again.
        if _came_to_nothing(path) and (old is not None or isinstance(error, Exception)):
            shutil.rmtree(path, ignore_errors=True)
            _put_back(old, path)
            old = None
        raise
    finally:
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path | None, path: Path) -> None:
    if old is not None:
        with suppress(OSError):
            old.rename(path)


def _came_to_nothing(path: Path) -> bool:
    """Whether a run's folder holds nothing but what was asked for."""
    return all(
        entry.name == "config.json"
        or ".partial-" in entry.name
        or (entry.name == "log.jsonl" and entry.stat().st_size == 0)
        for entry in path.iterdir()
    )


def _holds_something(path: Path) -> bool:
    """Whether there is more than what a process killed at its very start leaves behind."""
    if not path.is_dir():
        return path.exists() or path.is_symlink()
    return any(not entry.name.startswith(".config.json.partial-") for entry in path.iterdir())
