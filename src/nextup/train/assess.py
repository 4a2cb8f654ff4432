"""Measure a fitted model: on validation while it learns, on test when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextup.data.dataset import Dataset
from nextup.data.split import Cases, Split
from nextup.errors import ConfigError, RunError
from nextup.evaluation.metrics import list_metrics, metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks, rank_cases
from nextup.evaluation.retrieval import top_items
from nextup.models.base import Recommender
from nextup.models.store import load_model
from nextup.train.device import gather_arrays, make_fabric
from nextup.train.run import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def rank_everywhere(
    fabric: Fabric, model: Recommender, cases: Cases, split: Split, protocol: Protocol
) -> CaseRanks:
    """Rank all cases, each process its share; ranks are gathered, never averaged metrics.

    Parameters
    ----------
    fabric
        The device, and the processes that share the work.
    model
        What ranks; it is put into answering mode.
    cases
        The histories and the item to find after each.
    split
        Where the cases are from; all items that a user ever met are no sampled candidates.
    protocol
        How an item is ranked.

    Returns
    -------
    The ranks of all cases, on every process.
    """
    share = slice(fabric.global_rank, None, fabric.world_size)
    mine = Cases(cases.histories.rows(share), cases.targets[share], cases.users[share])
    model.eval()
    ranked = rank_cases(model, mine, protocol, whole=split.whole, device=fabric.device)
    if fabric.world_size == 1:
        return ranked
    total = len(cases)

    def whole(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return gather_arrays(fabric, values.astype(np.float64), total)

    ranks, pool, level = whole(ranked.ranks), whole(ranked.pool), whole(ranked.level)
    assert ranks is not None
    return CaseRanks(
        cases.users,
        ranks,
        protocol,
        cases.targets.astype(np.int64),
        whole(ranked.above),
        None if pool is None else pool.astype(np.int64),
        None if level is None else level.astype(np.int64),
    )


def evaluate(
    run: Run | Path | str,
    dataset: Dataset | Path | str | None = None,
    *,
    part: str = "test",
    protocol: Protocol | None = None,
    device: str = "auto",
) -> dict[str, float]:
    """Measure a run on held-out items; stores one rank a case and the metrics in the run.

    Parameters
    ----------
    run
        A run or its folder.
    dataset
        The dataset it was fitted on, or its folder; by default where it was then.
    part
        ``"test"`` or ``"valid"``.
    protocol
        How to measure; by default as the run was validated.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    dict
        Metric names and values: accuracy from the ranks, and what the lists look like as a whole
        (``coverage@k``, ``popularity@k``).

    Raises
    ------
    RunError
        If the run is not finished, or the dataset is not the one it was fitted on.
    ConfigError
        If there is no such part or device.
    InputError
        If the dataset cannot be read.
    """
    found = opened(run, dataset, part, device)
    protocol = protocol or found.run.protocol
    ranked = rank_everywhere(found.fabric, found.model, found.cases, found.split, protocol)
    values = metrics(ranked)
    if found.fabric.is_global_zero:
        device_there = found.fabric.device
        values.update(
            _list_metrics(found.model, found.cases, protocol, found.popularity, device_there)
        )
        found.run.note(part, ranked, values)
    shared: dict[str, float] = found.fabric.broadcast(values)
    return shared


def rank_again(
    run: Run | Path | str,
    dataset: Dataset | Path | str | None = None,
    *,
    protocols: Sequence[Protocol],
    part: str = "test",
    device: str = "auto",
) -> list[CaseRanks]:
    """Rank a run's held-out items by other protocols, and leave what the run holds as it is.

    Parameters
    ----------
    run, dataset, part, device
        As `evaluate` takes them.
    protocols
        How to rank.

    Raises
    ------
    NextupError
        As `evaluate` raises them.
    """
    found = opened(run, dataset, part, device)
    return [
        rank_everywhere(found.fabric, found.model, found.cases, found.split, protocol)
        for protocol in protocols
    ]


@dataclass(frozen=True)
class Opened:
    """A finished run, ready to be measured on a part."""

    run: Run
    fabric: Fabric
    model: Recommender
    popularity: np.ndarray
    split: Split
    cases: Cases


def opened(
    run: Run | Path | str, dataset: Dataset | Path | str | None, part: str, device: str
) -> Opened:
    """Load a run and the cases of a part; takes and raises what `evaluate` does."""
    run = run if isinstance(run, Run) else Run(run)
    if part not in ("valid", "test"):
        raise ConfigError(f"part: `{part}` is not one of valid, test")
    config = run.config
    if not run.finished:
        raise RunError(f"{run.path}: is not finished; go on with `nextup fit ... --resume`")
    if part == "test" and config.get("test") == "withheld":
        raise RunError(
            f"{run.path}: is a trial of tuning, whose test part is never measured; fit its "
            "settings anew with `nextup fit` and evaluate that"
        )
    if config["learn_from"] == "all" or (config["learn_from"] != "train" and part == "valid"):
        raise RunError(
            f"{run.path}: learnt from {config['learn_from']}, so the {part} part is no test of it"
        )
    if dataset is None:
        where = config["dataset"].get("path")
        if where is None or not Path(where).is_dir():
            lost = "lay in memory" if where is None else f"is no longer at {where}"
            raise RunError(
                f"{run.path}: its dataset {lost}; name its folder after the run (one in memory is "
                "written by `Dataset.save`)"
            )
        dataset = where
    data = dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
    check_same_dataset(run, data)
    fabric = make_fabric(device, "32")
    model, _, popularity, _ = load_model(run.recommender_folder)
    split = data.split(config["split"])
    if config.get("test") == "withheld":
        split = split.without_test()
    cases = split.test if part == "test" else split.valid
    return Opened(run, fabric, model.to(fabric.device), popularity, split, cases)


def _list_metrics(
    model: Recommender,
    cases: Cases,
    protocol: Protocol,
    popularity: np.ndarray,
    device: torch.device,
) -> dict[str, float]:
    """Return what the lists for all cases look like as a whole."""
    cutoffs = [k for k in protocol.cutoffs if k <= model.n_items]
    if not cutoffs:
        return {}
    excluded = protocol.seen == "excluded"
    lists, _ = top_items(
        model, cases.histories, max(cutoffs), exclude_seen=excluded, device=device,
        users=cases.users,
    )  # fmt: skip
    return list_metrics(lists, popularity, cutoffs)


def check_same_dataset(run: Run, data: Dataset) -> None:
    """Raise RunError if `data` is not what the run was fitted on."""
    noted = run.config["dataset"]
    here = dataset_marks(data)
    different = [key for key in here if noted.get(key) != here[key]]
    if different:
        key = different[0]
        raise RunError(
            f"{run.path}: was fitted on a dataset with {key} {noted.get(key)}, this one has "
            f"{here[key]}; evaluate on the dataset the run was fitted on"
        )
    by_time = str(run.config.get("split", "")).startswith("time:")
    if by_time and noted.get("times", data.times_checksum) != data.times_checksum:
        raise RunError(
            f"{run.path}: was fitted on the same histories with other times, by which they were "
            "split; evaluate on the dataset the run was fitted on"
        )
    # Runs of earlier versions have no checksum: they are compared on what they have.
    if noted.get("checksum", data.checksum) != data.checksum:
        raise RunError(
            f"{run.path}: was fitted on a dataset of the same size but with other histories (or "
            "the same in another order); evaluate on the dataset the run was fitted on"
        )


def dataset_marks(data: Dataset) -> dict[str, int | str | None]:
    """Return the sizes by which a run knows its dataset again; there is also its checksum."""
    return {
        "users": data.n_users,
        "items": data.n_items,
        "interactions": data.n_interactions,
    }
