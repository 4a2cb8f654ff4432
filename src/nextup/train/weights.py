"""A model's weights by name, and their running average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def weights_of(model: nn.Module, copy: bool = False) -> Weights:
    """Return all weights of a model; without `copy` they share its memory."""
    state = model.state_dict()
    return {name: t.detach().clone() if copy else t.detach() for name, t in state.items()}


@torch.no_grad()
def follow(average: Weights, model: nn.Module, decay: float, step: int) -> None:
    """Move a running average of the weights on by a step, in place.

    Early on it follows faster than `decay` says, so that the fresh weights are soon forgotten.

    Parameters
    ----------
    average
        As `weights_of` copied them.
    model
        Whose weights it follows.
    decay
        How much of the average a step leaves, in ``[0, 1)``.
    step
        Counted over all epochs, from 0.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
