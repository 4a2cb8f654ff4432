"""A model made of other models: which they are, and with which settings they learn."""

from __future__ import annotations

import json
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from nextup.models.base import ReadRecipe, Recommender
from nextup.models.registry import make_model


class Part(BaseModel):
    """A registered model as a part of another.

    On the command line a part is ``model``, or ``model/recipe``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="a registered model")
    recipe: str | None = Field(None, description="the recipe that `settings` are from")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the model")
    training: dict[str, Any] = Field(
        default_factory=dict, description="settings of training that differ in its stages"
    )
    start: int = Field(
        0, ge=0, description="another number gives other first weights and another course"
    )

    def __str__(self) -> str:
        said = [f"{self.model}/{self.recipe}" if self.recipe else self.model]
        said += [f"{key}={value}" for key, value in {**self.settings, **self.training}.items()]
        return " ".join(said + ([f"start={self.start}"] if self.start else []))

    @model_serializer(mode="wrap")
    def _without_the_usual_start(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the start where it is the usual one: runs stored before there was any agree."""
        said: dict[str, Any] = write(self)
        return said if said.get("start") else {k: v for k, v in said.items() if k != "start"}

    @classmethod
    def of(cls, value: object) -> Part:
        """Make a part of what a recipe or a command line says.

        Raises
        ------
        ValueError
            If it is neither a name nor a table.
        """
        if isinstance(value, Part):
            return value
        if isinstance(value, str):
            model, _, recipe = value.strip().partition("/")
            return cls(model=model, recipe=recipe or None, start=0)
        if isinstance(value, dict):
            return cls(**value)
        raise ValueError(f"a part is a model's name, or model/recipe, not {value!r}")

    def read(self, read_recipe: ReadRecipe, otherwise: str | None) -> Part:
        """Return the part with what its recipe says filled in; its own settings win."""
        recipe, settings, training = read_recipe(self.model, self.recipe, otherwise)
        return Part(
            model=self.model,
            recipe=recipe,
            settings={**settings, **self.settings},
            training={**training, **self.training},
            start=self.start,
        )

    def make(self, n_items: int) -> Recommender:
        """Build the model, with fresh weights.

        Raises
        ------
        ConfigError
            If model or settings are unknown.
        """
        return make_model(self.model, n_items, self.settings)


def listed(value: object) -> object:
    """Make a list of what a command line says of one: ``a``, ``a,b`` or ``[a, b]``.

    Raises
    ------
    ValueError
        If there are tables among the names, and it is not JSON.

    Examples
    --------
    >>> listed("[lma4rec, bert4rec/small]"), listed(["a"])
    (['lma4rec', 'bert4rec/small'], ['a'])
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        if "{" in value:
            raise ValueError(
                'a list with tables in it is JSON, with names in quotes too, as in [{"model": '
                f'"bert4rec", "start": 1}}, "sasrec"]; not {value}'
            ) from None
        names = value.strip().removeprefix("[").removesuffix("]").split(",")
        return [name.strip().strip("\"'") for name in names if name.strip()]
