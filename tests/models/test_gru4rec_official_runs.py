"""GRU4Rec in the form of its authors, fitted: interrupted, saved, and in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import N_ITEMS, dataset_of, shop
from torch import Tensor

from nextup.errors import ConfigError
from nextup.models.gru4rec_official import GRU4RecOfficial
from nextup.models.registry import make_model
from nextup.models.store import load_model
from nextup.train.fit import fit
from nextup.train.loop import Loop
from nextup.train.run import Run

SETTINGS: dict[str, Any] = {
    "hidden": 8,
    "negatives": 10,
    "dropout": 0.2,
    "embedding_dropout": 0.1,
    "loss": "bpr_max",
    "optimizer": "adagrad",
    "momentum": 0.3,
    "learning_rate": 0.05,
    "batch_size": 20,
    "epochs": 3,
    "patience": 0,
    "checkpoint_seconds": 0.0,
    "average": 0.5,
}


def fitted(folder: Path, **more: Any) -> Run:
    return fit(
        dataset_of(shop()),
        "gru4rec_official",
        run=folder,
        settings={**SETTINGS, **more.pop("settings", {})},
        device="cpu",
        progress=False,
        **more,
    )


@pytest.mark.parametrize("bptt", [1, 3])
def test_an_interrupted_run_goes_on_in_the_middle_of_its_histories(
    bptt: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"bptt": bptt}
    whole = fitted(tmp_path / "whole", settings=settings)
    step = Loop._step

    def stop(self: Loop, order: object, epoch: int, at: int) -> Tensor:
        if (epoch, at) == (1, 5):
            raise KeyboardInterrupt
        return step(self, order, epoch, at)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "run", settings=settings)
    resumed = fitted(tmp_path / "run", settings=settings, resume=True)
    one, other = (load_model(run.recommender_folder)[0].state_dict() for run in (resumed, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert resumed.metrics == whole.metrics


def test_a_saved_recommender_holds_no_lanes(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", settings={"epochs": 1})
    model = load_model(run.recommender_folder)[0]
    assert isinstance(model, GRU4RecOfficial) and len(model.lanes) == 0


def test_several_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="trains in one process"):
        make_model("gru4rec_official", N_ITEMS).training_stream(
            shop(), batch_size=4, seed=0, device=torch.device("cpu"), world=2
        )
