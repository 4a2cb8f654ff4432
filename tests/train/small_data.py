"""A small dataset and quick settings for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nextup.data.catalog import Catalog
from nextup.data.dataset import Dataset
from nextup.data.rawids import RawIds
from nextup.data.sequences import Sequences
from nextup.train.fit import fit
from nextup.train.run import Run

N_ITEMS = 30
QUICK: dict[str, Any] = {
    "max_length": 10,
    "width": 8,
    "layers": 1,
    "dropout": 0.2,
    "batch_size": 16,
    "learning_rate": 0.01,
}


def histories(users: int = 60, seed: int = 0) -> Sequences:
    """Walks in which mostly ``n + 1`` follows ``n``; some users are too short to hold out."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in [2, 1, *rng.integers(4, 14, users - 2)]:
        row = [int(rng.integers(1, N_ITEMS + 1))]
        while len(row) < length:
            jump = int(rng.integers(1, N_ITEMS + 1))
            row.append(row[-1] % N_ITEMS + 1 if rng.random() < 0.6 else jump)
        rows.append(row)
    return Sequences.from_lists(rows)


def dataset(sequences: Sequences | None = None, name: str = "walks") -> Dataset:
    sequences = histories() if sequences is None else sequences
    return Dataset(
        sequences,
        Catalog(RawIds.of([f"i{n}" for n in range(1, N_ITEMS + 1)])),
        RawIds.of([f"u{n}" for n in range(len(sequences))]),
        None,
        {"name": name},
    )


def quick(data: Dataset, run: Path, model: str = "sasrec", **more: Any) -> Run:
    """Fit on the CPU without a word; settings by name, what is not a setting goes to `fit`."""
    options = ("seed", "resume", "overwrite", "recipe", "learn_from", "split", "protocol")
    options += ("precision", "withhold_test")
    chosen = {key: more.pop(key) for key in options if key in more}
    fields = {"sasrec": (), "gru4rec": ()}
    settings = {**(QUICK if model in fields else {}), **more}
    return fit(data, model, run=run, settings=settings, device="cpu", progress=False, **chosen)


def timeless(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log without what differs from one sitting to the next."""
    clocks = ("seconds", "sequences_per_second", "targets_per_second", "peak_memory_mb")
    return [
        {k: v for k, v in line.items() if k not in clocks and not k.endswith("_seconds")}
        for line in log
    ]
