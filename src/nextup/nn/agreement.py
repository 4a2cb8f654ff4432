"""Objectives of pre-training: which of two vectors agrees with a state, and which labels it has.

Unlike the losses of `nextup.nn.losses` these are sums, since they weigh by how much there was to
tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


def told_apart(right: Tensor, wrong: Tensor) -> Tensor:
    """Sum of ``-log s(s(right) - s(wrong))``, as S3-Rec's authors compare two agreements.

    With two sigmoids a comparison costs between 0.31 and 1.31.

    Parameters
    ----------
    right, wrong
        ``[M]``: products of a state with what it should agree with, and with something else.

    Examples
    --------
    >>> told_apart(torch.zeros(1), torch.zeros(1))  # ln 2
    tensor(0.6931)
    """
    return softplus(wrong.sigmoid() - right.sigmoid()).sum()


class Heads(nn.Module):
    """What objectives of pre-training need besides the encoder.

    Parameters
    ----------
    objectives
        By name, whether each is in use; it then has a linear layer of this name, else None.
    width, std
        Of states, and of fresh weights.
    n_labels
        How many labels (attributes) an item may have, 0 for none.

    Attributes
    ----------
    gap
        ``[d]``: what stands for a hidden item.
    attributes
        ``[n_labels, d]``: a vector for each label, or None.
    """

    def __init__(
        self, objectives: Mapping[str, bool], width: int, std: float, n_labels: int
    ) -> None:
        super().__init__()
        self.gap = nn.Parameter(torch.randn(width) * std)
        for name, used in objectives.items():
            layer = nn.Linear(width, width) if used else None
            if layer is not None:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
            setattr(self, name, layer)
        self.attributes = nn.Parameter(torch.randn(n_labels, width) * std) if n_labels else None

    def labels_loss(self, states: Tensor, has: Tensor, items: Tensor) -> Tensor:
        """Sum over states and labels of the binary cross-entropy of their products.

        Parameters
        ----------
        states
            ``[M, d]``.
        has
            Sparse ``[I + 1, n_labels]``: 1 where an item has a label.
        items
            ``int64[M]``: whose labels each state should tell.
        """
        labels = self.attributes
        assert labels is not None
        with torch.autocast(states.device.type, enabled=False):  # whose types sparse products lack
            own = torch.sparse.mm(has, labels)[items]
        total: Tensor = softplus(states @ labels.T).sum() - (states * own).sum()
        return total
