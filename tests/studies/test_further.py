"""One fit, several measurements: none is made by fitting again, and each knows its protocol."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nextup.data.dataset import Dataset
from nextup.errors import RunError
from nextup.evaluation.metrics import case_values, metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.models.store import load_model
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell
from nextup.studies.places import Places
from nextup.studies.results import Result, Results
from nextup.studies.run_cell import How, fitted_already, goes_on, run_cell
from nextup.studies.study import Part, Study
from nextup.train.assess import evaluate
from nextup.train.run import Run

from .conftest import QUICK
from .fabricate import SAMPLED, USERS, fabricate, ranks_of, sampled_ranks

EXPECTED = ("HR@10", "expected HR@10", "expected NDCG@10")


BOTH = Asked((SAMPLED,), consistency=True)


def places(folder: Path) -> Places:
    return Places(folder / "results", folder / "runs")


def only(folder: Path) -> Result:
    (found,) = Results(folder / "results").all
    return found


def under(result: Result, protocol: Protocol = SAMPLED) -> Result:
    found = result.under(protocol)
    assert found is not None
    return found


def test_a_run_is_measured_by_every_protocol_that_is_asked_for(shop: Path, folder: Path) -> None:
    cell = Cell(str(shop), "sasrec", None, QUICK)
    run_cell(cell, places(folder), How("cpu"), BOTH)
    found = only(folder)
    assert found.protocol == Protocol() and found.holds == BOTH
    other = under(found)
    model = load_model(folder / "runs/studies" / found.name / "recommender")[0]
    split = Dataset.load(shop).split()
    for result in (found, other):
        result.check()
        ranked = rank_cases(model, split.test, result.protocol, whole=split.whole)
        np.testing.assert_array_equal(result.ranks.ranks, np.minimum(ranked.ranks, 127))
        kept = {name: value for name, value in result.test.items() if name in metrics(ranked)}
        assert kept == pytest.approx(metrics(ranked))
    for name in ("HR@10", "NDCG@15", "expected HR@10", "expected NDCG@15"):
        assert other.values(name).mean() == pytest.approx(other.test[name])
    np.testing.assert_allclose(
        other.values("expected HR@7"), case_values(other.ranks, "expected HR@7")
    )
    assert found.consistency is not None and found.consistency["protocol"]["candidates"] == "full"
    text = (folder / "results/runs" / f"{found.name}.json").read_text()
    assert str(shop.parent) not in text, "a result names a place of this machine"


def test_ranks_of_another_protocol_in_the_run_s_folder_are_not_taken_for_the_cell_s(
    shop: Path, folder: Path
) -> None:
    cell = Cell(str(shop), "sasrec", None, QUICK)
    run_cell(cell, places(folder), How("cpu"))
    before = only(folder)
    run = Run(folder / "runs/studies" / before.name)
    for part in ("test", "valid"):
        evaluate(run, Dataset.load(shop), part=part, protocol=SAMPLED, device="cpu")
    assert run.metrics["test"]["HR@10"] > before.test["HR@10"]
    before.file.unlink()  # so that all of it is noted anew
    run_cell(cell, places(folder), How("cpu"), BOTH)
    found = only(folder)
    assert found.test == before.test and found.holds == BOTH
    again = found.document["valid"]
    assert before.document["valid"] == {name: again[name] for name in before.document["valid"]}


def test_a_run_that_was_begun_in_another_precision_is_made_anew(shop: Path, folder: Path) -> None:
    cell = Cell(str(shop), "sasrec", None, QUICK)
    run_cell(cell, places(folder), How("cpu"))
    run = Run(folder / "runs/studies" / only(folder).name)
    data = Dataset.load(shop)
    assert goes_on(run.path, cell, data, "bf16"), "nothing more of it is computed"
    shutil.rmtree(run.recommender_folder)
    assert goes_on(run.path, cell, data, "32") and goes_on(run.path, cell, data, "auto")
    assert not goes_on(run.path, cell, data, "bf16")
    noted = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**noted, "device": "cuda"}))
    assert not goes_on(run.path, cell, data, "32", "cpu"), "nor one begun on another device"


def test_what_is_missing_is_added_without_fitting_again(
    shop: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(str(shop), "sasrec", None, QUICK)
    run_cell(cell, places(folder), How("cpu"))
    before = only(folder)
    assert not before.holds and before.lacking(BOTH) == BOTH
    monkeypatch.setattr("nextup.train.loop.Loop._step", None)
    run_cell(cell, places(folder), How("cpu", jobs=3), Asked((SAMPLED,)))
    after = only(folder)
    changed = {key for key in after.document if after.document[key] != before.document.get(key)}
    assert changed == {"measured", "further"}
    np.testing.assert_array_equal(after.ranks.ranks, before.ranks.ranks)
    run_cell(cell, places(folder), How("cpu"), Asked(consistency=True))
    assert only(folder).holds == BOTH, "what was measured before is lost"
    np.testing.assert_array_equal(under(only(folder)).ranks.ranks, under(after).ranks.ranks)


def test_a_run_whose_folder_is_gone_is_fitted_again_and_measured_as_before(
    shop: Path, folder: Path
) -> None:
    cell = Cell(str(shop), "mc1")
    run_cell(cell, places(folder), How("cpu"), Asked((SAMPLED,)))
    before = only(folder)
    shutil.rmtree(folder / "runs/studies" / before.name)
    run_cell(cell, places(folder), How("cpu"))
    np.testing.assert_array_equal(under(only(folder)).ranks.ranks, under(before).ranks.ranks)


def test_a_run_of_an_earlier_version_is_not_fitted_again(
    shop: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks a setting that came later, in `config.json` and in its result."""
    cell = Cell(str(shop), "sasrec", None, QUICK)
    run_cell(cell, places(folder), How("cpu"))
    config = folder / "runs/studies" / cell.name / "config.json"
    noted = json.loads(config.read_text())
    del noted["train_config"]["warmup_steps"], noted["model_config"]["initial_std"]
    config.write_text(json.dumps(noted))
    monkeypatch.setattr("nextup.train.loop.Loop._step", None)
    assert fitted_already(cell, places(folder))
    run_cell(cell, places(folder), How("cpu"), Asked((SAMPLED,)))
    assert only(folder).holds
    assert not fitted_already(replace(cell, seed=1), places(folder))
    assert not fitted_already(replace(cell, dataset="nowhere"), places(folder))
    noted["train_config"]["epochs"] = 99
    config.write_text(json.dumps(noted))
    assert not fitted_already(cell, places(folder)), "a run of other settings"


def test_models_meet_the_same_negatives(shop: Path, folder: Path) -> None:
    for model in ("pop", "mc1"):
        run_cell(Cell(str(shop), model), places(folder), How("cpu"), Asked((SAMPLED,)))
    first, second = (under(each) for each in Results(folder / "results").all)
    assert first.protocol == second.protocol and first.cases == second.cases
    np.testing.assert_array_equal(first.ranks.pool, second.ranks.pool)


def test_a_narrow_result_says_all_of_the_expectation(tmp_path: Path) -> None:
    cell = Cell("toys", "sasrec")
    ranks = sampled_ranks(cell)
    rng = np.random.default_rng(0)
    level = rng.integers(0, 3, USERS)
    assert ranks.above is not None and ranks.pool is not None
    tied = replace(ranks, level=level, above=ranks.above / 2 + level / 2)
    file = fabricate(
        tmp_path,
        cell,
        further=[
            ranks,
            replace(tied, protocol=Protocol(seed=1, candidates="sampled", n_negatives=20)),
        ],
    )
    found = Results(tmp_path).all[0]
    for place, whole in ((1, ranks), (2, tied)):
        kept = replace(found, place=place)
        kept.check()
        for name in EXPECTED:
            np.testing.assert_allclose(kept.values(name), case_values(whole, name))
    assert file.with_suffix(".npz").stat().st_size < 16 * USERS
    own = ranks_of(cell)
    np.testing.assert_array_equal(found.ranks.ranks, np.where(own.ranks < 127, own.ranks, 127))


def test_cells_are_told_apart_by_their_training_alone() -> None:
    study = Study("x", "X", ("toys",), (Part("a", "A", ()),))
    shown = replace(study, parts=(Part("a", "A", (), protocol=SAMPLED, consistency=True),))
    assert study.protocol_of(study.parts[0]) == Protocol()
    assert shown.protocol_of(shown.parts[0]) == SAMPLED and shown.protocol == study.protocol


def test_what_is_asked_is_put_together() -> None:
    narrow, other = SAMPLED.model_copy(update={"cutoffs": (20,)}), Protocol(ties="low_id")
    both = Asked((SAMPLED,)) | Asked((narrow, other), True)
    assert both == Asked((SAMPLED.model_copy(update={"cutoffs": (5, 10, 15, 20)}), other), True)
    assert both.beside(narrow) == Asked((other,), True) and not Asked() and Asked((other,))
    assert Asked.from_json(json.loads(json.dumps(both.to_json()))) == both
    assert both.describe() == f"{SAMPLED.describe()}; {other.describe()}; consistency"


def edit_test(document: dict, arrays: dict) -> None:  # type: ignore[type-arg]
    document["further"][0]["test"]["HR@10"] += 0.01


def edit_ranks(document: dict, arrays: dict) -> None:  # type: ignore[type-arg]
    arrays["codes_1"][0] ^= 2


def edit_pool(document: dict, arrays: dict) -> None:  # type: ignore[type-arg]
    arrays["pool_1"][3] += 1


def lose_ranks(document: dict, arrays: dict) -> None:  # type: ignore[type-arg]
    del arrays["codes_1"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (edit_test, "its ranks give"),
        (edit_ranks, "is not the file that"),
        (edit_pool, "is not the file that"),
        (lose_ranks, "cannot be read"),
    ],
)
def test_damage_of_a_measurement_is_noticed(tmp_path: Path, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    cell = Cell("toys", "sasrec")
    file = fabricate(tmp_path, cell, further=[sampled_ranks(cell)])
    with np.load(file.with_suffix(".npz")) as stored:
        arrays = {name: stored[name] for name in stored.files}
    document = json.loads(file.read_text())
    damage(document, arrays)
    file.write_text(json.dumps(document))
    np.savez_compressed(file.with_suffix(".npz"), **arrays)
    found = Results(tmp_path).all[0]
    found.check()
    with pytest.raises(RunError, match=says):
        under(found).check()


STORED = Path(__file__).parents[2] / "results"


@pytest.mark.skipif(not (STORED / "runs").is_dir(), reason="no results beside these tests")
def test_results_of_earlier_versions_are_what_they_were() -> None:
    results = Results(STORED)
    for found in results.all:
        found.check()
        cell = found.cell
        assert (cell.identity, cell.family) == tuple(
            found.document[key] for key in ("identity", "family")
        )
        assert results.find(cell) is found, results.outdated(cell)
