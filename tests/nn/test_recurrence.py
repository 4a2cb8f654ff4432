"""The recurrence over packed rows is PyTorch's GRU, run over each history by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import close
from torch import nn

from nextup.data.batches import batch_of_lists
from nextup.models.gru4rec import GRU4Rec
from nextup.models.registry import make_model
from nextup.nn.recurrence import time_major


def model_of(layers: int = 1, hidden: int = 6) -> GRU4Rec:
    torch.manual_seed(0)
    settings = {"width": 6, "hidden": hidden, "layers": layers, "dropout": 0.0}
    model = make_model("gru4rec", 30, settings)
    assert isinstance(model, GRU4Rec)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hidden", [6, 9])
def test_states_are_those_of_a_gru_over_each_history_alone(layers: int, hidden: int) -> None:
    model = model_of(layers, hidden)
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 31, n).tolist() for n in (4, 1, 9, 9, 2, 1, 30)]
    batch = batch_of_lists(histories, 50)
    states = model.encode(batch, last_only=False)
    last = model.encode(batch, last_only=True)
    ends = np.cumsum(batch.lengths)
    for place, row in enumerate(batch.rows):
        tokens = torch.tensor(histories[row])
        alone, _ = model.recurrence(model.items(tokens)[:, None, :])
        expected = model.project(alone[:, 0])
        close(states[ends[place] - len(tokens) : ends[place]], expected, 1e-12)
        close(last[place], expected[-1], 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=20).map(sorted))
def test_steps_in_time_visit_every_token_once_longest_rows_first(lengths: list[int]) -> None:
    ns = np.array(lengths)
    order, sizes = time_major(ns)
    assert sorted(order.tolist()) == list(range(ns.sum()))
    assert sizes.tolist() == [int((ns > t).sum()) for t in range(ns.max())]
    row = np.repeat(np.arange(len(ns)), ns)
    step = np.concatenate([np.arange(n) for n in ns])
    at = 0
    for t, size in enumerate(sizes):
        here = order[at : at + size]
        assert (step[here] == t).all()
        assert row[here].tolist() == list(range(len(ns) - 1, len(ns) - 1 - size, -1))
        at += size


def test_the_first_state_of_a_history_starts_from_zero_whatever_ran_before_it() -> None:
    model = model_of()
    alone = model.query(batch_of_lists([[7]], 50))
    close(model.query(batch_of_lists([[1, 2, 3, 4], [7]], 50))[:1], alone, 1e-12)
