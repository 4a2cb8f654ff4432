"""SRMA: views by changing the model instead of the data, at random.

Liu, Chen, Li, Luo, Yu & Xiong, *Improving Contrastive Learning with Model Augmentation*, 2022.
The nearest neighbour of LMA4Rec: what that learns is drawn here. Three model augmentations over
the crop, mask and reorder of the data:

* neuron masking: ordinary dropout, in every block as in SASRec;
* layer dropping: ``k`` further feed-forward layers after the encoder, ``h <- LN(h + Dropout(
  GELU(W h)))``, of which ``m`` are left out at random in each step of training;
* encoder complementing: a SASRec trained beforehand and frozen encodes the history as it is; each
  view is contrasted with that as well, weighted by ``w``.

The training of the complement is a stage of the same fit. Here a step leaves out the same layers
in all of its passes (the public code's ``same``), the further layers serve the recommendation
pass too, and all answer.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.models.base import Losses, ParameterGroup, Stage
from nextup.models.contrastive import ContrastiveConfig, ContrastiveRecommender
from nextup.models.registry import register
from nextup.models.sasrec import SASRec, SASRecConfig
from nextup.models.streams import Streams
from nextup.nn.contrast import SlotLayout
from nextup.nn.noise import Dropout


class SRMAConfig(ContrastiveConfig, SASRecConfig):
    """Settings of SRMA."""

    further_layers: int = Field(2, ge=0, description="feed-forward layers after the encoder (k)")
    dropped_layers: int = Field(1, ge=0, description="how many a step leaves out (m)")
    complement_weight: float = Field(
        0.5,
        ge=0,
        description="weight of the contrast with a frozen encoder (w); 0: none is trained",
    )
    pretrain_epochs: int = Field(300, ge=1, description="the most epochs of the frozen encoder")

    @model_validator(mode="after")
    def _fewer_dropped(self) -> SRMAConfig:
        if self.dropped_layers > self.further_layers:
            raise ValueError(
                f"dropped_layers ({self.dropped_layers}) must not exceed further_layers "
                f"({self.further_layers})"
            )
        if self.complement_weight > 0 and self.contrast_share < 1:
            raise ValueError(
                "the complement is contrasted with views of every history, and contrast_share "
                "leaves some without; set complement_weight to 0 or contrast_share to 1"
            )
        if self.complement_weight > 0 and self.contrast_weight > 0 and self.contrast_padding:
            raise ValueError(
                "the complement reads histories without padding, and contrast_padding compares it; "
                "set complement_weight to 0 or leave contrast_padding out"
            )
        return self


class _FurtherLayer(nn.Module):
    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.drop = Dropout(rate)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(x + self.drop(nn.functional.gelu(self.inner(x))))
        return result


@register
class SRMA(ContrastiveRecommender, SASRec):
    """SASRec with random model augmentation and contrast."""

    name = "srma"
    paper = "Liu et al., Improving Contrastive Learning with Model Augmentation, 2022"
    Config = SRMAConfig
    config: SRMAConfig

    def __init__(self, config: SRMAConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        layers = [_FurtherLayer(config.width, config.dropout) for _ in range(config.further_layers)]
        self.further = nn.ModuleList(layers)
        for layer in layers:
            nn.init.normal_(layer.inner.weight, std=config.initial_std)
            nn.init.zeros_(layer.inner.bias)
        self.complement: SASRec | None = None
        if self._complements:
            shared = {k: getattr(config, k) for k in SASRecConfig.model_fields}
            self.complement = SASRec(SASRecConfig(**shared), n_items)
        self.stage = "train"
        self._freeze(True)

    @property
    def _complements(self) -> bool:
        return self.config.complement_weight > 0 and self.config.contrast_weight > 0

    def _freeze(self, frozen: bool) -> None:
        if self.complement is not None:
            self.complement.requires_grad_(not frozen)

    # ---- stages -------------------------------------------------------------------------------
    def stages(self) -> list[Stage]:
        """The frozen encoder first, then the model."""
        if not self._complements:
            return super().stages()
        settings: dict[str, Any] = {"epochs": self.config.pretrain_epochs}
        first = Stage("complement", settings, key=f"{self.identity} complement")
        return [first, Stage("train", key=self.identity)]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Choose which of the two encoders learns and answers."""
        self.stage = name
        self._freeze(name != "complement")

    def parameter_groups(self) -> list[ParameterGroup]:
        """The weights of the encoder whose stage it is."""
        if self._answering is not self and self.complement is not None:
            return [ParameterGroup(list(self.complement.parameters()))]
        return super().parameter_groups()

    @property
    def _answering(self) -> SASRec:
        both = self.stage == "complement" and self.complement is not None
        return self.complement if both and self.complement is not None else self

    # ---- what it computes ---------------------------------------------------------------------
    def encode(self, batch: Batch, last_only: bool) -> Tensor:
        """As SASRec, then the further layers, of which training leaves some out."""
        if self._answering is not self:
            return self._answering.encode(batch, last_only)
        states = super().encode(batch, last_only)
        count = len(self.further)
        kept = set(range(count))
        if self.training and self.config.dropped_layers:
            kept = set(torch.randperm(count)[self.config.dropped_layers :].tolist())
        for number, layer in enumerate(self.further):
            if number in kept:
                states = layer(states)
        return states

    def item_vectors(self) -> Tensor:
        """The item table of the encoder whose stage it is."""
        return super().item_vectors() if self._answering is self else self._answering.item_vectors()

    @property
    def last_only(self) -> bool:
        """Never, where views are compared with the complement token by token."""
        return super().last_only and not self._complements

    def loss(self, batch: Batch) -> Losses:
        """Return SASRec's loss in the complement's stage, and the joint loss after."""
        if self._answering is not self:
            return self._answering.loss(batch)
        return super().loss(batch)

    def contrast_of_streams(self, states: Tensor, streams: Streams, batch: Batch) -> Tensor:
        """Agreement of the views with each other, and of either with the frozen encoder."""
        contrast = super().contrast_of_streams(states, streams, batch)
        if self.complement is None:
            return contrast
        q = streams.n_rows
        with torch.no_grad():
            frozen = self.complement.eval().encode(batch, last_only=False)
        row, ago = self._in_order(batch)
        for first in (q, 2 * q):
            at, layout = streams.part(first, first + q)
            both = SlotLayout(torch.cat([layout.row, row + q]), torch.cat([layout.ago, ago]), 2 * q)
            alike = self.agreement(torch.cat([states[at], frozen]), both)
            part = self.contrast_of(alike, streams, batch)
            contrast = contrast + self.config.complement_weight * part
        return contrast

    @staticmethod
    def _in_order(batch: Batch) -> tuple[Tensor, Tensor]:
        lengths = torch.from_numpy(batch.lengths).to(batch.device)
        row = torch.arange(len(batch), device=batch.device).repeat_interleave(lengths)
        last = lengths.cumsum(0)[row] - 1
        return row, last - torch.arange(len(row), device=batch.device)
