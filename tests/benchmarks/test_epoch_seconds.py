"""Seconds of an epoch are measured on the loop that trains, stage by stage, and extrapolated so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nextup.data.simulate import simulate
from nextup.measured import EpochSeconds

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = {"batch_size": 16, "max_length": 8}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import epoch_seconds

    yield epoch_seconds
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").is_relative_to(BENCHMARKS):
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def data() -> Any:
    return simulate(n_users=100, n_items=30, seed=1).dataset


def test_the_first_steps_stand_for_the_epoch(bench: Any, data: Any) -> None:
    (stage,) = bench.measure("gru4rec", data, recipe=None, steps=2, settings=SMALL)
    assert (stage["steps_timed"], stage["steps_per_epoch"]) == (2, 7)
    assert stage["extrapolated"] and stage["batch_size"] == 16
    extrapolated = stage["before_the_first_step"] + stage["timed"]["seconds"] * 7 / 2
    assert stage["seconds"] == pytest.approx(extrapolated, abs=1e-3)


def test_a_whole_epoch_on_request_and_never_more_than_one(bench: Any, data: Any) -> None:
    for steps in (0, 50):
        (stage,) = bench.measure("hgn", data, recipe=None, steps=steps, settings=SMALL)
        assert stage["steps_timed"] == stage["steps_per_epoch"] and not stage["extrapolated"]


def test_every_stage_is_measured_apart(bench: Any, data: Any) -> None:
    teachers = [{"model": "gru4rec", "settings": {"width": 8, "hidden": 8}}, "mc1"]
    settings = {"student": "hgn", "teachers": teachers, "batch_size": 16}
    stages = bench.measure("ssi", data, recipe=None, steps=1, settings=settings)
    assert [stage["name"] for stage in stages] == ["teacher gru4rec", "student hgn"]


def test_counting_is_timed_whole(bench: Any, data: Any) -> None:
    (stage,) = bench.measure("mc1", data, recipe=None, steps=3)
    assert stage["batch_size"] is None and not stage["extrapolated"]


def test_the_papers_recipe_is_that_for_the_dataset(bench: Any) -> None:
    assert bench.recipe_of("sasrec", "beauty") == "sasrec/paper"
    assert bench.recipe_of("coserec", "toys") == "coserec/paper-toys"
    assert bench.recipe_of("pop", "beauty") is None


def test_what_was_measured_can_be_shipped(
    bench: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nextup.measured

    monkeypatch.setattr(nextup.measured, "__file__", str(tmp_path / "__init__.py"))
    stages = bench.measure("hgn", data, recipe=None, steps=1, settings=SMALL)
    bench.shipped("shop", "hgn", {"recipe": None, "stages": stages}, "abc")
    bench.shipped("shop", "x", {"recipe": None, "error": "no such set"}, "abc")
    written = json.loads((tmp_path / "epochs.json").read_text())
    assert list(written) == ["hgn"]
    assert EpochSeconds(**written["hgn"]).stages[0].steps_timed == 1


def test_what_recbole_calls_them_are_models_there_are(bench: Any) -> None:
    from nextup.models.registry import available_models

    assert set(bench.RECBOLE) <= set(available_models())
    assert set(bench.MEASURED_ELSEWHERE["seconds_per_epoch"]) <= set(bench.RECBOLE)


def test_a_peer_that_is_not_there_is_said_so(
    bench: Any, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import run

    monkeypatch.setattr(run, "ROOT", Path("nowhere"))
    found = bench.peer("hgn", data, 1, 2, False)
    assert "setup.sh recbole" in found["error"]
    said = {"recipe": None, "stages": [], "recbole": found, "recbole_measured_elsewhere": 37}
    assert "setup.sh recbole" in bench.line("hgn", said) and "elsewhere: 37" in bench.line(
        "hgn", said
    )


def test_ours_can_be_set_to_the_shape_of_recbole_s(bench: Any, data: Any) -> None:
    import recbole_speed

    for name, pair in recbole_speed.PAIRS.items():
        for settings in pair.ways.values():
            wanted = {**recbole_speed.COMMON, **pair.shared, **settings}
            (stage,) = bench.measure(name, data, recipe=None, steps=1, settings=wanted)
            assert stage["batch_size"] == 256 and stage["seconds"] > 0
