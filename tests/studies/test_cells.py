"""Cells: what decides the numbers, and nothing else, tells them apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field

from nextup.errors import ConfigError
from nextup.evaluation.protocol import Protocol
from nextup.models import sasrec
from nextup.studies import cell as cell_module
from nextup.studies.cell import Cell, short
from nextup.studies.spelling import cell_text, parse_cell


def test_names_say_what_departs_from_the_recipe() -> None:
    assert Cell("toys", "sasrec", "tuned").name == "toys-sasrec-tuned-seed0"
    assert Cell("toys", "sasrec", "sasrec/tuned").name == "toys-sasrec-tuned-seed0"
    changed = Cell("toys", "sasrec", "tuned", {"dropout": 0.3, "average": 0.0}, 2)
    assert changed.name == "toys-sasrec-tuned-average=0-dropout=0.3-seed2"
    assert Cell("my data/to ys", "pop").name == "to-ys-pop-seed0"
    assert Cell("toys", "pop", learn_from="train+valid").name == "toys-pop-train+valid-seed0"
    other = Cell("toys", "pop", split="last-2", protocol=Protocol(candidates="sampled"))
    assert other.name == "toys-pop-last-2-sampled99-0-seed0"


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    settings = {"initial_std": 0.123456, "learning_rate": 0.00123, "weight_decay": 0.000111}
    settings |= {"warmup_steps": 12345, "negative_power": 0.123, "checkpoint_seconds": 1.0}
    first = Cell("bert4rec-beauty", "sasrec", "tuned", {**settings, "validate_every": 2})
    second = Cell("bert4rec-beauty", "sasrec", "tuned", {**settings, "validate_every": 3})
    assert first.name != second.name and len(first.name) < 150
    assert "checkpoint_seconds" not in first.plain.settings


def test_a_setting_that_repeats_the_recipe_makes_no_other_run() -> None:
    plain = Cell("toys", "sasrec", "tuned")
    same = Cell("toys", "sasrec", "tuned", {"dropout": 0.5, "width": 64})
    assert same.plain.settings == {}
    assert (same.name, same.identity) == (plain.name, plain.identity)
    assert Cell("toys", "sasrec", "tuned", {"width": 128}).identity != plain.identity


def test_equal_settings_are_one_run_whatever_names_them() -> None:
    by_recipe = Cell("toys", "gru4rec", "paper")
    spelt = {key: by_recipe.decided["model_config"][key] for key in ("hidden", "dropout", "loss")}
    spelt |= {key: by_recipe.decided["train_config"][key] for key in ("epochs", "batch_size")}
    assert Cell("toys", "gru4rec", None, spelt).identity == by_recipe.identity
    assert Cell("yelp", "gru4rec", "paper").identity != by_recipe.identity


def test_seeds_belong_to_families_and_counting_has_none() -> None:
    cells = [Cell("toys", "sasrec", seed=seed) for seed in (0, 1)]
    assert cells[0].identity != cells[1].identity and cells[0].family == cells[1].family
    counting = [Cell("toys", "pop", seed=seed) for seed in (0, 7)]
    assert counting[0].identity == counting[1].identity
    assert counting[1].name == "toys-pop-seed0"


def test_what_decides_nothing_is_left_out() -> None:
    plain = Cell("toys", "sasrec")
    assert Cell("toys", "sasrec", settings={"checkpoint_seconds": 5}).identity == plain.identity
    assert Cell("toys", "pop", settings={"epochs": 5}).identity == Cell("toys", "pop").identity
    shown = Cell("toys", "sasrec", protocol=Protocol(cutoffs=(10,)))
    assert shown.identity == plain.identity
    for protocol in (Protocol(ties="low_id"), Protocol(seen="included")):
        assert Cell("toys", "sasrec", protocol=protocol).identity != plain.identity
    sampled = [
        Cell("toys", "sasrec", protocol=Protocol(candidates="sampled", seed=s)) for s in (0, 1)
    ]
    assert sampled[0].identity != sampled[1].identity


@pytest.fixture
def forgetful() -> Any:
    """Forget what was resolved, before and after settings are tampered with."""

    def forget() -> None:
        cell_module._configs.cache_clear()
        cell_module._defaults.cache_clear()

    forget()
    yield forget
    forget()


def test_a_new_setting_at_its_default_changes_no_identity(
    monkeypatch: pytest.MonkeyPatch, forgetful: Any
) -> None:
    before = Cell("toys", "sasrec", "tuned")
    identity, decided = before.identity, json.loads(json.dumps(before.decided))

    class Longer(sasrec.SASRec.Config):  # type: ignore[name-defined,misc]
        fresh: int = Field(3)

    monkeypatch.setattr(sasrec.SASRec, "Config", Longer)
    forgetful()
    after = Cell("toys", "sasrec", "tuned")
    assert "fresh" in after.decided["model_config"]
    assert after.identity == identity and after.difference(decided) is None
    used = Cell("toys", "sasrec", "tuned", {"fresh": 4})
    assert used.identity != identity and used.difference(decided) == "fresh 3 then, 4 now"


def test_a_changed_default_is_noticed(monkeypatch: pytest.MonkeyPatch, forgetful: Any) -> None:
    before = json.loads(json.dumps(Cell("toys", "sasrec").decided))

    class Other(sasrec.SASRec.Config):  # type: ignore[name-defined,misc]
        dropout: float = Field(0.1)

    monkeypatch.setattr(sasrec.SASRec, "Config", Other)
    forgetful()
    assert Cell("toys", "sasrec").difference(before) == "dropout 0.5 then, 0.1 now"


def test_cells_survive_json() -> None:
    cell = Cell("toys", "sasrec", "tuned", {"width": 8}, 3, protocol=Protocol(ties="low_id"))
    again = Cell.from_json(json.loads(json.dumps(cell.to_json())))
    assert again == cell and again.identity == cell.identity


@pytest.mark.parametrize(
    "text",
    [
        "toys:pop",
        "toys:sasrec:tuned",
        "data/shop:sasrec:tuned:dropout=0.3:loss=bce",
        "toys:sasrec:bias=true",
        "toys:pop:learn_from=train+valid",
        "toys:mc1:split=last-2:candidates=sampled:n_negatives=50:ties=low_id",
        "toys:pop:split=time:2018-01-01,2018-07-01",
        "toys:pop:split=time:2018-01-01T12:30:00,2018-07-01:ties=low_id",
        "toys:sasrec:dropout=0.30000000001",
    ],
)
def test_a_run_is_written_as_it_is_read(text: str) -> None:
    if "bias" in text:
        with pytest.raises(ConfigError, match="unknown key `bias`"):
            cell_text(parse_cell(text))
    else:
        assert cell_text(parse_cell(text)) == text


def test_lists_and_tables_are_settings_too() -> None:
    parts = [{"model": "sasrec", "settings": {"width": 8, "loss": "bce"}}, "gru4rec/tuned"]
    text = f"toys:sasrec:tuned:parts={short(parts)}:dropout=0.3"
    found = parse_cell(text)
    assert found.settings == {"parts": parts, "dropout": 0.3} and found.recipe == "tuned"
    assert short(["a", "b"]) == '["a","b"]'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("toys", "dataset:model"),
        (":sasrec", "dataset:model"),
        ("toys:sasrec:tuned:wide", "`wide` is no setting"),
        ("toys:sasrek", "did you mean `sasrec`?"),
        ("toys:sasrec:tund", "did you mean `tuned`?"),
        ("toys:sasrec:droput=0.2", "did you mean `dropout`?"),
        ("toys:sasrec:ties=never", "protocol: `ties`"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_cell(text).name  # noqa: B018
    assert says in str(raised.value)
