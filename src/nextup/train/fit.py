"""Fit: from a dataset and the name of a model to a run folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from nextup.data.dataset import Dataset
from nextup.data.sequences import Sequences
from nextup.data.split import Split
from nextup.errors import ConfigError, RunError
from nextup.evaluation.metrics import metrics, parse_metric
from nextup.evaluation.protocol import Protocol
from nextup.models.base import Recommender, item_counts, model_class
from nextup.models.store import save_model
from nextup.train.assess import check_same_dataset, dataset_marks, rank_everywhere
from nextup.train.config import TrainConfig
from nextup.train.device import make_fabric
from nextup.train.loop import Job, Loop
from nextup.train.recipe import resolve
from nextup.train.run import Run, write_whole

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
        One of the model's recipes, such as ``"paper"`` or ``"tuned"``.
    settings
        Single settings of model or training that win over the recipe.
    split
        ``"leave-one-out"``, ``"last-N"`` or ``"time:VALID,TEST"``.
    protocol
        How validation ranks; by default the full catalogue without seen items.
    seed
        With the epoch and the step it decides everything random.
    device, precision
        ``"auto"``, ``"cpu"`` or ``"cuda"``; ``"auto"``, ``"32"`` or ``"bf16"``.
    learn_from
        ``"train"``; ``"train+valid"`` for a fixed number of epochs, without validation; ``"all"``
        for a model that goes into service and is not measured.
    resume
        Go on with a run that was interrupted; it ends with the same numbers.
    overwrite
        Replace a run that stands there already.
    progress
        Whether to show bars and lines on standard error.

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
    protocol = protocol or Protocol()
    if model_class(model).learns_by == "gradient":
        train_config = _with_metric(train_config, protocol)
    data = dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
    parts = data.split(split)
    learnt = _learnt(parts, learn_from)
    if run is None:
        label = "-".join([data.name, model, *([recipe.replace("/", "-")] if recipe else [])])
        run = Path("runs") / re.sub(r"[^\w.+-]+", "-", f"{label}-seed{seed}")
    where = None if isinstance(dataset, Dataset) else str(Path(dataset).resolve())
    asked = {
        "model": model,
        "recipe": recipe,
        "model_config": model_config.model_dump(mode="json"),
        "train_config": train_config.model_dump(mode="json"),
        "split": split,
        "leaks": parts.leaks,
        "protocol": protocol.model_dump(mode="json"),
        "seed": seed,
        "learn_from": learn_from,
        "dataset": {"name": data.name, "path": where, **dataset_marks(data)},
    }
    fabric = make_fabric(device, precision)
    target = Run(run)
    if fabric.is_global_zero:
        _prepare_folder(target, asked, data, resume, overwrite)
    fabric.barrier()
    if resume and target.finished:
        return target
    torch.manual_seed(seed)
    recommender = model_class(model)(model_config, data.n_items).to(fabric.device)
    validates = learn_from == "train" and len(parts.valid) > 0
    if recommender.learns_by == "counting":
        recommender.count(learnt)
        facts: dict[str, Any] = {}
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
        )
        facts = Loop(job).run()
    _finish(fabric, target, recommender, data, parts, learnt, validates, protocol, facts)
    return target


def _learnt(parts: Split, learn_from: str) -> Sequences:
    if learn_from == "all":
        return parts.whole
    return parts.train_and_valid if learn_from == "train+valid" else parts.train


def _with_metric(config: TrainConfig, protocol: Protocol) -> TrainConfig:
    """Check the validation metric, and spell it as `metrics` does."""
    kind, cutoff = parse_metric(config.metric)
    if cutoff is not None and cutoff not in protocol.cutoffs:
        raise ConfigError(
            f"training: metric {config.metric} needs cutoff {cutoff}, the protocol has "
            f"{', '.join(map(str, protocol.cutoffs))}"
        )
    name = kind if cutoff is None else f"{kind}@{cutoff}"
    return config.model_copy(update={"metric": name})


def _prepare_folder(
    run: Run, asked: dict[str, Any], data: Dataset, resume: bool, overwrite: bool
) -> None:
    """Make the folder, or check that what stands there can be gone on with."""
    noted = run.path / "config.json"
    if resume and noted.is_file():
        check_same_dataset(run, data)
        before = run.config
        for key, value in asked.items():
            if key != "dataset" and before.get(key) != value:
                raise RunError(
                    f"{run.path}: was started with another {key} "
                    f"({_difference(before.get(key), value)}); resume with the same settings, "
                    "or start again with --overwrite"
                )
        run.clear_leftovers()
        return
    if _holds_something(run.path):
        if not overwrite and not resume:
            hint = "" if run.finished else "--resume to go on, "
            raise RunError(
                f"{run.path}: exists already; use {hint}--overwrite to replace it, or another name"
            )
        if not noted.is_file():
            raise RunError(f"{run.path}: exists and is not a run; choose another folder")
        shutil.rmtree(run.path)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{run.path}: cannot be made ({error.strerror})") from None
    run.clear_leftovers()
    write_whole(noted, json.dumps(asked, indent=1) + "\n")


def _holds_something(path: Path) -> bool:
    """Whether there is more than what a process killed at its very start leaves behind."""
    if not path.is_dir():
        return path.exists() or path.is_symlink()
    return any(not entry.name.startswith(".config.json.partial-") for entry in path.iterdir())


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if before.get(key) != now[key]:
                return f"{key}: {before.get(key)!r} then, {now[key]!r} now"
    return f"{before!r} then, {now!r} now"


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
        save_model(model, run.recommender_folder, data.catalog, popularity, about)
    fabric.barrier()
