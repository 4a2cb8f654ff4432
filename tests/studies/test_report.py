"""The report on results that were made up, so that what it must say is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nextup.errors import ConfigError, RunError
from nextup.studies import published as room
from nextup.studies.document import Details, Grid, Heading, Items, Paragraph, markdown
from nextup.studies.figures import LIGHT, _sweep
from nextup.studies.page import page
from nextup.studies.published import Published, PublishedRow
from nextup.studies.records import older_records
from nextup.studies.report import report_blocks, write_report
from nextup.studies.results import Results
from nextup.studies.statistics import measure
from nextup.studies.study import Method, Part, Study, find_study
from nextup.studies.tables import block_of
from nextup.studies.wanted import wanted_cells

from .fabricate import fabricate, fabricate_study, measured_part, ranks_of


def table_of(plan: Study, results: Path, part: str = "table") -> dict[str, list[str]]:
    """The first table of a part in the report, by method."""
    alone = replace(plan, parts=(plan.part(part),))
    blocks = list(report_blocks(Results(results), [alone], False, 500))
    grid = next(block for block in blocks if isinstance(block, Grid))
    return {row[0]: list(row) for row in (grid.header, *grid.rows)}


@pytest.fixture
def impossible_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A published table for the tiny study, with one row that cannot be."""
    rows = {
        ("shop", "POP"): PublishedRow({"HR@5": 0.1, "NDCG@5": 0.01, "HR@10": 0.2}, 4),
        ("shop", "MC1"): PublishedRow({"HR@10": 0.3, "NDCG@10": 0.2}, 4, "a letter"),
    }
    tables = {None: Published(), "tiny": Published(rows)}
    monkeypatch.setattr("nextup.studies.measured.published", tables.__getitem__)


def with_published(plan: Study) -> Study:
    return replace(plan, parts=(replace(plan.parts[0], published="tiny"), *plan.parts[1:]))


def test_a_row_is_what_its_runs_say(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path, plan, "table", seeds=(0, 1))
    found = measured_part(plan, plan.part("table"), Results(tmp_path), 500)[0]
    rows = {row.method.label: row for row in found.rows}
    assert found.reference in ("POP", "MC1") and found.cases == 400
    own = rows["SASRec"]
    assert (list(own.runs), own.missing, own.mean("epochs")) == ([0, 1], (), 12)
    wanted = {
        label: {
            metric: np.stack([run.values(metric) for run in rows[label].runs.values()])
            for metric in ("HR@10", "NDCG@10")
        }
        for label in ("POP", "MC1", "SASRec")
    }
    seeds = {label: list(rows[label].runs) for label in wanted}
    by_hand = measure(wanted, found.reference, resamples=500, seeds=seeds)
    for metric in ("HR@10", "NDCG@10"):
        ours, theirs = own.measured[metric], by_hand["SASRec", metric]
        assert ours.value.mean == pytest.approx(theirs.value.mean)
        assert ours.difference is not None and theirs.difference is not None
        assert ours.difference.mean == pytest.approx(theirs.difference.mean)
        mean = np.mean([run.test[metric] for run in own.runs.values()])
        assert ours.value.mean == pytest.approx(mean)


def test_the_reference_is_chosen_on_validation(plan: Study, tmp_path: Path) -> None:
    cells = {w.method.label: w.cell for w in wanted_cells(plan, [plan.part("table")], seeds=[0])}
    better = {"NDCG@10": 0.9}
    fabricate(tmp_path, cells["POP"], skill=0.2, valid=better)  # worst on test
    fabricate(tmp_path, cells["MC1"], skill=2.0, valid={"NDCG@10": 0.1})
    fabricate(tmp_path, cells["SASRec"], valid={"NDCG@10": 0.99})  # own, hence no baseline
    found = measured_part(plan, plan.part("table"), Results(tmp_path), 200)[0]
    assert found.reference == "POP"
    named = measured_part(plan, plan.part("pieces"), Results(tmp_path), 200)[0]
    assert named.reference == "SASRec"


def test_one_seed_claims_no_spread(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path, plan, "table", seeds=(0,))
    table = table_of(plan, tmp_path)
    header = next(iter(table.values()))
    assert "sd" not in header and table["SASRec"][header.index("seeds")] == "1"
    fabricate_study(tmp_path, plan, "table", seeds=(1,))
    table = table_of(plan, tmp_path)
    header = next(iter(table.values()))
    assert re.fullmatch(r"0\.\d{4}", table["SASRec"][header.index("sd")])
    assert table["POP"][header.index("sd")] == "-"


def test_what_is_missing_comes_with_its_command(plan: Study, tmp_path: Path) -> None:
    text = markdown(list(report_blocks(Results(tmp_path), [plan], False, 200)))
    assert "4 runs are missing: `nextup study tiny table --datasets shop`" in text
    assert "Oracle cannot be run yet: the model oracle is not there yet." in text
    fabricate_study(tmp_path, plan, "pieces", seeds=(0,))
    text = markdown(list(report_blocks(Results(tmp_path), [plan], False, 200)))
    assert "`nextup study tiny table --datasets shop --methods MC1,SASRec`" in text
    assert "| MC1 |" not in text, "what was never run takes no row"


def test_impossible_figures_are_marked(plan: Study, tmp_path: Path, impossible_row: None) -> None:
    plan = with_published(plan)
    fabricate_study(tmp_path, plan, "table", seeds=(0,))
    text = markdown(list(report_blocks(Results(tmp_path), [plan], False, 200)))
    assert "† POP, as published, cannot be: NDCG from 0 to 5 rises by 0.0100" in text
    assert "| POP | 0.0100† |" in text and "| POP | 0.2000 |" in text
    assert "| MC1 | 0.2000‡ |" in text and "‡ MC1: not from the paper; a letter." in text
    difference = Results(tmp_path).all[0].test["HR@10"] - 0.3
    assert f"{difference:+.4f}" in text


def test_every_table_has_its_protocol(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path, plan)
    blocks = list(report_blocks(Results(tmp_path), [plan], False, 200))
    for at, block in enumerate(blocks):
        if isinstance(block, Heading) and block.level == 4:
            below = blocks[at + 1]
            assert isinstance(below, Paragraph) and "400 cases" in below.text
            assert below.text.startswith("full ranking, seen items excluded, ties mean; split")


def test_a_result_that_cannot_be_is_refused(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path, plan, "table", seeds=(0,))
    file = Results(tmp_path).all[0].file
    document = json.loads(file.read_text())
    document["test"]["NDCG@10"] = document["test"]["HR@10"] + 0.1
    file.write_text(json.dumps(document))
    with pytest.raises(RunError, match=f"{file.name}.*edited or damaged"):
        write_report(tmp_path, tmp_path, ["tiny"], figures=False, resamples=200)
    assert not (tmp_path / "report.html").exists()


def test_other_cases_are_not_paired(plan: Study, tmp_path: Path) -> None:
    cells = [w.cell for w in wanted_cells(plan, [plan.part("table")], seeds=[0])]
    fabricate(tmp_path, cells[0])
    fabricate(tmp_path, cells[1], ranks=ranks_of(cells[1], users=300))
    with pytest.raises(RunError, match="ranked other cases"):
        measured_part(plan, plan.part("table"), Results(tmp_path), 200)


def test_an_outdated_result_is_told_and_not_shown(plan: Study, tmp_path: Path) -> None:
    fabricate_study(tmp_path, plan, "table", seeds=(0,))
    file = next(r.file for r in Results(tmp_path).all if r.document["model"] == "sasrec")
    document = json.loads(file.read_text())
    document["decided"]["model_config"]["heads"] = 4
    file.write_text(json.dumps(document))
    text = markdown(list(report_blocks(Results(tmp_path), [plan], False, 200)))
    assert "SASRec: a stored result was made with other settings and is not shown" in text
    assert "heads 4 then, 2 now" in text and "| SASRec |" not in text


class Checker(HTMLParser):
    """Sees whether tags are closed and whether anything is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elsewhere: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href") and not str(value).startswith(("data:", "#")):
                self.elsewhere.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_files_are_written_and_the_page_stands_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study = find_study("lma4rec")
    fabricate_study(tmp_path, study, "table2", "figure4", "keep", seeds=(0, 1))
    out = tmp_path / "out"
    (tmp_path / "quality").mkdir()
    record = {"dataset": "toys", "model": "sasrec", "recipe": "tuned", "seed": 0}
    record |= {"test": {"HR@10": 0.1, "NDCG@10": 0.06}, "facts": {"epochs": 9}}
    (tmp_path / "quality/old.json").write_text(json.dumps(record))
    written = write_report(tmp_path, out, ["lma4rec"], resamples=200)
    assert all(file.stat().st_size for file in written)
    names = {file.name for file in written}
    assert {"studies.md", "study-lma4rec.md", "report.html", "lma4rec-table2.png"} <= names
    pages = {file: file.read_text() for file in written if file.suffix == ".md"}
    html = (out / "report.html").read_text()
    first, own = pages[out / "studies.md"], pages[out / "study-lma4rec.md"]
    assert "(study-lma4rec.md)" in first and "0.0224†" not in first + own
    assert "(study-lma4rec/table2.md)" in own and "(figures/lma4rec-table2.png)" in own
    assert "0.0224†" in pages[out / "study-lma4rec/table2.md"]
    text = "".join(pages.values())
    checker = Checker()
    checker.feed(html)
    assert not checker.open and not checker.elsewhere
    assert checker.images == sum(file.suffix == ".png" for file in written) >= 2
    assert "prefers-color-scheme: dark" in html
    for file, shown in pages.items():
        for link in re.findall(r"\]\(([^)]+)\)", shown):
            assert (file.parent / link).resolve() in {each.resolve() for each in written}, link
    for said in ("0.0224†", "Older records", "toys:sasrec:tuned", "second-hand"):
        assert said in text and said in html


def test_a_sweep_may_have_several_lines(plan: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    widths = [
        Method(f"{name} {at}", "sasrec", None, {"width": at, "layers": n}, at=at, series=name)
        for at in (16, 8)
        for name, n in (("shallow", 1), ("deep", 2))
    ]
    study = replace(plan, parts=(Part("w", "W", tuple(widths), axis="width"),))
    fabricate_study(tmp_path, study)
    (block,) = measured_part(study, study.parts[0], Results(tmp_path), 200)
    axes = Figure().subplots()
    _sweep(axes, study.parts[0], block, "NDCG@10", LIGHT)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["shallow", "deep"]
    found = {row.method.label: row.measured["NDCG@10"].value.mean for row in block.rows}
    for line, name in zip(axes.lines, ("shallow", "deep"), strict=True):
        assert list(line.get_xdata()) == [8, 16]
        assert list(line.get_ydata()) == [found[f"{name} 8"], found[f"{name} 16"]]


def test_what_the_log_says_in_the_end_stands_beside_the_figures(
    plan: Study, tmp_path: Path
) -> None:
    part = replace(plan.part("table"), logged=("agree", "unheard", "first: right"))
    study = replace(plan, parts=(part,))
    for seed, value in ((0, 0.2), (1, 0.4)):
        # Only the first seed has trained its first stage itself.
        first = {"right": 0.7} if seed == 0 else {}
        for wanted in wanted_cells(study, [part], seeds=[seed]):
            log = [
                {"stage": "first", "epoch": 1, "right": 0.5},
                {"stage": "first", "epoch": 2, **first},
                {"stage": "last", "epoch": 1, "agree": 9.0, "right": 0.1},
                {"stage": "last", "epoch": 2, "agree": value},
            ]
            fabricate(tmp_path, wanted.cell, log=log if wanted.method.role == "own" else None)
    (found,) = measured_part(study, part, Results(tmp_path), 200)
    grids = [each for each in block_of(study, part, found) if isinstance(each, Grid)]
    (ends,) = [grid for grid in grids if grid.header[0] == "in the last epoch"]
    assert ends.header == ("in the last epoch", "seeds", "agree", "unheard", "first: right")
    own = [row.method.label for row in found.rows if row.method.role == "own"]
    assert ends.rows == tuple((label, "2", "0.3", "-", "0.7 (1 of 2)") for label in own)


def test_a_damaged_older_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/old.json").write_text("{}")
    with pytest.raises(RunError, match=r"old\.json: is not a record of a run"):
        write_report(tmp_path, tmp_path, ["quality"], figures=False, resamples=200)


def test_text_is_escaped() -> None:
    blocks = [
        Heading("A < B", 2),
        Paragraph("`x < y` is **so**"),
        Items(("1 & 2",)),
        Details("more", (Grid(("a|b",), (("<script>",),)),)),
    ]
    html = page("t & t", blocks)
    assert "<title>t &amp; t</title>" in html and "<code>x &lt; y</code>" in html
    assert "<strong>so</strong>" in html and "<script>" not in html
    assert '<h2 id="a-b">A &lt; B</h2>' in html and '<a href="#a-b">' in html
    text = markdown(blocks)
    assert "| a\\|b |" in text and "<details>\n<summary>more</summary>\n\n|" in text


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown study"):
        write_report(tmp_path, tmp_path, ["nothing"])


def test_published_tables_are_read_once() -> None:
    assert room.published("lma4rec-table2") is room.published("lma4rec-table2")
    assert isinstance(Part("a", "A", ()).is_sweep, bool)


def test_an_older_record_that_cannot_be_is_refused(tmp_path: Path) -> None:
    record = {"dataset": "toys", "model": "sasrec", "recipe": "tuned", "seed": 0, "facts": {}}
    (tmp_path / "quality").mkdir()
    for ndcg in (0.06, 0.11):  # the second is more than its hits allow
        file = tmp_path / "quality/old.json"
        file.write_text(json.dumps({**record, "test": {"HR@10": 0.1, "NDCG@10": ndcg}}))
        if ndcg < 0.1:
            assert older_records(tmp_path) is not None
            continue
        with pytest.raises(RunError, match=r"old\.json: NDCG from 0 to 10 rises"):
            older_records(tmp_path)
