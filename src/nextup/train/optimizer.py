"""The optimisers of training: Adam, and plain or adaptive steps with momentum.

``adam`` is AdamW (Loshchilov & Hutter, ICLR 2019) or, with ``coupled_decay``, Adam as it was
before. ``adagrad`` is Duchi, Hazan & Singer, JMLR 2011 as GRU4Rec's authors use it: the sum of
squares starts at zero, epsilon stands inside the root, and momentum carries whole steps
(``v <- mu v - lr g / sqrt(G + eps)``). ``sgd`` is the same without the root. (PyTorch's Adagrad
has no momentum and adds epsilon outside the root.)

Tables of items may be moved by rows (`ParameterGroup.by_rows`): rows that a step did not meet stay
as they are, momentum and weight decay included, so that a step costs by what it met and not by the
catalogue. The gradient may then be sparse; a dense one moves the rows in which it is not zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nextup.models.base import ParameterGroup
from nextup.train.config import TrainConfig

EPSILON = 1e-6


class Descent(torch.optim.Optimizer):
    """Steps along the gradient, with momentum, divided by Adagrad's root or not.

    Parameters
    ----------
    groups
        Dictionaries with ``params`` and, if they differ from the arguments, `lr`,
        ``weight_decay``, ``coupled`` and ``by_rows``.
    lr
        Step size.
    momentum
        Share of the step before that is taken again, in ``[0, 1)``.
    adaptive
        Whether each entry's step is divided by the root of its sum of squared gradients.
    eps
        Added to that sum, inside the root.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        adaptive: bool = True,
        eps: float = EPSILON,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "coupled": False, "by_rows": False}
        super().__init__(groups, {**defaults, "momentum": momentum, "eps": eps})
        self.adaptive = adaptive

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all weights that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self._state_of(weight, group)
                if weight.grad.is_sparse or group["by_rows"]:
                    rows, gradient = _met(weight.grad)
                    met = {name: table.index_select(0, rows) for name, table in state.items()}
                    some = weight.index_select(0, rows) if group["weight_decay"] else weight
                    weight.index_add_(0, rows, _change(gradient, group, some, **met))
                    for name, table in state.items():
                        table.index_copy_(0, rows, met[name])
                else:
                    weight.add_(_change(weight.grad, group, weight, **state))

    def _state_of(self, weight: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[weight]
        if self.adaptive and "squares" not in state:
            state["squares"] = torch.zeros_like(weight)
        if group["momentum"] > 0 and "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        return state


def _met(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows have a gradient, and the gradient of each."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    rows = (gradient.reshape(len(gradient), -1) != 0).any(dim=1).nonzero().squeeze(1)
    return rows, gradient.index_select(0, rows)


def _change(
    gradient: Tensor,
    group: dict[str, Any],
    weight: Tensor,
    squares: Tensor | None = None,
    velocity: Tensor | None = None,
) -> Tensor:
    """Return what a step adds to the weights; the state moves on, in place.

    The weights themselves are read only if they decay.
    """
    rate, decay = group["lr"], group["weight_decay"]
    if decay and group["coupled"]:
        gradient = gradient + decay * weight
    if squares is not None:
        squares.addcmul_(gradient, gradient)
        gradient = gradient / squares.add(group["eps"]).sqrt_()
    change: Tensor
    if velocity is None:
        change = gradient * -rate
    else:
        change = velocity.mul_(group["momentum"]).sub_(gradient, alpha=rate)
    if decay and not group["coupled"]:
        change = change - rate * decay * weight
    return change


def make_optimizer(config: TrainConfig, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
    """Return the optimiser that the settings of training ask for.

    Parameters
    ----------
    config
        The settings.
    groups
        All trainable weights; each group's `rate` is left to whoever sets the step sizes.
    """
    decay = config.weight_decay
    parts: list[dict[str, Any]] = [
        {"params": group.parameters, "weight_decay": decay if group.decays else 0.0}
        for group in groups
    ]
    if config.optimizer == "adam":
        kind = torch.optim.Adam if config.coupled_decay else torch.optim.AdamW
        betas = (config.beta1, config.beta2)
        return kind(parts, lr=config.learning_rate, betas=betas, fused=True)
    for part, group in zip(parts, groups, strict=True):
        part["by_rows"], part["coupled"] = group.by_rows, config.coupled_decay
    adaptive = config.optimizer == "adagrad"
    return Descent(parts, config.learning_rate, config.momentum, adaptive)


def takes_sparse(config: TrainConfig, processes: int = 1) -> bool:
    """Whether gradients of tables that are moved by rows may be sparse.

    Adam moves all rows, and neither clipping nor summing over processes reads sparse gradients.
    """
    return config.optimizer != "adam" and config.clip_norm == 0 and processes == 1
