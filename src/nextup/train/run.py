"""A run: the folder that holds everything about one fitted model.

``config.json`` (what was asked for), ``log.jsonl`` (what happened), ``checkpoint/`` (where to go
on), ``recommender/`` (the fitted model, ready to answer), ``ranks-valid.npz`` and
``ranks-test.npz`` (one rank a case, so that any two runs can be compared pairwise) and
``metrics.json``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from nextup.errors import RunError
from nextup.evaluation.ranks import CaseRanks


def write_whole(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{file}: could not be written ({error.strerror}); free some space"
        ) from None


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
    def finished(self) -> bool:
        """Whether fitting came to its end."""
        return (self.recommender_folder / "recommender.json").is_file()

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for: model, settings, split, protocol, seed and dataset."""
        return self._json("config.json", "not a run; `nextup fit` makes one")

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by part (``valid``, ``test``), as far as they were measured."""
        if not (self.path / "metrics.json").is_file():
            return {}
        return self._json("metrics.json", "not measured yet")

    def ranks(self, part: str = "test") -> CaseRanks:
        """The stored ranks of a part."""
        file = self.path / f"ranks-{part}.npz"
        if not file.is_file():
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
        """Store the ranks and metrics of a part."""
        file = self.path / f"ranks-{part}.npz"
        partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
        try:
            ranks.save(partial)
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RunError(f"{file}: could not be written ({error.strerror})") from None
        document = {**self.metrics, part: metrics}
        write_whole(self.path / "metrics.json", json.dumps(document, indent=1) + "\n")

    def clear_leftovers(self) -> None:
        """Remove what a process that was killed had half written."""
        for pattern in (".*.partial-*", ".*.old-*"):
            for entry in list(self.path.rglob(pattern)):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def _json(self, name: str, otherwise: str) -> dict[str, Any]:
        file = self.path / name
        try:
            document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return document
        except FileNotFoundError:
            raise RunError(f"{self.path}: {otherwise} (it has no {name})") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: cannot be read ({error})") from None
