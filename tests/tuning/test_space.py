"""Spaces: all that ship resolve at both ends, draws are the same for a seed, slips are named."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from nextup.data.dataset import Dataset
from nextup.errors import ConfigError
from nextup.models.registry import available_models, make_model
from nextup.settings import make_config
from nextup.train.fit import fit
from nextup.train.recipe import recipes, resolve
from nextup.tuning import space as room
from nextup.tuning.search import Budget, Search
from nextup.tuning.space import Knob, Space, read_space, spaces

BASELINES = {
    *("bpr", "fpmc", "fossil", "gru4rec", "gru4rec_official", "caser", "nextitnet", "grec", "hgn"),
    *("srgnn", "gcsan", "shan", "sasrec", "bert4rec", "s3rec", "cl4srec", "coserec", "lma4rec"),
    "ssi",
}


def recipes_of(space: Space) -> list[str | None]:
    if space.base is None:
        return [None]
    names = [name.partition("/")[2] for name in recipes(space.model)]
    return [name for name in names if name == space.base or name.startswith(f"{space.base}-")]


@pytest.mark.parametrize("model", spaces())
def test_a_space_resolves_at_every_end(model: str) -> None:
    space = read_space(model)
    bases = recipes_of(space)
    assert bases, f"no recipe {space.base}"
    assert len(space.about) > 10 and 2 <= len(space.knobs) <= 4
    for settings in [{}, *space.ends(), *islice(space.drawn(0), 20)]:
        for recipe in bases:
            config, train = resolve(model, recipe, settings)
            both = {**config.model_dump(mode="json"), **train.model_dump(mode="json")}
            assert {key: both[key] for key in settings} == settings
        make_model(model, 20, config.model_dump())


@pytest.mark.slow
@pytest.mark.parametrize("model", spaces())
def test_a_model_learns_at_every_end(model: str, shop: Path, tmp_path: Path) -> None:
    space = read_space(model)
    recipe = recipes_of(space)[0]
    data = Dataset.load(shop)
    for number, settings in enumerate(space.ends()):
        limited = {**settings, "max_seconds": 1e-6, "metric": "NDCG@10"}
        run = tmp_path / str(number)
        made = fit(data, model, run=run, recipe=recipe, settings=limited, progress=False)
        assert made.metrics["valid"]["NDCG@10"] > 0, settings


@pytest.mark.parametrize("model", spaces())
def test_a_range_holds_what_is_drawn_and_no_draw_repeats_the_base(model: str) -> None:
    space = read_space(model)
    for name, knob in space.knobs.items():
        values = [knob.at(share) for share in (0.0, 0.25, 0.5, 0.75, 1 - 2**-53)]
        if knob.choices is not None:
            assert all(value in knob.choices for value in values)
            continue
        low, high = knob.ends
        assert values == sorted(values) and values[0] == low, name
        assert values[-1] == high and all(low <= value <= high for value in values)
    search = Search("toys", space, Budget(12))
    assert len({cell.identity for cell in search.cells}) == len(search.cells) == 12
    assert {"max_seconds"} <= set(search.cells[0].settings) <= {"max_seconds", "metric"}


def test_every_baseline_of_the_papers_has_a_space() -> None:
    assert BASELINES <= set(spaces()) <= set(available_models())


def test_what_all_share_is_searched_where_a_model_has_it() -> None:
    assert read_space("sasrec").knobs["dropout"] == Knob(choices=[0.2, 0.5])
    assert read_space("sasrec").knobs["learning_rate"] == Knob(choices=[1e-3, 5e-4])
    assert "dropout" not in read_space("bpr").knobs, "it has none"
    own = read_space("gru4rec_official").knobs["learning_rate"]
    assert own.log_uniform == (0.03, 0.2), "its own range wins"


def test_draws_follow_from_model_and_seed_alone() -> None:
    def first(model: str, seed: int, count: int = 5) -> list[dict[str, object]]:
        return list(islice(read_space(model).drawn(seed), count))

    assert first("sasrec", 0, 5) == first("sasrec", 0, 9)[:5]
    assert first("sasrec", 0) != first("sasrec", 1)
    # On every machine and with every Python: only `random()` of the generator is drawn from.
    drawn = first("bert4rec", 7, 2)
    assert drawn == [
        {"dropout": 0.2, "learning_rate": 0.003, "mask_share": 0.6, "last_only": 0.0},
        {"dropout": 0.2, "learning_rate": 0.001, "mask_share": 0.4, "last_only": 0.0},
    ]


def test_a_choice_may_set_several_settings_at_once() -> None:
    space = read_space("bpr")
    assert {"user_l2": 1e-2, "item_l2": 1e-2, "negative_l2": 1e-2, "bias_l2": 1e-2} in space.ends()


def test_a_small_space_is_exhausted() -> None:
    space = Space("sasrec", "", None, {"layers": Knob(integers=(1, 3))})
    assert len(Search("toys", space, Budget(12)).cells) == 3, "two blocks are the base"
    assert len(Search("toys", Space("sasrec", "", None, {}), Budget(12)).cells) == 1


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({}, "say just one of"),
        ({"choices": [1], "uniform": [0, 1]}, "say just one of"),
        ({"choices": []}, "at least 1 item"),
        ({"uniform": [1, 0]}, "the range 1.0 to 0.0 is empty"),
        ({"integers": [2, 2]}, "is empty"),
        ({"integers": [1.5, 2]}, "integer"),
        ({"log_uniform": [0, 1]}, "begins above 0"),
        ({"choice": [1]}, "unknown key `choice`; did you mean `choices`?"),
    ],
)
def test_a_knob_that_is_none(said: dict[str, object], wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(Knob, said, "space sasrec: dropout")
    assert wrong in str(caught.value) and str(caught.value).startswith("space sasrec: dropout")


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        ("sasrek", "unknown model `sasrek`; did you mean `sasrec`?"),
        ("pop", "learns by counting, so there is nothing to tune"),
        ("lma4gru", "has no space to search; did you mean `lma4rec`?"),
    ],
)
def test_models_without_a_space(model: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.replace("?", r"\?")):
        read_space(model)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[search]\ndroput = { choices = [0.1] }", "unknown key `droput`; did you mean `dropout`"),
        ("[serch]", "unknown key `serch`; a space has about, base, search"),
        ("[", "is no TOML"),
    ],
)
def test_slips_in_a_space(
    text: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sasrec.toml").write_text(text)
    (tmp_path / "shared.toml").write_text("[search]")
    monkeypatch.setattr(room.resources, "files", lambda name: tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_space("sasrec")
    assert wrong in str(caught.value)


def test_spaces_are_no_recipes() -> None:
    assert not [name for name in recipes() if name.endswith(("space", "shared"))]


@pytest.mark.parametrize(
    ("budget", "wrong"),
    [
        ({"trials": 0}, "trials: 0 is too few"),
        ({"seconds": 0}, "seconds: 0 is no time"),
        ({"seconds": float("nan")}, "is no time"),
        ({"seconds": float("inf")}, "is no time"),
        ({"seed": -1}, "seed: -1 is out of range"),
    ],
)
def test_budgets_that_are_none(budget: dict[str, float], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        Budget(**budget)  # type: ignore[arg-type]
