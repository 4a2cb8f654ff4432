"""Packing: where each row of a packed batch stands, and the windows in which attention sees it.

Position-wise layers work on packed tokens ``[N, d]`` and never meet padding. Attention needs
rows; many short rows are laid side by side into windows of equal width, and a mask keeps each
row to itself. One product over a few full windows is several times faster than one over many
tiny rows, and wastes a few per cent where padding all rows to the longest wastes most.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WINDOW = 64
"""The least width of a window, where there are enough tokens to fill it."""


class Windows:
    """Windows of equal width, and which of their places packed values stand in.

    Attributes
    ----------
    windows, width
        How many windows there are, and how wide they are.
    places
        ``int64[N]``: where each value stands in the flat ``[windows * width]``. None where the
        packed values fill all windows exactly, so that the windows are a view.
    """

    windows: int
    width: int
    places: Tensor | None

    def spread(self, packed: Tensor) -> Tensor:
        """``[N, d]`` to ``[windows, width, d]``; places without a token are zero."""
        if self.places is not None:
            flat = packed.new_zeros(self.windows * self.width, packed.shape[1])
            packed = flat.index_copy_(0, self.places, packed)
        return packed.reshape(self.windows, self.width, -1)

    def collect(self, spread: Tensor) -> Tensor:
        """``[windows, width, d]`` back to ``[N, d]``."""
        flat = spread.reshape(self.windows * self.width, -1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def by_place(self, values: Tensor, empty: int | bool) -> Tensor:
        """``[N]`` to ``[windows, width]``; places without a token hold `empty`."""
        if self.places is None:
            return values.view(self.windows, self.width)
        spread = values.new_full((self.windows * self.width,), empty)
        spread[self.places] = values
        return spread.view(self.windows, self.width)


class Packing(Windows):
    """The geometry of a packed batch, from its row lengths alone.

    Parameters
    ----------
    lengths
        ``int64[B]`` on the host, each at least 1.
    device
        Where index tensors are wanted.
    copies
        The rows are so many copies of the same ones, one after the other. Each copy is laid out
        alike, so that places (and dropout masks) of one have their twins in the next.
    padding
        ``bool[N]``: tokens that are padding kept on purpose. As in the public code of S3-Rec, where
        the mask is a constant, nobody else sees them and they themselves see their whole row.

    Attributes
    ----------
    width
        How wide the windows are; they are laid out when attention first asks for them.

    Examples
    --------
    >>> p = Packing(np.array([1, 2, 2, 7, 9]), torch.device("cpu"))
    >>> p.windows, p.width, p.n_tokens
    (1, 21, 21)
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        device: torch.device,
        copies: int = 1,
        padding: Tensor | None = None,
    ) -> None:
        self.lengths, self.device, self.copies, self.padding = lengths, device, copies, padding
        self.ends = np.cumsum(lengths)
        self.n_tokens = int(self.ends[-1]) if len(lengths) else 0
        longest = int(lengths[-1] if len(lengths) == 1 else lengths.max(initial=1))
        self.width = max(longest, min(WINDOW, self.n_tokens // copies))
        self._row_of: Tensor | None = None
        self._masks: dict[tuple[bool, torch.dtype], Tensor | None] = {}

    @property
    def windows(self) -> int:  # type: ignore[override]
        """How many windows there are."""
        return len(self.first_rows)

    @cached_property
    def places(self) -> Tensor | None:  # type: ignore[override]
        """``int64[N]``: where each token stands, see `Windows`; found when first asked for."""
        windows = self.windows
        if self.n_tokens == windows * self.width:
            return None
        starts = np.array([self.ends[row - 1] if row else 0 for row in self.first_rows])
        shift = np.arange(windows) * self.width - starts
        rows_in = np.diff([*self.first_rows, len(self.lengths)])
        moved = np.repeat(np.repeat(shift, rows_in), self.lengths)
        return self._to(np.arange(self.n_tokens) + moved)

    @cached_property
    def first_rows(self) -> list[int]:
        """The first row of each window."""
        rows = len(self.lengths) // self.copies
        found = [0]
        while self.n_tokens > self.width * self.copies:
            before = self.ends[found[-1] - 1] if found[-1] else 0
            end = int(np.searchsorted(self.ends[:rows], before + self.width, side="right"))
            if end >= rows:
                break
            found.append(end)
        return [row + rows * copy for copy in range(self.copies) for row in found]

    def _to(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    @property
    def even(self) -> int | None:
        """The length of the rows where all have the same, else None."""
        first = int(self.lengths[0])
        return first if len(self.lengths) == 1 or bool((self.lengths == first).all()) else None

    @property
    def row_of(self) -> Tensor:
        """``int64[N]``: the row of each token."""
        if self._row_of is None:
            self._row_of = self._to(np.repeat(np.arange(len(self.lengths)), self.lengths))
        return self._row_of

    def slots(self, max_length: int) -> Tensor:
        """``int64[N]``: the slot of each token in a sequence of `max_length` padded on the left.

        The last item of every row has the last slot, so a slot means "how long ago".
        """
        return self._to(np.arange(self.n_tokens) + np.repeat(max_length - self.ends, self.lengths))

    def indices(self) -> Tensor:
        """``int64[N]``: the place of each token in its row, counted from its start."""
        first = np.repeat(self.ends - self.lengths, self.lengths)
        return self._to(np.arange(self.n_tokens) - first)

    def mask(self, causal: bool, dtype: torch.dtype) -> Tensor | None:
        """``[windows, width, width]``: 0 where a place may look, minus infinity elsewhere.

        None where every place may look everywhere.
        """
        key = (causal, dtype)
        if key not in self._masks:
            self._masks[key] = self._mask(causal, dtype)
        return self._masks[key]

    def _mask(self, causal: bool, dtype: torch.dtype) -> Tensor | None:
        alone = len(self.lengths) == 1
        if alone and self.padding is None and (not causal or self.width == 1):
            return None
        hidden = torch.zeros(1, 1, 1, dtype=torch.bool, device=self.device)
        if causal:
            ones = torch.ones(self.width, self.width, dtype=torch.bool, device=self.device)
            hidden = hidden | ones.triu_(1)
        if self.padding is not None:
            blank = self.by_place(self.padding, False)
            hidden = (hidden | blank[:, None, :]) & ~blank[:, :, None]
        if not alone:
            rows = self.by_place(self.row_of, -1)
            hidden = hidden | (rows[:, :, None] != rows[:, None, :])
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
        return mask.masked_fill_(hidden, -torch.inf)


class Slots(Windows):
    """Some tokens of a packed batch, asked for by themselves, in the windows their rows are in.

    Parameters
    ----------
    packing
        Where the rows stand.
    at
        ``int64[M]``, ascending: which tokens.
    counts
        ``int64[B]`` **on the host**: how many tokens of each row; there may be none.

    Examples
    --------
    >>> packing = Packing(np.array([2, 3]), torch.device("cpu"))
    >>> slots = Slots(packing, torch.tensor([1, 2, 4]), np.array([1, 2]))
    >>> slots.mask(causal=False, dtype=torch.float32)
    tensor([[[0., 0., -inf, -inf, -inf],
             [-inf, -inf, 0., 0., 0.],
             [-inf, -inf, 0., 0., 0.]]])
    """

    def __init__(self, packing: Packing, at: Tensor, counts: NDArray[np.int64]) -> None:
        self.packing, self.at = packing, at
        in_window = np.add.reduceat(counts, packing.first_rows)
        self.windows, self.width = len(in_window), max(int(in_window.max()), 1)
        self.places = None
        if len(at) < self.windows * self.width:
            moved = np.arange(self.windows) * self.width - (np.cumsum(in_window) - in_window)
            places = np.arange(len(at)) + np.repeat(moved, in_window)
            self.places = torch.from_numpy(places).to(at.device)

    def mask(self, causal: bool, dtype: torch.dtype) -> Tensor:
        """``[windows, width, width of the packing]``: 0 where a slot may look, else -infinity.

        Places without a slot may look everywhere, so that no softmax there comes to nothing.
        """
        packing = self.packing
        asking = self.by_place(packing.row_of[self.at], -1)[:, :, None]
        hidden = (asking != packing.by_place(packing.row_of, -1)[:, None, :]) & (asking >= 0)
        if causal:
            stands = self.at if packing.places is None else packing.places[self.at]
            latest = self.by_place(stands % packing.width, packing.width)[:, :, None]
            hidden = hidden | (torch.arange(packing.width, device=packing.device) > latest)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=packing.device)
        return mask.masked_fill_(hidden, -torch.inf)
