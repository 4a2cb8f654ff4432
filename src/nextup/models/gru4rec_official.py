"""GRU4Rec as its authors train it: session-parallel, one step back, negatives for the whole batch.

Hidasi, Karatzoglou, Baltrunas & Tikk, *Session-based Recommendations with Recurrent Neural
Networks*, ICLR 2016 (session-parallel batches, section 3.1.1; negatives from the batch, 3.1.2), and
Hidasi & Karatzoglou, *Recurrent Neural Networks with Top-k Gains for Session-based
Recommendations*, CIKM 2018 (additional negatives, BPR-max, TOP1-max, tied embeddings).

A step shows each lane one item (`bptt` for more), carries the lane's state on without its gradient,
and scores only the step's targets and `negatives` items drawn with probability ``support^power``:
the target of row ``m`` is column ``m``. Inputs and outputs share the item table ("constrained
embedding"), with a bias for each item; what dropout makes of the state is what is carried on.
Train with ``optimizer = "adagrad"`` as the recipes do. `gru4rec` is the form with whole histories
and full back-propagation that most papers compare with. Answering replays a history from the zero
state, its last `max_length` items, and nothing is kept of users: a stranger is one like any other.

As in the authors' code, an item that stands in two columns counts twice, a second column of a
row's target is one of its negatives, and a step of fewer lanes at the end of an epoch weighs less.

Departures: BPR-max is worked out from logarithms instead of adding 1e-24 inside one; the lanes'
states are part of the state of training, so that an interrupted run goes on with them; a history
longer than `max_length` is walked through from where answering would start; an item that no
history of training has stays as it was drawn and is ranked like others, where theirs ranks none.
With ``bptt > 1`` (not in the published code) the targets of a whole stretch are columns of one
score matrix.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding

from nextup.data.batches import Batch
from nextup.data.lanes import LaneBatch, LaneStream
from nextup.data.negatives import SupportNegatives
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError
from nextup.models.base import Losses, ModelConfig, ParameterGroup, Recommender, item_counts
from nextup.models.registry import register
from nextup.nn.losses import own_column_losses
from nextup.nn.noise import Dropout
from nextup.nn.recurrence import initialise_gates, packed_states, stepped_states


class GRU4RecOfficialConfig(ModelConfig):
    """Settings of GRU4Rec in the authors' form."""

    max_length: int = Field(1000, ge=1, description="the most items of a history that are read")
    hidden: int = Field(100, ge=1, description="width of the state and of the item vectors")
    loss: Literal["cross_entropy", "bpr_max", "top1_max"] = Field(
        "cross_entropy", description="what training minimises, over the step's columns"
    )
    activation: Literal["linear", "elu", "tanh"] | None = Field(
        None,
        description="what scores pass through in training (elu: alpha 0.5); by default linear for "
        "cross_entropy, elu for bpr_max and tanh for top1_max",
    )
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="on embedded inputs")
    dropout: float = Field(0.0, ge=0, lt=1, description="on states, before they are carried on")
    negatives: int = Field(2048, ge=0, description="items drawn for a step beside its targets")
    negative_power: float = Field(
        0.5, ge=0, le=1, description="draw items with probability count^power"
    )
    penalty: float = Field(1.0, ge=0, description="bpr_max: on the negatives' squared scores")
    logq: float = Field(
        0.0, ge=0, description="cross_entropy: share of the log of supports taken off the scores"
    )
    bptt: int = Field(1, ge=1, description="items a lane reads in a step of back-propagation")


_ACTIVATIONS = {"linear": nn.Identity(), "elu": nn.ELU(0.5), "tanh": nn.Tanh()}
_USUAL = {"cross_entropy": "linear", "bpr_max": "elu", "top1_max": "tanh"}


@register
class GRU4RecOfficial(Recommender):
    """A GRU trained session-parallel, as the authors of GRU4Rec do."""

    name = "gru4rec_official"
    paper = "Hidasi & Karatzoglou, Recurrent Neural Networks with Top-k Gains, CIKM 2018"
    kind = "recurrent"
    Config: ClassVar[type[ModelConfig]] = GRU4RecOfficialConfig
    config: GRU4RecOfficialConfig
    reads_out: ClassVar[Literal["every", "last"]] = "every"
    lanes: Tensor

    def __init__(self, config: GRU4RecOfficialConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.items = nn.Embedding(n_items + 1, config.hidden, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(n_items + 1, 1))
        self.recurrence = nn.GRU(config.hidden, config.hidden)
        self.input_drop = Dropout(config.embedding_dropout)
        self.state_drop = Dropout(config.dropout)
        self._activation = _ACTIVATIONS[config.activation or _USUAL[config.loss]]
        self.extend({"lanes": 0})
        nn.init.xavier_uniform_(self.items.weight)
        initialise_gates(self.recurrence)
        with torch.no_grad():
            self.items.weight[0].zero_()

    def training_stream(
        self,
        train: Sequences,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        whole: Sequences | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> LaneStream:
        """Return batches of `batch_size` lanes, and make room for their states."""
        config = self.config
        if world > 1:
            raise ConfigError(f"{self.name}: trains in one process; start it without torchrun")
        counts = item_counts(train, self.n_items)[1:]
        stream = LaneStream(
            train,
            lanes=batch_size,
            stretch=config.bptt,
            max_length=config.max_length,
            negatives=SupportNegatives(counts, config.negatives, config.negative_power, device),
            seed=seed,
            device=device,
        )
        self.extend({"lanes": stream.lanes})
        return stream

    def extents(self) -> dict[str, int]:
        """Return the number of lanes: none once training is over."""
        return {"lanes": len(self.lanes)}

    def extend(self, extents: dict[str, int]) -> None:
        """Make states of zero for the lanes."""
        states = torch.zeros(extents.get("lanes", 0), self.config.hidden, device=self.bias.device)
        self.register_buffer("lanes", states)

    def conclude(self, train: Sequences, device: torch.device) -> None:
        """Forget the lanes: answering starts from nothing."""
        self.extend({"lanes": 0})

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the tables of items, of which a step moves the rows it met, and the cell."""
        tables = ParameterGroup([*self.items.parameters(), self.bias], by_rows=True)
        return [tables, ParameterGroup(list(self.recurrence.parameters()))]

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the step's targets; in training, the lanes' states move on."""
        assert isinstance(batch, LaneBatch)
        assert batch.targets is not None and batch.negatives is not None
        columns, sparse = torch.cat([batch.targets, batch.negatives]), self.sparse_gradients
        both = torch.cat([batch.tokens, columns])  # one look-up, since each costs a gradient
        found = embedding(both, self.items.weight, padding_idx=0, sparse=sparse)
        x, vectors = found.tensor_split([len(batch.tokens)])
        states = self._walk(x, batch)
        bias = embedding(columns, self.bias, sparse=sparse)
        scores = torch.addmm(bias.T, states, vectors.T)
        log_q = None
        if self.config.logq > 0:
            assert batch.target_log_q is not None and batch.negative_log_q is not None
            log_q = self.config.logq * torch.cat([batch.target_log_q, batch.negative_log_q])
        loss, scores = self.config.loss, self._activation(scores)
        losses = own_column_losses(scores, loss, self.config.penalty, log_q)
        total = losses.sum() / batch.target_total
        return Losses(total, {loss: total.detach()})

    def _walk(self, x: Tensor, batch: LaneBatch) -> Tensor:
        """``[M, hidden]``: the dropped state after each item, each row from its lane's state."""
        state = self.lanes[batch.lanes] * batch.goes_on[:, None]
        x = self.input_drop(x)
        states = stepped_states(self.recurrence, x, batch.lengths, state, self.state_drop)
        if self.training:
            ends = states.detach()[batch.last_at[batch.carried]]
            self.lanes[batch.lanes[batch.carried]] = ends.to(self.lanes.dtype)
        return states

    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """States from nothing: after every item ``[N, hidden]``, or after each row's last."""
        states = packed_states(self.recurrence, self.items(batch.tokens), batch.lengths)
        return states[batch.last_at] if last_only else states

    def query(self, batch: Batch) -> Tensor:
        """``[B, hidden]``: the state after each row's last item."""
        return self.encode(batch, last_only=True)

    def item_vectors(self) -> Tensor:
        """``[I + 1, hidden]``: the item table, in which inputs are looked up too."""
        return self.items.weight

    def item_bias(self) -> Tensor:
        """``[I + 1]``: the bias of each item."""
        return self.bias.squeeze(1)
