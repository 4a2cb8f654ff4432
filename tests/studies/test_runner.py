"""Running cells: alone, several at once, stopped, killed, gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nextup.errors import ConfigError
from nextup.studies import worker
from nextup.studies.cell import Cell
from nextup.studies.overview import missing_cells
from nextup.studies.places import Places, held
from nextup.studies.results import Results
from nextup.studies.run_cell import BusyError, How, run_cell
from nextup.studies.runner import Runner, clear, jobs_for, parse_duration, visible_gpus
from nextup.studies.study import Study
from nextup.studies.wanted import wanted_cells
from nextup.studies.watch import Running, Watch

from .conftest import QUICK

ENDLESS = {**QUICK, "epochs": 100_000, "patience": 0}


def quick(shop: Path, **settings: object) -> Cell:
    return Cell(str(shop), "sasrec", None, {**QUICK, **settings})


def run_here(cell: Cell, folder: Path) -> dict[str, object]:
    file = run_cell(cell, Places(folder / "results", folder / "runs"), How("cpu"))
    found: dict[str, object] = json.loads(file.read_text())
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def lines_of(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def alive(process: int) -> bool:
    """Whether a process runs (one that ended and was not yet taken leave of does not)."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.parent.parent.is_dir():
        return True
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_result_says_how_it_came_about(shop: Path, folder: Path) -> None:
    found = run_here(quick(shop), folder)
    assert found["seed"] == 0 and found["epochs"] == 3
    assert found["decided"]["train_config"]["epochs"] == 3  # type: ignore[index]
    assert found["log"]["epoch"] == [1, 2, 3] and "NDCG@10" in found["log"]  # type: ignore
    assert found["begun"]["commit"] == found["commit"]  # type: ignore[index]
    assert found["how"] == {"device": "cpu", "precision": "32", "threads": 1, "jobs": 1}
    assert {"processor", "cores"} <= set(found["hardware"])  # type: ignore[call-overload]
    assert found["command"] == (
        "nextup study runs shop:sasrec:batch_size=16:dropout=0.2:epochs=3:layers=1:width=8 "
        "--seeds 0"
    )
    text = (folder / "results/runs" / f"{found['name']}.json").read_text()
    assert str(shop.parent) not in text, "a result names a place of this machine"
    Results(folder / "results").all[0].check()


def test_a_finished_run_is_not_made_again(
    shop: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_here(quick(shop), folder)
    monkeypatch.setattr("nextup.train.loop.Loop._step", None)
    monkeypatch.setattr("nextup.train.assess.rank_cases", None)
    again = run_here(quick(shop), folder)  # as after a result was lost
    assert again["ranks_sha256"] == first["ranks_sha256"] and again["test"] == first["test"]


def test_a_run_folder_of_other_settings_is_replaced(
    shop: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cell, "name", "same-name")
    first = run_here(quick(shop), folder)
    second = run_here(quick(shop, epochs=2), folder)
    assert (first["epochs"], second["epochs"]) == (3, 2)


def test_two_processes_never_run_the_same_cell(shop: Path, folder: Path) -> None:
    places = Places(folder / "results", folder / "runs")
    cell = quick(shop)
    with held(places.beside(cell.name, "lock")) as free:
        assert free
        with pytest.raises(BusyError, match="another process"):
            run_cell(cell, places, How("cpu"))
        task = folder / "task.json"
        worker.write_task(task, cell, places, How("cpu"))
        assert worker.main([str(task)]) == worker.BUSY
    assert not Results(places.results).all


def test_a_study_runs_to_its_end_and_one_failure_stops_no_other(
    plan: Study, folder: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = Places(folder / "results", folder / "runs")
    wanted = [each.cell for each in wanted_cells(plan, [plan.part("table")], seeds=[0])]
    fails = quick(shop, loss="softmax", learning_rate=1e30)
    lost = Cell(str(folder / "nowhere"), "pop")
    with Runner([fails, lost, *wanted], places, How("cpu", jobs=2)) as runner:
        outcome = runner.run()
    assert sorted(outcome.done) == sorted(cell.name for cell in wanted)
    assert list(outcome.failed.values()) == [[lost.name], [fails.name]]
    assert any("is not finite" in reason for reason in outcome.failed)
    assert any("neither a prepared dataset nor" in reason for reason in outcome.failed)
    results = Results(places.results)
    assert not missing_cells(wanted_cells(plan, [plan.part("table")], seeds=[0]), results)
    # The second table shares its runs with the first.
    assert not missing_cells(wanted_cells(plan, [plan.part("pieces")], seeds=[0]), results)
    assert len(missing_cells(wanted_cells(plan, plan.parts), results)) == 5
    said = capsys.readouterr().err
    assert f"{wanted[0].name}: done" in said and f"{fails.name}: FAILED" in said


def test_the_budget_ends_what_runs_and_the_next_call_goes_on(
    shop: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(folder / "results", folder / "runs")
    cells = [quick(shop, **ENDLESS), Cell(str(shop), "pop")]
    log = places.run(cells[0].name) / "log.jsonl"

    def epochs() -> list[int]:
        text = log.read_text() if log.is_file() else ""
        return [json.loads(line)["epoch"] for line in text.splitlines()]

    for _ in range(2):
        reached = len(epochs())
        with Runner(cells, places, How("cpu", jobs=1), budget=120.0) as runner:

            def end_soon(self: Watch, *shown: object, runner: Runner = runner) -> None:
                if lines_of(log) > reached + 2:  # noqa: B023
                    runner.budget = 0.0

            monkeypatch.setattr(Watch, "show", end_soon)
            outcome = runner.run()
        assert outcome.left == [cell.name for cell in cells]
        assert not outcome.failed and not outcome.done
        assert epochs() == list(range(1, len(epochs()) + 1)), "no epoch twice, none left out"
        assert len(epochs()) > reached
    assert not Results(places.results).all


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_and_gone_on_with_the_numbers_are_the_same(shop: Path, folder: Path) -> None:
    cell = quick(shop, epochs=100, patience=0, validate_every=25)
    undisturbed = run_here(cell, folder / "undisturbed")
    text = f"{shop}:sasrec:" + ":".join(f"{k}={v}" for k, v in cell.settings.items())
    command = [sys.executable, "-m", "nextup", "study", "runs", text, "--device", "cpu"]
    log = folder / "runs/studies" / cell.name / "log.jsonl"

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=folder)
    wait_for(lambda: lines_of(log) > 3)
    workers = _children(process.pid)
    process.kill()  # nothing of ours is told; the worker notices that its starter has gone
    process.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers))
    assert workers and lines_of(log) < 100, "it was done before it was killed"
    places = Places(folder / "results", folder / "runs")
    with Runner([cell], places, How("cpu", jobs=1)) as runner:
        outcome = runner.run()
    assert outcome.done == [cell.name], outcome
    clear(places, outcome.done)
    (result,) = Results(folder / "results").all
    assert result.document["ranks_sha256"] == undisturbed["ranks_sha256"]
    assert result.log["loss"] == undisturbed["log"]["loss"]  # type: ignore[index]
    assert not (log.parent / "checkpoint/state.safetensors").exists(), "not tidied up"


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True)
    return [int(pid) for pid in found.stdout.split()]


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "1h30m", "0.5h")] == [
        *(90, 1800, 5400, 1800)
    ]
    for text in ("", "30", "m", "30 m", "1d", "30m!"):
        with pytest.raises(ConfigError, match="write it as"):
            parse_duration(text)


def test_how_many_run_at_once(shop: Path, folder: Path) -> None:
    assert jobs_for("auto", ["0"]) == 3 and jobs_for("cuda", ["0", "1"]) == 6
    assert jobs_for("cpu", ["0"]) >= 1 and jobs_for("auto", []) >= 1
    cells = [Cell(str(shop), "pop"), Cell(str(shop), "mc1")]
    assert Runner(cells, Places(), How("cpu", jobs=9)).how.jobs == 2


def test_runs_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch, shop: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert visible_gpus() == ["4", "7"]
    cells = [Cell(str(shop), "sasrec", seed=seed) for seed in range(9)]
    runner = Runner(cells, Places(), How("auto", jobs=0))
    assert runner.how.jobs == 6
    assert runner._environment("7")["CUDA_VISIBLE_DEVICES"] == "7"
    assert runner._environment("7")["OMP_NUM_THREADS"] == "1"


def test_the_log_is_read_as_it_grows(tmp_path: Path, shop: Path) -> None:
    log = tmp_path / "log.jsonl"
    process = subprocess.Popen([sys.executable, "-c", ""])
    each = Running(quick(shop), process, log, tmp_path / "err")
    each.look()
    assert each.columns()[1:3] == ("0/3", "")
    log.write_text('{"epoch": 1, "NDCG@10": 0.5}\n{"epoch": 2, "NDC')
    each.look()
    assert (each.epoch, each.best) == (1, 0.5)
    with log.open("a") as opened:
        opened.write('G@10": 0.25}\n')
    each.look()
    assert each.columns()[1:3] == ("2/3", "NDCG@10 0.5000")
    log.write_text('{"epoch": 1}\n')  # cut back to a checkpoint
    each.look()
    assert each.epoch == 1
    with log.open("a") as opened:
        opened.write('{"stage": "teacher", "epoch": 40, "NDCG@10": 0.5}\n')
    each.look()
    assert each.columns()[1:3] == ("teacher 40", "NDCG@10 0.5000"), "3 epochs are another stage's"
    process.wait()
    each.end()
