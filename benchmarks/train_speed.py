"""Seconds per training epoch of SASRec: nextup, a plain padded implementation, peers, the floor.

    python benchmarks/train_speed.py                  # nextup and the plain implementation
    python benchmarks/train_speed.py --peers          # and RecTools and RePlay (peers/setup.sh)
    python benchmarks/train_speed.py --coserec CHECKOUT   # and the authors' public code

All train on the same histories (Beauty less its last two items a user), width 64, 2 blocks, 2
heads, length 50, batch 256, dropout .5, Adam 1e-3, on the same number of threads, in turns. First
the losses of nextup and the plain implementation are compared target by target. The floor is the
arithmetic on real items alone, at the speed of a large matrix product measured in the same run.

The public code is CoSeRec's (`peers/coserec_public.py`): with bce on next items alone, beside
SASRec; and as it is published, with contrasted views, beside our CoSeRec ("views").
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE / "peers"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

SETTINGS = {"bce": {"loss": "bce"}, "softmax": {"loss": "softmax"}}


def gemm_speed() -> float:
    """Return the fastest of some large fp32 products, in GFLOP/s."""
    import torch

    a = torch.randn(1536, 1536)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - began)
    return 2 * 1536**3 / min(seconds) / 1e9


def work(lengths: Any, n_items: int, loss: str, width: int = 64, layers: int = 2) -> float:
    """Return the GFLOP of an epoch on real items: forward, and twice that backward."""
    tokens = int(lengths.sum())
    dense = tokens * layers * 12 * width**2
    attention = layers * width * int((lengths * (lengths + 1)).sum())
    output = tokens * width * (n_items if loss == "softmax" else 2)
    return 3 * 2 * (dense + attention + output) / 1e9


def ours(
    train: Any,
    split: Any,
    n_items: int,
    settings: dict[str, Any],
    epochs: int,
    model: str = "sasrec",
) -> list[dict[str, Any]]:
    """Train whole epochs with the loop that `nextup fit` runs; return its log lines."""
    import torch

    from nextup.evaluation.protocol import Protocol
    from nextup.models.registry import make_model
    from nextup.train.config import TrainConfig
    from nextup.train.device import make_fabric
    from nextup.train.job import Job
    from nextup.train.loop import Loop
    from nextup.train.run import Run

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "checkpoint").mkdir()
        job = Job(
            make_fabric("cpu", "32"),
            make_model(model, n_items, settings),
            TrainConfig(epochs=epochs),
            split,
            train,
            Protocol(),
            0,
            False,
            path,
            False,
        )
        Loop(job).run()
        return Run(path).log()


def profile(train: Any, n_items: int, loss: str, steps: int = 15) -> list[dict[str, Any]]:
    """Return the operators that take most of a step's own CPU time."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record_operators

    from nextup.data.stream import TrainingStream
    from nextup.models.registry import make_model

    model = make_model("sasrec", n_items, SETTINGS[loss])
    sampler = model.negative_sampler(train, torch.device("cpu"))
    stream = TrainingStream(train, negatives=sampler)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    order = stream.order(0)

    def step(number: int) -> None:
        model.loss(stream.batch(order, 0, number)).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    for number in range(3):
        step(number)
    with record_operators(activities=[ProfilerActivity.CPU]) as found:
        for number in range(3, 3 + steps):
            step(number)
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return [
        {"operator": e.key, "share": round(e.self_cpu_time_total / total, 4)} for e in events[:12]
    ]


def child_span(found: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of an epoch that a child measured."""
    return {
        "seconds": statistics.median(found["training"]["epoch_seconds"]),
        "foreign": found["foreign_cores"],
        "versions": found.get("versions"),
    }


def with_views(data: Any, split: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Time CoSeRec: ours, whole epochs; the public code, a few batches."""
    from common import timed
    from run import run_peer

    from nextup.train.recipe import recipes

    settings = recipes("coserec")["coserec/paper-beauty"]["model"]
    spans: dict[str, list[dict[str, Any]]] = {"nextup": [], "coserec": []}
    for turn in range(max(args.peer_rounds, 1)):
        with timed() as span:
            lines = ours(split.train, split, data.n_items, settings, 2, "coserec")
        spans["nextup"].append({"seconds": lines[-1]["seconds"], "foreign": span.foreign_cores})
        one = run_peer(
            "coserec",
            "bce",
            data.sequences,
            args.threads,
            args.peer_batches,
            repeats=0,
            checkout=args.coserec,
            views=True,
        )
        spans["coserec"].append(child_span(one))
        print("views", turn, {k: round(v[-1]["seconds"], 2) for k, v in spans.items()}, flush=True)
    median = {name: statistics.median(s["seconds"] for s in each) for name, each in spans.items()}
    ratios = {name: seconds / median["nextup"] for name, seconds in median.items()}
    return {"seconds_per_epoch": median, "spans": spans, "ratio_to_nextup": ratios}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="beauty", help="name of a public set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--losses", nargs="+", default=["bce", "softmax"], choices=list(SETTINGS))
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--coserec", type=Path, help="checkout of the authors' public code")
    parser.add_argument(
        "--plain-steps", type=int, default=12, help="batches timed of the plain one"
    )
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--peer-batches", type=int, default=12)
    parser.add_argument("--name", default="train_speed", help="name of the file in results/")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    from common import timed
    from run import PeerError, run_peer
    from same_losses import largest_difference

    from nextup.data.public import read_public
    from plain_sasrec import PlainSASRec, steps_per_epoch, train_epoch
    from record import record

    data = read_public(args.data)
    split = data.split("leave-one-out")
    train = split.train
    read = (train.lengths - 1).clip(0, 50)
    # Read when a process starts, so it holds for everybody only if it was set before this one.
    allocator = {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")} or "as it comes"
    found: dict[str, Any] = {"dataset": args.data, "batch": 256, "allocator": allocator}
    packages = ["rectools", "replay"] if args.peers else []
    others = {"bce": packages + ["coserec"] * (args.coserec is not None), "softmax": packages}
    for loss in args.losses:
        some = [row for row in train if len(row) >= 2][:1024]
        difference, _, targets = largest_difference(some, data.n_items, loss)
        if not difference < 1e-4:
            raise SystemExit(f"{loss}: nextup and the plain implementation disagree")
        spans: dict[str, list[dict[str, Any]]] = {"nextup": [], "plain": []}
        gemm = []
        for turn in range(args.rounds):
            gemm.append(gemm_speed())
            with timed() as span:
                lines = ours(train, split, data.n_items, SETTINGS[loss], 2)
            spans["nextup"].append({"seconds": lines[-1]["seconds"], "foreign": span.foreign_cores})
            plain = PlainSASRec(data.n_items, loss=loss)
            adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
            train_epoch(plain, adam, train, max_steps=2)
            with timed() as span:
                seconds, steps = train_epoch(plain, adam, train, max_steps=args.plain_steps)
            whole = seconds * steps_per_epoch(train) / steps
            spans["plain"].append({"seconds": whole, "foreign": span.foreign_cores})
            for peer in others[loss] if turn < args.peer_rounds else ():
                read_by = data.sequences if peer == "coserec" else train
                try:
                    one = run_peer(
                        peer,
                        loss,
                        read_by,
                        args.threads,
                        args.peer_batches,
                        repeats=0,
                        checkout=args.coserec,
                    )
                except PeerError as error:
                    print(error)
                    continue
                spans.setdefault(peer, []).append(child_span(one))
            print(loss, turn, {k: round(v[-1]["seconds"], 2) for k, v in spans.items()}, flush=True)
        floor = work(read, data.n_items, loss) / max(gemm)
        median = {
            name: statistics.median(s["seconds"] for s in each) for name, each in spans.items()
        }
        found[loss] = {
            "seconds_per_epoch": median,
            "spans": spans,
            "ratio_to_nextup": {k: v / median["nextup"] for k, v in median.items()},
            "floor_seconds": floor,
            "nextup_over_floor": median["nextup"] / floor,
            "gemm_gflops": max(gemm),
            "targets_compared": targets,
            "largest_difference_per_target": difference,
            "profile": profile(train, data.n_items, loss),
        }
        print(loss, {k: round(v, 2) for k, v in median.items()}, f"floor {floor:.2f} s")
    if args.coserec is not None:
        found["views"] = with_views(data, split, args)
    record(args.name, found)


if __name__ == "__main__":
    main()
