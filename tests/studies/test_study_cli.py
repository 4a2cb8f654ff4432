"""`nextup study` and `nextup report` on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.command_line import run_cli
from nextup.cli.studies import _seeds
from nextup.errors import ConfigError
from nextup.studies.places import Places
from nextup.studies.results import Results
from nextup.studies.run_cell import How, run_cell
from nextup.studies.runner import Runner
from nextup.studies.study import Study
from nextup.studies.wanted import wanted_cells
from nextup.studies.watch import Watch

from .fabricate import fabricate_study


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["study", "lma4rce"], "unknown study `lma4rce`; did you mean `lma4rec`?"),
        (["study", "tiny", "tabel"], "study tiny: unknown part `tabel`; did you mean `table`?"),
        (["study", "tiny", "table", "--methods", "POPP"], "unknown method `POPP`; did you mean"),
        (["study", "tiny", "table", "--datasets", "toys"], "unknown dataset `toys`"),
        (["study", "tiny", "table", "--seeds", "4-0"], "seeds `4-0`: write them as 0,1,2 or 0-4"),
        (["study", "tiny", "table", "--seeds", "one"], "seeds `one`: write them as 0,1,2 or 0-4"),
        (["study", "tiny", "table", "--budget", "soon"], "budget `soon`: write it as"),
        (["study", "tiny", "table", "--jobs", "0"], "jobs: 0 is too few"),
        (["study", "tiny", "table", "--device", "tpu"], "device: `tpu` is not one of"),
        (["study", "runs"], "name some, as dataset:model[:recipe]"),
        (["study", "runs", "toys"], "write it as dataset:model[:recipe][:key=value]"),
        (["study", "runs", "toys:sasrek"], "did you mean `sasrec`?"),
        (["study", "runs", "toys:pop", "--methods", "POP"], "are for studies"),
        (["report", "lma4rce"], "unknown study `lma4rce`"),
        (["report", "--resamples", "3"], "resamples: 3 is too few"),
        (["report", "--jobs", "0"], "jobs: 0 is too few"),
    ],
)
@pytest.mark.usefixtures("plan", "folder")
def test_one_line_with_the_remedy(arguments: list[str], says: str) -> None:
    found = run_cli(*arguments)
    assert found.code == 2
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert says in line and "Traceback" not in found.err
    assert not list(Path.cwd().iterdir()), "something is left"


def test_a_damaged_result_is_named(folder: Path) -> None:
    (folder / "results/runs").mkdir(parents=True)
    (folder / "results/runs/bad.json").write_text("{")
    for arguments in (["study"], ["report"]):
        found = run_cli(*arguments)
        assert found.code == 2 and "bad.json: is not a result of a study" in found.err


@pytest.mark.usefixtures("folder")
def test_what_there_is_and_what_is_missing(plan: Study) -> None:
    found = run_cli("study")
    assert found.code == 0
    rows = {tuple(line.split()[:2]): line for line in found.out.splitlines()}
    assert "0/6" not in rows["tiny", "table"] and "0/4" in rows["tiny", "table"]
    assert "Oracle" in rows["tiny", "table"] and ("lma4rec", "figure5") in rows
    fabricate_study(Path("results"), plan, "table", seeds=(0,))
    assert "3/4" in run_cli("study").out
    one = run_cli("study", "tiny")
    assert one.code == 0 and "the model oracle is not there yet" in one.out
    assert "1/2" in next(line for line in one.out.splitlines() if line.startswith("SASRec"))


@pytest.mark.usefixtures("folder")
def test_a_dry_run_lists_the_order(plan: Study) -> None:
    fabricate_study(Path("results"), plan, "pieces", seeds=(0,))
    found = run_cli("study", "tiny", "table", "--dry-run")
    states = [line.split() for line in found.out.splitlines() if line.startswith("shop-")]
    assert [state[-1] for state in states] == ["done", "missing", "done", "missing"]
    assert "Oracle is left out: the model oracle is not there yet" in found.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["results"]


@pytest.mark.usefixtures("folder")
def test_nothing_is_started_when_all_is_there(plan: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, "_start", None)
    fabricate_study(Path("results"), plan, "table", seeds=(0, 1))
    found = run_cli("study", "tiny", "table", "--device", "cpu")
    assert found.code == 0 and "4 of 4 runs are there already" in found.err
    assert "next: nextup report" in found.err


@pytest.mark.usefixtures("folder")
def test_a_failure_is_one_line_and_exit_code_one() -> None:
    found = run_cli("study", "runs", "nowhere:sasrec", "none:mc1", "--seeds", "0,1")
    assert found.code == 1
    lines = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2 and "neither a prepared dataset nor a public set" in lines[0]
    assert lines[0].startswith("error: nowhere-sasrec-seed0 and 1 more: ")


def test_ctrl_c_stops_in_order_and_names_how_to_go_on(
    plan: Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = []

    def interrupted(self: Watch, running: list, waiting: int) -> None:
        processes.extend(each.process for each in running)
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "show", interrupted)
    found = run_cli("study", "tiny", "table", "--device", "cpu", "--jobs", "1")
    assert found.code == 130
    assert "stopped; go on with: nextup study tiny table --device cpu --jobs 1" in found.err
    assert len(processes) == 1 and processes[0].poll() is not None
    assert not Results("results").all


@pytest.mark.usefixtures("folder")
def test_runs_by_name_and_the_report(shop: Path) -> None:
    text = f"{shop}:pop:learn_from=train+valid"
    cells = run_cli("study", "runs", text, f"{shop}:mc1", "--seeds", "0-2", "--dry-run")
    names = [line.split()[0] for line in cells.out.splitlines() if line.startswith("shop-")]
    assert names == ["shop-pop-train+valid-seed0", "shop-mc1-seed0"]
    from nextup.studies.spelling import parse_cell

    run_cell(parse_cell(text), Places(), How("cpu"))
    found = run_cli("report", "--no-figures", "--resamples", "200")
    assert found.code == 0 and "wrote results/report.html" in found.err
    assert "| shop-pop-train+valid |" in Path("results/studies.md").read_text()


def test_without_matplotlib_the_remedy_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = run_cli("report")
    assert found.code == 2 and "pip install matplotlib" in found.err
    assert "--no-figures" in found.err and not list(folder.iterdir())


@pytest.mark.parametrize("name", ["study", "report"])
def test_help_teaches_and_imports_nothing_heavy(name: str) -> None:
    probe = (
        "import sys\nfrom nextup.cli import main\n"
        f"try: main(['{name}', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "Examples:" in done.stdout and f"nextup {name} lma4rec" in done.stdout


def test_seeds() -> None:
    assert _seeds(None) is None and _seeds("2") == [2]
    assert _seeds("0,1,1,3-5") == [0, 1, 3, 4, 5]
    for text in ("", "a", "1-", "-1", "1,,2"):
        with pytest.raises(ConfigError, match="seeds"):
            _seeds(text)


def test_a_study_by_the_command_line(plan: Study, folder: Path) -> None:
    names = [each.cell.name for each in wanted_cells(plan, plan.parts, methods=["POP", "MC1"])]
    found = run_cli("study", "tiny", "table", "--methods", "pop,mc1", "--device", "cpu", "-j", "2")
    assert found.code == 0, found.err
    assert [result.name for result in Results("results").all] == sorted(names)
    assert "2 runs done" in found.err and "next: nextup report" in found.err
