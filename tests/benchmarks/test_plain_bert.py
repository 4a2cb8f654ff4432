"""The plain teachers that speed is measured against do the same job: equal losses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_weights import weights_of

from nextup.augment import Packed
from nextup.data.sequences import Sequences
from nextup.data.stream import TrainingStream
from nextup.models.registry import make_model
from nextup.nn.packing import Packing

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
N_ITEMS, MASK = 300, 301


@pytest.fixture
def plain_bert(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import plain_bert

    yield plain_bert
    for name in ("plain_bert", "plain_sasrec"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("task", ["temporal", "persona", "global"])
def test_equal_weights_give_equal_losses(plain_bert: Any, task: str) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, N_ITEMS + 1, n) for n in rng.integers(3, 60, 20)]
    train = Sequences.from_lists(rows)
    torch.manual_seed(0)
    model: Any = make_model(
        "consistency",
        N_ITEMS,
        {"task": task, "width": 8, "dropout": 0.0, "temperature": 8.0},
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
        model.items.weight[0].zero_()
    model.prepare(train, torch.device("cpu"))
    stream = TrainingStream(train, targets="whole", max_length=50)
    batch = stream.batch(stream.order(0), 0, 0)
    read: list[Packed] = []
    encode = model.encode

    def spying(tokens: torch.Tensor, packing: Packing, asked: Any = None) -> torch.Tensor:
        read.append(Packed.of(tokens, packing.lengths))
        return encode(tokens, packing, asked)

    model.encode = spying
    torch.manual_seed(3)
    intact = model.task_of(batch)
    torch.manual_seed(3)
    found = model.loss(batch)
    lists, originals = read[0].as_lists(), Packed.of(batch.tokens, batch.lengths).as_lists()
    pad = lambda row: torch.from_numpy(plain_bert.pad_left(np.array(row), 50))  # noqa: E731
    cloze, size = lists[: len(batch)], len(batch)
    hidden = [
        [b if a == MASK else 0 for a, b in zip(*pair, strict=True)]
        for pair in zip(cloze, originals, strict=True)
    ]
    grams = lists[2 * size :] or [[0]] * size
    plain = plain_bert.PlainTeacher(N_ITEMS, task, dim=8, dropout=0.0)
    missing, unknown = plain.load_state_dict(weights_of(model), strict=False)
    assert not unknown and all(name.startswith("classifier") for name in missing)
    assert intact.asked.all()
    for logits in ("gaps", "all"):
        plain.logits = logits
        total = plain.loss(
            *(torch.stack([pad(row) for row in part]) for part in (cloze, hidden)),
            torch.stack([pad(row) for row in lists[size : 2 * size]]),
            torch.stack([pad(row) for row in grams]),
            torch.from_numpy(intact.intact).float(),
        )
        torch.testing.assert_close(total, found.total, atol=2e-5, rtol=2e-5)
