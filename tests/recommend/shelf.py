"""Small recommenders for the tests of answering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nextup.data.catalog import Catalog
from nextup.data.rawids import RawIds
from nextup.data.sequences import Sequences
from nextup.models.base import Recommender, item_counts
from nextup.models.registry import available_models, make_model
from nextup.models.store import save_model
from nextup.recommend.recommender import LoadedRecommender, load

N_ITEMS = 60
NEURAL = {"max_length": 12, "width": 16}


def histories(m: int = 80, seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences.from_lists(
        [(rng.zipf(1.3, rng.integers(3, 20)) % N_ITEMS + 1).tolist() for _ in range(m)]
    )


def fitted(name: str) -> Recommender:
    torch.manual_seed(0)
    counting = available_models()[name].learns_by == "counting"
    fields = available_models()[name].Config.model_fields
    settings = {} if counting else {key: value for key, value in NEURAL.items() if key in fields}
    model = make_model(name, N_ITEMS, settings)
    if counting:
        model.count(histories())
    return model.eval()


def catalog() -> Catalog:
    raws = [f"item-{n}" for n in range(1, N_ITEMS + 1)]
    return Catalog(
        RawIds.of(raws), [f"Title {n}" if n % 7 else None for n in range(1, N_ITEMS + 1)]
    )


def popularity() -> np.ndarray:
    return item_counts(histories(), N_ITEMS)


def saved(name: str, folder: Path) -> LoadedRecommender:
    save_model(fitted(name), folder / "run" / "recommender", catalog(), popularity(), {"on": name})
    return load(folder / "run")
