"""SSI's settings: parts by name, from their recipes, and those that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_models import N_ITEMS

from nextup.errors import ConfigError
from nextup.models.registry import make_model
from nextup.train.recipe import resolve


def test_parts_are_named_on_the_command_line_and_read_from_their_recipes() -> None:
    config, _ = resolve("ssi", settings={"student": "gru4rec/tuned", "teachers": "[sasrec, mc1]"})
    again, _ = resolve("ssi", settings=config.model_dump(mode="json"))
    assert again == config
    said = json.loads(config.model_dump_json())
    assert said["student"]["settings"]["hidden"] == 128
    assert said["teachers"][0]["recipe"] == "paper"
    assert said["teachers"][0]["settings"]["loss"] == "bce"
    assert said["teachers"][0]["training"]["batch_size"] == 256
    assert said["teachers"][1]["model"] == "mc1" and not said["teachers"][1]["training"]
    plain, _ = resolve("ssi", settings={"teachers": "persona"})
    (teacher,) = json.loads(plain.model_dump_json())["teachers"]
    assert (teacher["model"], teacher["settings"]["task"]) == ("consistency", "persona")


def test_parts_without_a_recipe_are_those_that_a_cpu_can_train() -> None:
    config, _ = resolve("ssi", settings={"teachers": "[temporal, bert4rec, sasrec]"})
    said = json.loads(config.model_dump_json())
    assert [each["recipe"] for each in said["teachers"]] == ["small", "small", "paper"]
    assert said["student"]["recipe"] == "small"
    config, _ = resolve("ssi", "paper")
    assert [each.recipe for each in config.teachers] == ["ssi"] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student": "mc1"}, "learns by counting"),
        ({"teachers": []}, "`teachers` is empty"),
        ({"student": "gru"}, "unknown model `gru`; did you mean"),
        ({"student": "hgn/papr"}, "unknown recipe `papr`; did you mean `paper`"),
        ({"student": {"model": "hgn", "settings": {"widht": 3}}}, "unknown key `widht`"),
        ({"teachers": 3}, "teachers"),
        ({"teachers": '[{"model": "bert4rec"}, temporal]'}, "names in quotes too"),
        ({"student": {"model": "hgn", "training": {"epochs": 3}}}, "trained as the run is"),
        ({"max_length": 20}, "lengths of their own"),
        ({"teachers": ["mc1"], "imitate_predictions": False}, "nothing to learn from it"),
    ],
)
def test_a_part_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config, _ = resolve("ssi", settings={"teachers": ["sasrec"], **settings})
        make_model("ssi", N_ITEMS, config.model_dump())
