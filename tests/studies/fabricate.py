"""Results that no model made, with ranks drawn at random, for tests of what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nextup.evaluation.metrics import metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks
from nextup.studies.cell import Cell
from nextup.studies.measured import Block, planned_part
from nextup.studies.results import Results
from nextup.studies.storing import store
from nextup.studies.study import Part, Study
from nextup.studies.wanted import wanted_cells

USERS, ITEMS = 400, 200
SAMPLED = Protocol(candidates="sampled", n_negatives=20, cutoffs=(5, 10, 15))


def ranks_of(cell: Cell, skill: float = 1.0, users: int = USERS) -> CaseRanks:
    """Ranks whose shared part is the users' own difficulty, so that runs are paired."""
    difficulty = np.random.default_rng(7).exponential(size=users)
    luck = np.random.default_rng(int(cell.identity, 16) % 2**32).exponential(size=users)
    ranks = np.floor(ITEMS * np.minimum((difficulty + luck) / (4 * skill), 1.0) ** 2)
    targets = np.random.default_rng(11).integers(1, ITEMS, users)
    return CaseRanks(np.arange(users), ranks.astype(np.float64), cell.protocol, targets)


def fabricate(
    folder: Path,
    cell: Cell,
    skill: float = 1.0,
    log: list[dict[str, Any]] | None = None,
    **more: Any,
) -> Path:
    """Store a result for a cell."""
    cell = cell.plain
    ranks, further = more.pop("ranks", None) or ranks_of(cell, skill), more.pop("further", ())
    document = {
        "dataset": cell.dataset_name,
        "model": cell.model,
        "seed": cell.seed,
        "identity": cell.identity,
        "family": cell.family,
        "decided": cell.decided,
        "cell": cell.to_json(),
        "date": "2026-01-01",
        "commit": None,
        "epochs": 12,
        "best_epoch": 9,
        "seconds": 90.0,
        "valid": metrics(ranks) if cell.learn_from == "train" else None,
        "test": metrics(ranks),
        "log": log or [],
        **more,
    }
    return store(folder, cell.name, document, ranks, further)


def fabricate_study(folder: Path, study: Study, *names: str, seeds: tuple[int, ...] = (0,)) -> None:
    """Store a result for every cell of a study's parts (of all, without names)."""
    parts = [part for part in study.parts if not names or part.name in names]
    for each in wanted_cells(study, parts, seeds=seeds):
        skill = 1.3 if each.method.role == "own" else 1.0
        if each.cell.learn_from != "train":
            skill = 0.3
        keeps = [
            {
                "epoch": epoch,
                **{
                    f"keep.{block}.{key}": 0.5 + 0.01 * epoch * block + shift
                    for block in (1, 2)
                    for key, shift in (("least", -0.1), ("mean", 0.0), ("most", 0.1))
                },
            }
            for epoch in range(1, 13)
        ]
        fabricate(folder, each.cell, skill, keeps)


def measured_part(study: Study, part: Part, results: Results, resamples: int) -> list[Block]:
    """Measure a part of a study on each of its datasets."""
    planned = planned_part(study, part, results, resamples)
    return [each.block(each.comparison.measured()) for each in planned]


def sampled_ranks(cell: Cell, luck: int = 0) -> CaseRanks:
    """Ranks among 20 of 150 items never met, as if scores were drawn."""
    rng = np.random.default_rng([int(cell.identity, 16) % 2**32, luck])
    pool = rng.integers(140, 150, USERS)
    above = np.floor(pool * rng.random(USERS) ** 2)
    ranks = rng.hypergeometric(above.astype(np.int64), (pool - above).astype(np.int64), 20)
    targets = ranks_of(cell).targets
    level = np.zeros(USERS, dtype=np.int64)
    return CaseRanks(
        np.arange(USERS), ranks.astype(np.float64), SAMPLED, targets, above, pool, level
    )
