"""The most that filters of every height find in an image, and a backward pass of those places only.

Of all places where a filter was tried only the best one has a gradient, so the usual backward pass
of a convolution works on zeros nearly everywhere: with heights up to 50, fifteen times longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv1d, embedding_bag


def peaks(image: Tensor, across: Tensor) -> Tensor:
    """Return the most of each filter over the places where it fits.

    Parameters
    ----------
    image
        ``[B, L, d]``.
    across
        ``[L (L + 1) / 2 * d, F]``: `F` filters of each height ``h = 1 .. L``, those of one height
        below those of the one before, each ``h * d`` long.

    Returns
    -------
    Tensor
        ``[B, L, F]``: by height and filter. Of places with the same most the first counts.

    Examples
    --------
    >>> image = torch.tensor([[[1.0], [3.0]]])
    >>> peaks(image, torch.tensor([[2.0], [1.0], [-1.0]]))  # twice an item; the first less the last
    tensor([[[ 6.],
             [-2.]]])
    """
    found: Tensor = _Peaks.apply(image, across)  # type: ignore[no-untyped-call]
    return found


def _by_height(across: Tensor, length: int, width: int) -> tuple[Tensor, ...]:
    return torch.split(across, [height * width for height in range(1, length + 1)])


class _Peaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, across: Tensor) -> Tensor:
        _, length, width = image.shape
        columns = image.transpose(1, 2).contiguous()
        most, places = [], []
        for height, each in enumerate(_by_height(across, length, width), start=1):
            filters = each.view(height, width, -1).permute(2, 1, 0).contiguous()
            value, place = conv1d(columns, filters).max(dim=2)
            most.append(value)
            places.append(place)
        ctx.save_for_backward(image, across, torch.stack(places))
        return torch.stack(most, dim=1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Sum what each peak passes on: to its filter's rows, and to the image's."""
        image, across, places = ctx.saved_tensors
        rows, length, width = image.shape
        grad = grad.permute(1, 2, 0).to(image.dtype)  # [L, F, B]
        height, filter_, row = torch.nonzero(grad, as_tuple=True)
        corners = (
            row * length + places[height, row, filter_]
        )  # the row of an image a peak begins at
        met = _Met(height, filter_, length, across.shape[1])
        at = corners[met.peak] + met.step[met.bag]
        weights = grad[height, filter_, row][met.peak]
        image_rows = image.reshape(rows * length, width)
        d_filters = _weighted_sums(image_rows, at, met.first, weights)
        # As a small number a row of an image sorts in half the time.
        ordered, order = torch.sort(at.to(torch.int32), stable=True)
        first = torch.searchsorted(ordered, torch.arange(len(image_rows), device=at.device).int())
        filters = _filter_rows(across, length, width)
        d_image = _weighted_sums(filters, met.bag[order], first, weights[order])
        return d_image.view_as(image), _across(d_filters, length, across.shape[1])


class _Met:
    """Which rows of filters meet which peaks: a bag for each row of each filter, in it its peaks.

    Attributes
    ----------
    step, first
        ``int64[bags]``: how many rows of its filter come before a bag's, and where the bag begins.
    bag, peak
        ``int64[n]``: for all that is in bags, one after the other, which bag and which peak.
    """

    def __init__(self, height: Tensor, filter_: Tensor, length: int, n_filters: int) -> None:
        device = height.device
        peaks_of = torch.bincount(height * n_filters + filter_, minlength=length * n_filters)
        n_bags = length * (length + 1) // 2 * n_filters
        bags = torch.arange(n_bags, device=device)
        rows_of = torch.arange(1, length + 1, device=device).repeat_interleave(n_filters)
        filter_of = torch.arange(len(rows_of), device=device)
        filter_of = filter_of.repeat_interleave(rows_of, output_size=n_bags)
        self.step = bags - (rows_of.cumsum(0) - rows_of)[filter_of]
        sizes = peaks_of[filter_of]
        self.first = sizes.cumsum(0) - sizes
        self.bag = bags.repeat_interleave(sizes)
        skipped = self.first - (peaks_of.cumsum(0) - peaks_of)[filter_of]
        self.peak = torch.arange(len(self.bag), device=device) - skipped[self.bag]


def _filter_rows(across: Tensor, length: int, width: int) -> Tensor:
    """``[bags, d]``: filter after filter, row after row."""
    return torch.cat([each.T.reshape(-1, width) for each in _by_height(across, length, width)])


def _across(filter_rows: Tensor, length: int, n_filters: int) -> Tensor:
    """Undo `_filter_rows`."""
    parts = torch.split(filter_rows, [n_filters * height for height in range(1, length + 1)])
    return torch.cat([part.reshape(n_filters, -1).T for part in parts])


def _weighted_sums(table: Tensor, rows: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """For each bag the sum of its rows of the table, each times its weight."""
    weights = weights.to(table.dtype)
    return embedding_bag(rows, table, first, mode="sum", per_sample_weights=weights)
