"""Caser's filters over a small image of item vectors, as products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nextup.nn.peaks import peaks


class ImageFilters(nn.Module):
    """Horizontal filters of every height with the maximum over places, and vertical ones.

    Parameters
    ----------
    length, width
        Rows and columns of an image (L and d).
    horizontal
        Filters of each height ``1 .. length``; each is as wide as the image.
    vertical
        Weighted sums of the image's rows.
    tanh
        Squash what horizontal filters find by tanh instead of cutting it off at 0.

    Attributes
    ----------
    found
        How many numbers come of an image: ``vertical * width + horizontal * length``.

    Notes
    -----
    Weights and biases are drawn as `torch.nn.Conv2d` draws them.
    """

    places: Tensor
    LONGEST = 12
    """The longest image whose filters are one product: its zeros grow with the length's cube."""

    def __init__(
        self, length: int, width: int, horizontal: int, vertical: int, tanh: bool = False
    ) -> None:
        super().__init__()
        self.length, self.width, self.tanh = length, width, tanh
        self.horizontal, self.vertical = horizontal, vertical
        self.found = vertical * width + horizontal * length
        # Filters of height h stand one after the other as [h * width, horizontal].
        rows = [h * width for h in range(1, length + 1)]
        self.across = nn.Parameter(torch.cat([_uniform(r, horizontal, fan=r) for r in rows]))
        self.across_bias = nn.Parameter(torch.cat([_uniform(horizontal, fan=r) for r in rows]))
        self.down = nn.Parameter(_uniform(vertical, length, fan=length))
        self.down_bias = nn.Parameter(_uniform(vertical, fan=length))
        if length <= self.LONGEST:
            self.register_buffer("places", self._places(), persistent=False)

    def _places(self) -> Tensor:
        """Which row of `across` stands where, for each height and place; one past its end is 0."""
        n, d = self.length, self.width
        blank = n * (n + 1) // 2 * d
        columns = []
        for height in range(1, n + 1):
            first = height * (height - 1) // 2 * d
            for place in range(n - height + 1):
                column = torch.full((n * d,), blank)
                column[place * d : (place + height) * d] = torch.arange(first, first + height * d)
                columns.append(column)
        return torch.stack(columns, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """``[B, L, d]`` to ``[B, found]``: vertical filters' output first, filter after filter."""
        return torch.cat([self.vertically(image), self.horizontally(image)], dim=1)

    def vertically(self, image: Tensor) -> Tensor:
        """``[B, vertical * d]``, linear in the image."""
        sums = torch.matmul(self.down, image) + self.down_bias[:, None]
        return sums.flatten(1)

    def horizontally(self, image: Tensor) -> Tensor:
        """``[B, horizontal * L]``: the most of each filter, height after height."""
        if not self.horizontal:
            return image.new_zeros(len(image), 0)
        if self.length <= self.LONGEST:
            places = self._at_once(image)
            most = torch.cat([each.amax(dim=1) for each in places], dim=1)
        else:
            most = peaks(image, self.across).flatten(1)
        most = most + self.across_bias
        # Both functions rise, so the maximum may come first.
        return torch.tanh(most) if self.tanh else torch.relu(most)

    def _at_once(self, image: Tensor) -> tuple[Tensor, ...]:
        """For each height ``[B, places, horizontal]``, from one product for all."""
        blank = self.across.new_zeros(1, self.horizontal)
        everywhere = torch.cat([self.across, blank])[self.places]  # [L d, places, horizontal]
        at = torch.matmul(image.flatten(1), everywhere.flatten(1))
        at = at.view(len(image), -1, self.horizontal)
        return torch.split(at, list(range(self.length, 0, -1)), dim=1)


def _uniform(*shape: int, fan: int) -> Tensor:
    return torch.empty(shape).uniform_(-(fan**-0.5), fan**-0.5)
