"""Settings of SSI: who teaches, who learns, and what is imitated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from nextup.errors import ConfigError
from nextup.models.base import ModelConfig, ReadRecipe
from nextup.models.parts import Part, listed

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
        default_factory=lambda: Part.of("hgn"),
        description="what learns to imitate; it is trained as the run is, not as its own recipe",
    )
    teachers: list[Part] = Field(
        default_factory=lambda: [_teacher(task) for task in TASKS],
        description="whom: temporal, persona, global, or any model",
    )
    parts_recipe: str | None = Field(
        None,
        description="recipe of teachers and student that name none, where they have it; "
        "null: small",
    )
    teacher_training: dict[str, Any] = Field(
        default_factory=dict, description="settings of training that all teachers share"
    )
    imitate_predictions: bool = Field(True, description="imitate what teachers predict")
    imitate_items: bool = Field(True, description="imitate their item vectors")
    map_items: bool = Field(
        False, description="learn a map to a teacher's item vectors even where widths agree"
    )
    imitate_over: int = Field(
        0, ge=0, description="compare predictions over so many items drawn a step; 0: over all"
    )
    temperature: float = Field(
        1.0, gt=0, description="softens what is compared: logits are divided by it"
    )
    imitate_table: Literal["inputs", "outputs"] = Field(
        "inputs", description="which item vectors: those a model reads, or those it scores with"
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

    @property
    def imitates(self) -> bool:
        """Whether there is anything to imitate."""
        return self.imitate_predictions or self.imitate_items

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
        shared, otherwise = config.teacher_training, config.parts_recipe or "small"
        teachers = [each.read(read, otherwise) for each in config.teachers]
        teachers = [
            each.model_copy(update={"training": {**each.training, **shared}}) for each in teachers
        ]
        asked = config.student.training
        student = config.student.read(read, otherwise)
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
