"""Dropout whose random bits cost little.

On a CPU the stock Bernoulli draw costs more than the matrix product next to it. Here one
64-bit draw gives eight (or four) masks: a byte decides where the rate is a multiple of 1/256,
two bytes otherwise, so the rate is exact to 2^-16 and the scale follows the exact rate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from nextup.errors import ConfigError


def keep_mask(shape: torch.Size, rate: float, device: torch.device) -> tuple[Tensor, float]:
    """Draw a mask that is False with probability `rate`.

    Returns
    -------
    tuple
        ``bool`` of `shape` (True keeps), and the scale ``1 / (1 - rate)`` of what is kept.
    """
    count = shape.numel()
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
    if x.device.type != "cpu":
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

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with entries dropped in training, `x` itself otherwise."""
        return dropout(x, self.rate, self.training)
