"""SR-GNN against a plain implementation, one history at a time with dense matrices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from small_models import Thrice
from torch import Tensor

from nextup.data.batches import batch_of_lists
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError
from nextup.models.registry import make_model
from nextup.models.srgnn import SRGNN

N_ITEMS = 9


def model_of(**more: object) -> SRGNN:
    torch.manual_seed(1)
    model = make_model("srgnn", N_ITEMS, {"width": 4, **more})
    assert isinstance(model, SRGNN)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def plain_scores(model: SRGNN, row: list[int], counted: bool = False) -> Tensor:
    """Scores of one history, from the equations of the paper."""
    w, nodes = model.state_dict(), sorted(set(row))
    edges = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for origin, end in pairwise(row):
        at = nodes.index(origin), nodes.index(end)
        edges[at] = edges[at] + 1 if counted else 1
    into = edges.T / edges.sum(dim=0).clamp(min=1)[:, None]
    out = edges / edges.sum(dim=1).clamp(min=1)[:, None]
    v = w["items.weight"][nodes]
    for _ in range(model.config.steps):
        sent = v @ w["propagate.edges.weight"].T + w["propagate.edges.bias"]
        a = torch.cat([into @ sent[:, :4], out @ sent[:, 4:]], dim=1) + w["propagate.edge_bias"]
        v = torch.stack([model.propagate.cell(x, h) for x, h in zip(a, v, strict=True)])
    last = v[nodes.index(row[-1])]
    whole = torch.zeros(4, dtype=torch.float64)
    for item in row:
        each = v[nodes.index(item)]
        asked = torch.sigmoid(model.ask_last(last) + model.ask_each(each))
        whole = whole + (w["weigh.weight"][0] @ asked) * each
    return w["items.weight"] @ model.join(torch.cat([whole, last]))


@pytest.mark.parametrize("more", [{}, {"steps": 3}, {"counted_edges": True}])
def test_scores_are_those_of_the_equations(more: dict[str, object]) -> None:
    model, rng = model_of(**more), np.random.default_rng(0)
    rows = [rng.integers(1, N_ITEMS + 1, n).tolist() for n in (1, 7, 4, 2, 12, 4, 1)]
    batch = batch_of_lists([*rows, [1, 2, 3, 2, 4]], 50)
    found = batch.in_source_order(model.scores(batch))
    counted = bool(more.get("counted_edges"))
    expected = [plain_scores(model, row, counted) for row in [*rows, [1, 2, 3, 2, 4]]]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-12, rtol=1e-10)


def test_the_order_of_older_items_matters_through_their_neighbours_alone() -> None:
    model = model_of()
    batch = batch_of_lists([[1, 2, 3, 4], [2, 1, 3, 4]], 50)
    first, second = batch.in_source_order(model.query(batch))
    assert (first - second).abs().max() > 1e-3
    with torch.no_grad():
        model.propagate.edges.weight.zero_()
        model.propagate.edges.bias.zero_()
    first, second = batch.in_source_order(model.query(batch))
    torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-12)


def test_a_loss_s_gradient_is_that_of_finite_differences() -> None:
    model = model_of(steps=2)
    train = Sequences.from_lists([[1, 2, 3, 2, 4], [5, 6], [7, 7, 8]])
    stream = model.training_stream(train, batch_size=9, seed=0, device=torch.device("cpu"))
    batch = stream.batch(stream.order(0), 0, 0)
    model.loss(batch).total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        gradient, direction = parameter.grad, torch.randn_like(parameter)
        assert gradient is not None
        if name == "items.weight":
            direction[0] = 0
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
                ends.append(float(model.loss(batch).total))
                parameter.add_(direction, alpha=-step)
        slope = (ends[0] - ends[1]) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_every_prefix_is_a_sample_and_a_target_after_every_item_is_refused() -> None:
    assert model_of().targets == "prefix"
    with pytest.raises(ConfigError, match="`targets`: Input should be 'prefix' or 'last'"):
        make_model("srgnn", N_ITEMS, {"targets": "every"})


def test_fresh_weights_are_uniform_and_padding_is_zero() -> None:
    model = make_model("srgnn", 500, {"width": 25})
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() <= 0.2, name
        if parameter.numel() > 500:
            assert float(parameter.detach().std()) == pytest.approx(0.2 / 3**0.5, rel=0.1), name
    assert (model.item_vectors()[0] == 0).all()


def test_dropout_is_on_embedded_items_and_nowhere_else() -> None:
    model, batch = model_of(dropout=0.3), batch_of_lists([[1, 2, 3, 2, 4], [5]], 50)
    assert model.drop.rate == 0.3
    model.drop = Thrice()
    thrice = model.query(batch)
    model.drop = torch.nn.Identity()
    with torch.no_grad():
        model.items.weight.mul_(3)
    torch.testing.assert_close(thrice, model.query(batch))
