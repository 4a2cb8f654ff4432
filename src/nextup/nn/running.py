"""Sums over everything up to a place, for all places of all rows at once."""

from __future__ import annotations

import torch
from torch import Tensor

from nextup.nn.packing import Packing


def running_sum(x: Tensor, packing: Packing) -> Tensor:
    """Add up each row's tokens from its first to each.

    Parameters
    ----------
    x
        ``[N, d]``, packed.
    packing
        Where the rows stand.

    Returns
    -------
    Tensor
        ``[N, d]``: at each token the sum over its row up to and with it.

    Notes
    -----
    A product with the causal mask: a running sum over all tokens at once, less what it was where
    the row begins, would lose digits in a large batch.

    Examples
    --------
    >>> import numpy as np
    >>> rows = Packing(np.array([1, 2]), torch.device("cpu"))
    >>> running_sum(torch.tensor([[1.0], [2.0], [3.0]]), rows).squeeze(1)
    tensor([1., 2., 5.])
    """
    mask = packing.mask(causal=True, dtype=x.dtype)
    if mask is None:
        return x
    with torch.autocast(x.device.type, enabled=False):  # bf16 would round a long sum at each place
        return packing.collect(torch.matmul((mask == 0).to(x.dtype), packing.spread(x)))
