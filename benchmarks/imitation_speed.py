"""A student's step with three teachers beside a plain padded one, in one run; and what is left.

    python benchmarks/imitation_speed.py

Beauty less its last two items a user: HGN, 64 wide, every prefix a row, batch 256; teachers of two
blocks, 64 wide; KL over the whole catalogue, squared distance of item vectors, learnt weights. Both
imitate after every row of the step (the recipe `small` after a quarter: ``--share 0.25``). Ours
asks the teachers once before the first step (that time is shown, and shared out over ten epochs);
the plain one asks them in every step. Then how long student and teacher take for one user: to read
the history, and to score the catalogue after it, which costs either the same.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from nextup.data.batches import batch_of_lists
from nextup.data.public import read_public
from nextup.models.registry import make_model
from nextup.train.recipe import resolve
from plain_imitation import PlainSSI, padded
from record import interleaved, record

CPU = torch.device("cpu")


def ours(train: Any, n_items: int, batch: int, share: float) -> tuple[Any, Any, float]:
    """Return the model in its last stage, its stream, and the seconds the teachers took."""
    config, _ = resolve("ssi", "small", {"imitate_share": share})
    model: Any = make_model("ssi", n_items, config.model_dump())
    model.prepare(train, CPU)
    model.begin_stage(model.stages()[-1].name, resumed=False)
    model.train()
    began = time.process_time()
    assert model.classroom
    asked = time.process_time() - began
    return model, model.training_stream(train, batch_size=batch, seed=0, device=CPU), asked


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="beauty", help="name of a public set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--share", type=float, default=1.0, help="of our rows that are imitated")
    parser.add_argument("--no-record", action="store_true", help="only print")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = read_public(args.data)
    train, n_items = data.split("leave-one-out").train, data.n_items
    model, stream, asked = ours(train, n_items, args.batch, args.share)
    order = stream.order(0)
    at = iter(range(1 << 20))
    groups = [{"params": group.parameters} for group in model.parameter_groups()]
    fast = torch.optim.AdamW(groups, fused=True)

    def our_steps(steps: int = 4) -> None:
        for _ in range(steps):
            model.loss(stream.batch(order, 0, next(at) % len(stream))).total.backward()
            fast.step()
            fast.zero_grad()

    plain = PlainSSI(data.n_users, n_items)
    learns = [*plain.student.parameters(), plain.log_weights]
    slow = torch.optim.Adam(learns)
    rng = np.random.default_rng(0)
    long = np.flatnonzero(train.lengths >= 2)

    def plain_steps(steps: int = 2) -> None:
        for _ in range(steps):
            users = rng.choice(long, args.batch)
            ends = [int(rng.integers(1, train.lengths[u])) for u in users]
            rows = [train[u][:end].tolist() for u, end in zip(users, ends, strict=True)]
            targets = torch.tensor([int(train[u][e]) for u, e in zip(users, ends, strict=True)])
            negatives = torch.from_numpy(rng.integers(1, n_items + 1, args.batch))
            slow.zero_grad()
            plain.loss(torch.from_numpy(users), padded(rows, 50), targets, negatives).backward()
            slow.step()

    found = interleaved({"ours": our_steps, "plain": plain_steps}, args.rounds)
    step, plain_step = found["ours"]["cpu_s"] / 4, found["plain"]["cpu_s"] / 2
    share = asked / (10 * len(stream))
    student, teacher = model.parts[-1].eval(), model.parts[0].eval()
    rows = [train[u][-50:].tolist() for u in long[:512]]
    with torch.inference_mode():
        reads = {
            name: lambda who=who: who.query(batch_of_lists(rows, who.max_length))
            for name, who in (("student", student), ("teacher", teacher))
        }
        scores = {
            f"{name} with scores": lambda who=who, read=reads[name]: read() @ who.item_vectors().T
            for name, who in (("student", student), ("teacher", teacher))
        }
        answers = interleaved({**reads, **scores}, args.rounds)
    each = {name: spans["cpu_s"] / len(rows) for name, spans in answers.items()}
    result = {
        "dataset": args.data,
        "batch": args.batch,
        "imitate_share": args.share,
        "threads": args.threads,
        "steps_per_epoch": len(stream),
        "cpu_seconds_per_step": {"ours": step, "plain": plain_step},
        "cpu_seconds_asking_teachers_once": asked,
        "plain_over_ours": plain_step / (step + share),
        "plain_over_ours_without_asking": plain_step / step,
        "cpu_seconds_a_user": each,
        "student_lighter_by": each["teacher"] / each["student"],
        "student_lighter_with_scores_by": each["teacher with scores"] / each["student with scores"],
        "spans": {**found, **answers},
    }
    print({key: value for key, value in result.items() if key != "spans"})
    if not args.no_record:
        record("imitation_speed", result)


if __name__ == "__main__":
    main()
