"""Seconds per epoch of CoSeRec and LMA4Rec beside a plain padded CoSeRec, in one run.

    python benchmarks/contrast_speed.py

All train on Beauty less its last two items a user: width 64, 2 blocks, 2 heads, length 50, batch
256, dropout .5, BCE with one negative, CoSeRec's operators, states of slots compared by their
product. nextup contrasts real slots, the plain implementation all 50, as the public code does.
Also the share of a step that drawing views takes, and the operators that take most of it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nextup.data.public import read_public
from nextup.data.stream import TrainingStream
from nextup.evaluation.protocol import Protocol
from nextup.models.registry import make_model
from nextup.train.config import TrainConfig
from nextup.train.device import make_fabric
from nextup.train.job import Job
from nextup.train.loop import Loop
from nextup.train.run import Run
from plain_coserec import PlainCoSeRec, train_epoch
from plain_sasrec import steps_per_epoch
from record import record

MODELS = ("coserec", "lma4rec")


def epoch_seconds(name: str, split: Any, n_items: int, epochs: int = 2) -> float:
    """Train whole epochs with the loop that `nextup fit` runs; return the last one's seconds."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoint").mkdir()
        job = Job(
            make_fabric("cpu", "32"),
            make_model(name, n_items, {"loss": "bce"}),
            TrainConfig(epochs=epochs),
            split,
            split.train,
            Protocol(),
            0,
            False,
            Path(folder),
            False,
        )
        Loop(job).run()
        return float(Run(folder).log()[-1]["seconds"])


def share_of_views(train: Any, n_items: int, steps: int = 20) -> dict[str, float]:
    """Return the share of a step's processor time that drawing and joining views takes."""
    found = {}
    for name in MODELS:
        model: Any = make_model(name, n_items, {"loss": "bce"})
        model.prepare(train, torch.device("cpu"))
        sampler = model.negative_sampler(train, torch.device("cpu"))
        stream = TrainingStream(train, negatives=sampler)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        order, spent, whole = stream.order(0), 0.0, 0.0
        for step in range(steps + 3):
            began = time.process_time()
            batch = stream.batch(order, 0, step)
            model.loss(batch).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            ended = time.process_time()
            model.streams(batch)
            if step >= 3:
                whole += ended - began
                spent += time.process_time() - ended
        found[name] = spent / whole
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="beauty", help="name of a public set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain-steps", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = read_public(args.data)
    split = data.split("leave-one-out")
    helper: Any = make_model("coserec", data.n_items, {"loss": "bce"})
    helper.prepare(split.train, torch.device("cpu"))
    similar = helper.neighbours.item.numpy()
    spans: dict[str, list[float]] = {"plain coserec": [], **{name: [] for name in MODELS}}
    for turn in range(args.rounds):
        for name in MODELS:
            spans[name].append(epoch_seconds(name, split, data.n_items))
        plain = PlainCoSeRec(data.n_items)
        adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
        train_epoch(plain, adam, split.train, similar, max_steps=2)
        seconds, steps = train_epoch(plain, adam, split.train, similar, args.plain_steps)
        spans["plain coserec"].append(seconds * steps_per_epoch(split.train) / steps)
        print(turn, {name: round(each[-1], 2) for name, each in spans.items()}, flush=True)
    median = {name: statistics.median(each) for name, each in spans.items()}
    plain_seconds = median["plain coserec"]
    found = {
        "dataset": args.data,
        "batch": 256,
        "seconds_per_epoch": median,
        "spans": spans,
        "plain_over": {name: plain_seconds / median[name] for name in MODELS},
        "share_of_views": share_of_views(split.train, data.n_items),
    }
    print({key: found[key] for key in ("seconds_per_epoch", "plain_over", "share_of_views")})
    record("contrast_speed", found)


if __name__ == "__main__":
    main()
