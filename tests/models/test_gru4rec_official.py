"""GRU4Rec in its authors' form: states of lanes, shared negatives, and what others got wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from small_models import N_ITEMS, Thrice, dataset_of, scores_of, shop
from torch import Tensor

from nextup.data.batches import batch_of_lists
from nextup.data.lanes import LaneBatch, LaneStream
from nextup.data.negatives import SupportNegatives
from nextup.data.sequences import Sequences
from nextup.models.gru4rec_official import GRU4RecOfficial
from nextup.models.registry import make_model
from nextup.nn.losses import own_column_losses
from nextup.train.config import TrainConfig
from nextup.train.optimizer import make_optimizer

CPU = torch.device("cpu")


def model_of(**settings: Any) -> GRU4RecOfficial:
    """A model in training, all of whose weights are far from zero."""
    torch.manual_seed(0)
    model = make_model("gru4rec_official", N_ITEMS, {"hidden": 8, "negatives": 6, **settings})
    assert isinstance(model, GRU4RecOfficial)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
    return model.double().train()


def stream_of(model: GRU4RecOfficial, train: Sequences, lanes: int) -> LaneStream:
    stream = model.training_stream(train, batch_size=lanes, seed=0, device=CPU)
    model.double()
    return stream


def steps_of(stream: LaneStream) -> list[LaneBatch]:
    return [stream.batch(stream.order(0), 0, step) for step in range(len(stream))]


def walk(model: GRU4RecOfficial, batch: LaneBatch) -> Tensor:
    return model._walk(model.items(batch.tokens), batch)


@pytest.mark.parametrize("bptt", [1, 3, 50])
@pytest.mark.parametrize("lanes", [1, 7, 100])
def test_a_lane_walks_through_the_states_that_answering_replays(bptt: int, lanes: int) -> None:
    model, train = model_of(bptt=bptt, max_length=10), shop()
    met = 0
    seen: dict[int, list[Tensor]] = {}
    for batch in steps_of(stream_of(model, train, lanes)):
        states = walk(model, batch).detach()
        owners = np.repeat(batch.users.numpy(), batch.lengths)
        for state, user in zip(states, owners, strict=True):
            seen.setdefault(int(user), []).append(state)
        met += len(states)
    for user, states in seen.items():
        row = train[user].tolist()[:-1][-10:]
        answered = model.encode(batch_of_lists([row], 10), last_only=False).detach()
        torch.testing.assert_close(torch.stack(states), answered)
    assert met == int(np.minimum(train.lengths - 1, 10).sum())


def test_a_history_begins_from_nothing_in_a_lane_that_has_just_ended_another() -> None:
    model = model_of()
    train = Sequences.from_lists([[1, 2, 3], [9, 4], [5, 6, 7, 8]])
    stream = stream_of(model, train, lanes=2)
    first, second, *_ = steps_of(stream)
    walk(model, first)
    assert second.lanes.tolist() == [0, 1] and second.goes_on.tolist() == [True, False]
    states = walk(model, second)
    fresh = model.query(batch_of_lists([[5]], 10))[0]
    torch.testing.assert_close(states[1], fresh)
    longer = model.query(batch_of_lists([[1, 2]], 10))[0]
    torch.testing.assert_close(states[0], longer)
    assert (states[0] - model.query(batch_of_lists([[2]], 10))[0]).abs().max() > 1e-3


def test_two_rows_without_further_negatives_are_a_choice_of_two() -> None:
    model = model_of(negatives=0)
    batch = steps_of(stream_of(model, Sequences.from_lists([[1, 2], [3, 4]]), lanes=2))[0]
    scores = model.scores(batch_of_lists([[1], [3]], 10)).detach().numpy()
    by_hand = [
        -np.log(np.exp(scores[0, 2]) / (np.exp(scores[0, 2]) + np.exp(scores[0, 4]))),
        -np.log(np.exp(scores[1, 4]) / (np.exp(scores[1, 2]) + np.exp(scores[1, 4]))),
    ]
    assert float(model.loss(batch).total.detach()) == pytest.approx(np.mean(by_hand), rel=1e-12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("loss", ["cross_entropy", "bpr_max", "top1_max"])
def test_a_step_is_its_formula_over_its_columns_alone(loss: str) -> None:
    logq = 0.7 if loss == "cross_entropy" else 0.0
    model = model_of(loss=loss, penalty=1.3, logq=logq)
    batch = steps_of(stream_of(model, shop(), lanes=5))[0]
    assert batch.targets is not None and batch.negatives is not None
    histories = [[item] for item in batch.tokens.tolist()]
    scores = batch_of_lists(histories, 10)
    raw = scores.in_source_order(model.scores(scores)).detach().numpy()
    columns = [*batch.targets.tolist(), *batch.negatives.tolist()]
    counts = np.bincount(np.concatenate(list(shop())), minlength=N_ITEMS + 1)
    log_support = np.log(np.maximum(counts, 1))  # a count, as in the authors' code
    total = 0.0
    for m in range(5):
        o = raw[m, columns]
        others = np.arange(len(columns)) != m
        if loss == "cross_entropy":
            o = o - logq * log_support[columns] * np.where(np.arange(len(columns)) < 5, 1.0, 0.5)
            total += -np.log(np.exp(o[m]) / np.exp(o).sum())
            continue
        o = np.where(o > 0, o, 0.5 * (np.exp(o) - 1)) if loss == "bpr_max" else np.tanh(o)
        s = np.exp(o[others]) / np.exp(o[others]).sum()
        if loss == "bpr_max":
            total += -np.log((s * sigmoid(o[m] - o[others])).sum())
            total += 1.3 * (s * o[others] ** 2).sum()
        else:
            total += (s * (sigmoid(o[others] - o[m]) + sigmoid(o[others] ** 2))).sum()
    assert float(model.loss(batch).total.detach()) == pytest.approx(total / 5, rel=1e-6)
    # Items outside the step have no gradient, so no softmax and no activation went over them.
    model.loss(batch).total.backward()
    touched = torch.zeros(N_ITEMS + 1, dtype=torch.bool)
    touched[[*columns, *batch.tokens.tolist()]] = True
    assert model.items.weight.grad is not None
    assert torch.equal(model.items.weight.grad.abs().sum(dim=1) > 0, touched)


@pytest.mark.parametrize("loss", ["cross_entropy", "bpr_max", "top1_max"])
def test_rows_that_are_alike_have_losses_that_are_alike(loss: Any) -> None:
    model = model_of(loss=loss)
    batch = steps_of(stream_of(model, Sequences.from_lists([[3, 4, 5]] * 6), lanes=6))[0]
    assert batch.targets is not None and batch.negatives is not None
    columns = model.items(torch.cat([batch.targets, batch.negatives]))
    losses = own_column_losses(walk(model, batch) @ columns.T, loss, 1.0)
    torch.testing.assert_close(losses, losses[:1].expand(6))


def test_a_step_reaches_back_as_many_items_as_asked() -> None:
    train = Sequences.from_lists([[1, 2, 3, 4]])
    for bptt, reached in ((1, [False, False, True]), (3, [True, True, True])):
        model = model_of(bptt=bptt, negatives=0)
        tables = []
        for batch in steps_of(stream_of(model, train, lanes=1)):
            x = model.items(batch.tokens)
            x.retain_grad()
            model._walk(x, batch)[-1].sum().backward()
            assert x.grad is not None
            tables.append((x.grad.abs().sum(dim=1) > 0).tolist())
        assert not model.lanes.requires_grad
        assert tables[-1] == reached[-len(tables[-1]) :] and len(tables) == 4 - len(tables[-1])


@pytest.mark.parametrize(
    "more", [{"loss": "bpr_max"}, {"loss": "cross_entropy", "logq": 0.7}, {"loss": "top1_max"}]
)
def test_gradients_through_a_stretch(more: dict[str, Any]) -> None:
    model = model_of(bptt=4, hidden=3, negatives=4, **more)
    batch = steps_of(stream_of(model, Sequences.from_lists([[1, 2, 3, 4], [5, 6, 7]]), 2))[0]
    inputs = list(model.parameters())

    def loss(*_: Tensor) -> Tensor:
        return model.loss(batch).total

    assert torch.autograd.gradcheck(loss, inputs)


def test_what_dropout_makes_of_a_state_is_carried_on() -> None:
    model = model_of(dropout=0.5, hidden=64)
    first, *_ = steps_of(stream_of(model, shop(), lanes=20))
    states = walk(model, first).detach()
    assert bool(first.carried.all())
    assert torch.equal(model.lanes, states)
    assert 0.4 < float((model.lanes == 0).double().mean()) < 0.6


def test_what_dropout_makes_of_a_state_is_carried_on_within_a_stretch() -> None:
    model = model_of(dropout=0.5, hidden=64, bptt=5)
    batch = steps_of(stream_of(model, Sequences.from_lists([[1, 2, 3, 4, 5, 6]]), lanes=1))[0]
    x = model.items(batch.tokens)
    states = model._walk(x, batch)
    before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
    expected = torch.gru_cell(x, before, *model.recurrence.parameters())
    assert 0.3 < float((states == 0).double().mean()) < 0.7
    torch.testing.assert_close(states, torch.where(states == 0, 0.0, 2 * expected))


def test_losses_without_training_leave_the_lanes_alone() -> None:
    model = model_of().eval()
    first, *_ = steps_of(stream_of(model, shop(), lanes=4))
    model.loss(first)
    assert (model.lanes == 0).all()


def test_answering_knows_nothing_of_the_lanes() -> None:
    model = model_of()
    batch = batch_of_lists([[1, 2, 3], [4]], 10)
    before = scores_of(model.eval(), batch)
    stream_of(model, shop(), lanes=4)
    model.lanes.fill_(1e3)
    assert torch.equal(scores_of(model, batch), before)


def test_inputs_and_outputs_share_one_table_that_starts_as_glorots() -> None:
    torch.manual_seed(0)
    model = make_model("gru4rec_official", 5000, {"hidden": 100})
    assert isinstance(model, GRU4RecOfficial)
    assert model.item_vectors() is model.items.weight
    table = model.items.weight[1:]
    bound = (6 / (5001 + 100)) ** 0.5
    assert float(table.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    for name, weight in model.recurrence.named_parameters():
        expected = (6 / 200) ** 0.5 if name.startswith("weight") else 0.0
        for gate in weight.detach().chunk(3):
            assert float(gate.abs().max()) == pytest.approx(expected, rel=0.01)
    assert (model.bias == 0).all()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_items_are_drawn_by_a_power_of_their_support(power: float) -> None:
    counts = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    sampler = SupportNegatives(counts, 40_000, power)
    targets = torch.tensor([1, 8])
    drawn = sampler.draw(torch.zeros(2), targets, torch.Generator().manual_seed(0))
    found = np.bincount(drawn.items.numpy(), minlength=9)[1:]
    expected = counts**power / (counts**power).sum()
    assert chisquare(found, 40_000 * expected).pvalue > 0.001
    assert drawn.log_q is not None and drawn.target_log_q is not None
    support = torch.from_numpy(np.log(counts)).float()
    torch.testing.assert_close(drawn.log_q, power * support[drawn.items - 1])
    torch.testing.assert_close(drawn.target_log_q, support[[0, 7]])


def test_sparse_gradients_train_the_same_model() -> None:
    found = []
    for sparse in (False, True):
        model = model_of(loss="bpr_max")
        model.sparse_gradients = sparse
        stream = stream_of(model, shop(), lanes=8)
        config = TrainConfig.model_validate(
            {"optimizer": "adagrad", "momentum": 0.3, "learning_rate": 0.05}
        )
        optimizer = make_optimizer(config, model.parameter_groups())
        for batch in steps_of(stream):
            model.loss(batch).total.backward()
            assert model.items.weight.grad is not None
            assert model.items.weight.grad.is_sparse == sparse
            optimizer.step()
            optimizer.zero_grad()
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor)


def test_a_step_of_fewer_lanes_weighs_less() -> None:
    model = model_of(negatives=3)
    *_, last = steps_of(stream_of(model, Sequences.from_lists([[1, 2, 3, 4], [5, 6]]), lanes=2))
    assert len(last) == 1 and last.target_total == 2
    whole = model.eval().loss(replace(last, target_total=1)).total
    torch.testing.assert_close(2 * model.loss(last).total, whole)


@pytest.mark.parametrize("split", ["leave-one-out", "last-1", "time:6,8"])
def test_the_times_of_a_dataset_say_which_history_comes_first(split: str) -> None:
    data = dataset_of(Sequences.from_lists([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]))
    times = np.array([2, 5, 6, 8, 3, 4, 7, 9, 1, 5, 6, 8])
    train = replace(data, times=times).split(split).train
    stream = stream_of(model_of(), train, lanes=1)
    assert [int(batch.tokens) for batch in steps_of(stream)] == [9, 1, 5]


def test_dropout_of_embedded_items_is_on_what_is_read_alone() -> None:
    model = model_of(embedding_dropout=0.3)
    assert model.input_drop.rate == 0.3
    batch = steps_of(stream_of(model, Sequences.from_lists([[1, 2, 3], [4, 5, 6]]), 2))[0]
    model.input_drop = Thrice()
    thrice = model.loss(batch).total
    model.input_drop = torch.nn.Identity()
    with torch.no_grad():
        model.recurrence.weight_ih_l0.mul_(3)  # what reads items; what scores them stays
    torch.testing.assert_close(model.loss(batch).total, thrice)
