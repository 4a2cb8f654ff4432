"""Measure how consistent a fitted model is, as a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nextup.data.dataset import Dataset
from nextup.evaluation.consistency import DEPTH, PERSISTENCE, Consistency, measure_consistency
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.scoring import Progress
from nextup.train.assess import opened
from nextup.train.run import Run, write_whole


def consistency(
    run: Run | Path | str,
    dataset: Dataset | Path | str | None = None,
    *,
    part: str = "test",
    accidents: Sequence[str] | None = None,
    k: int = DEPTH,
    p: float = PERSISTENCE,
    seed: int = 0,
    protocol: Protocol | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Consistency:
    """Measure how little a run's recommendations jump when histories change a little.

    The means are kept in the run, as ``consistency-test.json``.

    Parameters
    ----------
    run
        A run or its folder.
    dataset
        The dataset it was fitted on, or its folder; by default where it was then.
    part
        ``"test"`` or ``"valid"``: whose histories.
    accidents
        What happens to them: ``"wrong click"``, ``"swap"``, ``"splice"``, ``"forget"``; by default
        each. See `nextup.evaluation.perturb`.
    k, p
        Length of the lists, and the persistence of the rank-biased overlap.
    seed
        Decides the accidents; all models meet the same.
    protocol
        How the target is ranked, and whether seen items may be shown; by default as the run was
        validated.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    progress
        Called with ``(histories done, histories in all)``.

    Raises
    ------
    NextupError
        As `evaluate` raises them; ConfigError also for an accident, `k` or `p` that cannot be.
    """
    found = opened(run, dataset, part, device)
    measured = measure_consistency(
        found.model,
        found.cases,
        whole=found.split.whole,
        accidents=accidents,
        protocol=protocol or found.run.protocol,
        k=k,
        p=p,
        seed=seed,
        device=found.fabric.device,
        progress=progress,
    )
    if found.fabric.is_global_zero:
        text = json.dumps(measured.to_json(), indent=1) + "\n"
        write_whole(found.run.path / f"consistency-{part}.json", text)
    return measured
