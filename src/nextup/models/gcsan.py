"""GC-SAN: self-attention over the items of a history, after a graph let neighbours meet.

Xu, Zhao, Liu, Sheng, Xu, Zhuang, Fang & Zhou, *Graph Contextualized Self-Attention Network for
Session-based Recommendation*, IJCAI 2019. The nodes of SR-GNN's graph, after its propagation,
stand at the places of the history and pass through `layers` of self-attention with one head,
``F = softmax(Q K^T / sqrt(d)) V``, ``E = W2 relu(W1 F + b1) + b2 + F`` (section 3.3). The last
place's ``E`` and its node ``h`` are mixed, ``weight * E + (1 - weight) * h``, and compared with
every item (section 3.4). Each prefix of a history is a sample.

All places see each other and know no positions, so a history is read out after its last item
only. A user has no weights: one never seen in training is answered from the history.

Departures: there is no code by the authors, so what the text leaves open is settled as in
SR-GNN's (edges count once, uniform fresh weights); queries, keys and values have no bias, and the
residual is around the feed-forward layer alone, as the equations are printed. `dropout`, which
the paper names without a place, is on the feed-forward layers' output.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear

from nextup.data.batches import Batch
from nextup.models.base import ModelConfig
from nextup.models.next_item import LastStateConfig, NextItemRecommender
from nextup.models.registry import register
from nextup.nn.attention import packed_attention
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing
from nextup.nn.session_graph import GatedGraph, SessionGraphs


class GCSANConfig(LastStateConfig):
    """Settings of GC-SAN."""

    width: int = Field(120, ge=1, description="width of item vectors and states (d)")
    steps: int = Field(1, ge=1, description="how often neighbours hear of each other")
    layers: int = Field(4, ge=0, description="layers of self-attention (k)")
    attention_weight: float = Field(
        0.6, ge=0, le=1, description="share of self-attention in the state; the rest is the node"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="after each feed-forward layer")


class AttentionLayer(nn.Module):
    """Self-attention with one head, and a feed-forward layer with a residual around it."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, packing: Packing, last_at: Tensor | None = None) -> Tensor:
        """``[N, d]`` to ``[N, d]``, or to ``[B, d]`` given the last token of each row."""
        weight = self.query_key_value.weight
        asked = x if last_at is None else x.index_select(0, last_at)
        mixed = packed_attention(
            linear(asked, weight[: self.width]),
            linear(x, weight[self.width :]),
            packing,
            heads=1,
            causal=False,
            last_only=last_at is not None,
        )
        result: Tensor = mixed + self.drop(self.contract(torch.relu(self.expand(mixed))))
        return result


@register
class GCSAN(NextItemRecommender):
    """Self-attention on top of a gated graph network."""

    name = "gcsan"
    paper = "Xu et al., Graph Contextualized Self-Attention Network, IJCAI 2019"
    kind = "graph"
    Config: ClassVar[type[ModelConfig]] = GCSANConfig
    config: GCSANConfig
    reads_out = "last"

    def __init__(self, config: GCSANConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width = config.width
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.propagate = GatedGraph(width, config.steps)
        self.blocks = nn.ModuleList(
            AttentionLayer(width, config.dropout) for _ in range(config.layers)
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """``[B, d]``: the interest after each row's last item."""
        packing = Packing(batch.lengths, batch.device, batch.copies)
        graphs = SessionGraphs(batch.tokens, packing)
        places = self.propagate(self.items(graphs.items), graphs).index_select(0, graphs.node_of)
        node: Tensor = places.index_select(0, batch.last_at)
        if not len(self.blocks):
            return node
        attended = places
        for number, block in enumerate(self.blocks, start=1):
            asked = batch.last_at if number == len(self.blocks) else None
            attended = block(attended, packing, asked)
        share = self.config.attention_weight
        result: Tensor = share * attended + (1 - share) * node
        return result

    def item_vectors(self) -> Tensor:
        """``[I + 1, d]``: the item embedding (tied)."""
        return self.items.weight
