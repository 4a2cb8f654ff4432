"""Where a run is made: nothing of other people's is replaced, and nothing is lost needlessly."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import dataset, histories, quick

from nextup.data.dataset import Dataset
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError, NextupError, RunError
from nextup.evaluation.protocol import Protocol
from nextup.train.assess import evaluate
from nextup.train.fit import fit
from nextup.train.loop import Loop
from nextup.train.run import Run


@pytest.mark.parametrize("content", ["{}", "[]", '{"port": 80, "model": "T"}', "not JSON"])
@pytest.mark.parametrize("option", ["overwrite", "resume"])
def test_a_folder_of_something_else_with_a_config_is_never_touched(
    content: str, option: str, tmp_path: Path
) -> None:
    place = tmp_path / "webserver"
    place.mkdir()
    (place / "config.json").write_text(content)
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"is not a run|not that of a run|cannot be read"):
        quick(dataset(), place, "pop", **{option: True})
    assert (place / "config.json").read_text() == content
    assert (place / "thesis.txt").read_text() == "years of work"
    assert [each.name for each in tmp_path.iterdir()] == ["webserver"]


def test_a_run_is_marked_and_one_of_an_earlier_version_is_known_by_its_keys(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    config = json.loads((run.path / "config.json").read_text())
    assert config.pop("format") == "nextup-run"
    del config["dataset"]["checksum"]
    (run.path / "config.json").write_text(json.dumps(config))
    assert evaluate(run, dataset(), device="cpu")["HR@10"] >= 0
    assert quick(dataset(), run.path, "pop", resume=True).finished
    assert quick(dataset(), run.path, "mc1", overwrite=True).config["model"] == "mc1"


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": "nextup-run"}'])
def test_a_config_that_is_none_is_one_line(content: str, tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    (run.path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: (is not that of a run|.*no JSON object)"):
        evaluate(run, dataset(), device="cpu")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"seed": -1}, "seed: -1 is out of range"),
    ({"seed": 2**63}, "out of range; choose one from 0 to"),
    ({"seed": 1.5}, "seed: 1.5 is no whole number"),
    ({"split": "random"}, "split `random` is unknown"),
    ({"learn_from": "test"}, "learn_from"),
    ({"dropout": 2}, "dropout"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_what_cannot_be_is_said_before_the_old_run_is_touched(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=1)
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    with pytest.raises(NextupError, match=said):
        quick(dataset(), run.path, overwrite=True, epochs=1, **options)
    assert before == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_the_highest_seed_is_one(tmp_path: Path) -> None:
    assert quick(dataset(), tmp_path / "run", epochs=1, seed=2**63 - 1).finished


@pytest.mark.parametrize("error", [MemoryError, ConfigError, KeyboardInterrupt])
def test_a_fit_that_comes_to_nothing_gives_the_old_run_back(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=1)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Loop, "_begin_stage", fails)
    with pytest.raises(error):
        quick(dataset(), run.path, overwrite=True, epochs=2)
    assert run.finished and run.config["train_config"]["epochs"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_negatives_that_cannot_be_drawn_lose_no_run(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=1)
    impossible = Protocol(candidates="sampled", n_negatives=29)
    with pytest.raises(NextupError, match="fewer than the 29 negatives wanted"):
        quick(dataset(), run.path, overwrite=True, epochs=2, protocol=impossible)
    assert run.finished and run.config["train_config"]["epochs"] == 1


def test_a_failed_fit_leaves_no_folder_that_blocks_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_begin_stage", fails)
        with pytest.raises(MemoryError):
            quick(dataset(), tmp_path / "run", epochs=1)
    assert not list(tmp_path.iterdir())
    assert quick(dataset(), tmp_path / "run", epochs=1).finished


def test_a_process_killed_while_it_replaced_a_run_loses_neither(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    aside = tmp_path / f".run.old-{int(gone.stdout)}-abcd1234"
    run.path.rename(aside)
    with pytest.raises(RunError, match="exists already"):
        quick(dataset(), run.path, "mc1")
    assert run.finished and not aside.exists()
    (aside / "recommender").mkdir(parents=True)
    quick(dataset(), run.path, "mc1", overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_process_killed_before_the_new_run_came_to_anything_loses_not_the_old(
    tmp_path: Path,
) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    aside = tmp_path / f".run.old-{int(gone.stdout)}-abcd1234"
    run.path.rename(aside)
    run.path.mkdir()
    (run.path / "config.json").write_text("{}")
    (run.path / "log.jsonl").touch()
    with pytest.raises(RunError, match="exists already"):
        quick(dataset(), run.path, "mc1")
    assert run.finished and run.config["model"] == "pop"
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_who_resumes_goes_on_with_the_new_run_however_little_there_is(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", epochs=1)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    aside = tmp_path / f".run.old-{int(gone.stdout)}-abcd1234"
    run.path.rename(aside)
    begun = quick(dataset(), tmp_path / "other", epochs=2)
    run.path.mkdir()
    (run.path / "config.json").write_bytes((begun.path / "config.json").read_bytes())
    assert len(quick(dataset(), run.path, epochs=2, resume=True).log()) == 2
    assert not aside.exists()


def test_a_link_to_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(RunError, match="is a link, which is not overwritten"):
        quick(dataset(), tmp_path / "link", "mc1", overwrite=True)
    assert run.config["model"] == "pop" and (tmp_path / "link").is_symlink()
    assert quick(dataset(), tmp_path / "link", "pop", resume=True).finished


def shuffled(whole: Sequences) -> Dataset:
    """As many users, items and interactions, each history the other way round."""
    return dataset(Sequences.from_lists([row[::-1].tolist() for row in whole]))


def test_a_dataset_of_the_same_size_is_not_the_same(tmp_path: Path) -> None:
    other = shuffled(histories())
    run = quick(dataset(), tmp_path / "run", "pop")
    assert other.n_interactions == dataset().n_interactions
    with pytest.raises(RunError, match="same size but with other histories"):
        evaluate(run, other, device="cpu")
    with pytest.raises(RunError, match="same size but with other histories"):
        quick(other, run.path, "pop", resume=True)


def test_nothing_to_resume_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"run": tmp_path / "run", "resume": True, "device": "cpu"}
    fit(dataset(), "pop", **options)
    assert "run: there is nothing to resume; starting anew" in capsys.readouterr().err
    fit(dataset(), "pop", **options)
    assert "nothing to resume" not in capsys.readouterr().err


def test_metrics_know_by_which_protocol_they_were_made(tmp_path: Path) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    assert run.protocols == {"valid": Protocol()}
    sampled = Protocol(candidates="sampled", n_negatives=5)
    evaluate(run, dataset(), protocol=sampled, device="cpu")
    assert run.protocols == {"valid": Protocol(), "test": sampled}
    assert set(run.metrics) == {"valid", "test"} and "HR@10" in run.metrics["test"]


def test_a_disk_that_is_read_only_is_said_of_the_file_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = quick(dataset(), tmp_path / "run", "pop")
    ranks, here = run.ranks("valid"), Path.open

    def refuses(self: Path, *args: Any, **kwargs: Any) -> Any:
        if "partial" in self.name:
            raise OSError(30, "Read-only file system", str(self))
        return here(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuses)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: refuses(self))
    for call in (
        lambda: run.note("test", ranks, {}),
        lambda: Run(run.path).note("valid", ranks, {}),
    ):
        with pytest.raises(RunError, match=r"run/ranks-\w+\.npz: could not be written \(Read-only"):
            call()


def test_a_run_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such run"):
        Run(tmp_path / "run").ranks()
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="not a run"):
        Run(tmp_path / "run").ranks()


def test_a_run_is_gone_on_with_on_its_device_and_its_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = np.arange(len(histories().items), dtype=np.int64)
    timed = dataclasses.replace(dataset(), times=times)

    def dying(self: Loop, *_: Any) -> None:
        raise KeyboardInterrupt

    run = Run(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_save", dying)
        with pytest.raises(KeyboardInterrupt):
            quick(timed, run.path, epochs=1)
    other = dataclasses.replace(timed, times=times[::-1].copy())
    assert other.checksum == timed.checksum and other.times_checksum != timed.times_checksum
    config = json.loads((run.path / "config.json").read_text())
    with pytest.raises(RunError, match="the same histories with other times"):
        quick(other, run.path, epochs=1, resume=True)
    (run.path / "config.json").write_text(json.dumps({**config, "device": "cuda"}))
    with pytest.raises(RunError, match="another device"):
        quick(timed, run.path, epochs=1, resume=True)
    (run.path / "config.json").write_text(json.dumps(config))
    assert quick(timed, run.path, epochs=1, resume=True).finished
    assert quick(other, run.path, epochs=1, resume=True).finished, "it is only looked at"
    assert evaluate(run, other, device="cpu")["HR@10"] >= 0


def test_a_split_by_time_is_measured_by_the_same_times(tmp_path: Path) -> None:
    sequences = histories()
    times = np.concatenate([np.arange(n) for n in sequences.lengths]).astype(np.int64)
    timed = dataclasses.replace(dataset(), times=times)
    run = fit(timed, "pop", run=tmp_path / "run", split="time:4,7", progress=False)
    assert evaluate(run, timed, device="cpu")["HR@10"] >= 0
    with pytest.raises(RunError, match="with other times, by which they were split"):
        evaluate(run, dataclasses.replace(timed, times=times + 1), device="cpu")
