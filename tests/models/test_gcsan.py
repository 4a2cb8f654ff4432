"""GC-SAN against a plain implementation, and its limits: no attention, no layers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_models import Thrice
from torch import Tensor

from nextup.data.batches import batch_of_lists
from nextup.models.gcsan import GCSAN, AttentionLayer
from nextup.models.registry import make_model

N_ITEMS = 9
ROWS = [[1, 2, 3, 2, 4], [5], [7, 7], [9, 8, 1, 2], [3, 5, 1, 6, 7, 2]]


def model_of(**more: object) -> GCSAN:
    torch.manual_seed(1)
    model = make_model("gcsan", N_ITEMS, {"width": 4, "layers": 2, **more})
    assert isinstance(model, GCSAN)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model.double().eval()


def states_of(model: GCSAN, rows: list[list[int]] = ROWS) -> Tensor:
    batch = batch_of_lists(rows, 50)
    return batch.in_source_order(model.query(batch))


def nodes_of(model: GCSAN, row: list[int]) -> Tensor:
    """The states at each place of one history, after propagation over a dense graph."""
    w, nodes = model.state_dict(), sorted(set(row))
    edges = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for origin, end in pairwise(row):
        edges[nodes.index(origin), nodes.index(end)] = 1
    into = edges.T / edges.sum(dim=0).clamp(min=1)[:, None]
    out = edges / edges.sum(dim=1).clamp(min=1)[:, None]
    v = w["items.weight"][nodes]
    sent = v @ w["propagate.edges.weight"].T + w["propagate.edges.bias"]
    a = torch.cat([into @ sent[:, :4], out @ sent[:, 4:]], dim=1) + w["propagate.edge_bias"]
    v = torch.stack([model.propagate.cell(x, h) for x, h in zip(a, v, strict=True)])
    return v[[nodes.index(item) for item in row]]


def plain_state(model: GCSAN, row: list[int]) -> Tensor:
    places = nodes_of(model, row)
    x = places
    for number in range(model.config.layers):
        at = f"blocks.{number}."
        w = {k.removeprefix(at): v for k, v in model.state_dict().items() if k.startswith(at)}
        q, k, v = (x @ w["query_key_value.weight"].T).split(4, dim=1)
        f = torch.softmax(q @ k.T / math.sqrt(4), dim=1) @ v
        inner = torch.relu(f @ w["expand.weight"].T + w["expand.bias"])
        x = inner @ w["contract.weight"].T + w["contract.bias"] + f
    share = model.config.attention_weight
    return share * x[-1] + (1 - share) * places[-1]


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_states_are_those_of_the_equations(layers: int) -> None:
    model = model_of(layers=layers)
    expected = torch.stack([plain_state(model, row) for row in ROWS])
    torch.testing.assert_close(states_of(model), expected, atol=1e-11, rtol=1e-9)
    with torch.no_grad():  # answering takes other ways through attention
        torch.testing.assert_close(states_of(model), expected, atol=1e-11, rtol=1e-9)
        alone = torch.cat([states_of(model, [row]) for row in ROWS])
    torch.testing.assert_close(alone, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("more", [{"attention_weight": 0.0}, {"layers": 0}])
def test_without_attention_a_state_is_the_last_item_s_node(more: dict[str, object]) -> None:
    model = model_of(**more)
    expected = torch.stack([nodes_of(model, row)[-1] for row in ROWS])
    torch.testing.assert_close(states_of(model), expected, atol=1e-12, rtol=1e-12)


def test_a_node_beyond_the_reach_of_propagation_is_met_by_attention() -> None:
    rows = [[1, 2, 3, 4, 5], [9, 2, 3, 4, 5]]
    first, second = states_of(model_of(), rows)
    assert (first - second).abs().max() > 1e-4
    first, second = states_of(model_of(attention_weight=0.0), rows)
    # Rows of one batch may be summed in another order, so not to the bit on every processor.
    torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-12)


def test_places_are_a_set_to_attention() -> None:
    model, rng = model_of(), np.random.default_rng(0)
    with torch.no_grad():  # nothing is heard of neighbours
        model.propagate.edges.weight.zero_()
        model.propagate.edges.bias.zero_()
    older = [1, 2, 3, 2, 4, 6]
    rows = [[*rng.permutation(older).tolist(), 8] for _ in range(4)]
    states = states_of(model, rows)
    torch.testing.assert_close(states, states[:1].expand_as(states), atol=1e-12, rtol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    model, batch = model_of(), batch_of_lists(ROWS, 50)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (batch, True))
        return result

    model.forward = model.encode  # type: ignore[method-assign,assignment]
    assert torch.autograd.gradcheck(run, tuple(weights.values()))


def test_dropout_is_on_what_feed_forward_adds_and_nowhere_else() -> None:
    model = model_of(dropout=0.3, layers=2)
    blocks = [block for block in model.blocks if isinstance(block, AttentionLayer)]
    assert [block.drop.rate for block in blocks] == [0.3] * 2
    for block in blocks:
        block.drop = Thrice()  # type: ignore[assignment]
    thrice = states_of(model)
    for block in blocks:
        block.drop = torch.nn.Identity()  # type: ignore[assignment]
        with torch.no_grad():
            block.contract.weight.mul_(3)
            block.contract.bias.mul_(3)
    torch.testing.assert_close(thrice, states_of(model))
