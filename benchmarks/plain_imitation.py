"""A student's step with three teachers the way public code would write it: padded, teachers asked
in every step, one softmax over the catalogue for each model. It imports nothing of ``nextup``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plain_bert import PlainTeacher


class PlainHGN(nn.Module):
    """HGN over windows padded on the left."""

    def __init__(self, n_users: int, n_items: int, dim: int = 64, length: int = 5) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users, dim)
        self.items = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.outputs = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.bias = nn.Embedding(n_items + 1, 1, padding_idx=0)
        self.item_gate, self.user_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.place_by_item = nn.Parameter(torch.randn(dim, 1) / dim)
        self.place_by_user = nn.Parameter(torch.randn(dim, length) / dim)

    def forward(self, users: Tensor, window: Tensor) -> Tensor:
        """Return what is multiplied with the items, [batch, dim]."""
        u, e = self.users(users), self.items(window)
        features = e * torch.sigmoid(self.item_gate(e) + self.user_gate(u)[:, None])
        by_user = (u @ self.place_by_user)[:, :, None]
        weights = torch.sigmoid(features @ self.place_by_item + by_user)
        weights = weights * (window != 0).unsqueeze(2)
        return u + (weights * features).sum(1) / weights.sum(1) + e.sum(1)


class PlainSSI(nn.Module):
    """A student, its frozen teachers, and their weights."""

    def __init__(self, n_users: int, n_items: int, n_teachers: int = 3) -> None:
        super().__init__()
        self.student = PlainHGN(n_users, n_items)
        self.teachers = nn.ModuleList(PlainTeacher(n_items).eval() for _ in range(n_teachers))
        self.log_weights = nn.Parameter(torch.zeros(n_teachers))
        self.n_items = n_items

    def loss(self, users: Tensor, histories: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        """Loss of a step; `histories` are [batch, 50], padded on the left."""
        window = histories[:, -5:]
        state = self.student(users, window)

        def score(items: Tensor) -> Tensor:
            found = (state * self.student.outputs(items)).sum(1)
            return found + self.student.bias(items).squeeze(1)

        total = -F.logsigmoid(score(targets) - score(negatives)).mean()
        scores = state @ self.student.outputs.weight[1:].T + self.student.bias.weight[1:, 0]
        own = F.log_softmax(scores, dim=1)
        mask = torch.full((len(histories), 1), self.n_items + 1)
        met = torch.cat([window.reshape(-1), targets, negatives]).unique()
        met = met[met > 0]
        weights = self.log_weights.exp()
        for weight, teacher in zip(weights, self.teachers, strict=True):
            with torch.no_grad():
                states = teacher(torch.cat([histories[:, 1:], mask], dim=1))[:, -1]
                table = teacher.items.weight[1 : self.n_items + 1]
                said = F.log_softmax(teacher.head(states) @ table.T + teacher.bias, dim=1)
            apart = F.kl_div(own, said, log_target=True, reduction="batchmean")
            apart = apart + F.mse_loss(self.student.items(met), teacher.items(met))
            total = total + weight * apart
        inverse = weights.reciprocal().sum()
        return total + inverse + inverse.square()


def padded(rows: list[list[int]], width: int) -> Tensor:
    """Pad on the left."""
    found = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        kept = row[-width:]
        found[number, width - len(kept) :] = kept
    return torch.from_numpy(found)
