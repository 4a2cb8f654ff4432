"""Searches: begun, run, killed, gone on with, and never near the test items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextup.data.dataset import Dataset
from nextup.data.sequences import Sequences
from nextup.errors import RunError
from nextup.evaluation.catalogue import not_finite
from nextup.studies.places import Places, held
from nextup.studies.run_cell import BusyError, How
from nextup.studies.runner import Runner
from nextup.studies.worker import BUSY, main, write_task
from nextup.train.fit import fit
from nextup.train.run import Run
from nextup.tuning import trial as trial_room
from nextup.tuning.search import METRIC, WORKER, Search, first_of_each, read_search
from nextup.tuning.trial import run_trial
from nextup.tuning.winner import best_trial

from .conftest import search_of

CPU = How("cpu")
CLOCKS = ("seconds", "date", "begun", "commit", "how", "hardware", "versions")


def run_here(search: Search, places: Places) -> dict[str, Any]:
    """Run all that is missing in this process."""
    for cell in search.missing(search.begin(places)):
        run_trial(cell, places, CPU)
    return read_search(search.file(places))


def timeless(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in trial.items() if k not in CLOCKS} for trial in document["trials"]]


def test_a_search_says_how_it_came_about(shop: Path, places: Places) -> None:
    found = run_here(search_of(shop), places)
    assert (found["dataset"], found["model"], found["recipe"]) == ("shop", "sasrec", "fast")
    budget = {"trials": 3, "seconds": 60.0, "seed": 0, "metric": METRIC}
    assert found["budget"] == {**budget, "device": "cpu", "precision": "32", "threads": 1}
    assert found["space"]["base"] == "fast" and found["space"]["search"]["epochs"] == {
        "choices": [3]
    }
    first, second, _ = found["trials"]
    assert first["settings"] == {} and first["epochs"] == 6, "the base recipe itself"
    assert second["settings"]["epochs"] == 3 and second["epochs"] == 3
    for trial in found["trials"]:
        assert {"HR@10", METRIC} <= set(trial["valid"]) and trial["seconds"] > 0
        assert not trial["out_of_time"] and "processor" in trial["hardware"]
        assert trial["begun"]["commit"] == trial["commit"] and trial["how"]["jobs"] == 1
    assert second["run"].startswith("shop:sasrec:fast:epochs=3:learning_rate=")
    assert "seconds" not in second["run"]
    text = search_of(shop).file(places).read_text()
    assert str(shop.parent) not in text, "a place of this machine is named"
    scores = [trial["valid"][METRIC] for trial in found["trials"]]
    best = best_trial(found)
    assert best is not None and best["number"] == int(np.argmax(scores))


def test_a_trial_is_an_ordinary_fit(shop: Path, places: Places, tmp_path: Path) -> None:
    found = run_here(search_of(shop, trials=1), places)
    run = fit(shop, "sasrec", run=tmp_path / "run", recipe="fast", device="cpu", progress=False)
    assert found["trials"][0]["valid"] == run.metrics["valid"]


def test_the_same_seed_gives_the_same_search(shop: Path, tmp_path: Path) -> None:
    def once(name: str, **budget: Any) -> list[dict[str, Any]]:
        there = Places(tmp_path / name, tmp_path / name, "tuning")
        return timeless(run_here(search_of(shop, **budget), there))

    one = once("one")
    assert one == once("two") and one != once("three", seed=1)
    assert len({trial["identity"] for trial in one}) == 3


# ---- test items ------------------------------------------------------------------------------
def test_nothing_ever_measures_a_trial_on_test(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextup.evaluation import ranks
    from nextup.train import assess

    seen: list[np.ndarray] = []
    rank = ranks.rank_cases

    def noted(model: Any, cases: Any, *more: Any, **how: Any) -> Any:
        seen.append(cases.targets)
        return rank(model, cases, *more, **how)

    monkeypatch.setattr(assess, "rank_cases", noted)
    search = search_of(shop)
    found = run_here(search, places)
    split = Dataset.load(shop).split("leave-one-out")
    assert seen and all((targets == split.valid.targets).all() for targets in seen)
    assert not any("test" in trial for trial in found["trials"])
    runs = [Run(places.run(cell.name)) for cell in search.cells]
    assert all(set(run.metrics) == {"valid"} for run in runs)
    assert not list(places.runs.rglob("ranks-test*"))
    with pytest.raises(RunError, match="test part is never measured"):
        assess.evaluate(runs[0], shop)


def test_other_test_items_make_the_same_search(shop: Path, places: Places, tmp_path: Path) -> None:
    data = Dataset.load(shop)
    items = np.array(data.sequences.items)
    last = data.sequences.ends - 1
    items[last] = items[last] % data.n_items + 1
    other = Sequences(items, data.sequences.starts, data.sequences.ends)
    changed = Dataset(other, data.catalog, data.users, None, {**data.card}).save(
        tmp_path / "b/shop"
    )
    assert Dataset.load(changed).checksum != data.checksum
    one = run_here(search_of(shop), places)
    there = Places(tmp_path / "b", tmp_path / "b", "tuning")
    assert timeless(one) == timeless(run_here(search_of(changed), there))


# ---- stopping and going on -------------------------------------------------------------------
def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def test_stopped_and_gone_on_with_nothing_is_done_twice(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run_here(search_of(shop), Places(tmp_path / "a", tmp_path / "a", "tuning"))
    search = search_of(shop)
    document = search.begin(places)
    assert [cell.identity for cell in search.missing(document)] == [
        trial["identity"] for trial in whole["trials"]
    ]
    run_trial(search.cells[1], places, CPU)
    left = search.missing(search.begin(places))
    assert [cell.identity for cell in left] == [search.cells[at].identity for at in (0, 2)]
    assert timeless(run_here(search, places)) == timeless(whole)
    monkeypatch.setattr(trial_room, "fitted", None)
    assert timeless(run_here(search, places)) == timeless(whole), "nothing is left to do"


def test_a_trial_that_was_fitted_and_not_entered_is_not_fitted_again(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = search_of(shop, trials=1)
    first = run_here(search, places)
    search.file(places).unlink()
    monkeypatch.setattr("nextup.train.loop.Loop._step", None)
    assert timeless(run_here(search, places)) == timeless(first)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_and_gone_on_with_the_numbers_are_the_same(
    shop: Path, places: Places, tmp_path: Path
) -> None:
    there = Places(tmp_path / "a", tmp_path / "a", "tuning")
    whole = run_here(search_of(shop, trials=2), there)
    search = search_of(shop, trials=2)
    search.begin(places)
    cell = search.cells[0]
    task, log = places.beside(cell.name, "task.json"), places.run(cell.name) / "log.jsonl"
    write_task(task, cell, places, CPU)
    process = subprocess.Popen(
        [sys.executable, "-m", WORKER, str(task)], stdin=subprocess.PIPE, cwd=tmp_path
    )
    wait_for(lambda: log.is_file() and log.stat().st_size > 0)
    process.kill()
    process.communicate()
    if Run(places.run(cell.name)).finished:
        pytest.skip("it was over before it was killed")
    with Runner(search.missing(search.begin(places)), places, CPU, worker=WORKER) as runner:
        outcome = runner.run()
    assert not outcome.failed and not outcome.left
    assert timeless(read_search(search.file(places))) == timeless(whole)


def test_more_trials_later_add_to_those_that_are_there(shop: Path, places: Places) -> None:
    two = run_here(search_of(shop, trials=2), places)
    three = run_here(search_of(shop, trials=3), places)
    assert three["trials"][:2] == two["trials"] and len(three["trials"]) == 3
    again = run_here(search_of(shop, trials=1), places)
    assert again["trials"] == three["trials"] and again["budget"]["trials"] == 3


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        ({"seconds": 30.0}, "holds another search (seconds 60.0 then, 30.0 now)"),
        ({"seed": 1}, "seed 0 then, 1 now"),
        ({"threads": 2}, "threads 1 then, 2 now"),
        ({"base": "paper"}, 'recipe "fast" then, "paper" now'),
    ],
)
def test_another_search_is_not_mixed_in(
    shop: Path, places: Places, other: dict[str, Any], wrong: str
) -> None:
    search_of(shop).begin(places)
    before = search_of(shop).file(places).read_text()
    with pytest.raises(RunError) as caught:
        search_of(shop, **other).begin(places)
    assert wrong in str(caught.value) and "--overwrite" in str(caught.value)
    assert search_of(shop).file(places).read_text() == before
    assert len(search_of(shop, **other).begin(places, overwrite=True)["trials"]) == 3


def test_a_search_that_is_overwritten_is_made_anew(shop: Path, places: Places) -> None:
    search = search_of(shop, trials=2)
    run_here(search, places)
    document = search.begin(places, overwrite=True)
    assert len(search.missing(document)) == 2
    assert not any(places.run(cell.name).exists() for cell in search.cells)
    run_here(search_of(shop, trials=3), places)
    smaller, more = search_of(shop, trials=1), search_of(shop, trials=3)
    smaller.begin(places, overwrite=True)
    assert not any(places.run(cell.name).exists() for cell in more.cells), "of earlier trials"
    run_here(smaller, places)
    search_of(shop, trials=1, seed=1).begin(places, overwrite=True)
    assert not any(places.run(cell.name).exists() for cell in smaller.cells), "of another seed"


# ---- what may go wrong -----------------------------------------------------------------------
def test_time_that_is_over_ends_a_trial_and_its_best_counts(shop: Path, places: Places) -> None:
    search = search_of(shop, trials=2, seconds=1e-6)
    found = run_here(search, places)
    for trial in found["trials"]:
        assert trial["out_of_time"] and trial["epochs"] == 1 and METRIC in trial["valid"]


def test_a_trial_that_diverges_is_an_outcome(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = search_of(shop, trials=2)
    search.begin(places)
    run_trial(search.cells[0], places, CPU)
    import torch

    monkeypatch.setattr("nextup.train.loop.torch.isfinite", lambda value: torch.tensor(False))
    run_trial(search.cells[1], places, CPU)
    found = read_search(search.file(places))
    assert "is not finite" in found["trials"][1]["diverged"] and not search.missing(found)
    best = best_trial(found)
    assert best is not None and best["number"] == 0


def test_a_trial_whose_weights_break_in_its_last_step_is_an_outcome(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = search_of(shop, trials=1)
    search.begin(places)

    def broken(*_: object) -> None:
        raise not_finite("model")

    monkeypatch.setattr("nextup.train.loop.Loop._validate", broken)
    run_trial(search.cells[0], places, CPU)
    found = read_search(search.file(places))
    assert "scores are not finite" in found["trials"][0]["diverged"]


def test_two_processes_never_run_the_same_trial(shop: Path, places: Places) -> None:
    search = search_of(shop)
    search.begin(places)
    cell = search.cells[0]
    task = places.beside(cell.name, "task.json")
    write_task(task, cell, places, CPU)
    with held(places.beside(cell.name, "lock")):
        with pytest.raises(BusyError):
            run_trial(cell, places, CPU)
        assert main([str(task)], trial_room._run_task) == BUSY


def test_a_file_that_is_no_search_is_named(shop: Path, places: Places) -> None:
    search = search_of(shop)
    file = search.file(places)
    file.parent.mkdir(parents=True)
    for text in ("{", "{}", json.dumps({"format": "nextup-result"})):
        file.write_text(text)
        with pytest.raises(RunError, match="is not the record of a search"):
            search.begin(places)
    search.begin(places, overwrite=True)
    assert len(read_search(file)["trials"]) == 3


def test_trials_take_turns() -> None:
    lists: dict[str, Any] = {"a": ["a0", "a1", "a2"], "b": ["b0"], "c": []}
    assert first_of_each(lists) == ["a0", "b0", "a1", "a2"]
