"""Fit from end to end: what a run holds, what it never looks at, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import N_ITEMS, dataset, histories, quick, timeless

from nextup.data.dataset import Dataset
from nextup.data.sequences import Sequences
from nextup.data.split import Split
from nextup.errors import ConfigError, InputError, NextupError, RunError
from nextup.evaluation.metrics import metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.models.store import load_model
from nextup.train.assess import evaluate
from nextup.train.fit import fit
from nextup.train.run import Run


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_model(run.recommender_folder)[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_run_folder_holds_everything(tmp_path: Path) -> None:
    data = dataset()
    run = quick(data, tmp_path / "run", epochs=3, patience=0, seed=7)
    assert run.finished and run.name == "run"
    config = json.loads((run.path / "config.json").read_text())
    assert config["model"] == "sasrec" and config["seed"] == 7
    assert config["model_config"]["width"] == 8 and config["train_config"]["epochs"] == 3
    assert config["split"] == "leave-one-out" and "after some test items" in config["leaks"]
    assert config["protocol"]["candidates"] == "full"
    assert config["dataset"]["items"] == N_ITEMS
    log = run.log()
    assert [line["epoch"] for line in log] == [1, 2, 3]
    for line in log:
        assert {"loss", "sequences_per_second", "seconds", "NDCG@10", "HR@10"} <= set(line)
        assert line["loss"] > 0 and line["sequences_per_second"] > 0
    assert log[-1]["loss"] < log[0]["loss"]
    assert set(run.metrics) == {"valid"}
    assert not list(run.path.rglob("*partial*"))


def test_stored_ranks_and_metrics_are_those_of_the_stored_recommender(tmp_path: Path) -> None:
    data = dataset()
    run = quick(data, tmp_path / "run", epochs=2)
    found = evaluate(run, data, device="cpu")
    split = data.split()
    model = load_model(run.recommender_folder)[0]
    for part, cases in (("valid", split.valid), ("test", split.test)):
        ranked = rank_cases(model, cases, Protocol())
        stored = run.ranks(part)
        np.testing.assert_array_equal(stored.ranks, ranked.ranks)
        np.testing.assert_array_equal(stored.users, cases.users)
        measured = metrics(ranked)
        assert {k: run.metrics[part][k] for k in measured} == pytest.approx(measured)
    assert {"coverage@10", "popularity@10"} <= found.keys()
    assert found == run.metrics["test"]


def test_the_log_says_what_the_best_epoch_reached(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=6, patience=0)
    best = max(line["NDCG@10"] for line in run.log())
    assert run.metrics["valid"]["NDCG@10"] == pytest.approx(best, abs=1e-6)


def test_stopping_early_keeps_the_best_epoch(tmp_path: Path) -> None:
    # A step size that ruins what was learnt: the best epoch comes early, later ones are worse.
    run = quick(dataset(), tmp_path / "run", epochs=40, patience=3, learning_rate=0.2)
    values = [line["NDCG@10"] for line in run.log()]
    best = int(np.argmax(values))
    assert len(values) == best + 1 + 3 < 40
    facts = load_model(run.recommender_folder)[3]["facts"]
    assert facts["best_epoch"] == best + 1 and facts["epochs"] == len(values)
    assert run.metrics["valid"]["NDCG@10"] == pytest.approx(values[best], abs=1e-6)
    again = quick(dataset(), tmp_path / "again", epochs=best + 1, patience=0, learning_rate=0.2)
    assert same(weights(run), weights(again))


def test_nobody_gives_up_while_the_step_size_still_rises(tmp_path: Path) -> None:
    # A step size of next to nothing moves nothing for a long time: no validation is a gain.
    settings: dict[str, Any] = {"epochs": 30, "patience": 2, "learning_rate": 1e-9}
    plain = quick(dataset(), tmp_path / "plain", batch_size=10_000, **settings)
    warm = quick(dataset(), tmp_path / "warm", batch_size=10_000, warmup_steps=12, **settings)
    assert len(plain.log()) < 12 < len(warm.log()) < 30


def test_validation_every_so_often_still_measures_the_last_epoch(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=5, validate_every=2, patience=0)
    assert ["NDCG@10" in line for line in run.log()] == [False, True, False, True, True]


@pytest.mark.parametrize("metric", ["Recall@10", "ndcg@5", "MRR", "mrr", "HR@20"])
def test_a_metric_may_be_spelt_as_people_do(metric: str, tmp_path: Path) -> None:
    assert quick(dataset(), tmp_path / "run", epochs=1, metric=metric).finished


def test_validation_answers_with_the_averaged_weights(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=2, patience=0, average=0.9)
    assert run.metrics["valid"]["NDCG@10"] == pytest.approx(
        max(line["NDCG@10"] for line in run.log()), abs=1e-6
    )
    plain = quick(dataset(), tmp_path / "plain", epochs=2, patience=0)
    assert not same(weights(run), weights(plain))
    assert [line["loss"] for line in run.log()] == [line["loss"] for line in plain.log()]


class Blind(Split):
    """A split whose test part must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "test":
            raise AssertionError("the test part was looked at while fitting")
        return super().__getattribute__(name)


@pytest.mark.parametrize("model", ["sasrec", "pop"])
def test_fitting_never_looks_at_the_test_part(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, split = dataset(), Dataset.split

    def blind(self: Dataset, name: str = "leave-one-out") -> Split:
        seen = split(self, name)
        return Blind(**{field: getattr(seen, field) for field in Split.__dataclass_fields__})

    monkeypatch.setattr(Dataset, "split", blind)
    settings = {"epochs": 2} if model == "sasrec" else {}
    run = quick(data, tmp_path / "run", model, **settings)
    assert "test" not in run.metrics
    with pytest.raises(AssertionError, match="looked at"):
        evaluate(run, data, device="cpu")


def with_other_last_items(whole: Sequences, n: int) -> Sequences:
    """The same histories, but the held-out items of those long enough are others."""
    items = whole.items.copy()
    for start, end in zip(whole.starts, whole.ends, strict=True):
        if end - start >= 3:
            items[end - n : end] = items[end - n : end] % N_ITEMS + 1
    return Sequences(items, whole.starts, whole.ends)


@pytest.mark.parametrize("model", ["sasrec", "gru4rec"])
@pytest.mark.parametrize("loss", ["softmax", "bce", "sampled_softmax"])
def test_what_is_held_out_leaves_no_trace_in_training(
    model: str, loss: str, tmp_path: Path
) -> None:
    options = {"epochs": 2, "patience": 0, "loss": loss, "negatives": 3}
    whole = histories()
    run = quick(dataset(whole), tmp_path / "as-is", model, **options)
    # Another test item: nothing at all differs. Another validation item: only its metrics do.
    other = quick(dataset(with_other_last_items(whole, 1)), tmp_path / "test", model, **options)
    assert timeless(run.log()) == timeless(other.log())
    assert same(weights(run), weights(other))
    both = quick(dataset(with_other_last_items(whole, 2)), tmp_path / "both", model, **options)
    assert [line["loss"] for line in both.log()] == [line["loss"] for line in run.log()]
    assert [line["NDCG@10"] for line in both.log()] != [line["NDCG@10"] for line in run.log()]


def test_learning_from_validation_too_uses_it_and_does_not_measure_it(tmp_path: Path) -> None:
    data = dataset()
    run = quick(data, tmp_path / "more", epochs=2, learn_from="train+valid")
    assert run.metrics == {}
    assert all("NDCG@10" not in line for line in run.log())
    train = quick(data, tmp_path / "train", epochs=2)
    assert not same(weights(run), weights(train))
    assert evaluate(run, data, device="cpu")["HR@10"] >= 0
    with pytest.raises(RunError, match="no test of it"):
        evaluate(run, data, part="valid", device="cpu")
    everything = quick(data, tmp_path / "all", epochs=1, learn_from="all")
    with pytest.raises(RunError, match="no test of it"):
        evaluate(everything, data, device="cpu")


def test_no_epochs_give_an_untrained_recommender(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=0)
    assert run.finished and run.log() == []


def test_a_run_by_default_is_named_after_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(dataset(name="my set!"), "pop", seed=3, device="cpu", progress=False)
    assert run.path == Path("runs/my-set--pop-seed3")


def test_a_folder_that_exists_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    data = dataset()
    run = quick(data, tmp_path / "run", "pop")
    with pytest.raises(RunError, match=r"exists already.*--overwrite"):
        quick(data, tmp_path / "run", "mc1")
    assert run.config["model"] == "pop"
    assert quick(data, tmp_path / "run", "mc1", overwrite=True).config["model"] == "mc1"


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("option", ["overwrite", "resume"])
def test_what_is_not_a_run_is_never_touched(kind: str, option: str, tmp_path: Path) -> None:
    place = tmp_path / "precious"
    if kind == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("years of work")
    else:
        place.write_text("years of work")
    with pytest.raises(RunError, match="is not a run"):
        quick(dataset(), place, "pop", **{option: True})
    kept = place / "thesis.txt" if kind == "folder" else place
    assert kept.read_text() == "years of work"


def test_evaluating_on_another_dataset_is_refused(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    with pytest.raises(RunError, match="evaluate on the dataset the run was fitted on"):
        evaluate(run, dataset(histories(40)), device="cpu")
    with pytest.raises(RunError, match="its dataset lay in memory; name its folder after the run"):
        evaluate(run, device="cpu")
    with pytest.raises(ConfigError, match="not one of valid, test"):
        evaluate(run, dataset(), part="train", device="cpu")


def test_evaluation_finds_the_dataset_where_it_was(tmp_path: Path) -> None:
    folder = dataset().save(tmp_path / "data")
    run = quick(folder, tmp_path / "run", "mc1")  # type: ignore[arg-type]
    assert evaluate(str(run.path), device="cpu") == evaluate(run, folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"learn_from": "test"}, ConfigError, "learn_from: `test` is not one of"),
        ({"metric": "NDCG@7"}, ConfigError, "needs cutoff 7, the protocol has 5, 10, 20"),
        ({"metric": "AUC"}, ConfigError, "unknown metric `AUC`"),
        ({"split": "random"}, InputError, "split `random` is unknown"),
        ({"split": "time:1,2"}, InputError, "no times"),
    ],
)
def test_a_fit_that_cannot_be_leaves_no_folder(
    options: dict[str, Any], error: type[NextupError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        quick(dataset(), tmp_path / "run", epochs=1, **options)
    assert not (tmp_path / "run").exists()


def test_counting_needs_no_validation_metric(tmp_path: Path) -> None:
    assert quick(dataset(), tmp_path / "run", "pop", protocol=Protocol(cutoffs=(1,))).finished


def test_a_loss_that_is_no_number_stops_the_run_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(NextupError, match=r"not finite.*learning_rate"):
        quick(dataset(), tmp_path / "run", "gru4rec", epochs=5, learning_rate=1e30)


@pytest.mark.parametrize("device", ["tpu", "gpu"])
def test_an_unknown_device_is_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"device: `{device}` is not one of auto, cpu, cuda"):
        fit(dataset(), "pop", run=tmp_path / "run", device=device, progress=False)


def test_memory_is_spared_unless_somebody_has_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextup.train.device import spare_memory

    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    spare_memory("bf16")
    assert name not in os.environ
    spare_memory("auto")
    assert os.environ[name] == "0"
    monkeypatch.setenv(name, "64")
    spare_memory("32")
    assert os.environ[name] == "64"
