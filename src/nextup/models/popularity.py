"""POP: the same items for everyone, most frequent first.

The baseline called POP, PopRec or MostPop in the papers. The score of an item is how often it
was interacted with; ties are left to the protocol. Which interactions are counted matters: the
LMA4Rec paper's numbers follow from counting all but each user's last item, that is training and
validation together (`fit --learn-from train+valid`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.models.base import ModelConfig, Recommender, item_counts
from nextup.models.registry import register


@register
class Popularity(Recommender):
    """Recommend what most people took."""

    name = "pop"
    paper = "baseline (POP / PopRec / MostPop)"
    kind = "counting"
    unseen_users = "like anybody: the same for everyone"
    learns_by = "counting"
    counts: Tensor

    def __init__(self, config: ModelConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.register_buffer("counts", torch.zeros(n_items + 1, dtype=torch.float64))

    def count(self, train: Sequences) -> None:
        """Count every item of the histories."""
        self.counts.copy_(torch.from_numpy(item_counts(train, self.n_items)))

    def scores(self, batch: Batch) -> Tensor:
        """``[B, I + 1]``: the counts, for every history alike."""
        return self.counts.expand(len(batch), -1)

    def logits(self, batch: Batch) -> Tensor:
        """``float64[B, I + 1]``: logarithms of the counts."""
        return self.scores(batch).log()
