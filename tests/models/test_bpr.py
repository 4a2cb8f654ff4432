"""BPR-MF against its formula, and what it must learn of a single interaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.models.bpr import BPR
from nextup.models.registry import make_model

N_ITEMS = 9
TRAIN = Sequences.from_lists([[1, 2, 3, 2], [4], [5, 6, 7, 8, 9, 1]])
CPU = torch.device("cpu")
COSTS = {"user_l2": 0.1, "item_l2": 0.02, "negative_l2": 0.3, "bias_l2": 0.07}


def model_of(train: Sequences = TRAIN, n_items: int = N_ITEMS, **more: object) -> BPR:
    torch.manual_seed(1)
    model = make_model("bpr", n_items, {"width": 4, **more})
    assert isinstance(model, BPR)
    model.prepare(train, CPU)
    return model


def lively(**more: object) -> BPR:
    model = model_of(TRAIN, N_ITEMS, **more)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model.double()


def batch_of(model: BPR, train: Sequences = TRAIN, seed: int = 0) -> Batch:
    stream = model.training_stream(train, batch_size=100, seed=seed, device=CPU)
    return stream.batch(stream.order(0), 0, 0)


def test_every_interaction_is_a_sample_the_first_of_a_history_too() -> None:
    batch = batch_of(model_of())
    assert batch.targets is not None and batch.negatives is not None
    found = Counter(zip(batch.users.tolist(), batch.targets.tolist(), strict=True))
    assert found == Counter((user, int(i)) for user, row in enumerate(TRAIN) for i in row)
    for user, negative in zip(batch.users.tolist(), batch.negatives[:, 0].tolist(), strict=True):
        assert negative not in TRAIN[user]


@pytest.mark.parametrize(("bias", "negatives"), [(True, 1), (False, 3)])
def test_the_loss_is_its_formula(bias: bool, negatives: int) -> None:
    model = lively(bias=bias, negatives=negatives, **COSTS)
    batch = batch_of(model)
    assert batch.targets is not None and batch.negatives is not None
    p, q = model.users.weight, model.items.weight
    b = torch.zeros(N_ITEMS + 1, dtype=torch.float64) if model.bias is None else model.bias
    total, pairs = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for u, i, js in zip(batch.users, batch.targets, batch.negatives, strict=True):
        for j in js:
            pairs = pairs - logsigmoid(p[u] @ (q[i] - q[j]) + b[i] - b[j]) / negatives
            total = total + COSTS["negative_l2"] * q[j].square().sum()
            total = total + COSTS["bias_l2"] * b[j].square()
        total = total + COSTS["user_l2"] * p[u].square().sum()
        total = total + COSTS["item_l2"] * q[i].square().sum() + COSTS["bias_l2"] * b[i].square()
    losses = model.loss(batch)
    torch.testing.assert_close(losses.parts["bpr"], (pairs / batch.target_total).detach())
    torch.testing.assert_close(losses.total, (pairs + total) / batch.target_total)


def test_the_gradient_of_one_pair_is_the_chance_of_having_it_wrong() -> None:
    model = lively(**dict.fromkeys(COSTS, 0.0))
    batch = replace(
        batch_of(model),
        users=torch.tensor([0]),
        targets=torch.tensor([3]),
        negatives=torch.tensor([[5]]),
        target_total=1,
    )
    model.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    p, q, b = model.users.weight, model.items.weight, model.bias
    assert b is not None and b.grad is not None and p.grad is not None and q.grad is not None
    wrong = 1 - torch.sigmoid(p[0] @ (q[3] - q[5]) + b[3] - b[5])
    torch.testing.assert_close(b.grad[3], -wrong.detach())
    torch.testing.assert_close(b.grad[5], wrong.detach())
    torch.testing.assert_close(p.grad[0], (-wrong * (q[3] - q[5])).detach())
    torch.testing.assert_close(q.grad[3], (-wrong * p[0]).detach())


def test_gradients_are_those_of_finite_differences() -> None:
    model = lively(negatives=2, **COSTS)
    batch = batch_of(model)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (batch,))
        return result

    model.forward = lambda batch: model.loss(batch).total  # type: ignore[method-assign,assignment]
    # The row of padding is looked up by nobody; its gradient is zero either way.
    assert torch.autograd.gradcheck(run, tuple(weights.values()))


def test_a_constant_added_to_all_biases_changes_nothing_but_their_cost() -> None:
    model = lively(**{**COSTS, "bias_l2": 0.0})
    batch = batch_of(model)
    before = model.loss(batch).total
    with torch.no_grad():
        assert model.bias is not None
        model.bias.add_(3.0)
    torch.testing.assert_close(model.loss(batch).total, before)


def test_what_was_taken_once_comes_to_stand_above_all_that_never_was() -> None:
    train = Sequences.from_lists([[4]])
    model = model_of(train, n_items=2 * N_ITEMS)
    stream = model.training_stream(train, batch_size=4, seed=0, device=CPU)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for epoch in range(30):
        optimizer.zero_grad()
        batch = stream.batch(stream.order(epoch), epoch, 0)
        model.loss(batch).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        scores = model.scores(batch)[0, 1:]
    assert int(scores.argmax()) + 1 == 4
