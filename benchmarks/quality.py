"""Train and test models on the public sets, and record every number with how it came about.

    python benchmarks/quality.py                                  # what there is
    python benchmarks/quality.py beauty:sasrec:paper --seeds 0 1  # dataset:model:recipe
    python benchmarks/quality.py --report                         # the table, from results/

A run that was stopped goes on where it was. Selection sees validation only; the test part is
ranked once, at the end. Each run becomes one file in ``results/quality/``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT, commit, record

FOLDER = RESULTS / "quality"

PUBLISHED = {  # what a run is held against: HR@10 and NDCG@10, and whose figures they are
    "beauty:sasrec:paper": (0.0605, 0.0318, "SASRec as S3-Rec reports it"),
    "beauty:sasrec:tuned": (0.0921, 0.0531, "SASRec with sampled softmax, eSASRec's benchmark"),
    "toys:sasrec:tuned": (0.0980, 0.0600, "our own goal; eSASRec's benchmark has .0970 / .0580"),
    "beauty:gru4rec:tuned": (0.0283, 0.0137, "GRU4Rec as S3-Rec reports it"),
}


def prepared(name: str) -> Path:
    """Return the folder of a prepared public set, made at the first call."""
    from nextup.data.public import read_public

    folder = ROOT / "runs" / "data" / name
    if not folder.exists():
        read_public(name).save(folder)
    return folder


def run_one(label: str, seed: int, device: str) -> None:
    """Fit, test and record one run."""
    import torch

    from nextup.data.dataset import Dataset
    from nextup.train.assess import evaluate
    from nextup.train.fit import fit

    dataset, model, recipe = [*label.split(":"), ""][:3]
    name = f"{dataset}-{model}-{recipe or 'default'}-seed{seed}"
    path = ROOT / "runs" / "quality" / name
    started = path.with_suffix(".started.json")  # a run that goes on keeps its first commit
    if not (path / "config.json").exists():
        started.parent.mkdir(parents=True, exist_ok=True)
        started.write_text(json.dumps({"commit": commit(), "time": time.time()}))
    data = Dataset.load(prepared(dataset))
    run = fit(data, model, run=path, recipe=recipe or None, seed=seed, device=device, resume=True)
    metrics = evaluate(run, data, part="test", device=device)
    ranks = run.ranks("test")
    log = run.log()
    about = json.loads((run.recommender_folder / "recommender.json").read_text())["about"]
    record(
        name,
        {
            "dataset": dataset,
            "model": model,
            "recipe": recipe or None,
            "seed": seed,
            "commit_at_start": json.loads(started.read_text())["commit"],
            "config": run.config,
            "facts": about["facts"],
            "seconds_per_epoch": [entry["seconds"] for entry in log],
            "valid": run.metrics["valid"],
            "test": metrics,
            "ranks_sha256": hashlib.sha256(ranks.ranks.tobytes()).hexdigest(),
            "torch_threads": torch.get_num_threads(),
            "held_against": PUBLISHED.get(label),
        },
        FOLDER,
    )
    print(name, {key: round(value, 4) for key, value in metrics.items()})


def report() -> str:
    """Return the recorded runs as a Markdown table."""
    rows = ["| run | seed | HR@10 | NDCG@10 | held against | epochs | minutes |", "|---" * 7 + "|"]
    for file in sorted(FOLDER.glob("*.json")):
        found: dict[str, Any] = json.loads(file.read_text())
        goal = found.get("held_against")
        against = f"{goal[0]:.4f} / {goal[1]:.4f} ({goal[2]})" if goal else ""
        facts = found["facts"]
        minutes = facts.get("train_seconds", 0) / 60
        label = ":".join(filter(None, (found["dataset"], found["model"], found["recipe"])))
        rows.append(
            f"| {label} | {found['seed']} | {found['test']['HR@10']:.4f} | "
            f"{found['test']['NDCG@10']:.4f} | {against} | {facts.get('epochs', '')} | "
            f"{minutes:.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", help="dataset:model[:recipe]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    if args.report:
        print(report())
        return
    if not args.runs:
        print("give some of:", *PUBLISHED, "or any dataset:model[:recipe]", sep="\n  ")
        sys.exit(2)
    import torch

    torch.set_num_threads(args.threads)
    for label in args.runs:
        for seed in args.seeds:
            run_one(label, seed, args.device)


if __name__ == "__main__":
    main()
