"""CoSeRec the way public code writes it, around the plain padded SASRec of `plain_sasrec`.

Views are drawn with Python lists, one sequence at a time, in the data set; the encoder runs once
over the histories and once over both views, all padded to 50; the contrastive loss is taken over
the states of all slots laid end to end, padding included. It imports nothing of ``nextup``; the
similar item of each item comes as an array.
"""

from __future__ import annotations

import random
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from plain_sasrec import PaddedPairs, PlainSASRec, Spans, pad_left


class Views:
    """The five operators on a list, with CoSeRec's rates and sets."""

    def __init__(self, similar: np.ndarray, threshold: int = 4) -> None:
        self.similar, self.threshold = similar.tolist(), threshold
        self.short = [self.substitute, self.insert, self.mask]
        self.long = [self.insert, self.crop, self.mask, self.reorder, self.substitute]

    def __call__(self, items: list[int]) -> list[int]:
        """Return a view by one random operator."""
        return random.choice(self.long if len(items) > self.threshold else self.short)(items)

    def crop(self, items: list[int], rate: float = 0.2) -> list[int]:
        """Keep some consecutive items."""
        count = max(1, int(rate * len(items)))
        start = random.randint(0, len(items) - count)
        return items[start : start + count]

    def mask(self, items: list[int], rate: float = 0.7) -> list[int]:
        """Hide some items as padding."""
        hidden = set(random.sample(range(len(items)), int(rate * len(items))))
        return [0 if at in hidden else item for at, item in enumerate(items)]

    def reorder(self, items: list[int], rate: float = 0.2) -> list[int]:
        """Shuffle some consecutive items."""
        count = int(rate * len(items))
        start = random.randint(0, len(items) - count)
        part = items[start : start + count]
        random.shuffle(part)
        return items[:start] + part + items[start + count :]

    def substitute(self, items: list[int], rate: float = 0.1) -> list[int]:
        """Exchange some items for similar ones."""
        result = list(items)
        for at in random.sample(range(len(items)), max(1, int(rate * len(items)))):
            result[at] = self.similar[items[at]]
        return result

    def insert(self, items: list[int], rate: float = 0.4) -> list[int]:
        """Put similar items before some."""
        chosen = set(random.sample(range(len(items)), max(1, int(rate * len(items)))))
        result = []
        for at, item in enumerate(items):
            if at in chosen:
                result.append(self.similar[item])
            result.append(item)
        return result[-50:]


class PairsAndViews(PaddedPairs):
    """Padded inputs, targets and negatives, and two padded views of every input."""

    def __init__(self, sequences: Spans, n_items: int, max_len: int, views: Views) -> None:
        super().__init__(sequences, n_items, max_len, negatives=True)
        self.views, self.max_len = views, max_len

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        items = [item for item in self.inputs[index].tolist() if item]
        both = (pad_left(np.array(self.views(items)), self.max_len) for _ in range(2))
        return (*super().__getitem__(index), *both)


class PlainCoSeRec(PlainSASRec):
    """SASRec with BCE and one negative, joined by the contrast of padded views."""

    def __init__(self, n_items: int, weight: float = 0.1) -> None:
        super().__init__(n_items, loss="bce")
        self.weight = weight

    def contrast(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean contrastive loss of views ``[batch, max_len]``."""
        flat = self(torch.cat([first, second])).flatten(1)
        alike = flat @ flat.T
        alike.fill_diagonal_(-torch.inf)
        half = len(first)
        partner = torch.cat([torch.arange(half, 2 * half), torch.arange(half)])
        return F.cross_entropy(alike, partner)

    def joint_loss(
        self, inputs: Tensor, targets: Tensor, negatives: Tensor, first: Tensor, second: Tensor
    ) -> Tensor:
        """Return the loss of a step."""
        return self.loss(inputs, targets, negatives) + self.weight * self.contrast(first, second)


def train_epoch(
    model: PlainCoSeRec,
    optimizer: torch.optim.Optimizer,
    sequences: Spans,
    similar: np.ndarray,
    max_steps: int,
    batch_size: int = 256,
) -> tuple[float, int]:
    """Train for some batches of an epoch; return wall seconds and steps made."""
    pairs = PairsAndViews(sequences, model.n_items, model.max_len, Views(similar))
    model.train()
    steps = 0
    began = time.perf_counter()
    for batch in DataLoader(pairs, batch_size=batch_size, shuffle=True):
        optimizer.zero_grad()
        model.joint_loss(*batch).backward()
        optimizer.step()
        steps += 1
        if steps == max_steps:
            break
    return time.perf_counter() - began, steps
