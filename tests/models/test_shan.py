"""SHAN against its equations, one history at a time, and what attention must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from nextup.data.batches import Batch, batch_of_lists
from nextup.data.sequences import Sequences
from nextup.models.registry import make_model
from nextup.models.shan import SHAN

CPU = torch.device("cpu")
ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [2, 9, 4, 1, 3], [10, 11], [12, 4, 4, 4, 1]]


def model_of(**more: Any) -> SHAN:
    torch.manual_seed(0)
    model = make_model("shan", 12, {"width": 4, **more})
    assert isinstance(model, SHAN)
    model.double().prepare(Sequences.from_lists(ROWS), CPU)
    model.double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model.eval()


def batch_for(user: int, *rows: list[int]) -> Batch:
    """The same user with several histories."""
    batch = batch_of_lists(rows, 50)
    return replace(batch, users=torch.full((len(rows),), user))


def states(model: SHAN, user: int, *rows: list[int]) -> Tensor:
    batch = batch_for(user, *rows)
    with torch.no_grad():
        return batch.in_source_order(model.query(batch))


def attended(u: Tensor, vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    chances = torch.softmax(torch.stack([u @ torch.relu(weight @ v + bias) for v in vectors]), 0)
    return chances @ vectors


def by_hand(model: SHAN, user: int, row: list[int]) -> Tensor:
    w, short = model.state_dict(), model.config.short
    u, v = w["users.weight"][user], w["items.weight"]
    older = row[:-short] or row
    long = attended(u, v[older], w["long_term.weight"], w["long_term.bias"])
    both = torch.cat([long[None], v[row[-short:]]])
    return attended(u, both, w["hybrid.weight"], w["hybrid.bias"])


@pytest.mark.parametrize("short", [1, 2, 5])
def test_states_are_those_of_the_equations(short: int) -> None:
    model = model_of(short=short)
    for user in range(len(ROWS)):
        found = states(model, user, *ROWS)
        expected = torch.stack([by_hand(model, user, row) for row in ROWS])
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


def test_a_short_history_is_its_own_long_set() -> None:
    model = model_of(short=3)
    u, row = model.users.weight[0], [5, 7]
    long = model.long_interest(u[None], model.items.weight[row], np.array([2]))[0]
    layer = model.long_term
    expected = attended(u, model.items.weight[row], layer.weight, layer.bias)
    torch.testing.assert_close(long, expected, atol=1e-12, rtol=1e-10)
    alone = states(model, 0, [5])[0]
    torch.testing.assert_close(alone, model.items.weight[5].detach(), atol=1e-12, rtol=1e-10)


def test_an_interest_lies_among_the_items_it_is_made_of() -> None:
    model, rng = model_of(), np.random.default_rng(0)
    for user in range(len(ROWS)):
        row = (1 + rng.permutation(12)[:4]).tolist()
        state = states(model, user, row)[0].numpy()
        vectors = model.items.weight[row].detach().numpy()
        system = np.vstack([vectors.T, np.ones(4)])
        weights, residual = nnls(system, np.append(state, 1.0))
        assert residual < 1e-8 and weights.sum() == pytest.approx(1)


def test_both_sets_are_sets_but_not_one() -> None:
    model = model_of(short=2)
    first, *others = states(model, 1, [1, 2, 3, 4, 5], [3, 1, 2, 5, 4], [1, 2, 4, 3, 5])
    torch.testing.assert_close(first, others[0], atol=1e-12, rtol=1e-12)
    assert (first - others[1]).abs().max() > 1e-3


def test_the_user_asks_in_both_attentions() -> None:
    model, row = model_of(), [1, 2, 3, 4, 5]
    one, other = states(model, 0, row)[0], states(model, 2, row)[0]
    assert (one - other).abs().max() > 1e-3
    with torch.no_grad():
        model.users.weight[0] = 0  # who asks for nothing gets the mean of means
    v = model.items.weight.detach()
    expected = torch.stack([v[[1, 2, 3]].mean(0), v[4], v[5]]).mean(0)
    torch.testing.assert_close(states(model, 0, row)[0], expected, atol=1e-12, rtol=1e-12)


def test_a_stranger_is_answered_by_the_vector_their_history_suggests() -> None:
    model, row = model_of(), [1, 2, 3]
    model.conclude(Sequences.from_lists(ROWS), CPU)
    batch = batch_of_lists([row], 50)
    batch = replace(batch, users=torch.tensor([-1]))
    suggested = model.users.mean + (model.describe(batch) - model.users.centre) @ model.users.slope
    expected = model.interest(suggested, batch)
    assert torch.equal(model.query(batch), expected)
    assert torch.isfinite(expected).all()


def test_l2_is_of_what_a_sample_touches() -> None:
    model = model_of(vector_l2=0.3, attention_l2=0.7)
    stream = model.training_stream(Sequences.from_lists(ROWS), batch_size=5, seed=0, device=CPU)
    batch = stream.batch(stream.order(0), 0, 0)
    assert batch.targets is not None and batch.negatives is not None
    losses, v = model.loss(batch), model.items.weight
    touched = [v[batch.targets], v[batch.negatives], model.users.weight[batch.users]]
    cost = 0.3 / 5 * sum(float(t.detach().square().sum()) for t in touched)
    for layer in (model.long_term, model.hybrid):
        cost += 0.7 * float(layer.weight.detach().square().sum())
    assert float(losses.total.detach()) == pytest.approx(float(losses.parts["bpr"]) + cost)


def test_gradients_are_those_of_finite_differences() -> None:
    model, batch = model_of(), batch_for(0, *ROWS)
    batch = replace(batch, users=torch.arange(len(ROWS)))
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (batch, True))
        return result

    model.forward = model.encode  # type: ignore[method-assign,assignment]
    assert torch.autograd.gradcheck(run, tuple(weights.values()))


def test_fresh_weights_have_the_stated_spread() -> None:
    model = make_model("shan", 500, {"width": 48})
    weights = model.state_dict()
    assert float(weights["items.weight"][1:].std()) == pytest.approx(0.01, rel=0.05)
    for name in ("long_term.weight", "hybrid.weight"):
        assert weights[name].abs().max() <= 0.25
        assert float(weights[name].std()) == pytest.approx(0.25 / 3**0.5, rel=0.1)
