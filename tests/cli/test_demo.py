"""The demo, on a small shop and on a log of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextup.data.simulate import simulate
from nextup.demo import run_demo, settings_for

from .command_line import Cli


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    import nextup.demo

    quick = {"loss": "softmax", "epochs": 2, "width": 16, "layers": 1, "batch_size": 16}
    monkeypatch.setattr(nextup.demo, "settings_for", lambda dataset: quick)


@pytest.mark.usefixtures("quick")
def test_on_a_shop(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    typed = iter(["gas stove; tents-2", "lawnmower", ""])
    ranks = run_demo(out=tmp_path / "d", n_users=200, n_items=60, ask=lambda: next(typed))
    out = capsys.readouterr().out
    assert list(ranks) == ["pop", "mc1", "sasrec", "best possible"]
    found = {name: float((each.ranks < 10).mean()) for name, each in ranks.items()}
    assert found["best possible"] > max(found["pop"], found["mc1"], found["sasrec"])
    assert "the ceiling is HR@10" in out and "of the ceiling" in out
    assert out.count("what came next:") == 3
    assert "after gas stove; tents-2" in out and "most popular" in out
    assert "next: nextup compare" in out
    assert (tmp_path / "d/log.csv").is_file() and (
        tmp_path / "d/runs/sasrec/ranks-test.npz"
    ).is_file()


@pytest.mark.usefixtures("quick")
def test_on_a_log_from_the_command_line(cli: Cli, made: Path) -> None:
    arguments = ("demo", "--data", made / "log.csv", "--titles", made / "titles.csv", "--out", "d")
    for _ in range(2):  # a second demo replaces the first
        found = cli(*arguments)
        assert found.code == 0, found.err
    assert "the ceiling" not in found.out
    assert "after two-person tent; gas stove; camp lantern" in found.out


@pytest.mark.parametrize("name", ["log.csv", "titles.csv", "dataset/mine.txt"])
def test_the_demo_never_replaces_what_is_not_its_own(cli: Cli, name: str) -> None:
    mine = Path("demo", name)
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    found = cli("demo")
    assert found.code == 2 and "demo: is not empty, and no demo made it" in found.err
    assert [path for path in Path("demo").rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "precious"


def test_titles_without_a_log_are_refused(cli: Cli, made: Path) -> None:
    found = cli("demo", "--titles", made / "titles.csv")
    assert found.code == 2 and "name it with --data" in found.err
    assert not list(Path.cwd().iterdir())


def test_settings_suit_the_size() -> None:
    small, large = (simulate(n_users=n, n_items=50, seed=0).dataset for n in (100, 40_000))
    assert settings_for(small)["batch_size"] < settings_for(large)["batch_size"] == 256
    assert 2 <= settings_for(large)["epochs"] <= 20


@pytest.mark.slow
def test_sasrec_comes_nearest_to_the_ceiling(tmp_path: Path) -> None:
    ranks = run_demo(out=tmp_path / "d", ask=lambda: "")
    gains = {
        name: np.where(each.ranks < 10, 1 / np.log2(each.ranks + 2), 0.0).mean()
        for name, each in ranks.items()
    }
    assert gains["best possible"] > gains["sasrec"] > 1.1 * gains["mc1"] > gains["pop"]
