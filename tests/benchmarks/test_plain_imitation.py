"""The plain student that speed is measured against does the same job: an equal loss."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_weights import weights_of

from nextup.data.sequences import Sequences
from nextup.models.registry import make_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
N_ITEMS, N_USERS = 120, 25
TEACHER = {"width": 64, "temperature": 8.0, "dropout": 0.2}
STUDENT = {"width": 64, "l2": 0.0, "window_targets": 0, "targets": "prefix", "max_length": 5}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import plain_imitation

    yield plain_imitation
    for name in ("plain_imitation", "plain_bert", "plain_sasrec"):
        sys.modules.pop(name, None)


def ours(train: Sequences) -> Any:
    torch.manual_seed(0)
    teachers = [
        {"model": "consistency", "settings": {**TEACHER, "task": task}}
        for task in ("temporal", "persona", "global")
    ]
    model: Any = make_model(
        "ssi", N_ITEMS, {"student": {"model": "hgn", "settings": STUDENT}, "teachers": teachers}
    )
    model.prepare(train, torch.device("cpu"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        for part in model.parts:
            part.item_inputs()[0] = 0.0
    model.begin_stage(model.stages()[-1].name, resumed=False)
    return model


def test_equal_weights_give_an_equal_loss(plain: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, N_ITEMS + 1, n) for n in rng.integers(2, 60, N_USERS)]
    train = Sequences.from_lists(rows)
    model = ours(train)
    stream = model.training_stream(train, batch_size=40, seed=0, device=torch.device("cpu"))
    batch = stream.batch(stream.order(0), 0, 0)
    other = plain.PlainSSI(N_USERS, N_ITEMS)
    student = {name: value.clone() for name, value in model.last.state_dict().items()}
    student["bias.weight"] = student.pop("bias")[:, None]
    missing, unknown = other.student.load_state_dict(student, strict=False)
    guessing = {"users.learnt", "users.slope", "users.centre", "users.mean"}  # for strangers
    assert not missing and set(unknown) == guessing
    for mine, theirs in zip(model.parts[:-1], other.teachers, strict=True):
        missing, unknown = theirs.load_state_dict(weights_of(mine), strict=False)
        assert not unknown and all(name.startswith("classifier") for name in missing)
    with torch.no_grad():
        other.log_weights.copy_(model.log_weights)
        histories = [
            rows[u][:end].tolist() for u, end in zip(batch.users, batch.until, strict=True)
        ]
        loss = other.loss(
            batch.users, plain.padded(histories, 50), batch.targets, batch.negatives[:, 0]
        )
        found = model.loss(batch).total
    torch.testing.assert_close(loss, found, rtol=1e-4, atol=1e-4)
