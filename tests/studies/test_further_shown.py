"""What was measured further stands in reports, and what lacks it is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli.command_line import run_cli
from nextup.evaluation.metrics import case_values
from nextup.studies.asked import Asked
from nextup.studies.consistent import overlaps
from nextup.studies.document import Grid, Picture, markdown
from nextup.studies.figures import LIGHT, _stays
from nextup.studies.places import Places
from nextup.studies.report import report_blocks
from nextup.studies.results import Results
from nextup.studies.run_cell import How, run_cell
from nextup.studies.study import Part, Study, register
from nextup.studies.wanted import asked_by_all, wanted_cells

from .fabricate import SAMPLED, USERS, fabricate, measured_part, sampled_ranks

EXPECTED = ("HR@10", "expected HR@10", "expected NDCG@10")


BOTH = Asked((SAMPLED,), consistency=True)


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


def test_a_method_may_pick_its_epoch_by_another_protocol(plan: Study, tmp_path: Path) -> None:
    table = plan.part("table")
    among = replace(table.methods[2], label="SASRec among 20", protocol=SAMPLED)
    parts = (
        replace(table, methods=(*table.methods, among)),
        replace(table, name="sampled", methods=(*table.methods, among), protocol=SAMPLED),
    )
    study = register(replace(plan, parts=parts))
    wanted = {w.method.label: w for w in wanted_cells(study, study.parts, seeds=[0])}
    own = wanted["SASRec among 20"]
    assert own.cell.protocol == SAMPLED and own.cell.identity != wanted["SASRec"].cell.identity
    assert own.shown == Asked((study.protocol,)) and wanted["SASRec"].shown == Asked((SAMPLED,))
    assert asked_by_all()[own.cell.family] == own.shown
    # Measured as it was validated, it stands in one part, and the other says what it lacks.
    fabricate(tmp_path, own.cell)
    whole, sampled = (measured_part(study, each, Results(tmp_path), 200)[0] for each in parts)
    rows = [{row.method.label: row for row in each.rows}[among.label] for each in (whole, sampled)]
    assert rows[0].unmeasured == (0,) and not rows[0].measured
    assert rows[1].measured and not rows[1].unmeasured
