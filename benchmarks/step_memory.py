"""Peak memory of an LMA4Rec training step by the size of the catalogue.

    python benchmarks/step_memory.py

Batch 256, width 64, sampled softmax with 1,000 negatives, simulated histories of Beauty's lengths
over catalogues of 12 thousand, 100 thousand and a million items, each in a process of its own.
What is there before the first step (Python, PyTorch, the table and Adam's two moments of it) is
given beside the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import numpy as np
import torch

from record import record


def one(n_items: int, steps: int) -> dict[str, float]:
    """Run some steps and return peaks in MB and milliseconds a step."""
    import time

    from nextup.data.sequences import Sequences
    from nextup.data.stream import TrainingStream
    from nextup.models.registry import make_model

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.geometric(1 / 6, 5000) + 2, 3, 50)
    ends = np.cumsum(lengths)
    # Popularity falls as in real logs, so that similar items exist.
    items = (rng.power(0.4, int(ends[-1])) * n_items).astype(np.int32).clip(0, n_items - 1) + 1
    train = Sequences(items, ends - lengths, ends)
    settings = {"loss": "sampled_softmax", "negatives": 1000, "negative_power": 0.5}
    model = make_model("lma4rec", n_items, settings)
    model.prepare(train, torch.device("cpu"))
    stream = TrainingStream(
        train, negatives=model.negative_sampler(train, torch.device("cpu")), batch_size=256
    )
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    table = sum(p.numel() for p in model.parameters()) * 4 / 1e6
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    before = peak()
    order, spent = stream.order(0), []
    for step in range(steps):
        began = time.perf_counter()
        model.loss(stream.batch(order, 0, step)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        spent.append(time.perf_counter() - began)
    return {
        "items": n_items,
        "weights_mb": round(table, 1),
        "before_mb": round(before, 1),
        "peak_mb": round(peak(), 1),
        "milliseconds_per_step": round(1e3 * float(np.median(spent[2:])), 1),
    }


def main() -> None:
    """Measure each size in a fresh process, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", type=int, help="(one size, in this process)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        print(json.dumps(one(args.one, args.steps)))
        return
    rows = []
    for n_items in args.items:
        command = [sys.executable, __file__, "--one", str(n_items), "--steps", str(args.steps)]
        command += ["--threads", str(args.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    record("step_memory", {"batch": 256, "loss": "sampled softmax, 1,000 negatives", "rows": rows})


if __name__ == "__main__":
    main()
