"""A small prepared shop, an empty folder, and models that learn in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nextup.data.simulate import simulate
from nextup.studies.places import Places
from nextup.tuning.search import UNDER, Budget, Search
from nextup.tuning.space import Knob, Space

QUICK = {
    "width": Knob(choices=[4, 8]),
    "max_length": Knob(choices=[5, 10]),
    "epochs": Knob(choices=[3]),
    "learning_rate": Knob(log_uniform=(1e-3, 1e-1)),
}


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
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.chdir(tmp_path)
    return Places(tmp_path / "results", tmp_path / "runs", UNDER)


def search_of(shop: Path, base: str | None = "fast", **budget: object) -> Search:
    """A search of SASRec whose trials take a moment."""
    said = {"trials": 3, "seconds": 60.0, "device": "cpu", **budget}
    return Search(str(shop), Space("sasrec", "quick", base, QUICK), Budget(**said))  # type: ignore
