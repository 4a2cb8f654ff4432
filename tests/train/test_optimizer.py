"""The optimisers: their formulas, moving by rows, and that they survive a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import dataset, quick, timeless
from torch import Tensor, nn

from nextup.errors import ConfigError
from nextup.models.base import ParameterGroup
from nextup.models.store import load_model
from nextup.studies.cell import Cell
from nextup.train.config import TrainConfig
from nextup.train.loop import Loop
from nextup.train.optimizer import Descent, make_optimizer, takes_sparse

RATE, MOMENTUM = 0.1, 0.4


def table(rows: int = 6, width: int = 3) -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(rows, width, dtype=torch.float64))


def gradients(steps: int, shape: torch.Size) -> list[Tensor]:
    """Gradients of a few steps, each of which meets only some rows."""
    torch.manual_seed(1)
    found = torch.randn(steps, *shape, dtype=torch.float64)
    met = torch.rand(steps, shape[0]) < 0.5
    return list(found * met[:, :, None])


def moved(weight: nn.Parameter, steps: list[Tensor], **settings: Any) -> Tensor:
    by_rows = settings.pop("by_rows", False)
    decay = settings.pop("weight_decay", 0.0)
    group = {"params": [weight], "by_rows": by_rows, "weight_decay": decay}
    optimizer = Descent([group], RATE, **settings)
    for gradient in steps:
        weight.grad = gradient
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_adagrad_starts_at_zero_has_epsilon_in_the_root_and_carries_whole_steps(
    momentum: float,
) -> None:
    weight = table()
    steps = gradients(5, weight.shape)
    expected, squares, velocity = (weight.detach().clone(), 0.0, 0.0)
    for g in steps:
        squares = squares + g**2
        velocity = momentum * velocity - RATE * g / (squares + 1e-6) ** 0.5
        expected = expected + velocity
    torch.testing.assert_close(moved(weight, steps, momentum=momentum), expected)


@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_plain_steps_with_momentum_are_stock_sgd(momentum: float) -> None:
    weight, stock = table(), table()
    steps = gradients(5, weight.shape)
    optimizer = torch.optim.SGD([stock], RATE, momentum=momentum)
    for gradient in steps:
        stock.grad = gradient
        optimizer.step()
    found = moved(weight, steps, momentum=momentum, adaptive=False)
    torch.testing.assert_close(found, stock.detach())


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_a_sparse_gradient_moves_what_a_dense_one_by_rows_moves(
    adaptive: bool, momentum: float
) -> None:
    settings: dict[str, Any] = {"adaptive": adaptive, "momentum": momentum, "weight_decay": 0.1}
    dense, sparse = table(), table()
    steps = gradients(6, dense.shape)
    one = moved(dense, steps, by_rows=True, **settings)
    other = moved(sparse, [g.to_sparse(1) for g in steps], by_rows=True, **settings)
    torch.testing.assert_close(one, other)


def test_rows_that_were_not_met_stay_where_they_are_though_they_moved_before() -> None:
    steps = gradients(2, table().shape)
    for by_rows in (True, False):
        before = moved(table(), steps[:1], momentum=MOMENTUM, by_rows=by_rows)
        after = moved(table(), steps, momentum=MOMENTUM, by_rows=by_rows)
        passed = (steps[0] != 0).any(dim=1) & ~(steps[1] != 0).any(dim=1)
        assert passed.any()
        assert torch.equal(before[passed], after[passed]) is by_rows


def test_a_row_met_twice_is_squared_once() -> None:
    # Two looks at one row are one gradient: their sum is squared, not each.
    weight = table()
    at = torch.tensor([[2, 2]])
    values = torch.ones(2, 3, dtype=torch.float64)
    twice = torch.sparse_coo_tensor(at, values, weight.shape, check_invariants=True)
    whole = torch.zeros_like(weight)
    whole[2] = 2.0
    expected = moved(table(), [whole])
    torch.testing.assert_close(moved(weight, [twice]), expected)


def test_the_settings_choose() -> None:
    weight = table()
    groups = [ParameterGroup([weight], by_rows=True)]
    adam = make_optimizer(TrainConfig(), groups)
    assert isinstance(adam, torch.optim.AdamW)
    adagrad = make_optimizer(TrainConfig(optimizer="adagrad", momentum=0.3), groups)
    assert isinstance(adagrad, Descent) and adagrad.adaptive
    assert adagrad.param_groups[0]["momentum"] == 0.3 and adagrad.param_groups[0]["by_rows"]
    sgd = make_optimizer(TrainConfig(optimizer="sgd"), groups)
    assert isinstance(sgd, Descent) and not sgd.adaptive
    assert takes_sparse(TrainConfig(optimizer="adagrad"))
    assert not takes_sparse(TrainConfig())
    assert not takes_sparse(TrainConfig(optimizer="sgd", clip_norm=1.0))
    assert not takes_sparse(TrainConfig(optimizer="sgd"), processes=2)


@pytest.mark.parametrize("name", ["adam", "adagrad", "sgd"])
def test_coupled_decay_is_an_l2_term_of_the_loss(name: str) -> None:
    steps = gradients(5, table().shape)
    found = []
    for decay in (0.3, 0.0):
        weight = table()
        config = TrainConfig.model_validate(
            {"optimizer": name, "weight_decay": decay, "coupled_decay": True, "learning_rate": 0.1}
        )
        optimizer = make_optimizer(config, [ParameterGroup([weight])])
        for gradient in steps:
            weight.grad = gradient + (0.3 - decay) * weight.detach()
            optimizer.step()
        found.append(weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_weights_set_apart_do_not_decay_coupled_or_not() -> None:
    for coupled in (False, True):
        config = TrainConfig(weight_decay=0.3, coupled_decay=coupled)
        groups = [ParameterGroup([table()]), ParameterGroup([table()], decays=False)]
        made = make_optimizer(config, groups)
        assert [group["weight_decay"] for group in made.param_groups] == [0.3, 0.0]


def test_momentum_with_adam_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="momentum is for adagrad and sgd"):
        quick(dataset(), tmp_path / "run", momentum=0.5)


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_an_interrupted_run_goes_on_with_its_sums_and_its_momentum(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"optimizer": optimizer, "momentum": 0.5, "epochs": 3, "checkpoint_seconds": 0.0}
    whole = quick(dataset(), tmp_path / "whole", **settings)
    step = Loop._step

    def stop(self: Loop, order: object, epoch: int, at: int) -> Tensor:
        if (epoch, at) == (1, 2):
            raise KeyboardInterrupt
        return step(self, order, epoch, at)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            quick(dataset(), tmp_path / "run", **settings)
    run = quick(dataset(), tmp_path / "run", resume=True, **settings)
    assert timeless(run.log()) == timeless(whole.log())
    one, other = (load_model(each.recommender_folder)[0].state_dict() for each in (run, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_default_changes_neither_a_studys_run_nor_one_begun_before_the_setting_was(
    tmp_path: Path,
) -> None:
    plain = Cell("toys", "sasrec")
    named = Cell("toys", "sasrec", settings={"optimizer": "adam", "momentum": 0.0})
    assert plain.identity == named.identity and plain.name == named.name
    assert "optimizer" not in plain._reduced["train_config"]
    run = quick(dataset(), tmp_path / "run", epochs=1)
    config = json.loads((run.path / "config.json").read_text())
    del config["train_config"]["optimizer"], config["train_config"]["momentum"]
    (run.path / "config.json").write_text(json.dumps(config))
    assert quick(dataset(), run.path, epochs=1, resume=True).finished
