"""How the step size rises and falls."""

from __future__ import annotations

import math

from nextup.train.config import TrainConfig


def step_size(config: TrainConfig, step: int, per_epoch: int) -> float:
    """Return the step size of a step.

    Parameters
    ----------
    config
        Settings of training: ``learning_rate``, ``warmup_steps``, ``schedule``, ``epochs``.
    step
        Counted over all epochs, from 0.
    per_epoch
        Steps of an epoch.

    Examples
    --------
    >>> [step_size(TrainConfig(learning_rate=0.4, warmup_steps=4), step, 10) for step in (0, 1, 9)]
    [0.1, 0.2, 0.4]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "steps":
        drops = step // per_epoch // config.drop_every
        return config.learning_rate * config.drop_factor**drops
    last = max(config.epochs * per_epoch - config.warmup_steps, 1)
    done = min((step - config.warmup_steps) / last, 1.0)
    left = 1.0 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * left
