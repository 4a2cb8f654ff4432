"""A small shop, prepared, fitted and evaluated once; and the command line in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextup.data.simulate import simulate

from .command_line import SMALL, Cli, run_cli


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with log.csv, titles.csv, data/shop, runs/pop and runs/sasrec, all measured."""
    folder = tmp_path_factory.mktemp("made")
    simulate(n_users=120, n_items=60, seed=1).write(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for arguments in (
            ["prepare", "log.csv", "--items", "titles.csv", "--out", "data/shop"],
            ["fit", "data/shop", "--model", "pop", "--run", "runs/pop"],
            ["fit", "data/shop", "--run", "runs/sasrec", *SMALL],
            ["evaluate", "runs/pop"],
            ["evaluate", "runs/sasrec", "data/shop"],
        ):
            done = run_cli(*arguments)
            assert done.code == 0, done.err
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in an empty folder; returns code, output and errors."""
    monkeypatch.chdir(tmp_path)
    return run_cli
