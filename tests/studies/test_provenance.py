"""Where numbers come from: in a checkout, outside one, and by which command."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from nextup.studies import provenance as room
from nextup.studies.provenance import command, commit, hardware, provenance, versions


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "src" / "nextup"
    package.mkdir(parents=True)
    (package / "errors.py").write_text("")
    (tmp_path / "notes").write_text("")
    monkeypatch.setattr(room, "PACKAGE", package)
    return tmp_path


def test_the_commit_and_what_is_in_none(checkout: Path) -> None:
    assert commit() is None, "no repository"
    git(checkout, "init")
    assert commit() is None, "nextup lies in a repository that is not its own"
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    assert re.fullmatch("[0-9a-f]{40}", commit() or "")
    (checkout / "notes").write_text("changed")
    assert re.fullmatch("[0-9a-f]{40}", commit() or ""), "not the code"
    assert (commit([checkout / "notes"]) or "").endswith("+")
    (checkout / "src/nextup/new.py").write_text("")
    assert (commit() or "").endswith("+")


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() is None


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("src/nextup/__main__.py", "nextup study lma4rec"),
        ("/opt/bin/nextup", "nextup study lma4rec"),
        ("benchmarks/speed.py", "python benchmarks/speed.py study lma4rec"),
        ("benchmarks/speed.sh", "bash benchmarks/speed.sh study lma4rec"),
        ("/elsewhere/own.py", "python own.py study lma4rec"),
    ],
)
def test_commands_name_no_place(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, typed: str, shown: str
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("sys.argv", [typed, "study", "lma4rec"])
    assert command() == shown


def test_everything_else() -> None:
    found = provenance(device="cpu")
    assert set(found) == {"date", "command", "commit", "hardware", "threads", "versions"}
    assert found["hardware"]["cores"] >= 1 and "gpu" not in hardware("cpu")
    assert {"python", "torch", "numpy", "nextup"} <= set(versions())
