"""Stand-in models whose scores a test decides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nextup.data.batches import Batch
from nextup.models.base import ModelConfig, Recommender


class Table(Recommender):
    """Scores read from a matrix: row ``u`` for the user whose history starts with item ``u + 1``.

    The rows of a batch carry no name of their own, so the tests' histories tell who they are by
    their first item.
    """

    name = "table"

    def __init__(self, table: np.ndarray, max_length: int = 1000) -> None:
        super().__init__(ModelConfig(max_length=max_length), table.shape[1] - 1)
        self.register_buffer("table", torch.from_numpy(table))

    def row(self, batch: Batch) -> Tensor:
        first = torch.from_numpy(np.cumsum(batch.lengths) - batch.lengths)
        return batch.tokens[first] - 1

    def scores(self, batch: Batch) -> Tensor:
        return self.table[self.row(batch)]


class Vectors(Recommender):
    """The same scores as a product: the query is a row, the items are unit vectors."""

    name = "vectors"

    def __init__(self, table: np.ndarray, bias: np.ndarray | None = None) -> None:
        super().__init__(ModelConfig(max_length=1000), table.shape[1] - 1)
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)))
        self.bias = None if bias is None else torch.from_numpy(bias.astype(np.float32))

    def query(self, batch: Batch) -> Tensor:
        first = torch.from_numpy(np.cumsum(batch.lengths) - batch.lengths)
        return self.table[batch.tokens[first] - 1]

    def item_vectors(self) -> Tensor:
        return torch.eye(self.table.shape[1])

    def item_bias(self) -> Tensor | None:
        return self.bias
