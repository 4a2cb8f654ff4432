"""Dilated convolutions on packed rows, and the residual blocks of NextItNet made of them.

Yuan, Karatzoglou, Arapakis, Jose & He, *A Simple Convolutional Generative Network for Next Item
Recommendation*, WSDM 2019, figures 2 and 3.

A tap of a convolution is one product, over those tokens alone that have a neighbour so many places
away in their own row: what would be padding is never read, multiplied or written. The wider the
dilation, the fewer tokens take part, so deep stacks on short histories cost little.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing

Pairs = tuple[Tensor, Tensor]


class Neighbours:
    """Which tokens of a packed batch have another one so many places away in their row.

    Parameters
    ----------
    packing
        Where the rows stand.

    Examples
    --------
    >>> rows = Neighbours(Packing(np.array([1, 3]), torch.device("cpu")))
    >>> [index.tolist() for index in rows.before(1)]  # rows [0], [1, 2, 3]
    [[2, 3], [1, 2]]
    """

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        lengths = packing.lengths
        self._place = np.arange(packing.n_tokens) - np.repeat(packing.ends - lengths, lengths)
        self._found: dict[int, Pairs | None] = {}

    def before(self, distance: int) -> Pairs | None:
        """Return tokens and, for each, the one `distance` places before it; None if no has one.

        A negative distance looks forward.
        """
        if distance < 0:
            pairs = self.before(-distance)
            return None if pairs is None else (pairs[1], pairs[0])
        if distance not in self._found:
            later = np.flatnonzero(self._place >= distance)
            device = self.packing.device
            at, neighbour = (torch.from_numpy(i).to(device) for i in (later, later - distance))
            self._found[distance] = (at, neighbour) if len(later) else None
        return self._found[distance]


class _TapProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, taps: list[Pairs | int | None]
    ) -> Tensor:
        out = bias.expand(len(x), -1).clone()
        for each, tap in zip(weight, taps, strict=True):
            if isinstance(tap, tuple):
                out.index_add_(0, tap[0], x.index_select(0, tap[1]) @ each)
            elif tap is not None:
                out.addmm_(x, each)
        ctx.save_for_backward(x, weight)
        ctx.taps = taps  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        to_x, to_weight = torch.zeros_like(x), torch.zeros_like(weight)
        for number, tap in enumerate(ctx.taps):  # type: ignore[attr-defined]
            if isinstance(tap, tuple):
                at, neighbour = tap
                some = gradient.index_select(0, at)
                torch.mm(x.index_select(0, neighbour).T, some, out=to_weight[number])
                to_x.index_add_(0, neighbour, some @ weight[number].T)
            elif tap is not None:
                torch.mm(x.T, gradient, out=to_weight[number])
                to_x.addmm_(gradient, weight[number].T)
        return to_x, to_weight, gradient.sum(dim=0), None


def packed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Neighbours, distances: list[int]
) -> Tensor:
    """Sum over taps of ``x[the token so far before] @ weight[tap]``, zero outside of the row.

    Parameters
    ----------
    x
        ``[N, c]``: packed rows.
    weight
        ``[k, c, e]``: one matrix a tap.
    bias
        ``[e]``.
    rows
        Where the rows stand.
    distances
        How many places before a token each tap looks; 0 is the token itself, negative is after.

    Returns
    -------
    ``[N, e]``.
    """
    taps: list[Pairs | int | None] = [
        rows.before(distance) if distance else 0 for distance in distances
    ]
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    with torch.autocast(kind, enabled=False):
        result: Tensor = _TapProducts.apply(x, weight, bias, taps)  # type: ignore[no-untyped-call]
    return result


class DilatedConvolution(nn.Module):
    """A convolution of `kernel` taps, `dilation` places apart.

    Parameters
    ----------
    inputs, outputs
        Widths.
    kernel
        How many taps; odd, unless causal.
    dilation
        How far apart they are.
    causal
        Whether the last tap is the token itself; else the middle one is.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, dilation: int, causal: bool = True
    ) -> None:
        super().__init__()
        last = 0 if causal else -(kernel // 2)
        self.distances = [(kernel - 1 - tap + last) * dilation for tap in range(kernel)]
        self.weight = nn.Parameter(truncated_normal((kernel, inputs, outputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, rows: Neighbours) -> Tensor:
        """``[N, inputs]`` to ``[N, outputs]``."""
        return packed_convolution(x, self.weight, self.bias, rows, self.distances)


class DilatedBlock(nn.Module):
    """Two dilated convolutions, the second's taps twice as far apart (the paper's figure 3b).

    ``x + relu(norm(conv_2a(relu(norm(conv_a(x))))))``, each norm over a token's own features.

    Parameters
    ----------
    width, kernel, dilation, causal
        As in `DilatedConvolution`.
    dropout
        On what is added to `x`.
    """

    def __init__(
        self, width: int, kernel: int, dilation: int, causal: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first = DilatedConvolution(width, width, kernel, dilation, causal)
        self.first_norm = nn.LayerNorm(width, eps=1e-8)
        self.second = DilatedConvolution(width, width, kernel, 2 * dilation, causal)
        self.second_norm = nn.LayerNorm(width, eps=1e-8)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, rows: Neighbours) -> Tensor:
        """``[N, width]`` to ``[N, width]``."""
        y = torch.relu(self.first_norm(self.first(x, rows)))
        y = torch.relu(self.second_norm(self.second(y, rows)))
        result: Tensor = x + self.drop(y)
        return result


class BottleneckBlock(nn.Module):
    """One dilated convolution between two of one tap, of half as many features (figure 3a).

    Every convolution reads what was normalised and rectified before it.

    Parameters
    ----------
    width, kernel, dilation, causal, dropout
        As in `DilatedBlock`.
    """

    def __init__(
        self, width: int, kernel: int, dilation: int, causal: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        half = max(width // 2, 1)
        self.input_norm = nn.LayerNorm(width, eps=1e-8)
        self.narrow = DilatedConvolution(width, half, 1, 1)
        self.narrow_norm = nn.LayerNorm(half, eps=1e-8)
        self.middle = DilatedConvolution(half, half, kernel, dilation, causal)
        self.middle_norm = nn.LayerNorm(half, eps=1e-8)
        self.widen = DilatedConvolution(half, width, 1, 1)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, rows: Neighbours) -> Tensor:
        """``[N, width]`` to ``[N, width]``."""
        y = self.narrow(torch.relu(self.input_norm(x)), rows)
        y = self.middle(torch.relu(self.narrow_norm(y)), rows)
        y = self.widen(torch.relu(self.middle_norm(y)), rows)
        result: Tensor = x + self.drop(y)
        return result


def convolution_blocks(
    kind: Literal["a", "b"],
    width: int,
    kernel: int,
    dilations: tuple[int, ...],
    causal: bool = True,
    dropout: float = 0.0,
) -> nn.ModuleList:
    """Return a stack of residual blocks of one kind, one for each dilation."""
    block = BottleneckBlock if kind == "a" else DilatedBlock
    return nn.ModuleList([block(width, kernel, each, causal, dropout) for each in dilations])


def truncated_normal(shape: tuple[int, ...], std: float = 0.02) -> Tensor:
    """Draw fresh weights from a normal cut off at two standard deviations, as the authors do."""
    return nn.init.trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std)


def mean_half_square(parameters: list[nn.Parameter]) -> Tensor:
    """Mean over weight tensors of half their squared norm: the authors' penalty."""
    return torch.stack([each.square().sum() for each in parameters]).mean() / 2
