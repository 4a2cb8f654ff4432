"""Tables measured in several processes are the tables of one, and a process outlives nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nextup.errors import RunError
from nextup.studies import at_once
from nextup.studies.at_once import measured_at_once
from nextup.studies.measured import Comparison, planned_part
from nextup.studies.report import write_report
from nextup.studies.results import Results
from nextup.studies.study import Study

from .fabricate import fabricate_study


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes each pool had; any comparison is worth one."""
    made: list[int] = []
    pool = at_once._pool

    def recorded(processes: int) -> object:
        made.append(processes)
        return pool(processes)

    monkeypatch.setattr(at_once, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(at_once, "_pool", recorded)
    return made


def comparisons_of(plan: Study, results: Path) -> list[Comparison]:
    parts = [planned_part(plan, part, Results(results), 200) for part in plan.parts]
    return [each.comparison for part in parts for each in part]


def test_a_report_of_two_processes_is_that_of_one(
    plan: Study, tmp_path: Path, pools: list[int]
) -> None:
    fabricate_study(tmp_path / "results", plan, seeds=(0, 1))
    before = dict(os.environ)
    for processes in (1, 2):
        out = tmp_path / str(processes)
        write_report(tmp_path / "results", out, ["tiny"], False, 200, processes=processes)
    assert pools == [2]
    one, two = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "1", tmp_path / "2")
    )
    assert len(one) > 2 and one == two
    assert dict(os.environ) == before


def test_processes_start_only_where_they_save_time(
    plan: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate_study(tmp_path, plan)
    monkeypatch.setattr(at_once, "_pool", None)  # would fail if it were used
    measured_at_once(comparisons_of(plan, tmp_path), processes=8)
    assert measured_at_once([], processes=8) == []


def test_measuring_keeps_no_ranks(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path, plan)
    comparisons = comparisons_of(plan, tmp_path)
    measured_at_once(comparisons)
    runs = [run for each in comparisons for found in each.runs.values() for run in found.values()]
    assert runs and not any("ranks" in vars(run) for run in runs)


def test_what_is_damaged_is_named_from_a_process_too(
    plan: Study, tmp_path: Path, pools: list[int]
) -> None:
    fabricate_study(tmp_path, plan)
    damaged = Results(tmp_path).all[0].file.with_suffix(".npz")
    damaged.write_bytes(b"cut")
    with pytest.raises(RunError, match=f"{damaged.name}.*cannot be read"):
        write_report(tmp_path, tmp_path, ["tiny"], False, 200, processes=2)
    assert pools == [2] and not (tmp_path / "report.html").exists()


def dies(_: Comparison) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_ended_from_outside_is_one_line_with_a_remedy(
    plan: Study, tmp_path: Path, pools: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate_study(tmp_path, plan)
    monkeypatch.setattr(at_once, "_measure", dies)
    with pytest.raises(RunError, match="ended from outside; if memory ran out, try fewer --jobs"):
        measured_at_once(comparisons_of(plan, tmp_path), processes=2)
    assert pools == [2]


HELD = """
import os, signal, time
from nextup.cli.console import stoppable
from nextup.studies.at_once import _deaf, _pool

def say_and_wait(seconds):
    os.write(1, f"{os.getpid()}\\n".encode())  # a line, never half of one
    time.sleep(seconds)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    with stoppable(), _pool(2) as pool:
        with _deaf():
            waiting = [pool.submit(say_and_wait, 60) for _ in range(8)]
        waiting[0].result()
"""


@contextmanager
def held(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process whose two processes are busy, and the numbers of those; a group of its own."""
    (folder / "held.py").write_text(textwrap.dedent(HELD))
    parent = subprocess.Popen(
        [sys.executable, str(folder / "held.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        yield parent, [int(parent.stdout.readline()) for _ in range(2)]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def gone(process: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


STOPS: dict[str, Callable[[int], None]] = {
    "Ctrl-C": lambda process: os.killpg(process, signal.SIGINT),
    "SIGTERM": lambda process: os.kill(process, signal.SIGTERM),
    "SIGKILL": lambda process: os.kill(process, signal.SIGKILL),
}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("stop", STOPS)
def test_processes_end_at_once_with_the_one_that_started_them(stop: str, tmp_path: Path) -> None:
    with held(tmp_path) as (parent, children):
        STOPS[stop](parent.pid)
        _, err = parent.communicate(timeout=30)  # they would sleep for minutes
        until = time.monotonic() + 30
        while not all(gone(child) for child in children) and time.monotonic() < until:
            time.sleep(0.05)
        assert all(gone(child) for child in children), "a process went on without its parent"
        assert "Traceback" not in err
        assert ("stopped" in err) == (stop != "SIGKILL")
