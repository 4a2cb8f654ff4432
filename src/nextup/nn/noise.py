"""Dropout whose random bits cost little.

On a CPU the stock Bernoulli draw costs more than the matrix product next to it. Here one
64-bit draw gives eight (or four) masks: a byte decides where the rate is a multiple of 1/256,
two bytes otherwise, so the rate is exact to 2^-16 and the scale follows the exact rate.

Inside `twin_noise` the second half of a batch meets the masks of the first half, so that two
copies of the same rows differ in nothing but what is done to them on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from nextup.errors import ConfigError
from nextup.nn.packing import Packing

_twins: ContextVar[bool] = ContextVar("twins", default=False)


@contextmanager
def twin_noise() -> Iterator[None]:
    """Let the two halves of every batch meet the same dropout masks (common random numbers)."""
    before = _twins.set(True)
    try:
        yield
    finally:
        _twins.reset(before)


def twins() -> bool:
    """Whether the two halves of a batch are to meet the same noise."""
    return _twins.get()


def keep_mask(
    shape: torch.Size | tuple[int, ...], rate: float, device: torch.device, half: int = 0
) -> tuple[Tensor, float]:
    """Draw a mask that is False with probability `rate`.

    Parameters
    ----------
    shape, rate, device
        Of the mask.
    half
        The dimension along which twins lie side by side; see `twin_noise`.

    Returns
    -------
    tuple
        ``bool`` of `shape` (True keeps), and the scale ``1 / (1 - rate)`` of what is kept.
    """
    if twins():
        part = (*shape[:half], shape[half] // 2, *shape[half + 1 :])
        keep, scale = _draw(part, rate, device)
        return torch.cat([keep, keep], dim=half), scale
    return _draw(tuple(shape), rate, device)


def _draw(shape: tuple[int, ...], rate: float, device: torch.device) -> tuple[Tensor, float]:
    count = math.prod(shape)
    if device.type != "cpu":
        return torch.rand(shape, device=device) >= rate, 1.0 / (1.0 - rate)
    fine = (rate * 256) != int(rate * 256)
    per_word, levels = (4, 65536) if fine else (8, 256)
    threshold = min(round(rate * levels), levels - 1)
    words = torch.empty(-(-count // per_word), dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16 if fine else torch.int8)[:count]
    keep = (draws >= threshold - levels // 2).view(shape)
    return keep, levels / (levels - threshold)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        factor = keep.to(x.dtype).mul_(scale)
        ctx.factor = factor  # type: ignore[attr-defined]
        return x * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.factor, None, None  # type: ignore[attr-defined]


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """Set entries of `x` to zero with probability `rate` and scale up the rest.

    Examples
    --------
    >>> dropout(torch.ones(3), rate=0.5, training=False)
    tensor([1., 1., 1.])
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu" and not twins():
        return nn.functional.dropout(x, rate)
    keep, scale = keep_mask(x.shape, rate, x.device)
    result: Tensor = _Drop.apply(x, keep, scale)  # type: ignore[no-untyped-call]
    return result


class Dropout(nn.Module):
    """`dropout` as a layer.

    Parameters
    ----------
    rate
        Probability of dropping, in ``[0, 1)``.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"dropout: rate is {rate}; it must lie in [0, 1)")
        self.rate = rate

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """Return `x` with entries dropped in training, `x` itself otherwise.

        `packing` says which tokens of `x` belong together, for layers that want to know.
        """
        return dropout(x, self.rate, self.training)
