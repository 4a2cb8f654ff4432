"""Graphs of histories against adjacency matrices by hand, and propagation against its equations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import close
from torch import Tensor

from nextup.data.batches import batch_of_lists
from nextup.nn.packing import Packing
from nextup.nn.session_graph import GatedGraph, SessionGraphs

Rows = list[list[int]]


def graphs_of(rows: Rows, counted: bool = False) -> SessionGraphs:
    batch = batch_of_lists(rows, 100)
    return SessionGraphs(batch.tokens, Packing(batch.lengths, batch.device), counted)


def matrices(row: list[int], counted: bool = False) -> tuple[list[int], Tensor, Tensor]:
    """The nodes of one history, and the paper's matrices of edges in and out, by a loop."""
    nodes = sorted(set(row))
    places = {item: place for place, item in enumerate(nodes)}
    edges = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for origin, end in pairwise(row):
        if counted:
            edges[places[origin], places[end]] += 1
        else:
            edges[places[origin], places[end]] = 1
    into = edges.T / edges.sum(dim=0).clamp(min=1)[:, None]
    return nodes, into, edges / edges.sum(dim=1).clamp(min=1)[:, None]


def found_matrices(graphs: SessionGraphs) -> tuple[Tensor, Tensor]:
    eye = torch.eye(len(graphs.items), dtype=torch.float64)
    return graphs.mean_of_predecessors(eye), graphs.mean_of_successors(eye)


def test_the_adjacency_of_a_history_that_comes_back_to_an_item() -> None:
    graphs = graphs_of([[1, 2, 3, 2, 4]])
    assert graphs.items.tolist() == [1, 2, 3, 4]
    assert graphs.node_of.tolist() == [0, 1, 2, 1, 3]
    into, out = found_matrices(graphs)
    half = 0.5
    assert out.tolist() == [[0, 1, 0, 0], [0, 0, half, half], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert into.tolist() == [[0, 0, 0, 0], [half, 0, half, 0], [0, 1, 0, 0], [0, 1, 0, 0]]


def test_an_edge_that_occurs_twice_counts_once_unless_asked_otherwise() -> None:
    row = [1, 2, 1, 2, 1, 3]
    assert found_matrices(graphs_of([row]))[1][0].tolist() == [0, 1 / 2, 1 / 2]
    counted = found_matrices(graphs_of([row], counted=True))[1][0]
    close(counted, torch.tensor([0, 2 / 3, 1 / 3], dtype=torch.float64), 1e-15)


def test_an_item_that_follows_itself_is_its_own_neighbour() -> None:
    into, out = found_matrices(graphs_of([[7, 7]]))
    assert into.tolist() == out.tolist() == [[1.0]]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=9), min_size=1, max_size=6),
    st.booleans(),
)
def test_a_batch_of_graphs_is_each_history_s_own(rows: Rows, counted: bool) -> None:
    rows = sorted(rows, key=len)
    graphs = graphs_of(rows, counted)
    into, out = found_matrices(graphs)
    alone = [matrices(row, counted) for row in rows]
    assert graphs.items.tolist() == [item for nodes, _, _ in alone for item in nodes]
    assert graphs.items[graphs.node_of].tolist() == [item for row in rows for item in row]
    close(into, torch.block_diag(*(each[1] for each in alone)), 1e-15)
    close(out, torch.block_diag(*(each[2] for each in alone)), 1e-15)


def layer(width: int = 3, steps: int = 1) -> GatedGraph:
    torch.manual_seed(0)
    made = GatedGraph(width, steps).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def plain_step(made: GatedGraph, states: Tensor, into: Tensor, out: Tensor) -> Tensor:
    """Equations 1 to 5 as printed; PyTorch's update gate is one minus the paper's."""
    w = made.state_dict()
    width = states.shape[1]
    incoming, outgoing = (states @ w["edges.weight"].T + w["edges.bias"]).split(width, dim=1)
    a = torch.cat([into @ incoming, out @ outgoing], dim=1) + w["edge_bias"]
    wr, wz, wo = (a @ w["cell.weight_ih"].T + w["cell.bias_ih"]).split(width, dim=1)
    ur, uz, uo = (states @ w["cell.weight_hh"].T + w["cell.bias_hh"]).split(width, dim=1)
    r, z = torch.sigmoid(wr + ur), torch.sigmoid(-wz - uz)
    return (1 - z) * states + z * torch.tanh(wo + r * uo)


@pytest.mark.parametrize("steps", [1, 3])
def test_propagation_is_the_paper_s(steps: int) -> None:
    made, row = layer(steps=steps), [1, 2, 3, 2, 4, 4]
    states = torch.randn(4, 3, dtype=torch.float64)
    expected = states
    _, into, out = matrices(row)
    for _ in range(steps):
        expected = plain_step(made, expected, into, out)
    close(made(states, graphs_of([row])), expected, 1e-12)


def test_nothing_is_heard_where_there_is_one_item() -> None:
    states = torch.randn(2, 3, dtype=torch.float64)
    assert (layer().messages(states, graphs_of([[4], [9]])) == 0).all()


def test_a_node_hears_of_its_own_history_only_and_of_as_far_as_there_are_steps() -> None:
    graphs = graphs_of([[1, 2], [1, 2, 3, 4]])
    states = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    for steps in (1, 2):
        heard = torch.autograd.grad(layer(steps=steps)(states, graphs)[2].sum(), states)[0]
        reached = heard.abs().sum(dim=1).nonzero().squeeze(1).tolist()
        assert reached == list(range(2, 3 + steps))


def test_gradients_are_those_of_finite_differences() -> None:
    made, graphs = layer(steps=2), graphs_of([[5], [1, 2, 3, 2, 4]])
    states = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = {name: p.detach().requires_grad_() for name, p in made.named_parameters()}

    def run(states: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(made, given, (states, graphs))
        return result

    assert torch.autograd.gradcheck(run, (states, *weights.values()))


def test_the_order_of_rows_of_a_length_does_not_matter() -> None:
    made, rng = layer(), np.random.default_rng(0)
    rows = [rng.integers(1, 9, 5).tolist() for _ in range(4)]
    table = torch.randn(9, 3, dtype=torch.float64)
    found = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        graphs = graphs_of([rows[at] for at in order])
        places = made(table[graphs.items], graphs)[graphs.node_of].view(4, 5, 3)
        found.append(places[np.argsort(order)])
    close(found[0], found[1], 1e-12)
