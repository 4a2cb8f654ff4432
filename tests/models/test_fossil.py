"""Fossil against its formula item by item, and its limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import dataset_of, shop
from torch import Tensor

from nextup.data.batches import Batch, batch_of_lists
from nextup.data.sequences import Sequences
from nextup.models.fossil import Fossil
from nextup.models.registry import make_model
from nextup.models.store import load_users
from nextup.train.fit import fit

N_ITEMS, WIDTH = 9, 4
ROWS = [[1, 2, 3, 2], [4, 1], [5, 6, 7, 8, 9, 1], [7]]
TRAIN = Sequences.from_lists(ROWS)
CPU = torch.device("cpu")


def model_of(**more: object) -> Fossil:
    torch.manual_seed(1)
    model = make_model("fossil", N_ITEMS, {"width": WIDTH, **more})
    assert isinstance(model, Fossil)
    model.prepare(TRAIN, CPU)
    model.users.learnt.fill_(True)
    for parameter in model.parameters():
        if parameter.numel():
            torch.nn.init.normal_(parameter, std=0.7)
    return model.double()


def batch_of(rows: list[list[int]] = ROWS, users: list[int] | None = None) -> Batch:
    batch = batch_of_lists(rows, 50)
    owners = torch.arange(len(rows)) if users is None else torch.tensor(users)
    return replace(batch, users=owners[torch.from_numpy(batch.rows)])


def states_of(model: Fossil, rows: list[list[int]], users: list[int] | None = None) -> Tensor:
    batch = batch_of(rows, users)
    return batch.in_source_order(model.query(batch).detach())


def plain_state(model: Fossil, user: int, row: list[int]) -> Tensor:
    p, alpha, order = model.items.weight, model.config.alpha, model.config.order
    state: Tensor = torch.stack([p[i] for i in row]).sum(dim=0) * len(row) ** -alpha
    for k in range(1, min(order, len(row)) + 1):
        assert model.steps is not None
        state = state + (model.steps[k - 1] + model.users.weight[user, k - 1]) * p[row[-k]]
    return state.detach()


@pytest.mark.parametrize(("order", "alpha"), [(0, 0.5), (1, 0.2), (3, 0.0), (5, 1.0)])
def test_states_are_those_of_the_formula_at_every_place(order: int, alpha: float) -> None:
    model = model_of(order=order, alpha=alpha)
    batch = batch_of()
    expected = [
        plain_state(model, int(row), ROWS[row][:end])
        for row in batch.rows
        for end in range(1, len(ROWS[row]) + 1)
    ]
    every = model.encode(batch, last_only=False)
    torch.testing.assert_close(every, torch.stack(expected))
    torch.testing.assert_close(model.encode(batch, last_only=True), every[batch.last_at])


def test_scores_are_products_with_the_other_table_and_a_bias() -> None:
    model = model_of()
    batch = batch_of()
    assert model.bias is not None
    expected = model.query(batch) @ model.outputs.weight.T + model.bias
    torch.testing.assert_close(model.scores(batch), expected)


def test_without_steps_only_which_items_there_are_counts() -> None:
    model = model_of(order=0)
    one, other = states_of(model, [[1, 2, 3, 2], [2, 3, 2, 1]])
    torch.testing.assert_close(one, other)


def test_without_weights_and_exponent_items_are_added_up() -> None:
    model = model_of(alpha=0.0)
    with torch.no_grad():
        assert model.steps is not None
        model.steps.zero_()
        model.users.weight.zero_()
    (found,) = states_of(model, [[3, 5, 3]])
    p = model.items.weight.detach()
    torch.testing.assert_close(found, 2 * p[3] + p[5])


def test_items_beyond_the_last_few_may_stand_in_any_order() -> None:
    model, rng = model_of(order=2), np.random.default_rng(0)
    older = [1, 2, 3, 2, 4, 6]
    rows = [[*rng.permutation(older).tolist(), 8, 9] for _ in range(4)]
    states = states_of(model, rows, [2] * 4)
    torch.testing.assert_close(states, states[:1].expand_as(states))
    swapped = states_of(model, [[*older, 9, 8]], [2])
    assert (swapped - states[:1]).abs().max() > 0.1


def test_a_mean_does_not_change_when_the_history_is_had_twice() -> None:
    model = model_of(alpha=1.0, order=0)
    one, twice = states_of(model, [[3, 5, 7], [3, 5, 7, 3, 5, 7]])
    torch.testing.assert_close(one, twice)


@pytest.mark.parametrize("targets", ["every", "prefix"])
def test_gradients_are_those_of_finite_differences(targets: str) -> None:
    model = model_of(l2=0.1, order=2, targets=targets)
    stream = model.training_stream(TRAIN, batch_size=100, seed=0, device=CPU)
    batch = stream.batch(stream.order(0), 0, 0)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (batch,))
        return result

    model.forward = lambda batch: model.loss(batch).total  # type: ignore[method-assign,assignment]
    assert torch.autograd.gradcheck(run, tuple(weights.values()))


@pytest.mark.parametrize("targets", ["every", "prefix"])
def test_the_penalty_is_the_squares_of_what_a_step_read_and_compared(targets: str) -> None:
    model = model_of(l2=0.3, targets=targets)
    stream = model.training_stream(TRAIN, batch_size=100, seed=0, device=CPU)
    batch = stream.batch(stream.order(0), 0, 0)
    assert batch.targets is not None and batch.negatives is not None
    found = model.loss(batch).total
    bare = model_of(targets=targets, l2=0.0).loss(batch).total
    expected = torch.zeros((), dtype=torch.float64)
    for item in batch.tokens.tolist():
        expected += model.items.weight[item].square().sum()
    for item in [*batch.targets.tolist(), *batch.negatives.flatten().tolist()]:
        assert model.bias is not None
        expected += model.outputs.weight[item].square().sum() + model.bias[item] ** 2
    for user in batch.users.tolist():
        expected += model.users.weight[user].square().sum()
    torch.testing.assert_close(found, bare + 0.3 * expected / len(batch.targets))


def test_without_steps_nobody_is_known_and_no_names_are_kept(tmp_path: Path) -> None:
    data, quick = dataset_of(shop(30)), {"order": 0, "epochs": 1, "width": 4}
    run = fit(data, "fossil", run=tmp_path / "run", settings=quick, progress=False)
    assert load_users(run.recommender_folder) is None
    run = fit(data, "fossil", run=tmp_path / "two", settings={**quick, "order": 1}, progress=False)
    assert load_users(run.recommender_folder) is not None
