"""Seconds per epoch of BERT4Rec and SSI's teachers beside a plain padded one, in one run.

    python benchmarks/bert_speed.py

All train on Beauty less its last two items a user: width 64, 2 blocks, 2 heads, length 50, batch
256, dropout .2, 40 % of items to find (the last alone in 15 % of rows), gradients clipped, full
softmax. The plain implementation takes logits at the gaps, and for BERT4Rec at all slots as well.
Also the share of a step that drawing the task's rows takes, and the teachers in one pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from nextup.data.public import read_public
from nextup.models.registry import make_model
from plain_bert import PlainTeacher, train_epoch
from plain_sasrec import steps_per_epoch
from record import record

TASKS = ("none", "temporal", "persona", "global")


def steps_of(name: str, settings: dict[str, Any], train: Any, n_items: int, steps: int) -> Any:
    """Return a function that makes so many steps, and gives wall and processor seconds."""
    torch.manual_seed(0)
    model: Any = make_model(name, n_items, settings)
    model.prepare(train, torch.device("cpu"))
    stream = model.training_stream(train, batch_size=256, seed=0, device=torch.device("cpu"))
    groups = [{"params": group.parameters} for group in model.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, fused=True)
    order = stream.order(0)

    def run(first: int = 0) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        for step in range(first, first + steps):
            model.loss(stream.batch(order, 0, step % len(stream))).total.backward()
            torch.nn.utils.clip_grad_norm_(list(model.parameters()), 5.0)
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - began, time.process_time() - used

    return run


def plain_steps(task: Any, logits: Any, train: Any, n_items: int, steps: int) -> Any:
    """As `steps_of`, of the plain implementation."""
    torch.manual_seed(0)
    model = PlainTeacher(n_items, task, logits)
    adam = torch.optim.AdamW(model.parameters())

    def run() -> tuple[float, float]:
        return train_epoch(model, adam, train, steps)[:2]

    return run


def share_of_task(task: str, train: Any, n_items: int, per_step: float, steps: int = 40) -> float:
    """Return the share of a step's processor time that drawing the task's rows takes."""
    model: Any = make_model("consistency", n_items, {"task": task})
    model.prepare(train, torch.device("cpu"))
    stream = model.training_stream(train, batch_size=256, seed=0, device=torch.device("cpu"))
    order = stream.order(0)
    batches = [stream.batch(order, 0, step) for step in range(steps)]
    model.task_of(batches[0])
    began = time.process_time()
    for batch in batches:
        model.task_of(batch)
    return (time.process_time() - began) / steps / per_step


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="beauty", help="name of a public set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--plain-steps", type=int, default=6)
    parser.add_argument("--no-record", action="store_true", help="only print")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = read_public(args.data)
    train, n_items = data.split("leave-one-out").train, data.n_items
    ways: dict[str, tuple[Any, int]] = {}
    for task in TASKS:
        name = "bert4rec" if task == "none" else f"teacher {task}"
        settings = {} if task == "none" else {"task": task, "temperature": 8.0}
        model = "bert4rec" if task == "none" else "consistency"
        ways[name] = steps_of(model, settings, train, n_items, args.steps), args.steps
        if task != "none":
            once = steps_of(model, {**settings, "one_pass": True}, train, n_items, args.steps)
            ways[f"{name}, one pass"] = once, args.steps
        slow = plain_steps(task, "gaps", train, n_items, args.plain_steps)
        ways[f"plain {name}"] = slow, args.plain_steps
    everywhere = plain_steps("none", "all", train, n_items, 2)
    ways["plain bert4rec, logits everywhere"] = everywhere, 2
    epoch = steps_per_epoch(train)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.rounds + 1):  # the first round warms up
        for name, (way, steps) in ways.items():
            seconds, own = way()
            if turn:
                wall[name].append(seconds * epoch / steps)
                used[name].append(own * epoch / steps)
        print(turn, {name: round(each[-1], 2) for name, each in used.items() if each}, flush=True)
    median = {name: statistics.median(each) for name, each in wall.items()}
    cpu = {name: statistics.median(each) for name, each in used.items()}
    fast = [name for name in ways if f"plain {name}" in ways]
    found = {
        "dataset": args.data,
        "batch": 256,
        "threads": args.threads,
        "steps_per_epoch": epoch,
        "seconds_per_epoch": median,
        "cpu_seconds_per_epoch": cpu,
        "spans": wall,
        "plain_over": {name: cpu[f"plain {name}"] / cpu[name] for name in fast},
        "share_of_task": {
            task: share_of_task(task, train, n_items, cpu[f"teacher {task}"] / epoch)
            for task in TASKS[1:]
        },
    }
    print({key: value for key, value in found.items() if key != "spans"})
    if not args.no_record:
        record("bert_speed", found)


if __name__ == "__main__":
    main()
