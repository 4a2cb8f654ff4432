"""Packing: where each row of a packed batch stands, and which rows attention takes together.

Position-wise layers work on packed tokens ``[N, d]`` and never meet padding. Attention needs
rows; it takes rows of similar length together (`Group`), as a view where all are equally long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Neighbouring rows of similar length inside a packed batch.

    Parameters
    ----------
    first_row, end_row, first_token, end_token
        The rows and the packed tokens of the group.
    width
        The longest row of the group.
    slots
        ``int64[tokens]``: where in the padded ``[rows * width]`` each token goes; None where all
        rows are equally long, so that the padded form is a view.
    padding
        ``bool[rows, width]``: True where the padded form has no token; None likewise.
    """

    first_row: int
    end_row: int
    first_token: int
    end_token: int
    width: int
    slots: Tensor | None
    padding: Tensor | None

    @property
    def rows(self) -> int:
        """How many rows the group has."""
        return self.end_row - self.first_row

    def pad(self, packed: Tensor) -> Tensor:
        """``[N, d]`` of the whole batch to ``[rows, width, d]`` of this group."""
        mine = packed[self.first_token : self.end_token]
        if self.slots is not None:
            padded = mine.new_zeros(self.rows * self.width, mine.shape[1])
            mine = padded.index_copy(0, self.slots, mine)
        return mine.view(self.rows, self.width, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """``[rows, width, d]`` back to the group's ``[tokens, d]``."""
        flat = padded.reshape(self.rows * self.width, -1)
        return flat if self.slots is None else flat[self.slots]


class Packing:
    """The geometry of a packed batch, from its row lengths alone.

    Parameters
    ----------
    lengths
        ``int64[B]`` on the host, ascending, each at least 1.
    device
        Where index tensors are wanted.
    growth
        A group may hold rows up to this factor longer than its shortest (more: fewer groups and
        more padding). Up to length 4 every length is a group of its own.

    Examples
    --------
    >>> p = Packing(np.array([1, 2, 2, 7, 9]), torch.device("cpu"))
    >>> [(g.rows, g.width) for g in p.groups]
    [(1, 1), (2, 2), (2, 9)]
    """

    def __init__(
        self, lengths: NDArray[np.int64], device: torch.device, growth: float = 1.65
    ) -> None:
        self.lengths = lengths
        self.device = device
        self.ends = np.cumsum(lengths)
        self.n_tokens = int(self.ends[-1]) if len(lengths) else 0
        self.groups = self._group(growth if device.type == "cpu" else max(growth, 4.0))

    def slots(self, max_length: int) -> Tensor:
        """``int64[N]``: the slot of each token in a window of `max_length` padded on the left.

        The last item of every row has the last slot, so a slot means "how long ago".
        """
        offset = np.repeat(max_length - self.ends, self.lengths)
        return torch.from_numpy(np.arange(self.n_tokens) + offset).to(self.device)

    def _group(self, growth: float) -> list[Group]:
        widths, firsts = np.unique(self.lengths, return_index=True)
        bounds = [*firsts.tolist(), len(self.lengths)]
        groups: list[Group] = []
        at = 0
        while at < len(widths):
            limit = max(int(widths[at]), int(widths[at] * growth) if widths[at] > 4 else 0)
            if self.device.type != "cpu":
                limit = max(limit, 8)
            end = int(np.searchsorted(widths, limit, side="right"))
            groups.append(self._make(bounds[at], bounds[end], int(widths[end - 1])))
            at = end
        return groups

    def _make(self, first_row: int, end_row: int, width: int) -> Group:
        lengths = self.lengths[first_row:end_row]
        first_token = int(self.ends[first_row] - lengths[0])
        end_token = int(self.ends[end_row - 1])
        if lengths[0] == width:
            return Group(first_row, end_row, first_token, end_token, width, None, None)
        real = np.arange(width)[None, :] < lengths[:, None]
        return Group(
            first_row,
            end_row,
            first_token,
            end_token,
            width,
            torch.from_numpy(np.flatnonzero(real)).to(self.device),
            torch.from_numpy(~real).to(self.device),
        )
