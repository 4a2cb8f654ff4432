"""A run that was killed, at whatever moment, ends as if it never had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed_fit import MOMENTS
from small_data import QUICK, dataset, histories, quick, timeless

from nextup.errors import RunError
from nextup.models.store import load_model
from nextup.train.loop import Loop
from nextup.train.run import Run

# Everything that keeps a state: dropout, negatives, a running average, the best epoch so far.
SETTINGS: dict[str, Any] = {
    "epochs": 6,
    "patience": 0,
    "checkpoint_seconds": 0.0,
    "average": 0.8,
    "loss": "bce",
    "negatives": 2,
    "schedule": "cosine",
    "warmup_steps": 5,
}


def child(run: Path, moment: str, count: int) -> subprocess.Popen[str]:
    here = Path(__file__).with_name("killed_fit.py")
    return subprocess.Popen(
        [sys.executable, str(here), str(run), json.dumps(SETTINGS), moment, str(count)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(run: Path, moment: str, count: int) -> None:
    """Run a fit until it kills itself."""
    process = child(run, moment, count)
    _, said = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, said
    assert not Run(run).finished


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody interrupted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = quick(dataset(), tmp_path_factory.mktemp("runs") / "run", **SETTINGS)
    torch.set_num_threads(threads)
    return run


def assert_same(found: Run, expected: Run) -> None:
    one, _, popularity, about = load_model(found.recommender_folder)
    other, _, expected_popularity, expected_about = load_model(expected.recommender_folder)
    for name, tensor in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], tensor), name
    assert timeless(found.log()) == timeless(expected.log())
    assert found.metrics == expected.metrics
    assert found.config == expected.config
    np.testing.assert_array_equal(found.ranks("valid").ranks, expected.ranks("valid").ranks)
    np.testing.assert_array_equal(popularity, expected_popularity)
    assert about["facts"]["best_epoch"] == expected_about["facts"]["best_epoch"]
    left = [file for file in found.path.rglob("*") if "partial" in file.name]
    assert not left, "half-written files are left behind"


def test_killed_at_three_moments_of_one_run_it_ends_the_same(whole: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed(run, "after a step", 7)
    killed(run, "while writing a checkpoint", 5)
    killed(run, "after a line of the log", 2)
    assert_same(quick(dataset(), run, resume=True, **SETTINGS), whole)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_no_moment_is_special(moment: str, whole: Run, tmp_path: Path) -> None:
    counts = 1 if moment.startswith("when") else 4
    killed(tmp_path / "run", moment, counts)
    assert_same(quick(dataset(), tmp_path / "run", resume=True, **SETTINGS), whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_from_outside_at_any_time_it_ends_the_same(
    seed: int, whole: Run, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    run = tmp_path / "run"
    for _ in range(3):
        process = child(run, "never", 0)
        deadline = time.monotonic() + 120
        while not (run / "config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.6)
        process.kill()
        process.communicate()
        if Run(run).finished:
            break
    assert_same(quick(dataset(), run, resume=True, **SETTINGS), whole)


def test_interrupted_before_the_first_checkpoint_it_starts_again(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            quick(dataset(), tmp_path / "run", **SETTINGS)
    assert (tmp_path / "run" / "config.json").is_file()
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert_same(quick(dataset(), tmp_path / "run", resume=True, **SETTINGS), whole)


def test_the_best_epoch_before_an_interruption_is_still_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A step size that ruins what was learnt: three epochs after the best it stops.
    settings = {"epochs": 40, "patience": 3, "learning_rate": 0.2}
    whole = quick(dataset(), tmp_path / "whole", **settings)
    best = load_model(whole.recommender_folder)[3]["facts"]["best_epoch"]
    assert len(whole.log()) == best + 3 < 40
    step = Loop._step

    def stop(self: Loop, order: object, epoch: int, at: int) -> torch.Tensor:
        if epoch == best + 1:
            raise KeyboardInterrupt
        return step(self, order, epoch, at)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            quick(dataset(), tmp_path / "run", **settings)
    assert_same(quick(dataset(), tmp_path / "run", resume=True, **settings), whole)


def test_killed_before_its_settings_were_noted_it_starts_again(whole: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.partial-123").write_text('{"model": "sas')
    assert_same(quick(dataset(), tmp_path / "run", resume=True, **SETTINGS), whole)


def copy_of(run: Run, folder: Path) -> Path:
    shutil.copytree(run.path, folder)
    return folder


def test_resuming_what_never_started_starts_it(whole: Run, tmp_path: Path) -> None:
    assert_same(quick(dataset(), tmp_path / "run", resume=True, **SETTINGS), whole)


def test_resuming_a_finished_run_changes_nothing(whole: Run, tmp_path: Path) -> None:
    place = copy_of(whole, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    assert_same(quick(dataset(), place, resume=True, **SETTINGS), whole)
    assert before == {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 7}, "another train_config.*epochs: 6 then, 7 now"),
        ({"dropout": 0.1}, "another model_config.*dropout: 0.2 then, 0.1 now"),
        ({"seed": 1}, "another seed.*0 then, 1 now"),
        ({"split": "last-2"}, "another split"),
        ({"learn_from": "all"}, "another learn_from"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_says_which(
    change: dict[str, Any], said: str, whole: Run, tmp_path: Path
) -> None:
    place = copy_of(whole, tmp_path / "run")
    with pytest.raises(RunError, match=said):
        quick(dataset(), place, resume=True, **{**SETTINGS, **change})


@pytest.mark.parametrize("then", [True, False])
def test_what_withheld_the_test_items_goes_on_withholding_them(then: bool, tmp_path: Path) -> None:
    how: dict[str, Any] = {"withhold_test": then, "epochs": 1}
    run = quick(dataset(), tmp_path / "run", **how)
    (run.path / "recommender" / "recommender.json").unlink()
    with pytest.raises(RunError, match="another test"):
        quick(dataset(), run.path, resume=True, **{**how, "withhold_test": not then})


def test_the_rest_of_a_run_is_not_made_in_another_precision(whole: Run, tmp_path: Path) -> None:
    place = copy_of(whole, tmp_path / "run")
    shutil.rmtree(place / "recommender")
    with pytest.raises(RunError, match=r"another precision.*'32' then, 'bf16' now"):
        quick(dataset(), place, resume=True, precision="bf16", **SETTINGS)


def test_a_finished_run_has_no_precision_to_keep(whole: Run, tmp_path: Path) -> None:
    place = copy_of(whole, tmp_path / "run")
    found = quick(dataset(), place, resume=True, precision="bf16", **SETTINGS)
    assert found.log() == whole.log()


def test_a_run_of_before_precision_was_noted_goes_on(whole: Run, tmp_path: Path) -> None:
    place = copy_of(whole, tmp_path / "run")
    noted = json.loads((place / "config.json").read_text())
    del noted["precision"]
    (place / "config.json").write_text(json.dumps(noted))
    assert quick(dataset(), place, resume=True, **SETTINGS).log() == whole.log()


def test_resuming_on_another_dataset_is_refused(whole: Run, tmp_path: Path) -> None:
    place = copy_of(whole, tmp_path / "run")
    with pytest.raises(RunError, match="was fitted on a dataset with"):
        quick(dataset(histories(50)), place, resume=True, **SETTINGS)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_checkpoint_is_an_error_with_a_remedy(
    damage: str, whole: Run, tmp_path: Path
) -> None:
    place = copy_of(whole, tmp_path / "run")
    shutil.rmtree(place / "recommender")
    file = place / "checkpoint" / "state.safetensors"
    content = file.read_bytes()
    spoilt = {"truncated": content[: len(content) // 2], "garbage": os.urandom(500), "empty": b""}
    file.write_bytes(spoilt[damage])
    with pytest.raises(RunError, match=r"not a readable checkpoint.*--overwrite"):
        quick(dataset(), place, resume=True, **SETTINGS)


def test_a_run_is_not_resumed_by_accident(whole: Run, tmp_path: Path) -> None:
    place = copy_of(whole, tmp_path / "run")
    shutil.rmtree(place / "recommender")
    with pytest.raises(RunError, match="--resume to go on, --overwrite"):
        quick(dataset(), place, **SETTINGS)


CONTRASTIVE: dict[str, dict[str, Any]] = {
    # Neighbours found anew among the embeddings each epoch, keep logits, their gradient's sums.
    "lma4rec": {"epochs": 4, "loss": "bce", "neighbours": "hybrid", "hybrid_from": 1},
    # Two stages, each with its own optimiser, best epoch and early stopping.
    "srma": {"epochs": 3, "pretrain_epochs": 3, "loss": "bce"},
}


@pytest.mark.parametrize("model", CONTRASTIVE)
@pytest.mark.parametrize("killed_at", [[2], [6, 3], [5, 4, 4]])
def test_killed_within_and_between_stages_it_ends_the_same(
    model: str, killed_at: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, **CONTRASTIVE[model], "patience": 0, "checkpoint_seconds": 0.0}
    whole = quick(dataset(), tmp_path / "whole", model, **settings)
    step = Loop._step
    for steps in killed_at:
        left = [steps]

        def stop(self: Loop, *args: Any, left: list[int] = left) -> torch.Tensor:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return step(self, *args)

        with monkeypatch.context() as patched:
            patched.setattr(Loop, "_step", stop)
            with pytest.raises(KeyboardInterrupt):
                quick(dataset(), tmp_path / "run", model, resume=True, **settings)
    assert_same(quick(dataset(), tmp_path / "run", model, resume=True, **settings), whole)
    stages = {line.get("stage") for line in whole.log()}
    assert stages == ({"complement", "train"} if model == "srma" else {None})
