"""One fit, several measurements: none is made by fitting again, and each knows its protocol."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.command_line import run_cli
from nextup.data.dataset import Dataset
from nextup.errors import RunError
from nextup.evaluation.metrics import case_values, metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks, rank_cases
from nextup.models.store import load_model
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell
from nextup.studies.consistent import overlaps
from nextup.studies.document import Grid, Picture, markdown
from nextup.studies.figures import LIGHT, _stays
from nextup.studies.places import Places
from nextup.studies.report import report_blocks
from nextup.studies.results import Result, Results
from nextup.studies.run_cell import How, fitted_already, run_cell
from nextup.studies.study import Part, Study, register
from nextup.studies.wanted import asked_by_all, wanted_cells
from nextup.train.assess import evaluate
from nextup.train.run import Run

from .conftest import QUICK
from .fabricate import USERS, fabricate, measured_part, ranks_of

SAMPLED = Protocol(candidates="sampled", n_negatives=20, cutoffs=(5, 10, 15))
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


def sampled_ranks(cell: Cell, luck: int = 0) -> CaseRanks:
    """Ranks among 20 of 150 items never met, as if scores were drawn."""
    rng = np.random.default_rng([int(cell.identity, 16) % 2**32, luck])
    pool = rng.integers(140, 150, USERS)
    above = np.floor(pool * rng.random(USERS) ** 2)
    ranks = rng.hypergeometric(above.astype(np.int64), (pool - above).astype(np.int64), 20)
    targets = ranks_of(cell).targets
    level = np.zeros(USERS, dtype=np.int64)
    return CaseRanks(
        np.arange(USERS), ranks.astype(np.float64), SAMPLED, targets, above, pool, level
    )


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
    evaluate(run, Dataset.load(shop), protocol=SAMPLED, device="cpu")
    assert run.metrics["test"]["HR@10"] > before.test["HR@10"]
    run_cell(cell, places(folder), How("cpu"), BOTH)
    assert only(folder).test == before.test and only(folder).holds == BOTH


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


@pytest.fixture
def both(plan: Study) -> Study:
    """The small study with a part that ranks among sampled candidates, and one on consistency."""
    rows = plan.part("table").methods
    shown = ("HR@10", "expected NDCG@10")
    more = (
        Part("sampled", "Sampled", rows, metrics=EXPECTED, headline=shown, protocol=SAMPLED),
        Part("steady", "Steady", rows, consistency=True),
    )
    return register(replace(plan, parts=(*plan.parts, *more)))


def steadiness(value: float) -> dict[str, object]:
    measures = ("RBO@10", "Jaccard@10", "NDCG@10 lost", "echo@10")
    one = {"cases": USERS, **{name: [value, 0.01] for name in measures}}
    return {"k": 10, "p": 0.9, "accidents": {"wrong click": one, "swap": {**one, "RBO@10": None}}}


def test_a_part_shows_what_its_protocol_says(both: Study, tmp_path: Path) -> None:
    cells = {w.method.label: w.cell for w in wanted_cells(both, both.parts[:1], seeds=[0])}
    for label in ("POP", "MC1"):
        fabricate(tmp_path, cells[label], further=[sampled_ranks(cells[label])])
    fabricate(tmp_path, cells["SASRec"])
    results = Results(tmp_path)
    full, sampled = (
        measured_part(both, both.part(n), results, 200)[0] for n in ("table", "sampled")
    )
    assert full.protocol.startswith("full ranking") and sampled.protocol.startswith("20 sampled")
    rows = {row.method.label: row for row in sampled.rows}
    wanted = case_values(sampled_ranks(cells["POP"]), "expected NDCG@10").mean()
    assert rows["POP"].measured["expected NDCG@10"].value.mean == pytest.approx(wanted)
    assert not rows["SASRec"].measured and rows["SASRec"].unmeasured == (0,)
    assert rows["SASRec"].missing == (1,)
    text = markdown(list(report_blocks(results, [both], False, 200)))
    command = "nextup study tiny sampled --datasets shop --methods SASRec"
    assert f"1 run is missing, 1 lacks a measurement: `{command}`" in text
    assert "20 sampled negatives (seed 0), seen items excluded, ties mean; split" in text


def test_consistency_stands_in_the_report(both: Study, tmp_path: Path) -> None:
    alone = replace(both, parts=(both.part("steady"),))
    for value, wanted in enumerate(wanted_cells(alone, alone.parts, seeds=[0, 1])):
        fabricate(tmp_path, wanted.cell, consistency=steadiness(0.2 + 0.1 * value))
    blocks = list(report_blocks(Results(tmp_path), [alone], False, 200))
    click = next(b for b in blocks if isinstance(b, Grid) and b.header[0] == "wrong click")
    rows = {row[0]: row for row in click.rows}
    assert rows["POP"][1:5] == ("1", "400", "0.2000", "0.1804 to 0.2196")
    # Two seeds, .4 and .5: what seeds differ by is added to what cases do.
    half = 1.96 * (0.01**2 + 0.05**2) ** 0.5
    assert rows["SASRec"][3:5] == ("0.4500", f"{0.45 - half:.4f} to {0.45 + half:.4f}")
    swap = next(b for b in blocks if isinstance(b, Grid) and b.header[0] == "swap")
    assert swap.rows[0][3:5] == ("-", "-") and "Oracle" not in {row[0] for row in swap.rows}
    assert "Jaccard" in markdown(blocks) and "lack" not in markdown(blocks)


def test_consistency_is_drawn_as_it_is_said(both: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    alone = replace(both, parts=(both.part("steady"),))
    for value, wanted in enumerate(wanted_cells(alone, alone.parts, seeds=[0, 1])):
        fabricate(tmp_path, wanted.cell, consistency=steadiness(0.2 + 0.1 * value))
    (block,) = measured_part(alone, alone.parts[0], Results(tmp_path), 200)
    rows = [(row, found) for row in block.rows if (found := overlaps(row))]
    axes = Figure().subplots()
    _stays(axes, rows, LIGHT)
    assert [each.get_text() for each in axes.get_yticklabels()] == [r.method.label for r, _ in rows]
    drawn = axes.lines[0].get_xdata()
    assert list(drawn) == pytest.approx([found["wrong click"][0] for _, found in rows])
    names = {
        block.name
        for block in report_blocks(Results(tmp_path), [alone], True, 200)
        if isinstance(block, Picture)
    }
    assert names == {"tiny-steady"}


def test_the_command_line_measures_what_is_lacking(both: Study, shop: Path, folder: Path) -> None:
    cell = wanted_cells(both, both.parts, methods=["POP"])[0].cell
    run_cell(cell, Places(), How("cpu"))
    listed = run_cli("study", "tiny", "sampled", "--methods", "POP", "--dry-run")
    assert f"to be measured: {SAMPLED.describe()}" in " ".join(listed.out.split())
    assert "done" in run_cli("study", "tiny", "table", "--methods", "POP", "--dry-run").out
    assert asked_by_all()[cell.family] == BOTH
    found = run_cli("study", "tiny", "sampled", "--methods", "POP", "--device", "cpu")
    assert found.code == 0, found.err
    assert "1 of 1 runs are there already" in found.err
    assert "1 of them lacks a measurement" in found.err and "fitted again" not in found.err


def test_a_folder_that_is_gone_is_said(both: Study, folder: Path) -> None:
    cell = wanted_cells(both, both.parts, methods=["MC1"])[0].cell
    fabricate(Path("results"), cell)
    found = run_cli(
        "study", "tiny", "sampled", "--methods", "MC1", "--device", "cpu", "--budget", "0s"
    )
    assert f"fitted again, as no such run is in runs/: {cell.name}" in found.err


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
