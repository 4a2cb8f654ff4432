"""Results: one byte a rank says all that tables and paired tests need, and damage is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nextup.errors import ConfigError, RunError
from nextup.evaluation.compare import compare
from nextup.evaluation.metrics import case_values
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks
from nextup.studies import storing
from nextup.studies.cell import Cell
from nextup.studies.codes import decode, encode
from nextup.studies.results import Results

from .fabricate import fabricate, ranks_of

CELL = Cell("toys", "sasrec")


def awkward_ranks(n: int = 3000) -> np.ndarray:
    """Whole and half ranks, far and unreachable ones."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 500, n) / 2
    ranks[:20] = [0, 0.5, 99, 99.5, 100, 126.5, 127, 127.5, 128, 9999.5, *[np.inf] * 10]
    return ranks


def test_a_byte_is_exact_for_all_cutoffs_up_to_a_hundred() -> None:
    ranks = awkward_ranks()
    full = CaseRanks(np.arange(len(ranks)), ranks, Protocol())
    stored = CaseRanks(full.users, decode(encode(ranks)), Protocol())
    for metric in ("HR", "NDCG", "MRR"):
        for cutoff in (1, 5, 20, 99, 100):
            name = f"{metric}@{cutoff}"
            np.testing.assert_array_equal(case_values(full, name), case_values(stored, name))
    assert np.isinf(decode(encode(ranks))).sum() == np.isinf(ranks).sum()


@pytest.mark.parametrize("bad", [-1.0, 0.25, np.nan])
def test_what_is_no_rank_is_not_stored(bad: float) -> None:
    with pytest.raises(ValueError, match="whole or half"):
        encode(np.array([1.0, bad]))


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    log = [{"epoch": 1, "loss": 2 / 3}, {"epoch": 2, "loss": 0.5, "keep.1.mean": 0.51}]
    file = fabricate(tmp_path, CELL, log=log)
    assert file == tmp_path / "runs" / "toys-sasrec-seed0.json"
    found = Results(tmp_path).find(CELL)
    assert found is not None
    found.check()
    assert (found.seed, found.cell, found.protocol) == (0, CELL, Protocol())
    assert found.log == {
        "epoch": [1, 2],
        "loss": [0.666667, 0.5],
        "keep.1.mean": [None, 0.51],
    }
    for metric in ("HR@5", "NDCG@20", "MRR@10"):
        assert found.values(metric).mean() == pytest.approx(found.test[metric], abs=1e-12)
    with pytest.raises(ConfigError, match="cutoff within"):
        found.values("MRR")
    with pytest.raises(ConfigError, match="cutoff within"):
        found.values("HR@200")
    # The file is small, and readable: a column of the log is a line.
    assert file.with_suffix(".npz").stat().st_size < 2000
    assert '  "loss": [0.666667, 0.5],' in file.read_text().splitlines()


def test_paired_comparison_needs_the_results_folder_alone(tmp_path: Path) -> None:
    cells = {"a": CELL, "b": Cell("toys", "gru4rec")}
    for cell in cells.values():
        fabricate(tmp_path, cell)
    results = Results(tmp_path)
    stored = {name: results.find(cell) for name, cell in cells.items()}
    kept = compare({name: found.ranks for name, found in stored.items() if found}, resamples=300)
    full = compare({name: ranks_of(cell) for name, cell in cells.items()}, resamples=300)
    assert kept.rows == full.rows


def test_several_cases_of_a_user_stay_together(tmp_path: Path) -> None:
    cell = Cell("toys", "sasrec", split="last-2")
    ranks = CaseRanks(np.repeat([3, 5], 2), np.array([0, 30, 2, 30.0]), Protocol())
    fabricate(tmp_path, cell, ranks=ranks)
    found = Results(tmp_path).all[0]
    np.testing.assert_array_equal(found.values("HR@10"), [0.5, 0.5])
    np.testing.assert_array_equal(found.ranks.users, [0, 0, 1, 1])


def test_seeds_are_found_together_and_other_settings_are_not(tmp_path: Path) -> None:
    for seed in (0, 2):
        fabricate(tmp_path, Cell("toys", "sasrec", seed=seed))
    fabricate(tmp_path, Cell("toys", "sasrec", settings={"width": 8}))
    results = Results(tmp_path)
    assert list(results.seeds(CELL)) == [0, 2]
    assert results.find(Cell("toys", "sasrec", seed=1)) is None
    assert [found.name for found in results.others([CELL.family])] == ["toys-sasrec-width=8-seed0"]


def test_a_result_of_other_settings_is_outdated(tmp_path: Path) -> None:
    file = fabricate(tmp_path, CELL)
    document = json.loads(file.read_text())
    document["decided"]["model_config"]["layers"] = 3
    file.write_text(json.dumps(document))
    results = Results(tmp_path)
    assert results.find(CELL) is None and results.seeds(CELL) == {}
    assert results.outdated(CELL) == "layers 3 then, 2 now"
    assert results.outdated(Cell("toys", "sasrec", seed=1)) is None


def test_a_result_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate(tmp_path, CELL)

    def full(*args: object) -> None:
        raise RunError("no space")

    monkeypatch.setattr(storing, "write_whole", full)
    with pytest.raises(RunError):
        fabricate(tmp_path, CELL, skill=2.0)
    assert Results(tmp_path).find(CELL) is None, "old figures beside new ranks"


def edit(key: str, value: float) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        document = json.loads(file.read_text())
        document["test"][key] = value
        file.write_text(json.dumps(document))

    return change


def shorten(file: Path) -> None:
    arrays = file.with_suffix(".npz")
    arrays.write_bytes(arrays.read_bytes()[:100])


def exchange(file: Path) -> None:
    other = fabricate(file.parent.parent, Cell("toys", "gru4rec"))
    other.with_suffix(".npz").replace(file.with_suffix(".npz"))
    other.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (edit("NDCG@10", 0.9), "NDCG@10 is 0.9, its ranks give"),
        (edit("NDCG@99", 5.0), "npz"),
        (lambda file: file.with_suffix(".npz").unlink(), "is missing"),
        (shorten, "cannot be read"),
        (exchange, "is not the file that"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    file = fabricate(tmp_path, CELL)
    damage(file)
    result = Results(tmp_path).all[0]
    if says == "npz":
        result.check()  # a metric that the ranks were not asked for is not judged by them
        return
    with pytest.raises(RunError) as raised:
        result.check()
    assert says in str(raised.value) and str(tmp_path) in str(raised.value)
    assert "run it again" in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', '{"format": null}'])
def test_what_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x.json").write_text(text)
    with pytest.raises(RunError, match=r"x\.json: is not a result of a study"):
        Results(tmp_path)


def test_a_result_that_is_being_written_anew_is_not_there(tmp_path: Path) -> None:
    file = fabricate(tmp_path, CELL)
    (file.parent / "gone.json").symlink_to(tmp_path / "nowhere")  # listed, and gone when opened
    assert [result.file for result in Results(tmp_path).all] == [file]
