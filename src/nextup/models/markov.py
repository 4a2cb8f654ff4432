"""MC1: a first-order Markov chain, by counting.

The score of item ``j`` after a history that ends in ``i`` is how often ``j`` directly followed
``i`` in training, plus a tiny multiple of how often ``j`` occurs at all (`backoff`), which orders
the items never seen to follow. Of one step and as counted: nothing is added to the counts, and
older items have no say. The oldest sequential recommender there is, and on the Amazon sets
stronger than many a published neural one: it belongs in every table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.models.base import ModelConfig, Recommender, item_counts
from nextup.models.registry import register


class MarkovConfig(ModelConfig):
    """Settings of the Markov chain."""

    max_length: int = Field(1, ge=1, description="the chain reads the last item only")
    backoff: float = Field(1e-7, ge=0, description="weight of an item's overall count")


@register
class MarkovChain(Recommender):
    """Recommend what most often came next."""

    name = "mc1"
    paper = "baseline (first-order Markov chain by counting)"
    kind = "counting"
    Config = MarkovConfig
    config: MarkovConfig
    learns_by = "counting"
    offsets: Tensor
    followers: Tensor
    counts: Tensor
    popularity: Tensor

    def __init__(self, config: MarkovConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.register_buffer("offsets", torch.zeros(n_items + 2, dtype=torch.int64))
        self.register_buffer("followers", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("popularity", torch.zeros(n_items + 1, dtype=torch.float64))

    def count(self, train: Sequences) -> None:
        """Count every pair of neighbours."""
        flat = train.items[train.positions()].astype(np.int64)
        inside = np.ones(len(flat), dtype=bool)  # whether an item has a predecessor in its row
        inside[(np.cumsum(train.lengths) - train.lengths)[train.lengths > 0]] = False
        at = np.flatnonzero(inside)
        width = self.n_items + 1
        pairs, counts = np.unique(flat[at - 1] * width + flat[at], return_counts=True)
        offsets = np.searchsorted(pairs // width, np.arange(width + 1))
        self.offsets.copy_(torch.from_numpy(offsets))
        self.followers = torch.from_numpy(pairs % width).to(self.offsets.device)
        self.counts = torch.from_numpy(counts.astype(np.float64)).to(self.offsets.device)
        self.popularity.copy_(torch.from_numpy(item_counts(train, self.n_items)))

    def scores(self, batch: Batch) -> Tensor:
        """``float64[B, I + 1]``: counts after the last item, and the back-off."""
        last = batch.tokens[batch.last_at]
        scores = (self.config.backoff * self.popularity).repeat(len(batch), 1)
        first, many = self.offsets[last], self.offsets[last + 1] - self.offsets[last]
        row = torch.repeat_interleave(torch.arange(len(batch), device=last.device), many)
        within = torch.arange(len(row), device=last.device) - (many.cumsum(0) - many)[row]
        at = first[row] + within
        scores[row, self.followers[at]] += self.counts[at]
        return scores

    def logits(self, batch: Batch) -> Tensor:
        """``float64[B, I + 1]``: logarithms of the counts."""
        return self.scores(batch).log()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The number of distinct pairs is known only from the data, so make room for it.
        for name in ("followers", "counts"):
            if prefix + name in state_dict:
                room = torch.empty_like(state_dict[prefix + name], device=self.offsets.device)
                setattr(self, name, room)
        super()._load_from_state_dict(state_dict, prefix, *rest)
