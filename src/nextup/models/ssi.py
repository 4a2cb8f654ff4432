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
* All teachers start from the same weights, lest the mean of their item vectors mean nothing; once
  trained they agree little (``teachers.cosine`` in the log). A part's `start` gives it another
  beginning, lest a teacher of the student's kind be the very run that stands alone.
* Epochs are picked by full ranking, not by the paper's sampled one.
* A student with a target after every item imitates after up to `places` items of a row, drawn
  afresh in each step; others once a row, before its first target, if the row reads anything.
* A student with stages of its own imitates in the last of them.
* A model that counts speaks in shares; its logits are their logarithms (`Recommender.logits`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.errors import ConfigError
from nextup.models.base import Losses, ModelConfig, ParameterGroup, Recommender, Stage
from nextup.models.registry import register
from nextup.models.ssi_config import SSIConfig
from nextup.models.staged import Staged
from nextup.models.teaching import Classroom
from nextup.nn.imitation import Factors, divergence_from, weight_cost


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
        learnt = self.config.imitates and config.teacher_weight is None
        self.log_weights = nn.Parameter(torch.zeros(len(config.teachers))) if learnt else None
        self.maps = nn.ModuleDict()
        if config.imitate_items:
            own = self._items_of(self.last).shape[1]
            for number, teacher in enumerate(self.parts[:-1]):
                width = self._items_of(teacher).shape[1] if teacher.factors else own
                if teacher.factors and (width != own or config.map_items):
                    self.maps[str(number)] = nn.Linear(own, width, bias=False)
        torch.set_rng_state(self._random[-1])
        self._classroom: Classroom | None = None

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
        return stages if self.config.imitates else stages[-len(self.last.stages()) :]

    def begin_stage(self, name: str, resumed: bool) -> None:
        """Let one part learn; teachers that have learnt more since must be asked again."""
        super().begin_stage(name, resumed)
        self._classroom = None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the weights of the part that learns, and in the end how much to heed whom."""
        groups = list(super().parameter_groups())
        if self.in_final_stage and self.log_weights is not None:
            groups.append(ParameterGroup([self.log_weights], decays=False))
        if self.in_final_stage and len(self.maps):
            groups.append(ParameterGroup(list(self.maps.parameters())))
        return groups

    @property
    def classroom(self) -> Classroom:
        """The teachers, asked for the first time when the student's stage has begun."""
        if self._classroom is None:
            assert self._histories is not None
            room = self.config.keep_mb << 20
            self._classroom = Classroom(self.parts[:-1], *self._histories, room)
        return self._classroom

    def loss(self, batch: Batch) -> Losses:
        """The loss of the part that learns; for the student also that of imitation (eq. 8)."""
        losses = super().loss(batch)
        if not (self.in_final_stage and self.config.imitates):
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
        weight = self.config.teacher_weight or 0.0
        return torch.full((len(self.others),), weight, device=self.last.item_vectors().device)

    def _predictions(self, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """KL divergences (eq. 5) after some beginnings of the batch's histories."""
        rows, until = self.classroom.draw(
            batch,
            self.config.places if self.last.targets in ("every", "whole") else None,
            self.config.imitate_share,
            self.last.max_length,
        )
        said = self.classroom.say(rows.users.cpu().numpy(), until)
        vectors, bias = self.last.item_vectors(), self.last.item_bias()
        states = self.last.query(rows) if len(rows) else vectors[:0]
        student = Factors(states.to(vectors.dtype), vectors, bias)
        if self.config.imitate_over:
            drawn = torch.randint(1, self.n_items + 1, (self.config.imitate_over,))
            ids = batch.met(self.n_items, drawn.to(batch.device))
            ids = nn.functional.pad(ids, (1, 0))  # padding keeps its place
            student, said = student.over(ids), [each.over(ids) for each in said]
        return divergence_from(student, said, weights, self.config.temperature)

    def _items_of(self, part: Recommender) -> Tensor:
        """``[I + 1, d]``: the item vectors of a part that are imitated."""
        return part.item_inputs() if self.config.imitate_table == "inputs" else part.item_vectors()

    def _distances(self, batch: Batch) -> Tensor:
        """``[n]``: how far the student's item vectors are from each teacher's (eq. 6)."""
        ids = batch.met(self.n_items)
        mine = nn.functional.embedding(ids, self._items_of(self.last))
        distances = [mine.new_zeros(()) for _ in self.others]
        for number, teacher in enumerate(self.parts[:-1]):
            if teacher.factors:
                seen = self.maps[str(number)](mine) if str(number) in self.maps else mine
                gaps = (seen - self._items_of(teacher).detach()[ids]).square().mean(dim=0)
                mean = self.config.item_reduction == "mean"
                distances[number] = gaps.mean() if mean else gaps.sum()
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
