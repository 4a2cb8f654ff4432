"""A plain padded SASRec: the baseline that the benchmarks measure ``nextup`` against.

This is SASRec written the way public PyTorch implementations write it: every history is padded on
the left to ``max_len`` slots, every layer and every loss runs over all slots, and padding is
masked at the end. It is self-contained (it imports nothing of ``nextup``), so that equal weights
giving equal losses is evidence about both programs.

Names in the state dict, for a model with ``n_blocks`` blocks (``{b}`` counts from 0)::

    item_embedding.weight                     [n_rows, dim]   row 0: padding; items 1..n_items
    position_embedding.weight                 [max_len, dim]  last row: the most recent slot
    embedding_norm.weight / .bias             [dim]
    blocks.{b}.query.weight / .bias           [dim, dim] / [dim]   also .key, .value, .out
    blocks.{b}.attention_norm.weight / .bias  [dim]
    blocks.{b}.inner.weight / .bias           [ffn_dim, dim] / [ffn_dim]
    blocks.{b}.outer.weight / .bias           [dim, ffn_dim] / [dim]
    blocks.{b}.ffn_norm.weight / .bias        [dim]

Linear weights are stored as ``[out, in]``; heads are consecutive slices of the query, key and value
outputs. There are no other parameters and no buffers.
"""

from __future__ import annotations

import random
import time
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Spans(Protocol):
    """One array of items and one span ``starts[u]:ends[u]`` per user, oldest item first."""

    items: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Block(nn.Module):
    """One Transformer block: attention and feed-forward network, each followed by its norm."""

    def __init__(self, dim: int, n_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.inner = nn.Linear(dim, ffn_dim)
        self.outer = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.view(batch, length, self.n_heads, dim // self.n_heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform ``x`` of shape [batch, length, dim] under an additive attention mask."""
        query, key, value = (self._heads(f(x)) for f in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        weights = self.dropout(torch.softmax(scores + mask, dim=-1))
        mixed = (weights @ value).transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(x + self.dropout(self.out(mixed)))
        return self.ffn_norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))


class PlainSASRec(nn.Module):
    """SASRec over padded histories, with post-norm blocks and item embeddings tied to the output.

    Parameters
    ----------
    n_items
        Number of items; their ids are 1 to ``n_items``, 0 is padding.
    loss
        ``"bce"``: binary cross-entropy with one sampled negative per position; ``"softmax"``:
        cross-entropy over all items, with logits for all padded positions.
    dim, n_blocks, n_heads, ffn_dim, max_len, dropout
        Sizes of the network.
    n_rows
        Rows of the item table, ``n_items + 1`` unless given; further rows are never candidates.
    """

    def __init__(
        self,
        n_items: int,
        loss: Literal["bce", "softmax"] = "bce",
        *,
        dim: int = 64,
        n_blocks: int = 2,
        n_heads: int = 2,
        ffn_dim: int = 256,
        max_len: int = 50,
        dropout: float = 0.5,
        n_rows: int | None = None,
    ) -> None:
        super().__init__()
        if loss not in ("bce", "softmax"):
            raise ValueError(f"loss must be 'bce' or 'softmax', not {loss!r}")
        self.n_items = n_items
        self.loss_name = loss
        self.max_len = max_len
        self.item_embedding = nn.Embedding(n_rows or n_items + 1, dim, padding_idx=0)
        self.position_embedding = nn.Embedding(max_len, dim)
        self.embedding_norm = nn.LayerNorm(dim, eps=1e-12)
        self.blocks = nn.ModuleList(Block(dim, n_heads, ffn_dim, dropout) for _ in range(n_blocks))
        self.dropout = nn.Dropout(dropout)
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode left-padded ids [batch, max_len] into states [batch, max_len, dim]."""
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        x = self.item_embedding(inputs) + self.position_embedding(positions)
        x = self.dropout(self.embedding_norm(x))
        past = torch.ones(len(positions), len(positions), device=inputs.device).tril().bool()
        allowed = past & (inputs > 0)[:, None, None, :]
        mask = torch.zeros(allowed.shape, device=inputs.device).masked_fill(~allowed, -10000.0)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def candidates(self) -> Tensor:
        """Return the embeddings of the items 1 to ``n_items``."""
        return self.item_embedding.weight[1 : self.n_items + 1]

    def _padded_losses(self, inputs: Tensor, targets: Tensor, negatives: Tensor | None) -> Tensor:
        """Return the loss of each of the batch * max_len slots; 0 where the target is padding."""
        states = self(inputs)
        if self.loss_name == "softmax":
            logits = states @ self.candidates().T
            return F.cross_entropy(
                logits.view(-1, self.n_items),
                targets.reshape(-1) - 1,
                ignore_index=-1,
                reduction="none",
            )
        if negatives is None:
            raise ValueError("the 'bce' loss needs negatives")
        positive = (states * self.item_embedding(targets)).sum(-1)
        negative = (states * self.item_embedding(negatives)).sum(-1)
        losses = -F.logsigmoid(positive) - F.logsigmoid(-negative)
        return (losses * (targets > 0)).view(-1)

    def loss(self, inputs: Tensor, targets: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return the mean loss over all targets that are not padding.

        All are ids [batch, max_len], padded on the left; ``targets[:, t]`` is the item that
        follows ``inputs[:, t]``; ``negatives`` is used by the ``"bce"`` loss only.
        """
        return self._padded_losses(inputs, targets, negatives).sum() / (targets > 0).sum()

    def per_target_losses(
        self, inputs: Tensor, targets: Tensor, negatives: Tensor | None = None
    ) -> Tensor:
        """Return one loss for each target that is not padding, row after row, oldest first.

        The ``"bce"`` loss of a target is the sum of its positive and its negative term.
        """
        return self._padded_losses(inputs, targets, negatives)[targets.reshape(-1) > 0]

    def scores(self, inputs: Tensor) -> Tensor:
        """Return the scores [batch, n_items] of items 1 to ``n_items`` as the next item."""
        return self(inputs)[:, -1] @ self.candidates().T


def pad_left(items: np.ndarray, length: int) -> np.ndarray:
    """Return the last ``length`` items, with zeros before them where there are fewer."""
    row = np.zeros(length, dtype=np.int64)
    items = items[-length:]
    if len(items):
        row[-len(items) :] = items
    return row


class PaddedPairs(Dataset):
    """Padded inputs and targets of every user with two items or more, and fresh negatives.

    Negatives are uniform over the items that the user's training history does not contain.
    """

    def __init__(self, sequences: Spans, n_items: int, max_len: int, negatives: bool) -> None:
        spans = zip(sequences.starts, sequences.ends, strict=True)
        histories = [sequences.items[start:end] for start, end in spans if end - start >= 2]
        self.inputs = np.stack([pad_left(items[:-1], max_len) for items in histories])
        self.targets = np.stack([pad_left(items[1:], max_len) for items in histories])
        self.seen = [set(items.tolist()) for items in histories] if negatives else None
        self.n_items = n_items

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        inputs, targets = self.inputs[index], self.targets[index]
        if self.seen is None:
            return inputs, targets
        seen, negatives = self.seen[index], np.zeros_like(targets)
        for slot in np.flatnonzero(targets):
            item = random.randint(1, self.n_items)
            while item in seen:
                item = random.randint(1, self.n_items)
            negatives[slot] = item
        return inputs, targets, negatives


def steps_per_epoch(sequences: Spans, batch_size: int = 256) -> int:
    """Return the number of batches of one whole epoch."""
    lengths = np.asarray(sequences.ends) - np.asarray(sequences.starts)
    return -(-int((lengths >= 2).sum()) // batch_size)


def train_epoch(
    model: PlainSASRec,
    optimizer: torch.optim.Optimizer,
    sequences: Spans,
    batch_size: int = 256,
    max_steps: int | None = None,
) -> tuple[float, int]:
    """Train for one epoch, or for its first ``max_steps`` batches.

    Returns the wall seconds and the number of steps made. Padding the histories once is not timed;
    batching, negatives and updates are.
    """
    device = model.item_embedding.weight.device
    pairs = PaddedPairs(sequences, model.n_items, model.max_len, model.loss_name == "bce")
    model.train()
    steps = 0
    began = time.perf_counter()
    for batch in DataLoader(pairs, batch_size=batch_size, shuffle=True):
        optimizer.zero_grad()
        model.loss(*(ids.to(device) for ids in batch)).backward()
        optimizer.step()
        steps += 1
        if steps == max_steps:
            break
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, steps


class Ranking(NamedTuple):
    """What ``full_rank`` found: the best items [users, k], the metrics, the wall seconds."""

    top: np.ndarray
    metrics: dict[str, float]
    seconds: float


@torch.inference_mode()
def full_rank(
    model: PlainSASRec,
    sequences: Spans,
    targets: np.ndarray,
    k: int = 20,
    batch_size: int = 256,
) -> Ranking:
    """Rank all items for all users the plain way and compare with the target of each user.

    For each batch of users: scores of all items, a dense mask of the items of ``sequences``, -inf
    there, the ``k`` best by NumPy's argpartition, as in the public code of the S3-Rec family.
    Padding the histories is timed. The model is put in evaluation mode.
    """
    began = time.perf_counter()
    model.eval()
    device = model.item_embedding.weight.device
    starts, ends = np.asarray(sequences.starts), np.asarray(sequences.ends)
    histories = [sequences.items[start:end] for start, end in zip(starts, ends, strict=True)]
    users = np.repeat(np.arange(len(starts)), ends - starts)
    columns = np.concatenate(histories).astype(np.int64) - 1
    ones = np.ones(len(users), dtype=bool)
    seen = sparse.csr_matrix((ones, (users, columns)), shape=(len(starts), model.n_items))
    top = np.zeros((len(starts), k), dtype=np.int64)
    for first in range(0, len(starts), batch_size):
        rows = slice(first, min(first + batch_size, len(starts)))
        padded = np.stack([pad_left(items, model.max_len) for items in histories[rows]])
        scores = model.scores(torch.from_numpy(padded).to(device)).cpu().numpy()
        scores[seen[rows].toarray()] = -np.inf
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        top[rows] = np.take_along_axis(best, order, axis=1) + 1
    hits = top == np.asarray(targets)[:, None]
    gains = hits / np.log2(np.arange(k) + 2)
    cuts = [cut for cut in (5, 10, 20) if cut <= k]
    metrics = {f"hr@{cut}": float(hits[:, :cut].any(1).mean()) for cut in cuts}
    metrics |= {f"ndcg@{cut}": float(gains[:, :cut].sum(1).mean()) for cut in cuts}
    return Ranking(top, metrics, time.perf_counter() - began)
