"""BERT4Rec and SSI's teachers the way public code writes them, padded, with the plain `Block`.

Gaps and corruptions are drawn with Python lists, one sequence at a time, in the data set; every row
is padded on the left to 50 slots and every layer runs over all of them; the cloze and the task are
two passes (three for the global task). Logits are taken at the gaps, or everywhere as in the public
PyTorch versions of BERT4Rec. It imports nothing of ``nextup``.
"""

from __future__ import annotations

import random
import time
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from plain_sasrec import Block, Spans, pad_left

Task = Literal["none", "temporal", "persona", "global"]


class Corruptions:
    """N-grams shuffled, replaced or cut out, on a list."""

    def __init__(self, histories: list[list[int]]) -> None:
        self.histories = histories
        self.own = [set(items) for items in histories]

    def pieces(self, items: list[int]) -> list[list[int]]:
        """Cut into n-grams of one size."""
        n = random.randint(1, min(3, len(items) // 2))
        return [items[first : first + n] for first in range(0, len(items), n)]

    def shuffled(self, items: list[int]) -> list[int]:
        """Exchange some n-grams until something has changed."""
        found = items
        while found == items:
            pieces = self.pieces(items)
            chosen = [place for place in range(len(pieces)) if random.random() < 0.5]
            if len(chosen) < 2:
                chosen = random.sample(range(len(pieces)), 2)
            others = random.sample(chosen, len(chosen))
            moved = dict(zip(chosen, others, strict=True))
            order = [moved.get(place, place) for place in range(len(pieces))]
            found = [item for place in order for item in pieces[place]]
        return found

    def spliced(self, items: list[int], user: int) -> list[int]:
        """Replace some n-grams, at most half of the items, by those of other users."""
        pieces, left = self.pieces(items), len(items) // 2
        for place in random.sample(range(len(pieces)), len(pieces)):
            size = len(pieces[place])
            if size > left or (left < len(items) // 2 and random.random() < 0.5):
                continue
            for _ in range(30):
                other = random.choice(self.histories)
                if len(other) >= size:
                    start = random.randint(0, len(other) - size)
                    gram = other[start : start + size]
                    if not self.own[user] & set(gram):
                        pieces[place] = gram
                        left -= size
                        break
        return [item for piece in pieces for item in piece]

    def cut(self, items: list[int], mask: int) -> tuple[list[int], list[int]]:
        """Mask an n-gram; return what is left and the n-gram."""
        size = random.randint(1, min(5, max(1, len(items) // 2)))
        start = random.randint(0, len(items) - size)
        gram = items[start : start + size]
        return [*items[:start], *[mask] * size, *items[start + size :]], gram


class Sessions(Dataset):
    """Of every user the cloze, what was in its gaps, the task's rows, and the label."""

    def __init__(self, sequences: Spans, n_items: int, task: Task, share: float) -> None:
        spans = zip(sequences.starts, sequences.ends, strict=True)
        self.histories = [sequences.items[s:e].tolist() for s, e in spans if e - s >= 2]
        self.task, self.share, self.mask, self.int = task, share, n_items + 1, n_items + 2
        self.corruptions = Corruptions(self.histories)

    def __len__(self) -> int:
        return len(self.histories)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        items = self.histories[index][-50:]
        gaps = random.sample(range(len(items)), max(1, round(self.share * len(items))))
        if random.random() < 0.15:
            gaps = [len(items) - 1]
        read, hidden = list(items), [0] * len(items)
        for gap in gaps:
            read[gap], hidden[gap] = self.mask, items[gap]
        cloze = pad_left(np.array(read), 50), pad_left(np.array(hidden), 50)
        if self.task == "none":
            return cloze
        items, intact = items[-49:], random.random() < 0.5
        gram: list[int] = []
        if self.task == "global":
            items, gram = self.corruptions.cut(items, self.mask)
        elif not intact and self.task == "temporal":
            items = self.corruptions.shuffled(items)
        elif not intact:
            items = self.corruptions.spliced(items, index)
        both = (pad_left(np.array([*row, self.int]), 50) for row in (items, gram))
        return (*cloze, *both, np.array(intact, dtype=np.float32))


class PlainTeacher(nn.Module):
    """BERT4Rec over padded rows, with a task beside the cloze.

    Parameters
    ----------
    n_items
        Items 1 to ``n_items``; [MASK] and [INT] follow.
    task
        What is learnt beside the cloze.
    logits
        At the gaps alone, or at all slots.
    dim, n_blocks, n_heads, dropout
        Sizes of the network.
    """

    def __init__(
        self,
        n_items: int,
        task: Task = "none",
        logits: Literal["gaps", "all"] = "gaps",
        *,
        dim: int = 64,
        n_blocks: int = 2,
        n_heads: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.n_items, self.task, self.logits = n_items, task, logits
        self.items = nn.Embedding(n_items + 3, dim, padding_idx=0)
        self.positions = nn.Embedding(50, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.blocks = nn.ModuleList(Block(dim, n_heads, 4 * dim, dropout) for _ in range(n_blocks))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.classifier = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode left-padded ids [batch, 50] into states [batch, 50, dim]."""
        x = self.dropout(self.norm(self.items(inputs) + self.positions.weight))
        hidden = (inputs == 0)[:, None, None, :]
        mask = torch.zeros(hidden.shape).masked_fill(hidden, -10000.0)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def cloze(self, read: Tensor, hidden: Tensor) -> Tensor:
        """Return the mean cross-entropy of what is hidden, ids [batch, 50], 0 where nothing is."""
        states = self(read)
        if self.logits == "gaps":
            states, hidden = states[hidden > 0], hidden[hidden > 0]
        logits = self.head(states) @ self.items.weight[1 : self.n_items + 1].T + self.bias
        return F.cross_entropy(logits.view(-1, self.n_items), hidden.view(-1) - 1, ignore_index=-1)

    def loss(
        self,
        read: Tensor,
        hidden: Tensor,
        rows: Tensor | None = None,
        grams: Tensor | None = None,
        intact: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a step."""
        total = self.cloze(read, hidden)
        if rows is None or grams is None or intact is None:
            return total
        whole = self(rows)[:, -1]
        if self.task != "global":
            logits = self.classifier(whole).squeeze(1)
            return total + F.binary_cross_entropy_with_logits(logits, intact)
        alike = whole @ self(grams)[:, -1].T / 8.0
        same = (grams[:, None] == grams).all(dim=2).fill_diagonal_(False)
        alike = alike.masked_fill(same, -torch.inf)
        return total + F.cross_entropy(alike, torch.arange(len(alike)))


def train_epoch(
    model: PlainTeacher,
    optimizer: torch.optim.Optimizer,
    sequences: Spans,
    max_steps: int,
    share: float = 0.4,
    batch_size: int = 256,
) -> tuple[float, float, int]:
    """Train for some batches of an epoch; return wall and processor seconds, and steps made."""
    sessions = Sessions(sequences, model.n_items, model.task, share)
    model.train()
    steps = 0
    began, used = time.perf_counter(), time.process_time()
    for batch in DataLoader(sessions, batch_size=batch_size, shuffle=True):
        optimizer.zero_grad()
        model.loss(*batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        steps += 1
        if steps == max_steps:
            break
    return time.perf_counter() - began, time.process_time() - used, steps
