"""SR-GNN: a history as a graph of its items.

Wu, Tang, Zhu, Wang, Xie & Tan, *Session-based Recommendation with Graph Neural Networks*, AAAI
2019. The distinct items of a history are nodes, joined where one followed the other; gated
propagation (`nextup.nn.session_graph`) lets each hear of its neighbours. The last item's node
``v_n`` is the short interest; the long one is a sum over the history with weights
``q . sigmoid(W1 v_n + W2 v_i + c)``, no softmax (equation 6); both together, through ``W3``, are
compared with every item (equations 7 to 9). Each prefix of a history is a sample.

A history is read out after its last item only: a later item would change the graph. A user has
no weights, so one never seen in training is answered like any other, from the history.

Departures: an edge that occurs twice counts once in the mean over neighbours, as in the authors'
code; the paper's text divides its number of occurrences (`counted_edges`). The long interest
sums over places, not nodes, so an item met twice counts twice: also as in the code. Histories are
those of users, cut to the last `max_length` items, not sessions. `W3` has a bias, which equation 7
has not; `dropout` is not in the paper.
The authors' script picks the best epoch on the test set; here validation does.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import ModelConfig
from nextup.models.next_item import LastStateConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing
from nextup.nn.session_graph import GatedGraph, SessionGraphs


class SRGNNConfig(LastStateConfig):
    """Settings of SR-GNN."""

    width: int = Field(100, ge=1, description="width of item vectors and states (d)")
    steps: int = Field(1, ge=1, description="how often neighbours hear of each other")
    counted_edges: bool = Field(
        False, description="an edge that occurs twice weighs twice among its node's edges"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="on embedded items")


@register
class SRGNN(NextItemRecommender):
    """A gated graph network over the items of a history."""

    name = "srgnn"
    paper = "Wu et al., Session-based Recommendation with Graph Neural Networks, AAAI 2019"
    kind = "graph"
    Config: ClassVar[type[ModelConfig]] = SRGNNConfig
    config: SRGNNConfig
    reads_out = "last"

    def __init__(self, config: SRGNNConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width = config.width
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.drop = Dropout(config.dropout)
        self.propagate = GatedGraph(width, config.steps)
        self.ask_last = nn.Linear(width, width)  # W1; its bias and the next one are both c
        self.ask_each = nn.Linear(width, width)  # W2
        self.weigh = nn.Linear(width, 1, bias=False)  # q
        self.join = nn.Linear(2 * width, width)  # W3
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[B, d]``: the interest after each row's last item."""
        packing = Packing(batch.lengths, batch.device, batch.copies)
        graphs = SessionGraphs(batch.tokens, packing, self.config.counted_edges)
        nodes = self.propagate(self.drop(self.items(graphs.items)), graphs)
        last = nodes.index_select(0, graphs.node_of.index_select(0, batch.last_at))
        row, node = packing.row_of, graphs.node_of
        asked = self.ask_last(last).index_select(0, row)
        asked = asked + self.ask_each(nodes).index_select(0, node)
        weighted = self.weigh(torch.sigmoid(asked)) * nodes.index_select(0, node)
        wide = weighted.to(torch.promote_types(weighted.dtype, torch.float32))
        whole = wide.new_zeros(last.shape).index_add(0, row, wide).to(last.dtype)
        result: Tensor = self.join(torch.cat([whole, last], dim=1))
        return result

    def item_vectors(self) -> Tensor:
        """``[I + 1, d]``: the item embedding (tied)."""
        return self.items.weight
