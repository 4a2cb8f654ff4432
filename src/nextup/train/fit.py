"""Fit: from a dataset and the name of a model to a run folder."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from nextup.data.dataset import Dataset
from nextup.data.seed import checked_seed
from nextup.data.sequences import Sequences
from nextup.data.split import Split
from nextup.errors import ConfigError
from nextup.evaluation.metrics import metrics
from nextup.evaluation.protocol import Protocol
from nextup.models.base import Recommender, item_counts
from nextup.models.registry import model_class
from nextup.models.store import save_model
from nextup.train.assess import dataset_marks, rank_everywhere
from nextup.train.config import with_metric
from nextup.train.device import make_fabric, precision_on, spare_memory
from nextup.train.job import Job
from nextup.train.kept import make_place
from nextup.train.loop import Loop
from nextup.train.place import check_place, place_of
from nextup.train.recipe import is_file, resolve
from nextup.train.run import FORMAT, Run, is_run

LearnFrom = Literal["train", "train+valid", "all"]


def fit(
    dataset: Dataset | Path | str,
    model: str = "sasrec",
    *,
    run: Path | str | None = None,
    recipe: str | None = None,
    settings: dict[str, Any] | None = None,
    split: str = "leave-one-out",
    protocol: Protocol | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    learn_from: LearnFrom = "train",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    kept: Path | str | None = None,
    withhold_test: bool = False,
) -> Run:
    """Fit a model to a dataset and store everything about it in a run folder.

    Parameters
    ----------
    dataset
        A dataset, or the folder of one.
    model
        Name of a registered model; see `nextup.models`.
    run
        Folder of the run; by default ``runs/<dataset>-<model>[-<recipe>]-seed<seed>``.
    recipe
        One of the model's recipes, such as ``"paper"`` or ``"tuned"``, or the path of a file of
        your own, ``"mine.toml"``.
    settings
        Single settings of model or training that win over the recipe.
    split
        ``"leave-one-out"``, ``"last-N"`` or ``"time:VALID,TEST"``.
    protocol
        How validation ranks; by default the full catalogue without seen items.
    seed
        With the epoch and the step it decides everything random; 0 to 2**63 - 1.
    device, precision
        ``"auto"``, ``"cpu"`` or ``"cuda"``; ``"auto"``, ``"32"`` or ``"bf16"``.
    learn_from
        ``"train"``; ``"train+valid"`` for a fixed number of epochs, without validation; ``"all"``
        for a model that goes into service and is not measured.
    resume
        Go on with a run that was interrupted; it ends with the same numbers.
    overwrite
        Replace a run that stands there already, once the new one has begun to learn.
    progress
        Whether to show bars and lines on standard error.
    kept
        A folder where trained stages are kept, and looked for before one is trained: a teacher
        that another run has trained there is taken over. Of a run, its ``stages``. By default the
        run's own, if there are several.
    withhold_test
        Cut the test items off before anything is learnt or measured; `evaluate` then refuses to
        measure the run on them. For trials of tuning, which may not know them.

    Returns
    -------
    Run
        The finished run. Validation is measured; test waits for `evaluate`.

    Raises
    ------
    ConfigError
        For an unknown model, recipe or setting, or a value out of range.
    RunError
        If the folder exists, or cannot be resumed.
    InputError
        If the dataset cannot be read or split.
    """
    model_config, train_config = resolve(model, recipe, settings)
    if learn_from not in ("train", "train+valid", "all"):
        raise ConfigError(f"learn_from: `{learn_from}` is not one of train, train+valid, all")
    if withhold_test and learn_from == "all":
        raise ConfigError("learn_from: `all` learns from the test items, which are withheld")
    seed = checked_seed(seed)
    protocol = protocol or Protocol()
    if model_class(model).learns_by == "gradient":
        train_config = with_metric(train_config, protocol)
    data = dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
    parts = data.split(split)
    if withhold_test:
        parts = parts.without_test()
    learnt = _learnt(parts, learn_from)
    precision = precision_on(device, precision)
    spare_memory(precision)
    fabric = make_fabric(device, precision)
    if run is None:
        named = Path(recipe).stem if recipe and is_file(recipe) else recipe
        label = "-".join([data.name, model, *([named.replace("/", "-")] if named else [])])
        run = Path("runs") / re.sub(r"[^\w.+-]+", "-", f"{label}-seed{seed}")
    times = {} if data.times is None else {"times": data.times_checksum}
    noted = {**dataset_marks(data), "checksum": data.checksum, **times}
    torch.manual_seed(seed)
    recommender = model_class(model)(model_config, data.n_items).to(fabric.device)
    recommender.meet(data.catalog)
    where = None if isinstance(dataset, Dataset) else str(Path(dataset).resolve())
    asked = {
        "format": FORMAT,
        "model": model,
        "recipe": recipe,
        "model_config": model_config.model_dump(mode="json"),
        "train_config": train_config.model_dump(mode="json"),
        "split": split,
        "leaks": parts.leaks,
        "protocol": protocol.model_dump(mode="json"),
        "seed": seed,
        "precision": precision,
        "device": fabric.device.type,
        "learn_from": learn_from,
        **({"test": "withheld"} if withhold_test else {}),
        **({"catalogue": mark} if (mark := recommender.catalogue_mark) else {}),
        "dataset": {"name": data.name, "path": where, **noted},
    }
    target = Run(run)
    if fabric.is_global_zero:
        check_place(target, asked, data, resume, overwrite)
        if resume and progress and not target.begun:
            print(f"{target.path}: there is nothing to resume; starting anew", file=sys.stderr)
    fabric.barrier()
    if resume and target.finished:
        return target
    validates = learn_from == "train" and len(parts.valid) > 0
    facts: dict[str, Any] = {}
    with place_of(target, asked, resume) if fabric.is_global_zero else nullcontext():
        fabric.barrier()
        if recommender.learns_by == "counting":
            recommender.count(learnt)
        else:
            job = Job(
                fabric,
                recommender,
                train_config,
                parts,
                learnt,
                protocol,
                seed,
                validates,
                target.path,
                progress,
                about={
                    "dataset": noted,
                    **{key: asked[key] for key in ("split", "protocol", "seed", "learn_from")},
                    "precision": precision,
                    **({"device": fabric.device.type} if fabric.device.type != "cpu" else {}),
                    **({"test": "withheld"} if withhold_test else {}),
                },
                kept=_kept(kept, recommender, target),
            )
            facts = Loop(job).run()
        _finish(fabric, target, recommender, data, parts, learnt, validates, protocol, facts)
    return target


def _learnt(parts: Split, learn_from: str) -> Sequences:
    if learn_from == "all":
        return parts.whole
    return parts.train_and_valid if learn_from == "train+valid" else parts.train


def _kept(kept: Path | str | None, model: Recommender, run: Run) -> Path | None:
    if kept is not None:
        folder = Path(kept)
        folder = folder / "stages" if is_run(folder) else folder
        make_place(folder)
        return folder
    return run.path / "stages" if len(model.stages()) > 1 else None


def _finish(
    fabric: Fabric,
    run: Run,
    model: Recommender,
    data: Dataset,
    parts: Split,
    learnt: Sequences,
    validates: bool,
    protocol: Protocol,
    facts: dict[str, Any],
) -> None:
    """Measure validation with the weights that are kept, and save the recommender."""
    ranked = None
    if validates:
        ranked = rank_everywhere(fabric, model, parts.valid, parts, protocol)
    if fabric.is_global_zero:
        if ranked is not None:
            run.note("valid", ranked, metrics(ranked))
        about = {"run": run.config, "facts": facts, "dataset": data.card}
        popularity = item_counts(learnt, data.n_items)
        kept = model.answering
        users = data.users if kept.knows_users else None
        save_model(kept, run.recommender_folder, data.catalog, popularity, about, users)
    fabric.barrier()
