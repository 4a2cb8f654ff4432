"""BERT4Rec: a history with gaps is read in both directions, and the gaps are filled in.

Sun, Liu, Wu, Pei, Lin, Ou & Jiang, *BERT4Rec: Sequential Recommendation with Bidirectional Encoder
Representations from Transformer*, CIKM 2019. A share of the items of a history is replaced by a
token [MASK] (section 3.6, the Cloze task); BERT's post-norm blocks without a causal mask read what
is left (eqs. 1-6), and the state ``h`` of a gap says which item it was: softmax over the
catalogue of ``LN(GELU(W h + b)) E^T + c``, where E is the item embedding of the input (eq. 7).
To answer, [MASK] is appended to the history, whose oldest item makes room where it is full.

Departures from the authors' code:

* Gaps are drawn anew in every step. The code draws ten sets a history once and for all, and adds
  one copy with the last item as its only gap; here a history is read that way with probability
  `last_only`.
* Validation items are not trained on, and the softmax has no padding and no [MASK] in it.
* A history is its last `max_length` items, where the code slides windows over longer ones;
  ``rows="prefix"`` trains on every prefix instead, which has every item as a last one.
* Places are counted from the end of the row, in training and in answering alike. The code counts
  from the start; either way [MASK] stands where an item stood in training.
* AdamW as PyTorch has it: with bias correction, which the code's leaves out, and an epsilon of 1e-8
  instead of 1e-6.
* The vector of the token type, the same for all tokens, is left to the place vectors.

Only the gaps need queries and feed-forward in the last block, and the head. A user is nothing but a
history: one never met in training is answered like any other, and of an unknown length.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextup.augment import Packed, cloze_places
from nextup.data.batches import Batch
from nextup.data.stream import Samples
from nextup.models.base import Losses, ModelConfig, ParameterGroup, Recommender
from nextup.models.registry import register
from nextup.nn.linear_cross_entropy import linear_cross_entropy
from nextup.nn.noise import Dropout
from nextup.nn.packing import Packing, Slots
from nextup.nn.transformer import Asked, PostNormBlock, begin_blocks, finish_blocks


class BERT4RecConfig(ModelConfig):
    """Settings of BERT4Rec."""

    max_length: int = Field(50, ge=2, description="the most items of a history that are read")
    width: int = Field(64, ge=1, description="width of embeddings and states (d)")
    layers: int = Field(2, ge=0, description="number of blocks")
    heads: int = Field(2, ge=1, description="attention heads; must divide width")
    inner: int | None = Field(None, ge=1, description="feed-forward width, by default 4 * width")
    dropout: float = Field(0.2, ge=0, lt=1, description="on embeddings and after sub-layers")
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="on attention probabilities; by default as `dropout`"
    )
    mask_share: float = Field(0.4, gt=0, le=1, description="share of a history's items to find")
    last_only: float = Field(
        0.15, ge=0, le=1, description="how often only the last item of a history is to be found"
    )
    rows: Literal["history", "prefix"] = Field(
        "history", description="what a step reads: whole histories, or every prefix of them"
    )
    initial_std: float = Field(0.02, gt=0, description="standard deviation of fresh weights")
    output_precision: Literal["32", "bf16"] = Field(
        "32", description="precision of the product with the whole catalogue"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> BERT4RecConfig:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


@register
class BERT4Rec(Recommender):
    """Bidirectional self-attention over a history with gaps."""

    name = "bert4rec"
    paper = "Sun et al., BERT4Rec: Sequential Recommendation with BERT, CIKM 2019"
    kind = "attention"
    Config: ClassVar[type[ModelConfig]] = BERT4RecConfig
    config: BERT4RecConfig
    special_tokens: ClassVar[int] = 1
    """Tokens of its own, numbered from ``I + 1``: [MASK] is the first."""

    def __init__(self, config: BERT4RecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        width, rate = config.width, config.dropout
        attention_rate = rate if config.attention_dropout is None else config.attention_dropout
        self.items = nn.Embedding(n_items + 1 + self.special_tokens, width, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, width)
        self.input_norm = nn.LayerNorm(width, eps=1e-12)
        self.embedding_drop = Dropout(rate)
        inner = config.inner or 4 * width
        self.blocks = nn.ModuleList(
            PostNormBlock(width, config.heads, inner, rate, attention_rate, causal=False)
            for _ in range(config.layers)
        )
        self.head = nn.Linear(width, width)
        self.head_norm = nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.initialise(self)

    def initialise(self, part: nn.Module) -> None:
        """Draw fresh weights for `part` from a normal cut off at two standard deviations."""
        std = self.config.initial_std
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.items.weight[0].zero_()

    @property
    def mask_token(self) -> int:
        """The number of [MASK]."""
        return self.n_items + 1

    @property
    def targets(self) -> Samples:
        """Rows without targets: gaps are drawn in the step."""
        return "whole" if self.config.rows == "history" else "whole_prefix"

    def parameter_groups(self) -> list[ParameterGroup]:
        """Weight decay spares biases and norms."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [
            ParameterGroup([p for p in parameters if p.dim() > 1]),
            ParameterGroup([p for p in parameters if p.dim() == 1], decays=False),
        ]

    def encode(self, tokens: Tensor, packing: Packing, asked: Asked = None) -> Tensor:
        """States ``[N, d]`` of packed tokens, or of those `asked` alone."""
        x = self.items(tokens) + self.positions(packing.slots(self.config.max_length))
        x = self.embedding_drop(self.input_norm(x))
        return finish_blocks(self.blocks, begin_blocks(self.blocks, x, packing, asked))

    def predictions(self, states: Tensor) -> Tensor:
        """``[M, d]``: what stands in the gaps that have these states, in the items' space."""
        result: Tensor = self.head_norm(nn.functional.gelu(self.head(states)))
        return result

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the gaps of the step, drawn here."""
        rows = Packed.of(batch.tokens, batch.lengths)
        at, counts = cloze_places(rows, self.config.mask_share, self.config.last_only)
        packing = Packing(batch.lengths, batch.device)
        tokens = batch.tokens.index_fill(0, at, self.mask_token)
        states = self.encode(tokens, packing, Slots(packing, at, counts))
        total = self.cloze_loss(states, batch.tokens[at], batch)
        return Losses(total, {"cloze": total.detach()})

    def cloze_loss(self, states: Tensor, hidden: Tensor, batch: Batch) -> Tensor:
        """Mean loss of finding the `hidden` items ``int64[M]`` by the gaps' states ``[M, d]``.

        A process has as much of the mean as it has of the step's rows.
        """
        wide = torch.promote_types(states.dtype, torch.float32)
        share = len(batch) / (batch.row_total * len(hidden))
        weights = states.new_full((len(hidden),), share, dtype=wide)
        bf16 = torch.bfloat16 if self.config.output_precision == "bf16" else None
        vectors = self.item_vectors()
        total, _ = linear_cross_entropy(
            self.predictions(states), vectors, hidden, weights, self.bias, bf16
        )
        return total

    def query(self, batch: Batch) -> Tensor:
        """``[B, d]``: what is predicted for a [MASK] after each history."""
        batch = batch.cut(self.config.max_length - 1)
        tokens, lengths = appended(batch.tokens, batch.lengths, self.mask_token)
        last_at = torch.from_numpy(np.cumsum(lengths) - 1).to(batch.device)
        packing = Packing(lengths, batch.device)
        return self.predictions(self.encode(tokens, packing, last_at))

    def item_vectors(self) -> Tensor:
        """``[I + 1, d]``: the item embedding (tied), without the special tokens."""
        return self.items.weight[: self.n_items + 1]

    def item_bias(self) -> Tensor:
        """``[I + 1]``: the bias of each item."""
        return self.bias


def appended(
    tokens: Tensor, lengths: NDArray[np.int64], token: int
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return packed rows with `token` after each, and their lengths."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    longer = tokens.new_full((len(tokens) + len(lengths),), token)
    longer[torch.from_numpy(np.arange(len(row)) + row).to(tokens.device)] = tokens
    return longer, lengths + 1
