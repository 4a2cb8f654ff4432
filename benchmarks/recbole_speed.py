"""Seconds of an epoch of ours and of RecBole's models of the same shape, in turns, in one run.

    bash benchmarks/peers/setup.sh recbole
    python benchmarks/recbole_speed.py --threads 1

`epoch_seconds.py` times recipes, which differ in batch, loss and width. Here ours are set to what
RecBole ships: its width, layers, filters and dropout, histories of 50 items, steps of 256 rows,
Adam, a softmax over the catalogue. What differs is how often a history is read: RecBole makes a row
of every prefix, and so are Caser, HGN and "by prefix" ours, of the same number of rows and steps;
"by history" reads each history once, with the same targets (BERT4Rec: those that a mask hides,
about a fifth), 88 steps instead of 514. HGN's row with the loss of its paper stands beside
RecBole's softmax as well: only the rows with a softmax are of the same arithmetic. RecBole's
autograd anomaly mode, left on as it ships, is off here (`--as-shipped` leaves it on).

Each of `--rounds` times ours, then RecBole's; medians are compared. With one thread the processor
seconds (`cpu`) hold even on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE / "peers"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from run import PeerError, run_peer  # noqa: E402

from epoch_seconds import measure  # noqa: E402

COMMON = {"batch_size": 256, "learning_rate": 1e-3, "epochs": 10}
TRANSFORMER = {"width": 64, "layers": 2, "heads": 2, "inner": 256, "max_length": 50}


@dataclass(frozen=True)
class Pair:
    """A model of both: what RecBole calls it, and ways to set ours to the same shape."""

    theirs: str
    ways: dict[str, dict[str, Any]]
    notes: str = ""
    shared: dict[str, Any] = field(default_factory=dict)


PAIRS = {
    "gru4rec": Pair(
        "GRU4Rec",
        {"by history": {"targets": "every"}, "by prefix": {"targets": "prefix"}},
        shared={"width": 64, "hidden": 128, "layers": 1, "dropout": 0.3, "loss": "softmax"},
    ),
    "bert4rec": Pair(
        "BERT4Rec",
        {"by history": {"rows": "history"}, "by prefix": {"rows": "prefix"}},
        notes="half of the rows hide their last item alone, as in RecBole",
        shared={**TRANSFORMER, "dropout": 0.2, "mask_share": 0.2, "last_only": 0.5},
    ),
    "caser": Pair(
        "Caser",
        {"by prefix": {}},
        notes="each window is a whole history of up to 50 items, as RecBole has it",
        shared={
            "width": 64,
            "horizontal": 8,
            "vertical": 4,
            "dropout": 0.4,
            "loss": "softmax",
            "max_length": 50,
            "window_targets": 0,
            "targets": "prefix",
        },
    ),
    "hgn": Pair(
        "HGN",
        {
            "by prefix": {},
            "by prefix, catalogue in bf16": {"output_precision": "bf16"},
            "by prefix, the paper's loss": {"loss": "bpr", "negatives": 1},
        },
        notes="nearly all of a step is the softmax, whose arithmetic both have to do; the paper's "
        "own loss is BPR",
        shared={
            "width": 64,
            "loss": "softmax",
            "max_length": 50,
            "window_targets": 0,
            "targets": "prefix",
            "l2": 0.0,
        },
    ),
    "sasrec": Pair(
        "SASRec",
        {"by history": {"targets": "every"}, "by prefix": {"targets": "prefix"}},
        shared={**TRANSFORMER, "dropout": 0.5, "loss": "softmax", "block": "s3"},
    ),
}


@dataclass
class Spans:
    """Seconds of an epoch, wall and processor, one for each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    foreign: list[float | None] = field(default_factory=list)

    def add(self, seconds: float, own_cores: float, foreign: float | None) -> None:
        """Count a round."""
        self.wall.append(seconds)
        self.cpu.append(seconds * own_cores)
        self.foreign.append(foreign)

    def said(self) -> dict[str, Any]:
        """Return medians, and the rounds they are of."""
        medians = {"wall": statistics.median(self.wall), "cpu": statistics.median(self.cpu)}
        rounds = {"wall": self.wall, "cpu": self.cpu, "foreign_cores": self.foreign}
        return {**medians, "rounds": rounds}


def compared(name: str, data: Any, args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Time a model's ways and RecBole's in turns; yields what was found, by way."""
    pair = PAIRS[name]
    spans = {way: Spans() for way in (*pair.ways, "recbole")}
    theirs: dict[str, Any] = {}
    for _ in range(args.rounds):
        for way, settings in pair.ways.items():
            wanted = {**COMMON, **pair.shared, **settings}
            stage = measure(name, data, recipe=None, steps=args.steps, settings=wanted)[-1]
            timed = stage["timed"]
            spans[way].add(stage["seconds"], timed["own_cores"], stage["foreign_cores"])
        theirs = run_peer(
            "recbole",
            "softmax",
            data.sequences,
            args.threads,
            args.recbole_batches,
            model=pair.theirs,
            as_shipped=args.as_shipped,
        )
        [own] = [span["own_cores"] for span in theirs["training"]["spans"]]
        spans["recbole"].add(theirs["training"]["epoch_seconds"][0], own, theirs["foreign_cores"])
    yield from ((way, each.said()) for way, each in spans.items())
    keys = ("versions", "anomaly_mode", "rows", "parameters", "note")
    yield "recbole_is", {key: theirs[key] for key in keys}
    yield "settings", {way: {**COMMON, **pair.shared, **each} for way, each in pair.ways.items()}
    yield "notes", pair.notes


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="beauty", help="name of a public set")
    parser.add_argument("--models", nargs="+", choices=sorted(PAIRS), default=list(PAIRS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="steps of ours that are timed")
    parser.add_argument("--recbole-batches", type=int, default=10)
    parser.add_argument("--as-shipped", action="store_true", help="RecBole's anomaly mode left on")
    parser.add_argument("--no-record", action="store_true", help="only print")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    from nextup.data.public import read_public
    from record import record

    data = read_public(args.data)
    found: dict[str, Any] = {
        "dataset": args.data,
        "steps": args.steps,
        "recbole_batches": args.recbole_batches,
        "recbole_anomaly_mode": "on, as shipped" if args.as_shipped else "off",
        "models": {},
    }
    for name in args.models:
        try:
            said = dict(compared(name, data, args))
        except PeerError as error:
            print(f"{name}: {error}", flush=True)
            continue
        found["models"][name] = said
        beside = said["recbole"]["cpu"]
        for way in PAIRS[name].ways:
            ours = said[way]["cpu"]
            print(f"{name:9} {way:28} {ours:7.2f} s; RecBole {beside:7.1f} s; {beside / ours:5.1f}")
        sys.stdout.flush()
        if not args.no_record:
            record("recbole_speed", found)


if __name__ == "__main__":
    main()
