"""Step sizes, averages and gradients of the loop, against their formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import QUICK, dataset

from nextup.evaluation.protocol import Protocol
from nextup.models.registry import make_model
from nextup.train.config import TrainConfig
from nextup.train.device import make_fabric
from nextup.train.job import Job
from nextup.train.loop import Loop
from nextup.train.schedule import step_size


def loop_of(folder: Path, learning: dict[str, Any] | None = None, **model: Any) -> Loop:
    folder.mkdir(exist_ok=True)
    data = dataset()
    settings = {key: QUICK[key] for key in ("max_length", "width", "layers")}
    torch.manual_seed(0)
    parts = data.split("leave-one-out")
    job = Job(
        fabric=make_fabric("cpu", "32"),
        model=make_model("sasrec", data.n_items, {**settings, "dropout": 0.0, **model}),
        config=TrainConfig(**{"batch_size": 16, **(learning or {})}),
        split=parts,
        train=parts.train,
        protocol=Protocol(),
        seed=0,
        validates=False,
        folder=folder,
        shown=False,
    )
    return Loop(job)


def sizes(steps: int, per_epoch: int = 7, **settings: Any) -> list[float]:
    return [step_size(TrainConfig(**settings), step, per_epoch) for step in range(steps)]


def test_the_step_size_is_constant_unless_asked_otherwise() -> None:
    assert sizes(100, learning_rate=0.3) == [0.3] * 100


def test_warming_up_rises_in_a_line() -> None:
    found = sizes(6, learning_rate=0.4, warmup_steps=4)
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_step_size_falls_to_nothing_over_the_epochs(schedule: str, warmup: int) -> None:
    settings = {"schedule": schedule, "epochs": 5, "warmup_steps": warmup, "learning_rate": 1.0}
    steps = 5 * 7
    found = sizes(2 * steps, **settings)
    for step in range(warmup, steps + 1):
        done = (step - warmup) / (steps - warmup)
        expected = 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        assert found[step] == pytest.approx(expected, abs=1e-12)
    assert found[steps:] == pytest.approx([0.0] * steps, abs=1e-12)


def test_the_step_size_drops_every_few_epochs() -> None:
    settings = {"schedule": "steps", "drop_every": 3, "drop_factor": 0.1, "learning_rate": 1.0}
    expected = np.repeat([1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01], 7)
    np.testing.assert_allclose(sizes(49, **settings), expected)


def test_the_optimiser_is_given_the_step_size_of_each_step(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, {"warmup_steps": 10, "learning_rate": 0.1})
    order = loop.stream.order(0)
    for step in range(3):
        loop._step(order, 0, step)
        assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (step + 1))


def test_one_step_is_adam_on_the_mean_loss(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.95})
    before = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
    order = loop.stream.order(0)
    loop.model.loss(loop.stream.batch(order, 0, 0)).total.backward()
    gradients = {name: p.grad.clone() for name, p in loop.model.named_parameters()}  # type: ignore[union-attr]
    loop.model.zero_grad()
    loop._step(order, 0, 0)
    for name, parameter in loop.model.named_parameters():
        # Adam's first step is the sign of the gradient, whatever the decays.
        g = gradients[name]
        expected = before[name] - 0.01 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-5, rtol=1e-4)


def test_clipping_limits_the_norm_of_the_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = {}
    for limit in (0.0, 0.01):
        loop = loop_of(tmp_path / str(limit), {"clip_norm": limit})

        def note(loop: Loop = loop, limit: float = limit) -> None:
            grads = [p.grad.reshape(-1) for p in loop.parameters if p.grad is not None]
            norms[limit] = float(torch.cat(grads).norm())

        monkeypatch.setattr(loop.optimizer, "step", note)
        loop._step(loop.stream.order(0), 0, 0)
    assert norms[0.0] > 0.02
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_the_weights_with_its_decay(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, {"average": 0.5, "learning_rate": 0.05})
    name = "items.weight"
    expected = loop.model.state_dict()[name].clone()
    order = loop.stream.order(0)
    for step in range(6):
        loop._step(order, 0, step % len(loop.stream))
        now = loop.model.state_dict()[name]
        at = step % len(loop.stream)
        decay = min(0.5, (1 + at) / (10 + at))
        expected = decay * expected + (1 - decay) * now
        torch.testing.assert_close(loop.average[name], expected)
        assert not torch.equal(loop.average[name], now)


def test_without_an_average_none_is_kept(tmp_path: Path) -> None:
    assert loop_of(tmp_path).average == {}


def test_every_epoch_visits_every_history_once_and_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_of(tmp_path, {"epochs": 3})
    visited: dict[int, list[int]] = {}
    batch = loop.stream.batch

    def noted(order: Any, epoch: int, step: int) -> Any:
        made = batch(order, epoch, step)
        visited.setdefault(epoch, []).extend(made.users.tolist())
        return made

    monkeypatch.setattr(loop.stream, "batch", noted)
    loop.run()
    assert sorted(visited) == [0, 1, 2]
    everyone = sorted(loop.stream.users.tolist())
    assert all(sorted(users) == everyone for users in visited.values())
    firsts = {tuple(sorted(users[:16])) for users in visited.values()}
    assert len(firsts) == 3, "the same histories stand in the first step of every epoch"
