"""Help answers at once, for every command, with examples."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from .command_line import Cli

COMMANDS = [
    *("prepare", "fit", "evaluate", "compare", "consistency", "recommend", "similar"),
    *("study", "tune", "report", "models", "doctor", "demo"),
]
HEAVY = {"torch", "polars", "numpy", "scipy", "lightning_fabric", "pandas", "rich"}

PROBE = """
import sys
from nextup.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(sorted({name.partition('.')[0] for name in sys.modules} & %r), file=sys.stderr)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(cli: Cli, command: str) -> None:
    found = cli(command, "--help")
    assert found.code == 0
    assert "Examples:" in found.out and f"nextup {command}" in found.out


def test_the_root_lists_all_commands_and_the_way(cli: Cli) -> None:
    found = cli("--help")
    assert found.code == 0
    assert all(f"\n  {command} " in found.out for command in COMMANDS)
    assert "nextup prepare ratings.csv" in found.out
    summaries = found.out.partition("Commands:")[2]
    assert "..." not in summaries, "a summary is cut short"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE % HEAVY, *arguments], capture_output=True, text=True
    )
    assert done.stderr.strip() == "[]"


def test_help_is_there_in_half_a_second() -> None:
    def seconds() -> float:
        """Processor time of a child: on a busy machine the clock on the wall counts others too."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "nextup", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(seconds() < 0.5 for _ in range(5))


def test_version(cli: Cli) -> None:
    import nextup

    assert cli("--version").out.strip() == f"nextup {nextup.__version__}"


def test_the_entry_point_is_main() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="nextup")
    assert script.value == "nextup.cli:main"
