"""A limit of seconds ends training, also within an epoch; withheld test items decide nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_data import QUICK, dataset, histories, quick, timeless

from nextup.data.sequences import Sequences
from nextup.errors import ConfigError, RunError
from nextup.evaluation.protocol import Protocol
from nextup.models.store import load_model
from nextup.train import loop as loop_module
from nextup.train.assess import evaluate, rank_again
from nextup.train.fit import fit
from nextup.train.loop import Loop
from nextup.train.recipe import resolve
from nextup.train.run import Run


def facts(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = load_model(run.recommender_folder)[3]["facts"]
    return found


@pytest.fixture
def epochs_of_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock run in steps alone, ten seconds in those of an epoch."""
    passed = [0.0]
    step = Loop._step

    def slow(self: Loop, order: object, epoch: int, at: int) -> Any:
        passed[0] += 10.0 / len(self.stream)
        return step(self, order, epoch, at)

    monkeypatch.setattr(Loop, "_step", slow)
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(perf_counter=lambda: passed[0]))


@pytest.mark.usefixtures("epochs_of_ten_seconds")
def test_it_ends_within_the_epoch_in_which_time_is_over_and_validates(tmp_path: Path) -> None:
    more = {"epochs": 50, "validate_every": 40, "batch_size": 8}
    run = quick(dataset(), tmp_path / "run", max_seconds=25, **more)
    assert ["NDCG@10" in line for line in run.log()] == [False, False, True]
    found = facts(run)
    assert (found["epochs"], found["best_epoch"], found["out_of_time"]) == (3, 3, True)
    assert 25 <= found["train_seconds"] < 28 and "NDCG@10" in run.metrics["valid"]
    whole = quick(dataset(), tmp_path / "whole", **{**more, "epochs": 3})
    assert "out_of_time" not in facts(whole) and "steps" not in whole.log()[2]
    last = quick(dataset(), tmp_path / "last", max_seconds=25, **{**more, "epochs": 3})
    assert facts(last)["out_of_time"] and timeless(last.log()) == timeless(run.log())
    assert 0 < run.log()[2]["steps"] < len(dataset().sequences) / 8
    cut, full = run.log()[2], whole.log()[2]  # a mean over the steps there were
    assert cut["loss"] != full["loss"] and cut["loss"] == pytest.approx(full["loss"], rel=0.1)


@pytest.mark.usefixtures("epochs_of_ten_seconds")
def test_the_best_epoch_before_the_end_of_time_is_kept(tmp_path: Path) -> None:
    more = {"learning_rate": 0.2, "patience": 0, "epochs": 50}
    run = quick(dataset(), tmp_path / "run", max_seconds=200, **more)
    values = [line["NDCG@10"] for line in run.log()]
    assert len(values) == 20 > int(np.argmax(values)) + 1 == facts(run)["best_epoch"]
    assert run.metrics["valid"]["NDCG@10"] == pytest.approx(max(values), abs=1e-6)


@pytest.mark.usefixtures("epochs_of_ten_seconds")
def test_a_limit_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    limited = quick(dataset(), tmp_path / "limited", epochs=3, max_seconds=30.5)
    plain = quick(dataset(), tmp_path / "plain", epochs=3)
    assert timeless(limited.log()) == timeless(plain.log())
    assert facts(limited) == facts(plain) and "out_of_time" not in facts(plain)
    assert resolve("sasrec")[1].max_seconds is None


@pytest.mark.usefixtures("epochs_of_ten_seconds")
def test_time_goes_on_counting_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"epochs": 50, "max_seconds": 35, "patience": 0}
    step = Loop._step

    def stop(self: Loop, order: object, epoch: int, at: int) -> Any:
        if epoch == 2:
            raise KeyboardInterrupt
        return step(self, order, epoch, at)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            quick(dataset(), tmp_path / "run", **more)
    whole = quick(dataset(), tmp_path / "whole", **more)
    run = quick(dataset(), tmp_path / "run", resume=True, **more)
    assert timeless(run.log()) == timeless(whole.log()) and len(run.log()) == 4
    assert facts(run) == facts(whole)


@pytest.mark.usefixtures("epochs_of_ten_seconds")
def test_stages_share_the_seconds_and_none_is_kept_for_others(tmp_path: Path) -> None:
    settings = {**QUICK, "pretrain_epochs": 50, "epochs": 50, "max_seconds": 95, "patience": 0}
    run = fit(
        dataset(),
        "s3rec",
        run=tmp_path / "run",
        settings=settings,
        device="cpu",
        progress=False,
        kept=tmp_path / "kept",
    )
    first, second = (line["stage"] for line in (run.log()[0], run.log()[-1]))
    stages = [line["stage"] for line in run.log()]
    # 47.5 s are the first stage's share: five epochs; 45 s are left for the second.
    assert (stages.count(first), stages.count(second)) == (5, 5)
    assert facts(run)["out_of_time"] and facts(run)["stages"][first]["out_of_time"]
    assert not list(tmp_path.glob("kept/*"))


def test_without_limit_the_key_of_a_stage_is_what_it_was(tmp_path: Path) -> None:
    keys = []
    key = Loop._key

    def noted(self: Loop, stage: Any) -> str | None:
        keys.append(key(self, stage))
        return keys[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Loop, "_key", noted)
        quick(dataset(), tmp_path / "run", epochs=1)
    assert keys and all(each is not None and "max_seconds" not in each for each in keys)


def test_no_seconds_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="training: `max_seconds`"):
        resolve("sasrec", settings={"max_seconds": 0})


# ---- withheld test items ---------------------------------------------------------------------
def withheld(sequences: Sequences, run: Path, **more: Any) -> Run:
    settings = {**QUICK, "epochs": 3, "loss": "bce", "negatives": 3, "exclude_future": True}
    return fit(
        dataset(sequences),
        run=run,
        settings={**settings, **more},
        device="cpu",
        progress=False,
        withhold_test=True,
    )


def test_other_test_items_make_the_same_run(tmp_path: Path) -> None:
    """The last items are replaced; even negatives that may know of held-out items stay the same."""
    before = histories()
    items = before.items.copy()
    long = before.lengths >= 3
    last = before.ends[long] - 1
    items[last] = items[last] % 30 + 1
    one = withheld(before, tmp_path / "one")
    other = withheld(Sequences(items, before.starts, before.ends), tmp_path / "other")
    assert timeless(one.log()) == timeless(other.log())
    assert one.metrics == other.metrics and set(one.metrics) == {"valid"}


def test_withheld_or_not_validation_is_the_same(tmp_path: Path) -> None:
    one = withheld(histories(), tmp_path / "one", exclude_future=False)
    other = quick(
        dataset(), tmp_path / "two", epochs=3, loss="bce", negatives=3, exclude_future=False
    )
    assert timeless(one.log()) == timeless(other.log()) and one.metrics == other.metrics


def test_a_run_with_withheld_test_items_is_never_measured_on_them(tmp_path: Path) -> None:
    run = withheld(histories(), tmp_path / "run")
    with pytest.raises(RunError, match="test part is never measured; fit its settings anew"):
        evaluate(run, dataset())
    with pytest.raises(RunError, match="never measured"):
        rank_again(run, dataset(), protocols=[run.protocol])
    before = run.metrics["valid"]["NDCG@10"]
    assert evaluate(run, dataset(), part="valid")["NDCG@10"] == before
    with pytest.raises(ConfigError, match="learns from the test items"):
        fit(dataset(), run=tmp_path / "all", learn_from="all", withhold_test=True)
    split = dataset().split("leave-one-out").without_test()
    assert len(split.test) == 0 and len(split.valid) > 0
    assert (split.whole.ends == split.train_and_valid.ends).all()


def test_test_items_take_no_part_in_sampled_validation_either(tmp_path: Path) -> None:
    def run(sequences: Sequences, name: str) -> Run:
        return fit(
            dataset(sequences), run=tmp_path / name, settings={**QUICK, "epochs": 2}, device="cpu",
            progress=False, withhold_test=True,
            protocol=Protocol(candidates="sampled", n_negatives=9),
        )  # fmt: skip

    one = run(histories(), "one")
    before = one.metrics["valid"]
    found = evaluate(one, dataset(), part="valid")
    assert {name: found[name] for name in before} == before
