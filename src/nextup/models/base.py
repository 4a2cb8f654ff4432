"""The contract every recommender fulfils.

A model says what training minimises (`loss`), what a history is turned into (`query`) and where
the items stand in the same space (`item_vectors`, `item_bias`). Scores are the product of the
two, so ranking, top-k, export and imitation are written once, for all. A model whose scores do
not factor (a transition count) overrides `scores`.

A new model is one file with one class below `@register` (`nextup.models.registry`), and one recipe.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.data.catalog import Catalog
from nextup.data.negatives import NegativeSampler
from nextup.data.sequences import Sequences
from nextup.data.stream import Samples, Stream, TrainingStream

Kind = Literal[
    "counting",
    "factors",
    "recurrent",
    "convolution",
    "attention",
    "graph",
    "gating",
    "contrastive",
    "imitation",
    "other",
]
"""What a model is at its heart; ``imitation`` learns from other models."""

ReadRecipe = Callable[
    [str, str | None, str | None], tuple[str | None, dict[str, Any], dict[str, Any]]
]
"""Called with a model, a recipe (or None) and the name of one to try then; returns the recipe
found, and its settings of the model and of training."""


class ModelConfig(BaseModel):
    """Base of all typed settings of a model; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    idle: ClassVar[frozenset[str]] = frozenset()
    """Settings that every model has and that do nothing in this one."""

    max_length: int = Field(50, ge=1, description="the most items of a history that are read")

    @classmethod
    def with_recipes(cls, values: dict[str, Any], read: ReadRecipe) -> dict[str, Any]:
        """Return `values` with what the recipes say that they name (a model made of models)."""
        return values


@dataclass
class Losses:
    """What a training step minimises: the total, and its named parts for the log."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class ParameterGroup:
    """Weights that the optimiser treats alike.

    `rate` multiplies the step size of training; `decays` says whether weight decay touches them.
    `by_rows`: tables of which a step shall move only the rows it met (Adagrad and SGD; Adam moves
    all); their gradients may be sparse where `Recommender.sparse_gradients` says so.
    """

    parameters: list[nn.Parameter]
    rate: float = 1.0
    decays: bool = True
    by_rows: bool = False


@dataclass(frozen=True)
class Stage:
    """A part of training with its own optimiser and early stopping.

    Parameters
    ----------
    name
        What the log and the bar call it.
    settings
        The settings of training (as in ``[train]`` of a recipe) that differ in it.
    number
        Which stage of a fit of its own it is; decides its random numbers. By default its place.
    key
        What decides its weights, beside data, seed and settings of training; a stage with the
        same key need not be trained again. None for one that is never shared.
    validates
        Whether its epochs are measured on validation. Where they are not, its last weights are
        what it leaves, however validation ranks.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    number: int | None = None
    key: str | None = None
    validates: bool = True


class Recommender(nn.Module):
    """Base of all recommenders.

    Parameters
    ----------
    config
        The model's typed settings.
    n_items
        Items of the catalogue; they are numbered ``1..n_items``, 0 is padding.
    """

    name: ClassVar[str]
    """What the model is called on the command line."""
    paper: ClassVar[str]
    """Authors, title, venue and year; `nextup.describe` takes them apart at the commas."""
    kind: ClassVar[Kind] = "other"
    needs: ClassVar[str] = ""
    """What it reads besides histories: users, items' attributes."""
    unseen_users: ClassVar[str] = "from their history, like anybody"
    """How a user is answered who was not there in training."""
    Config: ClassVar[type[ModelConfig]] = ModelConfig
    learns_by: ClassVar[Literal["gradient", "counting"]] = "gradient"
    sparse_gradients: bool = False
    """Set by training: whether its optimiser takes sparse gradients of tables."""

    def __init__(self, config: ModelConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.n_items = n_items

    # ---- learning -----------------------------------------------------------------------------
    def count(self, train: Sequences) -> None:
        """Learn from training histories in one pass (models with ``learns_by == "counting"``)."""
        raise NotImplementedError(f"{self.name} learns by gradient")

    @property
    def targets(self) -> Samples:
        """What the rows of a training step are, and its targets; see `TrainingStream`."""
        return "every"

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
    ) -> Stream:
        """Return the batches of training; a model that trains in its own order has its own."""
        return TrainingStream(
            train,
            targets=self.targets,
            max_length=self.max_length,
            batch_size=batch_size,
            negatives=self.negative_sampler(train, device, whole),
            seed=seed,
            device=device,
            rank=rank,
            world=world,
        )

    def negative_sampler(
        self, train: Sequences, device: torch.device, whole: Sequences | None = None
    ) -> NegativeSampler | None:
        """Return what draws this model's negatives, or None if its loss needs none.

        `whole` is everything each user did; only a model that is asked to repeat the public
        codes' habit of never drawing a user's held-out items may look at it.
        """
        return None

    def meet(self, catalog: Catalog) -> None:
        """Look at what is known of the items (attributes), before `prepare`.

        Raises
        ------
        ConfigError
            If the settings need what the catalogue does not hold.
        """
        return None

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Look at the training histories once, before the first step (statistics, neighbours).

        Weights whose number depends on the data are made here, through `extend`.
        """
        return None

    def extents(self) -> dict[str, int]:
        """Return how many there are of what the model has weights for, besides items (users)."""
        return {}

    def extend(self, extents: dict[str, int]) -> None:
        """Make the weights that `extents` counts, fresh; called before weights are loaded."""
        return None

    @property
    def knows_users(self) -> bool:
        """Whether it learns something of each user, so that who asks makes a difference."""
        return "users" in self.extents()

    def conclude(self, train: Sequences, device: torch.device) -> None:
        """Look at the training histories once more, the final weights in place."""
        return None

    def pause(self, train: Sequences, users: np.ndarray) -> None:
        """Get ready to answer for `users` amid training, as `conclude` does for good."""
        return None

    @property
    def catalogue_mark(self) -> str:
        """What decides its weights of the catalogue besides the items (attributes), as a checksum.

        Empty if nothing does.
        """
        return ""

    @property
    def identity(self) -> str:
        """The model's name and settings as text."""
        said = {"model": self.name, "config": self.config.model_dump(mode="json")}
        return json.dumps(said, sort_keys=True)

    def stages(self) -> list[Stage]:
        """Return the stages of training, in order; the last one makes the model that answers."""
        return [Stage("train", key=self.identity)]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Turn to a stage, the best weights of the stage before in place.

        With `resumed` the stage had begun already: its state is about to be read from the
        checkpoint, so only what is no part of the state is to be set.
        """
        return None

    @property
    def learning(self) -> Recommender:
        """The model that learns in this stage, and whose weights are what it leaves."""
        return self

    @property
    def answering(self) -> Recommender:
        """The model that goes into service once all is learnt."""
        return self

    def begin_epoch(self, epoch: int) -> None:
        """Do what is due before the first step of an epoch, counted from 0.

        What it changes must be part of the model's state, so that a run that is killed within
        the epoch can go on.
        """
        return None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return all trainable weights in the groups that the optimiser treats apart."""
        return [ParameterGroup([p for p in self.parameters() if p.requires_grad])]

    def diagnostics(self) -> dict[str, float]:
        """Return what is worth a line of the log after an epoch, by name."""
        return {}

    def loss(self, batch: Batch) -> Losses:
        """Return what training minimises, as a mean over ``batch.target_total`` targets."""
        raise NotImplementedError(f"{self.name} does not learn by gradient")

    # ---- answering ----------------------------------------------------------------------------
    @property
    def max_length(self) -> int:
        """The most items of a history that are read."""
        return self.config.max_length

    def query(self, batch: Batch) -> Tensor:
        """Turn each history of the batch into a vector: ``[B, D]``, in the batch's row order."""
        raise NotImplementedError(f"the scores of {self.name} do not factor; use `scores`")

    def item_vectors(self) -> Tensor:
        """``[I + 1, D]``: the catalogue in the space of `query`; row 0 is padding."""
        raise NotImplementedError(f"the scores of {self.name} do not factor; use `scores`")

    def item_bias(self) -> Tensor | None:
        """``[I + 1]``: added to the scores, or None."""
        return None

    def item_inputs(self) -> Tensor:
        """``[I + 1, d]``: the items as the model reads them, if it has a table for that."""
        return self.item_vectors()

    @property
    def factors(self) -> bool:
        """Whether scores are `query` times `item_vectors` (else `scores` is overridden)."""
        return type(self).scores is Recommender.scores

    def scores(self, batch: Batch) -> Tensor:
        """``[B, I + 1]``: a score for each item; column 0 is padding and never a candidate."""
        scores = self.query(batch) @ self.item_vectors().T
        bias = self.item_bias()
        return scores if bias is None else scores + bias

    def logits(self, batch: Batch) -> Tensor:
        """``[B, I + 1]``: scores on the scale of logarithms, so that a softmax makes shares."""
        return self.scores(batch)


def item_counts(train: Sequences, n_items: int) -> np.ndarray:
    """``int64[I + 1]``: how often each item occurs in the histories; entry 0 is 0."""
    counts = np.bincount(train.items[train.positions()], minlength=n_items + 1)
    counts[0] = 0
    return counts
