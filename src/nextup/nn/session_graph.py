"""Histories as small directed graphs, one a row, all rows of a packed batch at once.

Wu et al., *Session-based Recommendation with Graph Neural Networks*, AAAI 2019, section 3.2: the
distinct items of a row are nodes, and an edge leads from an item to the one that followed it. The
nodes of all rows stand in one flat list and the edges are pairs of indices into it, so a message
is a look-up and a sum, whatever the lengths of the rows: no adjacency matrix, no padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nextup.nn.packing import Packing


class SessionGraphs:
    """The graphs of a packed batch.

    Parameters
    ----------
    tokens
        ``int64[N]``: the items of all rows.
    packing
        Where the rows stand.
    counted
        Whether an edge that occurs twice weighs twice as much in the mean over neighbours.

    Attributes
    ----------
    items
        ``int64[V]``: the item of each node, row after row.
    node_of
        ``int64[N]``: the node of each token.
    origins, ends
        ``int64[E]``: the nodes each edge leads from and to.

    Examples
    --------
    >>> import numpy as np
    >>> packing = Packing(np.array([5]), torch.device("cpu"))
    >>> graphs = SessionGraphs(torch.tensor([1, 2, 3, 2, 4]), packing)
    >>> graphs.items.tolist(), graphs.node_of.tolist()
    ([1, 2, 3, 4], [0, 1, 2, 1, 3])
    >>> graphs.origins.tolist(), graphs.ends.tolist()
    ([0, 1, 1, 2], [1, 2, 3, 1])
    """

    def __init__(self, tokens: Tensor, packing: Packing, counted: bool = False) -> None:
        row = packing.row_of
        height = tokens.max() + 1
        nodes, self.node_of = torch.unique(row * height + tokens, return_inverse=True)
        self.items = nodes % height
        stays = row[1:] == row[:-1]
        self.origins, self.ends = self.node_of[:-1][stays], self.node_of[1:][stays]
        if not counted and len(nodes) < len(tokens):  # without repeats no edge occurs twice
            edges = torch.unique(self.origins * len(nodes) + self.ends)
            self.origins, self.ends = edges // len(nodes), edges % len(nodes)

    def mean_of_predecessors(self, values: Tensor) -> Tensor:
        """``[V, d]`` to ``[V, d]``: the mean over the nodes that lead to each; 0 where none does.

        It is the product with the paper's matrix of incoming edges, its rows divided by degree.
        """
        return _mean(values, self.origins, self.ends)

    def mean_of_successors(self, values: Tensor) -> Tensor:
        """``[V, d]`` to ``[V, d]``: the mean over the nodes each leads to, or 0."""
        return _mean(values, self.ends, self.origins)


def _mean(values: Tensor, taken: Tensor, given: Tensor) -> Tensor:
    values = values.to(torch.promote_types(values.dtype, torch.float32))  # sums of many
    sums = values.new_zeros(values.shape).index_add(0, given, values.index_select(0, taken))
    degrees = torch.bincount(given, minlength=len(values)).clamp_(min=1)
    return sums / degrees[:, None].to(values.dtype)


class GatedGraph(nn.Module):
    """Gated propagation along the edges (section 3.2, equations 1 to 5).

    What a node hears, ``[mean of W_in h + b over predecessors, mean of W_out h + b over
    successors]`` and a bias, moves its state as the input of a gated recurrent unit does.

    The unit is PyTorch's, in which the update gate tells how much of the state *stays*, as in the
    authors' code; in the paper it tells how much changes. One is the other with the sign of the
    gate's weights turned, and fresh weights are symmetric about 0.

    Parameters
    ----------
    width
        Width of the states ``d``.
    steps
        How often the nodes hear of each other, with the same weights.
    """

    def __init__(self, width: int, steps: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.edges = nn.Linear(width, 2 * width)
        self.edge_bias = nn.Parameter(torch.zeros(2 * width))
        self.cell = nn.GRUCell(2 * width, width)

    def forward(self, states: Tensor, graphs: SessionGraphs) -> Tensor:
        """``[V, d]`` to ``[V, d]``."""
        for _ in range(self.steps):
            states = self.cell(self.messages(states, graphs) + self.edge_bias, states)
        return states

    def messages(self, states: Tensor, graphs: SessionGraphs) -> Tensor:
        """``[V, 2 d]``: what each node hears from its predecessors and its successors."""
        sent = self.edges(states)
        width = states.shape[1]
        heard = graphs.mean_of_predecessors(sent[:, :width])
        return torch.cat([heard, graphs.mean_of_successors(sent[:, width:])], dim=1)
