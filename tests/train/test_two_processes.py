"""Two processes measure what one does, and train to the same weights up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import dataset, quick
from two_fits import SAMPLED

from nextup.models.store import load_model
from nextup.train.assess import evaluate
from nextup.train.run import Run

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "patience": 0,
    "dropout": 0.0,
    "loss": "softmax",
    "batch_size": 15,
    "clip_norm": 1.0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run fitted by this process, then all that two processes did to it and beside it."""
    folder = tmp_path_factory.mktemp("processes")
    quick(dataset(), folder / "alone", **SETTINGS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += [str(Path(__file__).with_name("two_fits.py")), str(folder), json.dumps(SETTINGS)]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def found(folder: Path, rank: int) -> dict[str, dict[str, float]]:
    content: dict[str, dict[str, float]] = json.loads((folder / f"found-{rank}.json").read_text())
    return content


def test_both_processes_know_the_metrics_of_all_cases(folder: Path) -> None:
    assert found(folder, 0) == found(folder, 1)


def test_metrics_of_two_processes_are_exactly_those_of_one(folder: Path) -> None:
    assert len(dataset().split().test) % 2 == 0 or len(dataset().split().test) > 20
    alone = folder / "alone"
    both = found(folder, 0)
    sampled = Run(alone).ranks("test")  # as two processes left them
    assert evaluate(alone, dataset(), protocol=SAMPLED, device="cpu") == both["sampled"]
    mine = Run(alone).ranks("test")
    for field in ("users", "ranks", "targets", "above", "pool"):
        np.testing.assert_array_equal(getattr(sampled, field), getattr(mine, field))
    assert evaluate(alone, dataset(), part="valid", device="cpu") == both["valid"]
    assert evaluate(alone, dataset(), device="cpu") == both["full"]


def test_two_processes_train_as_one(folder: Path) -> None:
    alone = load_model(folder / "alone" / "recommender")[0].state_dict()
    together = load_model(folder / "together" / "recommender")[0].state_dict()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=2e-3, rtol=2e-3)
    one, two = Run(folder / "alone").log(), Run(folder / "together").log()
    assert len(two) == 3
    for line, other in zip(one, two, strict=True):
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-4)
        assert other["NDCG@10"] == pytest.approx(line["NDCG@10"], abs=0.02)


def test_a_run_of_two_processes_is_measured_the_same_by_one(folder: Path) -> None:
    assert evaluate(folder / "together", dataset(), device="cpu") == found(folder, 0)["together"]
