"""HGN against its equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from nextup.data.batches import batch_of_lists
from nextup.data.sequences import Sequences
from nextup.data.stream import Windows
from nextup.errors import ConfigError
from nextup.models.hgn import HGN
from nextup.models.registry import make_model

CPU = torch.device("cpu")
TRAIN = Sequences.from_lists([[1, 2, 3, 4, 5, 6], [7, 8, 9], [2, 9, 4, 1, 3], [10, 11]])


def small(**settings: Any) -> HGN:
    torch.manual_seed(0)
    model = cast("HGN", make_model("hgn", 12, {"max_length": 4, "width": 6, **settings}))
    model.prepare(TRAIN, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


def by_hand(model: HGN, user: int, items: list[int]) -> torch.Tensor:
    """The scores of all items, written out as in the paper, one place after the other."""
    w = model.state_dict()
    u = w["users.weight"][user]
    padding = w.get("padding")
    places = [0] * (4 - len(items)) + items
    features, weights, total = [], [], torch.zeros(6)
    for place, item in enumerate(places):
        if item == 0 and padding is None:
            continue
        e = w["items.weight"][item] if item else padding
        assert e is not None
        gate = torch.sigmoid(
            w["item_gate.weight"] @ e
            + w["item_gate.bias"]
            + w["user_gate.weight"] @ u
            + w["user_gate.bias"]
        )
        f = e * gate
        a = torch.sigmoid(w["place_by_item"][:, 0] @ f + u @ w["place_by_user"][:, place])
        features.append(f)
        weights.append(a)
        total = total + e
    group = sum(a * f for a, f in zip(weights, features, strict=True)) / sum(weights)
    scores: torch.Tensor = w["outputs.weight"] @ (u + group + total) + w["bias"]
    return scores


@pytest.mark.parametrize("window_targets", [0, 3])
@pytest.mark.parametrize("items", [[3, 1, 4, 1], [5], [2, 6, 5]])
def test_scores_are_those_of_the_paper(items: list[int], window_targets: int) -> None:
    model = small(window_targets=window_targets)
    batch = replace(batch_of_lists([items], 4), users=torch.tensor([2]))
    torch.testing.assert_close(model.scores(batch)[0], by_hand(model, 2, items))


def test_rows_of_one_batch_are_answered_as_alone() -> None:
    model = small(window_targets=0)
    lists = [[3], [2, 5, 1], [4, 1, 2, 5, 3, 1]]  # the last is longer than a window
    batch = replace(batch_of_lists(lists, 6), users=torch.tensor([0, 1, 2]))
    expected = [by_hand(model, user, items[-4:]) for user, items in enumerate(lists)]
    torch.testing.assert_close(model.scores(batch), torch.stack(expected))


def test_with_open_gates_it_is_user_plus_mean_plus_sum() -> None:
    model = small()
    with torch.no_grad():
        for name in ("item_gate.weight", "user_gate.weight", "user_gate.bias"):
            model.state_dict()[name].zero_()
        model.item_gate.bias.fill_(50)
        model.place_by_item.zero_()
        model.place_by_user.zero_()
    items = [3, 1, 4, 2]
    batch = replace(batch_of_lists([items], 4), users=torch.tensor([1]))
    e = model.items.weight[items]
    expected = model.users.weight[1] + e.mean(dim=0) + e.sum(dim=0)
    torch.testing.assert_close(model.query(batch)[0], expected)


@pytest.mark.parametrize("settings", [{}, {"window_targets": 0}], ids=["window", "history"])
def test_what_the_gate_of_places_weighs_with_sums_to_one(settings: dict[str, Any]) -> None:
    model = small(**settings)
    with torch.no_grad():
        for item in (3, 8):  # the same features in all places: their mean, however it is weighed
            batch = replace(batch_of_lists([[item] * 4], 4), users=torch.tensor([2]))
            user, own = model.users.weight[2], model.items.weight[item]
            features = own * torch.sigmoid(model.item_gate(own) + model.user_gate(user))
            found = model.encode(batch, last_only=True)[0]
            torch.testing.assert_close(found - user - 4 * own, features, atol=1e-5, rtol=1e-5)


def test_the_order_of_a_window_matters_only_through_the_gate_of_places() -> None:
    model = small()
    one, other = (
        replace(batch_of_lists([items], 4), users=torch.tensor([0]))
        for items in ([3, 1, 4, 2], [2, 4, 3, 1])
    )
    assert (model.query(one) - model.query(other)).abs().max() > 1e-3
    with torch.no_grad():
        model.place_by_user.copy_(model.place_by_user[:, :1].expand(-1, 4).clone())
    torch.testing.assert_close(model.query(one), model.query(other))


def test_each_target_of_a_window_is_compared_with_that_window() -> None:
    model = small(l2=0.0).train()
    assert model.targets == Windows(3)
    stream = model.training_stream(TRAIN, batch_size=10, seed=0, device=CPU)
    batch = stream.batch(stream.order(0), 0, 0)
    assert batch.targets is not None and batch.target_at is not None
    assert batch.negatives is not None and batch.negatives.shape == (len(batch.targets), 1)
    scores = model.scores(batch)
    row = torch.searchsorted(batch.last_at, batch.target_at)
    gap = scores[row, batch.targets] - scores[row, batch.negatives[:, 0]]
    expected = -torch.nn.functional.logsigmoid(gap).mean()
    torch.testing.assert_close(model.loss(batch).total, expected)


def test_l2_weighs_as_against_the_summed_loss() -> None:
    model, free = small(l2=0.5), small(l2=0.0)
    stream = model.training_stream(TRAIN, batch_size=10, seed=0, device=CPU)
    batch = stream.batch(stream.order(0), 0, 0)
    with torch.no_grad():
        for table in (model.items.weight, model.outputs.weight, model.bias):
            table[0] = 0
    free.load_state_dict(model.state_dict())
    squares = sum(float(p.detach().square().sum()) for p in model.parameters())
    extra = (model.loss(batch).total - free.loss(batch).total) * batch.target_total
    assert float(extra.detach()) == pytest.approx(0.25 * squares, rel=1e-4)
    # What several processes add up is the penalty of one.
    half = replace(batch, row_total=2 * batch.row_total)
    extra = (model.loss(half).total - free.loss(half).total) * batch.target_total
    assert float(extra.detach()) == pytest.approx(0.125 * squares, rel=1e-4)


def test_the_gate_of_the_public_code_stays_as_drawn() -> None:
    model = small(train_instance_gate=False)
    trained = {id(p) for group in model.parameter_groups() for p in group.parameters}
    assert id(model.place_by_item) not in trained and id(model.place_by_user) not in trained
    assert len(trained) == len(list(small().parameters())) - 2


@pytest.mark.parametrize("window_targets", [0, 3])
def test_gradients_are_those_of_finite_differences(window_targets: int) -> None:
    model = small(window_targets=window_targets).double()
    batch = replace(batch_of_lists([[3, 1, 4, 2, 6], [5, 6]], 4), users=torch.tensor([0, 2]))
    names = [name for name, p in model.named_parameters()]

    def scores(*values: torch.Tensor) -> torch.Tensor:
        weights = dict(zip(names, values, strict=True))
        found = torch.func.functional_call(model, weights, (batch,), strict=False)
        return cast("torch.Tensor", found)

    model.forward = model.query  # type: ignore[method-assign]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(scores, values, check_undefined_grad=False)


def test_a_history_cannot_have_a_target_after_every_item() -> None:
    with pytest.raises(ConfigError, match="read out once"):
        small(window_targets=0, targets="every")


@pytest.mark.parametrize("window_targets", [0, 3])
def test_windows_read_padding_and_prefixes_do_not(window_targets: int) -> None:
    """The published form is not indifferent to padding: a short history is padded with a vector."""
    model = small(window_targets=window_targets)
    short, long = (
        replace(batch_of_lists([items], 4), users=torch.tensor([2]))
        for items in ([3, 1], [3, 1, 4, 2])
    )
    before = model.scores(short), model.scores(long)
    if window_targets:
        assert model.padding is not None
        with torch.no_grad():
            model.padding += 1.0
        assert not torch.allclose(model.scores(short), before[0])
    else:
        assert model.padding is None
    torch.testing.assert_close(model.scores(long), before[1])
