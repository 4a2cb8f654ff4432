"""FPMC against its formula, and its two halves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nextup.data.batches import Batch, batch_of_lists, gather, items_on
from nextup.data.sequences import Sequences
from nextup.models.fpmc import FPMC
from nextup.models.registry import make_model

N_ITEMS, WIDTH = 9, 3
TRAIN = Sequences.from_lists([[1, 2, 3, 2], [4, 1], [5, 6, 7, 8, 9, 1]])
CPU = torch.device("cpu")


def model_of(**more: object) -> FPMC:
    torch.manual_seed(1)
    model = make_model("fpmc", N_ITEMS, {"width": WIDTH, **more})
    assert isinstance(model, FPMC)
    model.prepare(TRAIN, CPU)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model.double()


def step_of(model: FPMC) -> Batch:
    stream = model.training_stream(TRAIN, batch_size=100, seed=0, device=CPU)
    return stream.batch(stream.order(0), 0, 0)


def asked(users: list[int], rows: list[list[int]]) -> Batch:
    batch = batch_of_lists(rows, 50)
    return replace(batch, users=torch.tensor(users)[torch.from_numpy(batch.rows)])


def scores_of(model: FPMC, users: list[int], rows: list[list[int]]) -> Tensor:
    batch = asked(users, rows)
    return batch.in_source_order(model.scores(batch).detach())[:, 1:]


@pytest.mark.parametrize("targets", ["every", "prefix"])
def test_the_loss_is_its_formula(targets: str) -> None:
    model = model_of(targets=targets, l2=0.1)
    batch = step_of(model)
    assert batch.targets is not None and batch.negatives is not None
    assert batch.target_at is not None
    u, a = model.users.weight, model.last_items.weight
    v, b = model.outputs.weight.split(WIDTH, dim=1)  # type: ignore[no-untyped-call]
    owners = torch.repeat_interleave(batch.users, torch.from_numpy(batch.lengths))
    total = torch.zeros((), dtype=torch.float64)
    for at, i, (j,) in zip(batch.target_at, batch.targets, batch.negatives, strict=True):
        user, last = owners[at], batch.tokens[at]
        total = total - logsigmoid(u[user] @ (v[i] - v[j]) + a[last] @ (b[i] - b[j]))
        rows = [u[user], a[last], v[i], b[i], v[j], b[j]]
        total = total + 0.1 * torch.stack([row.square().sum() for row in rows]).sum()
    assert len(batch.targets) == 3 + 1 + 5
    torch.testing.assert_close(model.loss(batch).total, total / len(batch.targets))


def test_without_users_it_is_a_markov_chain() -> None:
    model = model_of()
    with torch.no_grad():
        model.users.weight.zero_()
    one, other, same = scores_of(model, [0, 2, 0], [[1, 2, 3], [7, 3], [4, 5]])
    torch.testing.assert_close(one, other)
    assert (one - same).abs().max() > 0.1


def test_without_last_items_it_is_matrix_factorisation() -> None:
    model = model_of()
    with torch.no_grad():
        model.last_items.weight.zero_()
    one, other, same = scores_of(model, [1, 1, 2], [[1, 2, 3], [7], [7]])
    torch.testing.assert_close(one, other)
    expected = model.outputs.weight[1:, :WIDTH] @ model.users.weight[1]
    torch.testing.assert_close(one, expected.detach())
    assert (one - same).abs().max() > 0.1


def test_users_with_the_same_vector_get_the_same_scores() -> None:
    model = model_of()
    with torch.no_grad():
        model.users.weight[2] = model.users.weight[0]
    one, other = scores_of(model, [0, 2], [[1, 4], [8, 4]])
    torch.testing.assert_close(one, other)


def test_strangers_are_answered_from_their_items_at_every_place_alike() -> None:
    model = model_of()
    model.conclude(TRAIN, CPU)
    batch = gather(items_on(TRAIN, CPU), TRAIN.starts, TRAIN.ends, 50)
    every = model.encode(batch, last_only=False)
    ends = torch.from_numpy(batch.lengths).cumsum(0)
    for row in range(len(batch)):
        first, end = int(ends[row] - batch.lengths[row]), int(ends[row])
        for at in range(first, end):
            alone = batch_of_lists([batch.tokens[first : at + 1].tolist()], 50)
            torch.testing.assert_close(model.query(alone)[0], every[at])


def test_gradients_are_those_of_finite_differences() -> None:
    model = model_of(l2=0.1)
    batch = step_of(model)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (batch,))
        return result

    model.forward = lambda batch: model.loss(batch).total  # type: ignore[method-assign,assignment]
    assert torch.autograd.gradcheck(run, tuple(weights.values()))
