"""Run one cell: fit (or go on), rank the test items once by each protocol, write the result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nextup.errors import NextupError, RunError
from nextup.studies.asked import Asked
from nextup.studies.places import Places, held

if TYPE_CHECKING:
    from nextup.data.dataset import Dataset
    from nextup.evaluation.ranks import CaseRanks
    from nextup.studies.cell import Cell
    from nextup.train.fit import LearnFrom
    from nextup.train.run import Run


@dataclass(frozen=True)
class How:
    """How cells are run; decides how long they take, and their numbers only up to rounding.

    Parameters
    ----------
    device, precision
        As `nextup.train.fit.fit` takes them.
    threads
        Threads of each run.
    jobs
        How many run at once, noted beside the seconds they took.
    """

    device: str = "auto"
    precision: str = "32"
    threads: int = 1
    jobs: int = 1


class BusyError(RunError):
    """Another process runs this cell."""


def run_cell(cell: Cell, places: Places, how: How, asked: Asked | None = None) -> Path:
    """Run a cell to its end and return the file of its result.

    A run that is there is not fitted again, only measured as far as that is asked for; what its
    result held before, it holds afterwards.

    Parameters
    ----------
    cell
        What to fit.
    places
        Where.
    how
        How.
    asked
        What is measured besides the ranks by the cell's own protocol.

    Raises
    ------
    NextupError
        If it cannot be run.
    """
    from nextup.studies.provenance import commit, now
    from nextup.studies.results import Result, Results
    from nextup.studies.storing import ranks_checksum, store
    from nextup.train.run import write_whole

    cell = cell.plain
    with held(places.beside(cell.name, "lock")) as free:
        if not free:
            raise BusyError(f"{cell.name}: is being run by another process")
        folder = places.run(cell.name)
        from nextup.data.dataset import Dataset

        data = Dataset.load(places.prepared(cell.dataset))
        begun = places.beside(cell.name, "begun.json")
        again = goes_on(folder, cell, data, how.precision, how.device)
        if not again or not begun.is_file():
            write_whole(begun, json.dumps({"commit": commit(), "date": now()}) + "\n")
        run = fitted(folder, cell, data, how, again, kept=places.stages)
        test, ranks = _tested(run, cell, data, how), run.ranks("test")
        before: Result | None = Results(places.results).find(cell)
        wanted = (asked or Asked()) | (Asked() if before is None else before.holds)
        further, more = _measured(run, data, how, wanted.beside(cell.protocol))
        if before is not None and before.document["ranks_sha256"] == ranks_checksum(ranks):
            # The same run, measured further: where it came from stays as it is noted.
            noted = {"measured": {"commit": commit(), "date": now()}}
            words = {} if before.name == cell.name else _words(cell)
            document = {**before.document, **words, **noted}
        else:
            document = _document(cell, run, begun, how, test, _validated(run, cell, data, how))
        document = {**document, **more, "log": run.log()}
        file = store(places.results, cell.name, document, ranks, further)
        if before is not None and before.file != file:
            for old in (before.file, before.file.with_suffix(".npz")):
                old.unlink(missing_ok=True)  # called by other words for the same
        return file


def _words(cell: Cell) -> dict[str, Any]:
    """Return what a result says of how its run is called; other words may mean the same run."""
    from nextup.studies.spelling import cell_text

    named = replace(cell, dataset=nameable(cell))
    return {
        "recipe": cell.recipe,
        "settings": dict(cell.settings),
        "command": f"nextup study runs {cell_text(named)} --seeds {cell.seed}",
        "cell": named.to_json(),
    }


def _document(
    cell: Cell,
    run: Run,
    begun: Path,
    how: How,
    test: dict[str, float],
    valid: dict[str, float] | None,
) -> dict[str, Any]:
    """Return what a result says of a run."""
    from nextup.studies.provenance import provenance

    about = json.loads((run.recommender_folder / "recommender.json").read_text())["about"]
    return {
        "dataset": cell.dataset_name,
        "model": cell.model,
        "seed": cell.seed,
        "identity": cell.identity,
        "family": cell.family,
        **provenance(device=how.device),
        **_words(cell),
        "begun": json.loads(begun.read_text()),
        "how": asdict(how),
        "seconds": about["facts"].get("train_seconds"),
        "epochs": about["facts"].get("epochs"),
        "best_epoch": about["facts"].get("best_epoch"),
        "stages": about["facts"].get("stages"),
        "decided": cell.decided,
        "leaks": run.config["leaks"],
        "data": {k: v for k, v in run.config["dataset"].items() if k != "path"},
        "valid": valid,
        "test": test,
    }


def nameable(cell: Cell) -> str:
    """Return the dataset without folders: a result names no place of the machine it was made on."""
    return cell.dataset_name if Path(cell.dataset).is_absolute() else cell.dataset


def goes_on(
    folder: Path, cell: Cell, data: Dataset, precision: str = "auto", device: str = "auto"
) -> bool:
    """Whether a run of just this cell stands in the folder; any other is replaced.

    A run of an earlier version lacks settings that came later; they stood at their defaults. One
    that was begun in another precision or on another device is no such run, unless it is finished.
    """
    from nextup.devices import device_here
    from nextup.evaluation.metrics import parse_metric
    from nextup.train.assess import dataset_marks
    from nextup.train.recipe import resolve
    from nextup.train.run import Run

    if not (folder / "config.json").is_file():
        return False
    noted, finished = Run(folder).config, Run(folder).finished
    if precision not in ("auto", noted.get("precision", precision)) and not finished:
        return False
    here = device_here(device).type
    if noted.get("device", here) != here and not finished:
        return False
    model_config, train_config = (
        config.model_dump(mode="json")
        for config in resolve(cell.model, cell.recipe, dict(cell.settings))
    )
    usual = [config.model_dump(mode="json") for config in resolve(cell.model)]
    modelled = {**usual[0], **noted.get("model_config", {})}
    trained = {**usual[1], **noted.get("train_config", {})}
    for config in (train_config, trained):
        config["metric"] = parse_metric(str(config.get("metric")))
    wanted = {
        "model": cell.model,
        "recipe": cell.recipe,
        "split": cell.split,
        "protocol": cell.protocol.model_dump(mode="json"),
        "seed": cell.seed,
        "learn_from": cell.learn_from,
    }
    same_data = all(
        noted.get("dataset", {}).get(key) == mark for key, mark in dataset_marks(data).items()
    )
    same = all(noted.get(key) == value for key, value in wanted.items())
    return same and same_data and (modelled, trained) == (model_config, train_config)


def fitted_already(cell: Cell, places: Places) -> bool:
    """Whether a finished run of a cell stands in its folder, so that it need only be measured."""
    from nextup.data.dataset import Dataset
    from nextup.train.run import Run

    folder = places.run(cell.name)
    try:
        found = Run(folder).finished
        return found and goes_on(folder, cell, Dataset.load(places.prepared(cell.dataset)))
    except NextupError:
        return False


def fitted(folder: Path, cell: Cell, data: Dataset, how: How, again: bool, **more: Any) -> Run:
    """Fit a cell in its folder, or go on `again`; `more` is handed to `nextup.train.fit.fit`."""
    from nextup.train.fit import fit

    return fit(
        data,
        cell.model,
        run=folder,
        recipe=cell.recipe,
        settings=dict(cell.settings),
        split=cell.split,
        protocol=cell.protocol,
        seed=cell.seed,
        device=how.device,
        precision=how.precision,
        learn_from=cast("LearnFrom", cell.learn_from),
        resume=again,
        overwrite=not again,
        progress=False,
        **more,
    )


def _tested(run: Run, cell: Cell, data: Dataset, how: How) -> dict[str, float]:
    """Rank the test items, unless that was done before this process was started."""
    from nextup.train.assess import evaluate

    there = "test" in run.metrics and (run.path / "ranks-test.npz").is_file()
    if there and run.ranks("test").protocol == cell.protocol:  # since then none other was tried
        return run.metrics["test"]
    return evaluate(run, data, part="test", device=how.device)


def _validated(run: Run, cell: Cell, data: Dataset, how: How) -> dict[str, float] | None:
    """What validation said by the cell's protocol; None where the run had none."""
    from nextup.train.assess import evaluate

    if "valid" in run.metrics and run.protocols.get("valid", cell.protocol) != cell.protocol:
        return evaluate(run, data, part="valid", device=how.device)
    return run.metrics.get("valid")


def _measured(
    run: Run, data: Dataset, how: How, asked: Asked
) -> tuple[list[CaseRanks], dict[str, Any]]:
    """Return the ranks by further protocols, and further entries of the result."""
    from nextup.train.assess import rank_again
    from nextup.train.consistency import consistency

    further: list[CaseRanks] = []
    if asked.protocols:
        further = rank_again(run, data, protocols=asked.protocols, device=how.device)
    if not asked.consistency:
        return further, {}
    return further, {"consistency": consistency(run, data, device=how.device).to_json()}
