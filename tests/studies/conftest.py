"""A small prepared shop, and a study of it: a study is a few lines, its data a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextup.data.simulate import simulate
from nextup.studies import study as study_module
from nextup.studies.study import Method, Part, Study, register, sweep

QUICK = {"width": 8, "layers": 1, "epochs": 3, "batch_size": 16, "dropout": 0.2}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared dataset."""
    return simulate(120, 60, seed=1).dataset.save(tmp_path_factory.mktemp("data") / "shop")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to work in."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


@pytest.fixture
def plan(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A registered study with two tables that share runs, a sweep, and one method not there yet."""
    monkeypatch.setattr(study_module, "_REGISTER", dict(study_module.studies()))
    own = Method("SASRec", "sasrec", None, QUICK, role="own")
    rows = (Method("POP", "pop"), Method("MC1", "mc1"), own, Method("Oracle", "oracle"))
    widths = tuple(sweep("sasrec", "width", (8, 16), "width", recipe=None, role="own"))
    return register(
        Study(
            "tiny",
            "Tiny",
            (str(shop),),
            (
                Part("table", "Table", rows),
                Part("pieces", "Pieces", (own, Method("w/o order", "pop")), reference="SASRec"),
                Part("width", "Width", widths, axis="width"),
            ),
            seeds=(0, 1),
        )
    )
