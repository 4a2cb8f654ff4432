"""A search: which trials a model gets on a dataset, and the file that holds what came of them.

The file (``results/tuning/<dataset>-<model>.json``) is written before the first trial is run, with
all of them in it, and each trial enters its outcome once it is done. So a search may be stopped at
any moment, and a file says itself what of its budget is not spent yet.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nextup.data.dataset import Dataset
from nextup.data.seed import checked_seed
from nextup.errors import ConfigError, RunError
from nextup.studies.cell import Cell
from nextup.studies.places import Places
from nextup.studies.provenance import command
from nextup.studies.run_cell import nameable
from nextup.studies.spelling import cell_text
from nextup.studies.study import Method
from nextup.train.run import is_run, write_whole
from nextup.tuning.space import Space

FORMAT = "nextup-tuning"
METRIC = "NDCG@10"
"""What picks a trial's epoch, and the best trial; on validation, ranked among all items."""
WORKER = "nextup.tuning.trial"
UNDER = "tuning"
"""The folder of trials, below that of runs, and of searches, below that of results."""
_LIMITS = {"max_seconds", "metric"}
_GIVE_UP_AFTER = 1000


@dataclass(frozen=True)
class Budget:
    """What every model of a comparison gets alike.

    Parameters
    ----------
    trials
        How many, the base recipe among them.
    seconds
        Of training and validation, for each trial.
    seed
        Decides what is tried, and everything random in each trial.
    device, precision, threads
        What a trial runs on: seconds are worth more on a faster machine.
    """

    trials: int = 12
    seconds: float = 300.0
    seed: int = 0
    device: str = "auto"
    precision: str = "32"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"trials: {self.trials} is too few; the base recipe alone is one")
        if not 0 < self.seconds < float("inf"):
            raise ConfigError(f"seconds: {self.seconds:g} is no time to train; say 60 or more")
        checked_seed(self.seed)


@dataclass(frozen=True)
class Search:
    """The trials of a model on a dataset."""

    dataset: str
    space: Space
    budget: Budget

    @property
    def model(self) -> str:
        """The model's name."""
        return self.space.model

    @property
    def name(self) -> str:
        """What its file is called."""
        return search_name(Cell(self.dataset, self.model))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The trials, all different: the base recipe, then what is drawn.

        They are fewer than the budget's where the space holds no more.
        """
        found: dict[str, Cell] = {}
        limits = {"max_seconds": self.budget.seconds, "metric": METRIC}
        fruitless = 0
        for settings in self._settings():
            cell = self._cell({**settings, **limits}, self.space.base, self.budget.seed)
            fruitless = fruitless + 1 if cell.identity in found else 0
            found.setdefault(cell.identity, cell)
            if len(found) == self.budget.trials or fruitless == _GIVE_UP_AFTER:
                break
        return tuple(found.values())

    def _cell(self, settings: dict[str, Any], base: str | None, seed: int) -> Cell:
        method = Method(self.model, self.model, base, settings)
        usual = Cell(self.dataset, self.model)
        return method.cell(self.dataset, seed, usual.split, usual.protocol)

    def _settings(self) -> Iterator[dict[str, Any]]:
        yield {}
        if self.space.knobs:
            yield from self.space.drawn(self.budget.seed)

    def file(self, places: Places) -> Path:
        """Return the file of the search."""
        return search_file(places, self.name)

    def begin(self, places: Places, overwrite: bool = False) -> dict[str, Any]:
        """Write the file, or take up the one that is there; return what it says.

        Parameters
        ----------
        places
            Where.
        overwrite
            Whether another search that stands there is forgotten.

        Raises
        ------
        InputError
            If the dataset cannot be read.
        RunError
            If the file that is there holds another search.
        """
        data = Dataset.load(places.prepared(self.dataset))
        document = self._head(data)
        file = self.file(places)
        known: dict[str, Any] = {}
        with alone(places, self.name):
            if overwrite:
                self._forget(places, file)
            elif file.is_file():
                before = read_search(file)
                _check_same(file, before, document)
                known = {trial["identity"]: trial for trial in before["trials"]}
            trials = [
                known.pop(cell.identity, None) or planned(number, cell)
                for number, cell in enumerate(self.cells)
            ]
            # A smaller budget than before forgets nothing: what was tried stays.
            document["trials"] = trials + list(known.values())
            document["budget"]["trials"] = max(self.budget.trials, len(document["trials"]))
            _write(file, document)
        return document

    def _forget(self, places: Places, file: Path) -> None:
        """Remove the runs of all trials, those of the search in the file among them."""
        cells = list(self.cells)
        with suppress(RunError):  # a file that is no search has no trials
            before = read_search(file)
            budget = before["budget"]
            limits = {"max_seconds": budget["seconds"], "metric": METRIC}
            cells += [
                self._cell({**each["settings"], **limits}, before["recipe"], budget["seed"])
                for each in before["trials"]
            ]
        for cell in cells:
            with suppress(ConfigError):  # settings that are none by now have no run to go on with
                if is_run(places.run(cell.name)):
                    shutil.rmtree(places.run(cell.name))

    def _head(self, data: Dataset) -> dict[str, Any]:
        first = self.cells[0]
        return {
            "format": FORMAT,
            "dataset": first.dataset_name,
            "model": self.model,
            "recipe": first.recipe,
            "space": self.space.to_json(),
            "budget": {**asdict(self.budget), "metric": METRIC},
            "data": {
                "users": data.n_users,
                "items": data.n_items,
                "interactions": data.n_interactions,
                "checksum": data.checksum,
            },
            "split": first.split,
            "protocol": first.protocol.describe(),
            "command": command(),
        }

    def missing(self, document: Mapping[str, Any]) -> list[Cell]:
        """Return the trials that a file has no outcome of."""
        done = {trial["identity"] for trial in document["trials"] if is_done(trial)}
        return [cell for cell in self.cells if cell.identity not in done]


def is_done(trial: Mapping[str, Any]) -> bool:
    """Whether a trial has an outcome, if only that it came to nothing."""
    return "valid" in trial or "diverged" in trial


def search_name(cell: Cell) -> str:
    """Return what the search is called that a trial belongs to."""
    return f"{cell.dataset_name}-{cell.model}"


def search_file(places: Places, name: str) -> Path:
    """Return the file of a search."""
    return places.results / UNDER / f"{name}.json"


def first_of_each(searches: Mapping[str, list[Cell]]) -> list[Cell]:
    """Return the cells of several lists in turns: stopped early, all have had the same effort."""
    lists = list(searches.values())
    longest = max(map(len, lists), default=0)
    return [cells[at] for at in range(longest) for cells in lists if at < len(cells)]


@contextmanager
def alone(places: Places, name: str) -> Iterator[None]:
    """Wait until nobody else writes the file of a search, and keep others waiting while inside."""
    lock = places.beside(name, "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def note_outcome(places: Places, cell: Cell, outcome: Mapping[str, Any]) -> Path:
    """Enter the outcome of a trial into the file of its search.

    Raises
    ------
    RunError
        If the file or the trial in it is gone.
    """
    name = search_name(cell)
    file = search_file(places, name)
    with alone(places, name):
        document = read_search(file)
        found = [trial for trial in document["trials"] if trial["identity"] == cell.identity]
        if not found:
            raise RunError(f"{file}: does not hold this trial any more; tune again")
        found[0].update(outcome)
        _write(file, document)
    return file


def read_search(file: Path) -> dict[str, Any]:
    """Read the file of a search.

    Raises
    ------
    RunError
        If it is none.
    """
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']}")
        for key in ("dataset", "model", "recipe", "space", "budget", "data", "trials"):
            document[key]
        for trial in document["trials"]:
            trial["identity"], trial["number"], trial["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file}: is not the record of a search ({error!r}); remove it and tune again"
        ) from None
    return document


def planned(number: int, cell: Cell) -> dict[str, Any]:
    """Return what is said of a trial before it is run."""
    settings = {key: value for key, value in cell.settings.items() if key not in _LIMITS}
    bare = replace(cell, dataset=nameable(cell), settings=settings)
    return {
        "number": number,
        "identity": cell.identity,
        "settings": settings,
        "run": cell_text(bare),
    }


def _check_same(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunError if a file holds another search; the number of trials may grow."""
    for key in ("data", "recipe", "space", "budget"):
        then, asked = before[key], now[key]
        if not isinstance(then, dict):
            then, asked = {key: then}, {key: asked}
        for name in asked:
            if (key, name) != ("budget", "trials") and then.get(name) != asked[name]:
                raise RunError(
                    f"{file}: holds another search ({name} {_short(then.get(name))} then, "
                    f"{_short(asked[name])} now); tune as then, or forget it with --overwrite"
                )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:97]}..."


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(document, indent=1) + "\n")
