"""SSI: what consistent teachers know, taught to a light student.

Yuan, Chen, Song, Zhao & Ding, *Improving Sequential Recommendation Consistency with Self-Supervised
Imitation*, IJCAI 2021. Teachers are trained first, each as if it were a model of its own (the
paper's three are BERT4Rec with a task beside it: `nextup.models.consistency`), then frozen. The
student learns its own loss L_s and imitates each teacher i in two ways:

* predictions (eq. 5): the KL divergence from teacher to student over the whole catalogue, after
  the same history; or over `imitate_over` items drawn for the step, and its targets;
* item representations (eq. 6): the mean squared distance of the item vectors of the step, through
  a learnt linear map where the two differ in width.

Total (eq. 8): ``L_s + sum_i w_i (KL_i + MSE_i) + S + S^2`` with ``S = sum_i 1 / w_i``; the weights
are learnt and start at 1 (``w = exp(rho)``, so that they stay above zero).

**Any registered model can be a teacher, and any that learns by gradient a student.** What SSI
leaves behind is the student alone; the teachers are not needed to answer.

Readings and departures
-----------------------
* A teacher is asked with the training history before the target, as the student would be: it
  never sees what comes later, and no validation or test item.
* All teachers start from the same random weights, so that those of one form keep their item
  vectors in one space; else the mean of their targets would mean nothing. How well they align is
  logged as ``teachers.cosine``. A part's `start` gives it another beginning: without it, a teacher
  of the student's kind would be the very run that stands alone.
* A student with a target after every item imitates after up to `places` items of a row, drawn
  afresh in each step; others imitate once a row, before its first target. A row that reads nothing
  (a window of HGN) is not imitated: there is nothing a teacher could say.
* A student with stages of its own imitates in the last of them.
* A model that counts speaks in shares; its logits are their logarithms (`Recommender.logits`).
* A stranger is answered as the student answers strangers.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.errors import ConfigError
from nextup.models.base import Losses, ModelConfig, ParameterGroup, ReadRecipe, Stage
from nextup.models.parts import Part, listed
from nextup.models.registry import register
from nextup.models.staged import Staged
from nextup.models.teaching import Classroom
from nextup.nn.imitation import Factors, divergence_from, weight_cost

TASKS = ("temporal", "persona", "global")
"""The paper's teachers, by the task they learn beside filling gaps."""


def _teacher(value: object) -> Part:
    """A part, or one of the paper's teachers by its task, ``temporal`` or ``temporal/recipe``."""
    if isinstance(value, str):
        task, _, recipe = value.strip().partition("/")
        if task in TASKS:
            said = {"model": "consistency", "recipe": recipe or None, "settings": {"task": task}}
            return Part.of(said)
    return Part.of(value)


class SSIConfig(ModelConfig):
    """Settings of SSI."""

    idle = frozenset({"max_length"})

    student: Part = Field(
        default_factory=lambda: Part.of("hgn"), description="what learns to imitate"
    )
    teachers: list[Part] = Field(
        default_factory=lambda: [_teacher(task) for task in TASKS],
        description="whom: temporal, persona, global, or any model",
    )
    parts_recipe: str | None = Field(
        None, description="recipe of teachers and student that name none, where they have it"
    )
    teacher_training: dict[str, Any] = Field(
        default_factory=dict, description="settings of training that all teachers share"
    )
    imitate_predictions: bool = Field(True, description="imitate what teachers predict")
    imitate_items: bool = Field(True, description="imitate their item vectors")
    imitate_over: int = Field(
        0, ge=0, description="compare predictions over so many items drawn a step; 0: over all"
    )
    item_reduction: Literal["mean", "sum"] = Field(
        "mean", description="the distance of two item vectors: mean or sum over their width"
    )
    teacher_weight: float | None = Field(
        None, ge=0, description="weight of every teacher; null: learnt"
    )
    places: int = Field(3, ge=1, description="places of a row after which to imitate")
    imitate_share: float = Field(
        1.0, gt=0, le=1, description="share of a step's rows after which to imitate, drawn anew"
    )
    keep_mb: int = Field(2000, ge=0, description="memory for what the teachers say, computed once")

    @field_validator("student", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return Part.of(value)

    @field_validator("teachers", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        found = listed(value)
        return [_teacher(each) for each in found] if isinstance(found, list) else found

    @classmethod
    def with_recipes(cls, values: dict[str, Any], read: ReadRecipe) -> dict[str, Any]:
        """Fill in what the recipes of student and teachers say."""
        config = cls(**values)
        if config.max_length != ModelConfig.model_fields["max_length"].default:
            raise ConfigError(
                "ssi: `max_length` does nothing; student and teachers have lengths of their own, "
                'as in student={"model": "gru4rec", "settings": {"max_length": 20}}'
            )
        shared = config.teacher_training
        teachers = [each.read(read, config.parts_recipe) for each in config.teachers]
        teachers = [
            each.model_copy(update={"training": {**each.training, **shared}}) for each in teachers
        ]
        asked = config.student.training
        student = config.student.read(read, config.parts_recipe)
        usual = (
            Part.of({"model": student.model, "recipe": student.recipe}).read(read, None).training
        )
        if any(usual.get(key) != value for key, value in asked.items()):
            raise ConfigError(
                "ssi: the student is trained as the run is; give its settings of training "
                f"({', '.join(asked)}) to the run itself, not to `student`"
            )
        return {
            **values,
            "student": student.model_dump(mode="json"),
            "teachers": [each.model_dump(mode="json") for each in teachers],
        }


@register
class SSI(Staged):
    """A student of consistent teachers."""

    name = "ssi"
    paper = (
        "Yuan et al., Improving Sequential Recommendation Consistency with Self-Supervised "
        "Imitation, IJCAI 2021"
    )
    kind = "imitation"
    needs = "what its student needs"
    unseen_users = "as its student answers them"
    Config: ClassVar[type[ModelConfig]] = SSIConfig
    config: SSIConfig

    def __init__(self, config: SSIConfig, n_items: int) -> None:
        if not config.teachers:
            raise ConfigError("ssi: `teachers` is empty; name one, or fit the student alone")
        super().__init__(config, n_items, [*config.teachers, config.student])
        if self.last.learns_by != "gradient":
            raise ConfigError(
                f"ssi: {self.last.name} learns by counting, so it cannot imitate; "
                "choose another student"
            )
        for teacher in () if config.imitate_predictions else self.parts[:-1]:
            if config.imitate_items and not teacher.factors:
                raise ConfigError(
                    f"ssi: teacher {teacher.name} has no item vectors, and its predictions are not "
                    "imitated, so there is nothing to learn from it; choose another teacher"
                )
        learnt = self.imitates and config.teacher_weight is None
        self.log_weights = nn.Parameter(torch.zeros(len(config.teachers))) if learnt else None
        self.maps = nn.ModuleDict()
        if config.imitate_items:
            own = self.last.item_inputs().shape[1]
            for number, teacher in enumerate(self.parts[:-1]):
                if teacher.factors and teacher.item_inputs().shape[1] != own:
                    width = teacher.item_inputs().shape[1]
                    self.maps[str(number)] = nn.Linear(own, width, bias=False)
        torch.set_rng_state(self._random[-1])
        self._classroom: Classroom | None = None

    @property
    def imitates(self) -> bool:
        """Whether there is anything to imitate."""
        return self.config.imitate_predictions or self.config.imitate_items

    def role(self, number: int) -> str:
        """Return ``teacher temporal`` and the like."""
        if number == len(self.others):
            return f"student {self.last.name}"
        names = [str(said.settings.get("task", said.model)) for said in self.config.teachers]
        again = names[:number].count(names[number])
        return f"teacher {names[number]}" + (f" {again + 1}" if again else "")

    def stages(self) -> list[Stage]:
        """Return a stage for each teacher, if they are heeded, and the student's."""
        stages = super().stages()
        return stages if self.imitates else stages[-len(self.last.stages()) :]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Let one part learn; teachers that have learnt more since must be asked again."""
        super().begin_stage(name, resumed)
        self._classroom = None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the weights of the part that learns, and in the end how much to heed whom."""
        groups = super().parameter_groups()
        if self.in_final_stage and self.log_weights is not None:
            groups = [*groups, ParameterGroup([self.log_weights], decays=False)]
        if self.in_final_stage and len(self.maps):
            groups = [*groups, ParameterGroup(list(self.maps.parameters()))]
        return groups

    @property
    def classroom(self) -> Classroom:
        """The teachers, asked for the first time when the student's stage has begun."""
        if self._classroom is None:
            assert self._histories is not None
            train, device = self._histories
            self._classroom = Classroom(self.parts[:-1], train, device, self.config.keep_mb << 20)
        return self._classroom

    # ---- the student's loss -------------------------------------------------------------------
    def loss(self, batch: Batch) -> Losses:
        """The loss of the part that learns; for the student also that of imitation (eq. 8)."""
        losses = super().loss(batch)
        if not (self.in_final_stage and self.imitates):
            return losses
        weights = self.weights()
        share = len(batch) / batch.row_total
        total, parts = losses.total, dict(losses.parts)
        if self.config.imitate_predictions:
            imitated, each = self._predictions(batch, weights)
            total = total + share * imitated
            parts["divergence"] = share * each.mean()
        if self.config.imitate_items:
            distances = self._distances(batch)
            total = total + share * (weights * distances).sum()
            parts["item_distance"] = share * distances.detach().mean()
        if self.log_weights is not None:
            total = total + share * weight_cost(weights)
        return Losses(total, parts)

    def weights(self) -> Tensor:
        """``[n]``: how much each teacher is heeded."""
        if self.log_weights is not None:
            return self.log_weights.exp()
        device = self.last.item_vectors().device
        return torch.full((len(self.others),), self.config.teacher_weight or 0.0, device=device)

    def _predictions(self, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """KL divergences (eq. 5) after some beginnings of the batch's histories."""
        rows, until = self._beginnings(batch)
        said = self.classroom.say(rows.users.cpu().numpy(), until)
        vectors, bias = self.last.item_vectors(), self.last.item_bias()
        states = self.last.query(rows) if len(rows) else vectors[:0]
        student = Factors(states.to(vectors.dtype), vectors, bias)
        if self.config.imitate_over:
            drawn = torch.randint(1, self.n_items + 1, (self.config.imitate_over,))
            ids = self._items_of(batch, drawn.to(batch.device))
            ids = torch.cat([ids.new_zeros(1), ids])  # padding keeps its place
            student, said = student.over(ids), [each.over(ids) for each in said]
        return divergence_from(student, said, weights)

    def _beginnings(self, batch: Batch) -> tuple[Batch, NDArray[np.int64]]:
        """Beginnings of histories after which to imitate, and how many items each has."""
        assert batch.until is not None
        users, row = batch.users.cpu().numpy(), np.arange(len(batch))
        back = np.zeros_like(row)  # how many items before its row's end a beginning ends
        if self.last.targets in ("every", "whole"):
            row = np.repeat(row, self.config.places)
            drawn = torch.rand(len(row)).numpy()
            back = np.floor(drawn * batch.lengths[row]).astype(np.int64)
            row, back = np.unique(np.stack([row, back]), axis=1)
        if self.config.imitate_share < 1:
            drawn = torch.rand(len(row)).numpy() < self.config.imitate_share
            row, back = row[drawn], back[drawn]
        until, users = batch.until[row] - back, users[row]
        real = (until > 0) & (until < self.classroom.lengths(users))
        users, until = users[real], until[real]
        rows = self.classroom.beginnings(users, until, self.last.max_length)
        return rows, until[rows.rows]

    def _items_of(self, batch: Batch, *more: Tensor) -> Tensor:
        """``int64[k]``: the items of a step, each once: those read, to be found, and drawn."""
        met = [batch.tokens, batch.targets, batch.negatives, *more]
        ids = torch.cat([t.reshape(-1) for t in met if t is not None])
        ids = torch.unique(ids)  # type: ignore[no-untyped-call]
        found: Tensor = ids[(ids > 0) & (ids <= self.n_items)]
        return found

    def _distances(self, batch: Batch) -> Tensor:
        """``[n]``: how far the student's item vectors are from each teacher's (eq. 6)."""
        ids = self._items_of(batch)
        mine = nn.functional.embedding(ids, self.last.item_inputs())
        distances = []
        for number, teacher in enumerate(self.parts[:-1]):
            if not teacher.factors:
                distances.append(mine.new_zeros(()))
                continue
            seen = self.maps[str(number)](mine) if str(number) in self.maps else mine
            gaps = (seen - teacher.item_inputs().detach()[ids]).square()
            mean = self.config.item_reduction == "mean"
            distances.append(gaps.mean() if mean else gaps.sum(dim=1).mean())
        return torch.stack(distances)

    def diagnostics(self) -> dict[str, float]:
        """Return what the part that learns has to say, and how much each teacher is heeded."""
        found = super().diagnostics()
        if self.in_final_stage and self.log_weights is not None:
            for number, weight in enumerate(self.weights().tolist()):
                found[f"weight.{self.role(number).removeprefix('teacher ')}"] = weight
        if self._classroom is not None and self._classroom.alignment is not None:
            found["teachers.cosine"] = self._classroom.alignment
        return found
