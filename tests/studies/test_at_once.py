"""Tables measured in several processes are the tables of one, and a process outlives nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nextup.errors import RunError
from nextup.studies import at_once
from nextup.studies.at_once import measured_at_once
from nextup.studies.measured import unmeasured_part
from nextup.studies.report import write_report
from nextup.studies.results import Results
from nextup.studies.study import Study

from .fabricate import fabricate_study


@pytest.fixture
def small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any comparison is worth a process."""
    monkeypatch.setattr(at_once, "_WORTH_A_PROCESS", 1)


def test_a_report_of_two_processes_is_that_of_one(
    plan: Study, tmp_path: Path, small_enough: None
) -> None:
    fabricate_study(tmp_path / "results", plan, seeds=(0, 1))
    before = dict(os.environ)
    for processes in (1, 2):
        out = tmp_path / str(processes)
        write_report(tmp_path / "results", out, ["tiny"], False, 200, processes=processes)
    names = sorted(file.name for file in (tmp_path / "1").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "2").iterdir())
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert dict(os.environ) == before


def test_processes_start_only_where_they_save_time(
    plan: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate_study(tmp_path, plan)
    parts = [plan.part("table"), plan.part("pieces")]
    found = [each for part in parts for each in unmeasured_part(plan, part, Results(tmp_path), 200)]
    monkeypatch.setattr(at_once, "_pool", None)  # would fail if it were used
    measured_at_once([each.comparison for each in found], processes=8)
    assert measured_at_once([], processes=8) == []


def test_what_is_damaged_is_named_from_a_process_too(
    plan: Study, tmp_path: Path, small_enough: None
) -> None:
    fabricate_study(tmp_path, plan)
    damaged = Results(tmp_path).all[0].file.with_suffix(".npz")
    damaged.write_bytes(b"cut")
    with pytest.raises(RunError, match=f"{damaged.name}.*cannot be read"):
        write_report(tmp_path, tmp_path, ["tiny"], False, 200, processes=2)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "held.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from nextup.studies.at_once import _pool

            def busy():
                time.sleep(600)

            if __name__ == "__main__":
                with _pool(1) as pool:
                    print(pool.submit(os.getpid).result(), flush=True)
                    pool.submit(busy)
                    time.sleep(600)
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the process went on without its parent")
