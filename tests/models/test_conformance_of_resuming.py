"""Whatever a model keeps between steps, a run of it that died goes on to the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import N_ITEMS, Form, dataset_of, trainable

from nextup.data.sequences import Sequences
from nextup.models.store import load_model
from nextup.train.fit import fit
from nextup.train.loop import Loop
from nextup.train.run import Run

EVERYTHING = {"epochs": 2, "batch_size": 16, "average": 0.8, "checkpoint_seconds": 0.0}
"""Two epochs, a running average, and a checkpoint after every step."""


def histories() -> Sequences:
    """Among others a user of three items: a stranger to user vectors, and asked in validation."""
    rng = np.random.default_rng(4)
    lengths = [3, *rng.integers(4, 20, 39)]
    return Sequences.from_lists([rng.integers(1, N_ITEMS + 1, n) for n in lengths])


def first_forms() -> list[Form]:
    """One form of each model."""
    forms = {form.model: form for form in reversed(trainable())}
    return [forms[name] for name in sorted(forms)]


@pytest.mark.parametrize("form", first_forms(), ids=lambda form: form.model)
def test_a_run_that_died_in_its_second_epoch_ends_with_the_same_numbers(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset_of(histories())
    settings = {**form.all_settings(pretrain_epochs=1, pretrain_batch_size=64), **EVERYTHING}

    def run(name: str, **more: Any) -> Run:
        return fit(
            data, form.model, run=tmp_path / name, settings=settings, device="cpu",
            progress=False, **more,
        )  # fmt: skip

    whole, step = run("whole"), Loop._step

    def dying(self: Loop, order: object, epoch: int, at: int) -> torch.Tensor:
        last = self.progress.stage + 1 == len(self.stages)
        if last and (epoch, at) == (1, min(1, len(self.stream) - 1)):
            raise KeyboardInterrupt
        return step(self, order, epoch, at)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            run("dead")
    found = run("dead", resume=True)
    one, other = (load_model(each.recommender_folder)[0].state_dict() for each in (found, whole))
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        assert torch.equal(one[name], tensor), name
    assert found.metrics == whole.metrics
