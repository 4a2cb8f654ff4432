"""Seconds of a training epoch of every model's paper recipe, each stage apart.

    python benchmarks/epoch_seconds.py                  # all models, on Beauty
    python benchmarks/epoch_seconds.py --models ssi --recipe small --steps 50
    python benchmarks/epoch_seconds.py --recbole        # RecBole's models too (peers/setup.sh)
    python benchmarks/epoch_seconds.py --ship           # also into what `nextup models` shows

Training is that of `nextup fit`: the same loop, batches and optimiser, in one process. The first
`--steps` steps after a warm-up are timed and stand for the epoch (`--steps 0`: all of them), which
the result says of each; what is due before an epoch's first step counts once. Every stage begins
from fresh weights, on which its speed does not depend. `warm_seconds` are those of the untimed
steps, in which falls what is done once a fit, such as asking SSI's teachers.

A recipe is its paper's: batch, width, loss and number of targets differ between models, so the
figures say what a run of each costs, not which code is the quickest. RecBole's models beside them
are at their own settings, with a softmax over the catalogue where they have one, 256 rows a step.
`MEASURED_ELSEWHERE` are figures of another day and another program, not of this run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE / "peers"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from common import Span, timed  # noqa: E402
from run import PeerError, run_peer  # noqa: E402

RECBOLE = {
    "bert4rec": "BERT4Rec",
    "caser": "Caser",
    "fossil": "FOSSIL",
    "fpmc": "FPMC",
    "gcsan": "GCSAN",
    "gru4rec": "GRU4Rec",
    "hgn": "HGN",
    "nextitnet": "NextItNet",
    "sasrec": "SASRec",
    "shan": "SHAN",
    "srgnn": "SRGNN",
}
"""What RecBole calls the models that both have and that train on the same rows."""

MEASURED_ELSEWHERE: dict[str, Any] = {
    "conditions": "RecBole 1.2.1, Beauty (131,413 prefixes), its own settings but for length 50 "
    "and batches of 256, softmax, as shipped, that is in autograd's anomaly mode; 2 threads of 2 "
    "virtual cores of an AMD EPYC (Zen 4), PyTorch 2.13; medians extrapolated from 25 to 40 "
    "batches; measured 2026-11-22 by a program of its own",
    "seconds_per_epoch": {
        "sasrec": 247,
        "gru4rec": 123,
        "bert4rec": 521,
        "caser": 926,
        "hgn": 37,
    },
    "without_anomaly_mode": {"sasrec": 149},
}


def recipe_of(name: str, dataset: str) -> str | None:
    """Return a model's paper recipe, that for the dataset if there is one; None without any."""
    from nextup.train.recipe import recipes

    known = [recipe for recipe in recipes(name) if recipe.startswith(f"{name}/paper")]
    wanted = f"{name}/paper-{dataset}"
    return wanted if wanted in known else next(iter(known), None)


def measure(
    name: str,
    data: Any,
    *,
    recipe: str | None,
    steps: int,
    warm: int = 2,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Time a model's stages.

    Parameters
    ----------
    name
        A registered model.
    data
        The dataset; what training may see of a leave-one-out split is trained on.
    recipe, settings
        As of `nextup.fit`.
    steps
        How many steps of each stage are timed; 0: an epoch of them.
    warm
        How many steps come before, untimed.

    Returns
    -------
    list
        For each stage what `nextup.measured.StageSeconds` holds, and how the figure came about.
    """
    import torch

    from nextup.evaluation.protocol import Protocol
    from nextup.models.registry import model_class
    from nextup.train.checkpoint import Progress
    from nextup.train.device import make_fabric
    from nextup.train.job import Job
    from nextup.train.loop import Loop
    from nextup.train.recipe import resolve

    split = data.split("leave-one-out")
    model_config, config = resolve(name, recipe, settings)
    torch.manual_seed(0)
    model = model_class(name)(model_config, data.n_items)
    model.meet(data.catalog)
    if model.learns_by == "counting":
        with timed() as span:
            model.count(split.train)
        return [_stage("count", None, span, 0.0, 1, 1)]
    fabric, protocol = make_fabric("cpu", "32"), Protocol()
    found = []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        loop = Loop(Job(fabric, model, config, split, split.train, protocol, 0, False, path, False))
        for number, stage in enumerate(loop.stages):
            if number:
                loop.progress = Progress(stage=number)
                loop._begin_stage(resumed=False)
            began = time.perf_counter()
            model.begin_epoch(0)
            order = loop.stream.order(0)
            before = time.perf_counter() - began
            epoch = len(loop.stream)
            count = min(steps or epoch, epoch)
            model.train()
            first = time.perf_counter()
            for step in range(warm):
                loop._step(order, 0, step % epoch)
            first = time.perf_counter() - first
            with timed() as span:
                for step in range(warm, warm + count):
                    loop._step(order, 0, step % epoch)
            one = _stage(stage.name, loop.config.batch_size, span, before, count, epoch)
            found.append({**one, "warm_seconds": first})
    return found


def _stage(
    name: str, batch_size: int | None, span: Span, before: float, count: int, epoch: int
) -> dict[str, Any]:
    return {
        "name": name,
        "batch_size": batch_size,
        "seconds": round(before + span.seconds * epoch / count, 4),
        "steps_timed": count,
        "steps_per_epoch": epoch,
        "extrapolated": count < epoch,
        "before_the_first_step": before,
        "timed": asdict(span),
        "foreign_cores": span.foreign_cores,
    }


def peer(name: str, data: Any, threads: int, batches: int, as_shipped: bool) -> dict[str, Any]:
    """Time RecBole's model of the same name; says why where that is not possible."""
    try:
        found = run_peer(
            "recbole",
            "softmax",
            data.sequences,
            threads,
            batches,
            model=RECBOLE[name],
            as_shipped=as_shipped,
        )
    except PeerError as error:
        return {"error": str(error)}
    keys = ("versions", "anomaly_mode", "rows", "parameters", "training", "foreign_cores", "note")
    return {"seconds": found["training"]["epoch_seconds"][0], **{key: found[key] for key in keys}}


def line(name: str, said: dict[str, Any]) -> str:
    """Return what was measured of a model, in a line."""
    from nextup.measured import in_words

    if "error" in said:
        return f"{name:17} {said['error']}"
    ours = " + ".join(in_words(stage["seconds"]) for stage in said["stages"])
    words = [f"{name:17} {ours:24} {said['recipe'] or 'defaults'}"]
    beside = said.get("recbole", {})
    if "seconds" in beside:
        words.append(f"RecBole {in_words(beside['seconds'])}")
    elif beside:
        words.append(f"RecBole: {beside['error'].splitlines()[-1]}")
    if said["recbole_measured_elsewhere"] is not None:
        words.append(f"(RecBole, measured elsewhere: {said['recbole_measured_elsewhere']})")
    return "; ".join(words)


def shipped(dataset: str, name: str, said: dict[str, Any], commit: str | None) -> None:
    """Write the measurement of a model, if it succeeded, into the package of this checkout."""
    import nextup.measured
    from nextup.measured import EpochSeconds, StageSeconds, ship
    from nextup.studies.provenance import provenance

    if "stages" not in said:
        return
    how = provenance(device="cpu")
    stages = [
        StageSeconds(**{key: stage[key] for key in StageSeconds.model_fields})
        for stage in said["stages"]
    ]
    one = EpochSeconds(
        recipe=said["recipe"],
        dataset=dataset,
        stages=stages,
        commit=commit,
        **{key: how[key] for key in ("date", "hardware", "threads")},
    )
    ship({name: one}, Path(nextup.measured.__file__).parent)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="beauty", help="name of a public set")
    parser.add_argument("--models", nargs="+", help="by default all")
    parser.add_argument("--recipe", help="of each model; by default the paper's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40, help="steps timed of a stage; 0: an epoch")
    parser.add_argument(
        "--recbole", action="store_true", help="RecBole's models in turns with ours"
    )
    parser.add_argument("--recbole-batches", type=int, default=12)
    parser.add_argument("--as-shipped", action="store_true", help="RecBole's anomaly mode left on")
    parser.add_argument("--ship", action="store_true", help="write the package's figures as well")
    parser.add_argument(
        "--name", help="name of the file in results/; some models alone have one of their own"
    )
    args = parser.parse_args()
    some = [*(args.models or ()), *([args.recipe] if args.recipe else ())]
    some += [args.data] if args.data != "beauty" else []
    args.name = args.name or "_".join(["epoch_seconds", *some])
    import torch

    torch.set_num_threads(args.threads)
    from nextup.data.public import read_public
    from nextup.errors import NextupError
    from nextup.models.registry import available_models
    from nextup.studies.provenance import commit
    from record import record

    data = read_public(args.data)
    found: dict[str, Any] = {
        "commit": commit(also=[HERE]),  # now: what is shipped meanwhile is a change as well
        "dataset": args.data,
        "steps": args.steps,
        "recbole_measured_elsewhere": MEASURED_ELSEWHERE,
        "recbole_anomaly_mode": ("on, as shipped" if args.as_shipped else "off")
        if args.recbole
        else None,
        "models": {},
    }
    elsewhere = MEASURED_ELSEWHERE["seconds_per_epoch"] if args.data == "beauty" else {}
    for name in args.models or available_models():
        recipe = f"{name}/{args.recipe}" if args.recipe else recipe_of(name, args.data)
        said: dict[str, Any] = {"recipe": recipe}
        try:
            said["stages"] = measure(name, data, recipe=recipe, steps=args.steps)
            said["recbole_measured_elsewhere"] = elsewhere.get(name)
            if args.recbole and name in RECBOLE:
                said["recbole"] = peer(
                    name, data, args.threads, args.recbole_batches, args.as_shipped
                )
        except NextupError as error:  # such as a recipe that needs what the set does not hold
            said["error"] = str(error)
        found["models"][name] = said
        print(line(name, said), flush=True)
        record(args.name, found)  # after each, so that a run that is stopped leaves what it has
        if args.ship:
            shipped(args.data, name, said, found["commit"])
    print(f"measured elsewhere: {MEASURED_ELSEWHERE['conditions']}")
    if args.ship:
        print("now `nextup models --page > docs/models.md`")


if __name__ == "__main__":
    main()
