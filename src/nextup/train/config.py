"""The settings of training, typed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nextup.errors import ConfigError
from nextup.evaluation.metrics import parse_metric
from nextup.evaluation.protocol import Protocol


class TrainConfig(BaseModel):
    """How a model that learns by gradient is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(200, ge=0, description="the most epochs")
    batch_size: int = Field(256, ge=1, description="samples of a step, over all processes")
    optimizer: Literal["adam", "adagrad", "sgd"] = Field(
        "adam", description="AdamW; Adagrad or plain steps, both with momentum"
    )
    learning_rate: float = Field(1e-3, gt=0, description="step size")
    momentum: float = Field(
        0.0, ge=0, lt=1, description="adagrad, sgd: share of the last step that is taken again"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the squared gradient")
    weight_decay: float = Field(0.0, ge=0, description="decoupled (AdamW)")
    coupled_decay: bool = Field(
        False,
        description="weight_decay goes through the gradient instead, as an L2 term of the loss "
        "would; what most public codes do with Adam",
    )
    schedule: Literal["constant", "linear", "cosine", "steps"] = Field(
        "constant", description="how the step size falls over the epochs"
    )
    drop_every: int = Field(3, ge=1, description="schedule steps: epochs between drops")
    drop_factor: float = Field(
        0.1, gt=0, le=1, description="schedule steps: what a drop leaves of the step size"
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the step size rises")
    clip_norm: float = Field(0.0, ge=0, description="largest norm of the gradient; 0: no limit")
    metric: str = Field("NDCG@10", description="validation metric that picks the best epoch")
    patience: int = Field(
        10,
        ge=0,
        description="validations without gain, after the warm-up, before stopping; 0: none",
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of a running average of the weights that is what "
        "validation and the saved recommender use; 0: none",
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="training ends with the step at which so many seconds are over, and is then "
        "validated; stages share what is left evenly; null: no limit",
    )
    checkpoint_seconds: float = Field(60.0, ge=0, description="seconds between checkpoints")

    @model_validator(mode="after")
    def _momentum_is_used(self) -> TrainConfig:
        if self.momentum > 0 and self.optimizer == "adam":
            raise ValueError("momentum is for adagrad and sgd; Adam has beta1")
        return self


def with_metric(config: TrainConfig, protocol: Protocol) -> TrainConfig:
    """Check the validation metric, and spell it as `metrics` does.

    Raises
    ------
    ConfigError
        If there is no such metric, or the protocol lacks its cutoff.
    """
    kind, cutoff = parse_metric(config.metric)
    if cutoff is not None and cutoff not in protocol.cutoffs:
        raise ConfigError(
            f"training: metric {config.metric} needs cutoff {cutoff}, the protocol has "
            f"{', '.join(map(str, protocol.cutoffs))}"
        )
    name = kind if cutoff is None else f"{kind}@{cutoff}"
    return config.model_copy(update={"metric": name})
