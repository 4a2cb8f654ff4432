"""The most that filters of every height find in an image, and a backward pass of those places only.

Of all places where a filter was tried only the best one has a gradient, so the usual backward pass
of a convolution works on zeros nearly everywhere: with heights up to 50, fifteen times longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Sum what each peak passes on: to its filter's rows, and to the image's."""
        image, across, places = ctx.saved_tensors
        rows, length, width = image.shape
        n_filters, device = across.shape[1], image.device
        grad = grads[0].permute(1, 2, 0).to(image.dtype)  # [L, F, B]
        height, filter_, row = torch.nonzero(grad, as_tuple=True)
        weight = grad[height, filter_, row]
        corner = row * length + places[height, row, filter_]  # the image's row the peak begins at

        # A bag is one row of one filter; in it are the filter's peaks, in the order of `weight`.
        peaks_of = torch.bincount(height * n_filters + filter_, minlength=length * n_filters)
        rows_of = torch.arange(1, length + 1, device=device).repeat_interleave(n_filters)
        filter_at = torch.arange(len(rows_of), device=device).repeat_interleave(rows_of)
        bags = torch.arange(len(filter_at), device=device)
        step = bags - (rows_of.cumsum(0) - rows_of)[filter_at]
        sizes = peaks_of[filter_at]
        firsts = sizes.cumsum(0) - sizes
        in_bag = bags.repeat_interleave(sizes)
        skipped = firsts - (peaks_of.cumsum(0) - peaks_of)[filter_at]
        peak = torch.arange(len(in_bag), device=device) - skipped[in_bag]
        at, weight = corner[peak] + step[in_bag], weight[peak]

        image_rows = image.reshape(rows * length, width)
        to_filters = _weighted_sums(image_rows, at, firsts, weight)  # by filter, then its rows
        heights = range(1, length + 1)
        parts = torch.split(to_filters, [n_filters * height for height in heights])
        d_across = torch.cat([part.view(n_filters, -1).T for part in parts])

        filter_rows = torch.cat(
            [each.T.reshape(-1, width) for each in _by_height(across, length, width)]
        )
        # As a small number a row of the image sorts in half the time.
        ordered, order = torch.sort(at.to(torch.int32), stable=True)
        every = torch.arange(rows * length, device=device, dtype=torch.int32)
        firsts = torch.searchsorted(ordered, every)
        d_image = _weighted_sums(filter_rows, in_bag[order], firsts, weight[order])
        return d_image.view_as(image), d_across


def _weighted_sums(table: Tensor, rows: Tensor, firsts: Tensor, weights: Tensor) -> Tensor:
    """For each bag the sum of its rows of the table, each times its weight."""
    return embedding_bag(
        rows, table, firsts, mode="sum", per_sample_weights=weights.to(table.dtype)
    )
