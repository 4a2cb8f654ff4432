"""A run: the folder that holds everything about one fitted model.

``config.json`` (what was asked for), ``log.jsonl`` (what happened), ``checkpoint/`` (where to go
on), ``recommender/`` (the fitted model, ready to answer), ``ranks-valid.npz`` and
``ranks-test.npz`` (one rank a case, so that any two runs can be compared pairwise) and
``metrics.json`` (what follows from the ranks, and the protocol of each part).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from nextup.errors import RunError
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks

FORMAT = "nextup-run"
NEEDED = ("model", "split", "protocol", "learn_from", "dataset")
"""What every run's ``config.json`` holds; runs of earlier versions have no format."""

PROTOCOLS = "protocols"
"""The key of ``metrics.json`` that is no part: the protocol of each part."""


def is_run(path: Path) -> bool:
    """Whether a folder is a run that nextup made; other people have files `config.json` too."""
    try:
        Run(path).config  # noqa: B018
    except RunError:
        return False
    return True


def write_whole(file: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        _discard(partial)
        raise _unwritable(file, error) from None


def _discard(partial: Path) -> None:
    with contextlib.suppress(OSError):  # a disk that is read-only refuses this too
        partial.unlink(missing_ok=True)


def _unwritable(file: Path, error: OSError) -> RunError:
    return RunError(
        f"{file}: could not be written ({error.strerror}); free some disk space, or check the "
        "permissions"
    )


class Run:
    """What is in a run folder.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    RunError
        When something that is asked for is not there; says which command would make it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def recommender_folder(self) -> Path:
        """Where the fitted model stands."""
        return self.path / "recommender"

    @property
    def begun(self) -> bool:
        """Whether fitting was begun, so that there is something to go on with."""
        return (self.path / "config.json").is_file()

    @property
    def finished(self) -> bool:
        """Whether fitting came to its end."""
        return (self.recommender_folder / "recommender.json").is_file()

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for: model, settings, split, protocol, seed and dataset.

        Raises
        ------
        RunError
            If there is no run, or its ``config.json`` is not one that `fit` wrote.
        """
        found = self._json("config.json", "not a run; `nextup fit` makes one")
        missing = [key for key in NEEDED if key not in found]
        odd = [key for key in ("protocol", "dataset") if not isinstance(found.get(key), dict)]
        if missing or odd or found.get("format", FORMAT) != FORMAT:
            raise RunError(
                f"{self.path / 'config.json'}: is not that of a run that `nextup fit` made"
                + (f" (it has no `{(missing or odd)[0]}`)" if missing or odd else "")
            )
        return found

    @property
    def protocol(self) -> Protocol:
        """How its validation was ranked.

        Raises
        ------
        RunError
            If the noted protocol cannot be true.
        """
        return self._protocol(self.config["protocol"], "config.json")

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by part (``valid``, ``test``), as far as they were measured."""
        return {part: each for part, each in self._measured().items() if part != PROTOCOLS}

    @property
    def protocols(self) -> dict[str, Protocol]:
        """How the metrics of each part were made; those of earlier versions were not noted."""
        noted = self._measured().get(PROTOCOLS, {})
        return {part: self._protocol(noted[part], "metrics.json") for part in noted}

    def ranks(self, part: str = "test") -> CaseRanks:
        """Return the stored ranks of a part.

        Parameters
        ----------
        part
            ``"test"`` or ``"valid"``.

        Raises
        ------
        RunError
            If there is no run, or the part was not ranked yet.
        """
        file = self.path / f"ranks-{part}.npz"
        if not self.path.is_dir():
            raise RunError(f"{self.path}: there is no such run; `nextup fit` makes one")
        if not file.is_file():
            self.config  # noqa: B018 - says so if it is no run at all
            raise RunError(
                f"{self.path}: has no ranks of the {part} part yet; "
                f"type `nextup evaluate {self.path}` first"
            )
        return CaseRanks.load(file)

    def log(self) -> list[dict[str, Any]]:
        """All lines of the log."""
        file = self.path / "log.jsonl"
        if not file.is_file():
            return []
        lines = file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def note(self, part: str, ranks: CaseRanks, metrics: dict[str, float]) -> None:
        """Store the ranks and metrics of a part, and by which protocol they were made.

        Parameters
        ----------
        part
            ``"test"`` or ``"valid"``; what was stored of it before is replaced.
        ranks
            One rank a case.
        metrics
            What follows from them, by name.

        Raises
        ------
        RunError
            If the folder cannot be written.
        """
        file = self.path / f"ranks-{part}.npz"
        partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
        try:
            ranks.save(partial)
            partial.replace(file)
        except OSError as error:
            _discard(partial)
            raise _unwritable(file, error) from None
        document = self._measured()
        protocols = document.pop(PROTOCOLS, {})
        protocols[part] = ranks.protocol.model_dump(mode="json")
        document = {**document, part: metrics, PROTOCOLS: protocols}
        write_whole(self.path / "metrics.json", json.dumps(document, indent=1) + "\n")

    def clear_leftovers(self) -> None:
        """Remove what a process that was killed had half written."""
        for pattern in (".*.partial-*", ".*.old-*"):
            for entry in list(self.path.rglob(pattern)):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def _protocol(self, noted: Any, name: str) -> Protocol:
        try:
            return Protocol(**noted)
        except (TypeError, ValueError):
            raise RunError(
                f"{self.path / name}: holds a protocol that is none; fit again"
            ) from None

    def _measured(self) -> dict[str, Any]:
        if not (self.path / "metrics.json").is_file():
            return {}
        return self._json("metrics.json", "not measured yet")

    def _json(self, name: str, otherwise: str) -> dict[str, Any]:
        file = self.path / name
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path}: {otherwise} (it has no {name})") from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{file}: cannot be read ({error})") from None
        if not isinstance(document, dict):
            raise RunError(f"{file}: cannot be read (it is no JSON object)")
        return document
