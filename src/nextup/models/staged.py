"""A model made of models that learn one after the other.

Each part is trained in stages of its own, as if it were alone: from the random weights, with the
random numbers and the batches that it would have in a fit of its own, so that it ends with the same
weights. While a part learns, the whole answers as that part does; afterwards as the last one.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.data.catalog import Catalog
from nextup.data.sequences import Sequences
from nextup.data.stream import Stream
from nextup.models.base import Losses, ModelConfig, ParameterGroup, Recommender, Stage
from nextup.models.parts import Part

_STARTS = 1000
"""More than a model has stages: how far the random numbers of two starts lie apart."""


class Staged(Recommender):
    """Base of models made of others; the last part is the one that stays.

    Parameters
    ----------
    config
        The model's typed settings.
    n_items
        Items of the catalogue.
    parts
        What it is made of, in the order in which they learn.
    """

    def __init__(self, config: ModelConfig, n_items: int, parts: list[Part]) -> None:
        super().__init__(config, n_items)
        start = torch.get_rng_state()
        self._random: list[Tensor] = []
        made = []
        for part in parts:
            torch.set_rng_state(start)
            if part.start:
                torch.manual_seed(int(torch.randint(1 << 62, ())) + part.start)
            made.append(part.make(n_items))
            self._random.append(torch.get_rng_state())
        self.others = nn.ModuleList(made[:-1])
        self.last = made[-1]
        self.said = parts
        self._number = len(made) - 1
        self.in_final_stage = True
        self._histories: tuple[Sequences, torch.device] | None = None

    def role(self, number: int) -> str:
        """Return what a part is called in the log."""
        return self.parts[number].name

    @property
    def parts(self) -> list[Recommender]:
        """All parts, in the order in which they learn."""
        return [cast("Recommender", part) for part in [*self.others, self.last]]

    @property
    def acting(self) -> Recommender:
        """The part that learns, or answers."""
        return self.parts[self._number]

    @property
    def in_last(self) -> bool:
        """Whether it is the last part's turn, or all is learnt."""
        return self._number == len(self.others)

    @property
    def learning(self) -> Recommender:
        """The part of this stage, or what learns in it; in the last part's stages the whole."""
        return self if self.in_last else self.acting.learning

    @property
    def answering(self) -> Recommender:
        """The last part, or what answers of it; the others are not needed to answer."""
        answering: Recommender = self.last.answering
        return answering

    # ---- before training ----------------------------------------------------------------------
    def meet(self, catalog: Catalog) -> None:
        """Show the catalogue to every part."""
        for part in self.parts:
            part.meet(catalog)

    @property
    def catalogue_mark(self) -> str:
        """What the parts take from the catalogue, one after the other."""
        return " ".join(filter(None, (part.catalogue_mark for part in self.parts)))

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Prepare every part; those that count learn here."""
        self._histories = train, device
        for part, state in zip(self.parts, self._random, strict=True):
            torch.set_rng_state(state)
            part.prepare(train, device)
            if part.learns_by == "counting":
                part.count(train)

    def extents(self) -> dict[str, int]:
        """Return what the parts count, each under its number."""
        return {
            f"{number}.{name}": count
            for number, part in enumerate(self.parts)
            for name, count in part.extents().items()
        }

    def extend(self, extents: dict[str, int]) -> None:
        """Make the weights of the parts that `extents` counts."""
        for number, part in enumerate(self.parts):
            begin = f"{number}."
            mine = {k.removeprefix(begin): n for k, n in extents.items() if k.startswith(begin)}
            if mine:
                part.extend(mine)

    def conclude(self, train: Sequences, device: torch.device) -> None:
        """Conclude every part."""
        for part in self.parts:
            part.conclude(train, device)

    def pause(self, train: Sequences, users: np.ndarray) -> None:
        """Let the part that answers get ready."""
        self.acting.pause(train, users)

    # ---- stages -------------------------------------------------------------------------------
    def _plan(self) -> list[tuple[int, str, Stage]]:
        """Each stage: the part's number, what the part calls it, and the stage as it is here."""
        plan = []
        for number, (part, said) in enumerate(zip(self.parts, self.said, strict=True)):
            own = part.stages() if part.learns_by == "gradient" else []
            last = number == len(self.others)
            for place, stage in enumerate(own):
                name = self.role(number) + (f": {stage.name}" if len(own) > 1 else "")
                settings = {**({} if last else said.training), **stage.settings}
                key = None if last else stage.key
                if key is not None and said.start:
                    key = f"{key}, start {said.start}"
                within = place if stage.number is None else stage.number
                random = within + _STARTS * said.start
                mine = Stage(name, settings, random, key, stage.validates)
                plan.append((number, stage.name, mine))
        return plan

    def stages(self) -> list[Stage]:
        """Return the stages of all parts; the last part's follow the settings of the whole."""
        return [stage for _, _, stage in self._plan()]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Let one part learn; the others stand still, and one that has just ended is concluded."""
        plan = self._plan()
        place = next(at for at, each in enumerate(plan) if each[2].name == name)
        before = plan[place - 1][0] if place else None
        self._number, own, _ = plan[place]
        self.in_final_stage = place == len(plan) - 1
        if not resumed and before not in (None, self._number) and self._histories is not None:
            self.parts[before].conclude(*self._histories)
        self.acting.begin_stage(own, resumed)

    def begin_epoch(self, epoch: int) -> None:
        """Hand on to the part that learns."""
        self.acting.begin_epoch(epoch)

    def train(self, mode: bool = True) -> Staged:
        """Put the part that learns into training mode; the others only ever answer."""
        super().train(False)
        self.training = mode
        self.acting.train(mode)
        return self

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the weights of the part that learns."""
        return self.acting.parameter_groups()

    def training_stream(self, train: Sequences, **how: Any) -> Stream:
        """Return the batches of the part that learns."""
        return self.acting.training_stream(train, **how)

    def loss(self, batch: Batch) -> Losses:
        """Return the loss of the part that learns."""
        return self.acting.loss(batch)

    def diagnostics(self) -> dict[str, float]:
        """Return what the part that learns has to say."""
        return self.acting.diagnostics()

    # ---- answering ----------------------------------------------------------------------------
    @property
    def max_length(self) -> int:
        """The most items of a history that the part reads which learns, or answers."""
        return self.acting.max_length

    def query(self, batch: Batch) -> Tensor:
        """``[B, D]``: the query of that part."""
        return self.acting.query(batch)

    def item_vectors(self) -> Tensor:
        """``[I + 1, D]``: the items of that part."""
        return self.acting.item_vectors()

    def item_bias(self) -> Tensor | None:
        """``[I + 1]``: the bias of that part."""
        return self.acting.item_bias()

    def item_inputs(self) -> Tensor:
        """``[I + 1, d]``: the items as that part reads them."""
        return self.acting.item_inputs()
