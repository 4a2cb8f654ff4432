"""A small dataset for tests of how it is written and read."""

from __future__ import annotations

import numpy as np

from nextup.data.catalog import Catalog
from nextup.data.dataset import Dataset
from nextup.data.rawids import RawIds
from nextup.data.sequences import Sequences


def make(histories: list[list[int]], text: bool = False, timed: bool = True) -> Dataset:
    sequences = Sequences.from_lists(histories)
    n = len(sequences.items)
    names = [f"ü{k}" if text else k for k in (50, 40, 30, 20, 10)]
    titles = [None, "Zwei", "Drei, vier", "", "Fünf"]
    users = RawIds.of([f"u{k}" for k in range(len(histories))] if text else range(len(histories)))
    times = np.arange(n, dtype=np.int64) if timed else None
    return Dataset(sequences, Catalog(RawIds.of(names), titles), users, times, {"name": "small"})
