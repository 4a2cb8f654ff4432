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
        By name, the weight of each; one above 0 has a linear layer of this name, others None.
    width, std
        Of states, and of fresh weights.
    has
        Sparse ``[I + 1, n_labels]``: which items have which labels (attributes); None without any.

    Attributes
    ----------
    gap
        ``[d]``: what stands for a hidden item.
    attributes
        ``[n_labels, d]``: a vector for each label, or None.
    own, first
        ``int64[n]``, the labels of all items, item after item, and ``int64[I + 2]``, where each
        item's begin. There only with labels, and no weights.
    """

    own: Tensor
    first: Tensor

    def __init__(
        self, objectives: Mapping[str, float], width: int, std: float, has: Tensor | None
    ) -> None:
        super().__init__()
        self.gap = nn.Parameter(torch.randn(width) * std)
        for name, weight in objectives.items():
            layer = nn.Linear(width, width) if weight > 0 else None
            if layer is not None:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
            setattr(self, name, layer)
        self.attributes = None
        if has is not None:
            self.attributes = nn.Parameter(torch.randn(has.shape[1], width) * std)
            item, own = has.coalesce().indices()
            first = torch.bincount(item, minlength=len(has)).cumsum(0)
            self.register_buffer("own", own, persistent=False)
            self.register_buffer("first", nn.functional.pad(first, (1, 0)), persistent=False)

    def labels_loss(self, states: Tensor, items: Tensor) -> Tensor:
        """Sum over states and labels of the binary cross-entropy of their products.

        Parameters
        ----------
        states
            ``[M, d]``.
        items
            ``int64[M]``: whose labels each state should tell.
        """
        labels = self.attributes
        assert labels is not None
        own = self._sums_of_own(labels, items)
        total: Tensor = softplus(states @ labels.T).sum() - (states * own).sum()
        return total

    def _sums_of_own(self, labels: Tensor, items: Tensor) -> Tensor:
        """``[M, d]``: for each item the sum of its labels' vectors, zero where it has none."""
        counts = self.first[items + 1] - self.first[items]
        ends = counts.cumsum(0)
        shift = self.first[items] - (ends - counts)
        at = shift.repeat_interleave(counts)
        at += torch.arange(len(at), device=at.device)
        bags: Tensor = nn.functional.embedding_bag(self.own[at], labels, ends - counts, mode="sum")
        return bags
