"""The studies that come with nextup: everything they name is there, or known to be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextup.data.public import PUBLIC
from nextup.errors import ConfigError
from nextup.studies.cell import registered
from nextup.studies.published import published
from nextup.studies.study import Part, Study, find_study, studies
from nextup.studies.wanted import absent_methods, wanted_cells

PARTS = [(study, part) for study in studies().values() for part in study.parts]
NAMES = [f"{study.name}-{part.name}" for study, part in PARTS]


@pytest.mark.parametrize(("study", "part"), PARTS, ids=NAMES)
def test_what_a_part_names_is_there(study: Study, part: Part) -> None:
    assert set(study.datasets_of(part)) <= set(study.datasets)
    assert {Path(dataset).name for dataset in study.datasets} <= set(PUBLIC)
    labels = [method.label for method in part.methods]
    assert len(set(labels)) == len(labels) and not any("," in label for label in labels)
    assert part.reference is None or part.reference in labels
    for method in part.methods:
        if registered(method.model):
            reason = method.absent()
            assert reason is None or "has no recipe" in reason, reason
    assert not part.is_sweep or all(method.at is not None for method in part.methods)


@pytest.mark.parametrize(("study", "part"), PARTS, ids=NAMES)
def test_every_published_row_is_in_its_table(study: Study, part: Part) -> None:
    rows = published(part.published).rows
    if part.is_sweep:
        assert not rows or any((dataset, part.line) in rows for dataset in study.datasets)
        return
    shown = {method.published or method.label for method in part.methods}
    assert {method for _, method in rows} <= shown
    assert {dataset for dataset, _ in rows} <= set(study.datasets_of(part))
    assert not rows or all(set(row.values) <= set(part.metrics) for row in rows.values())


def test_lma4rec_is_complete() -> None:
    study = find_study("lma4rec")
    labels = {part.name: [m.label for m in part.methods] for part in study.parts}
    assert {"POP", "SASRec", "S3-Rec", "CoSeRec", "SRMA", "LMA4Rec"} <= set(labels["table2"])
    assert {"w/o SSL", "w/o LMA", "w/o DA", "frozen logits", "random logits"} <= set(
        labels["table3"]
    )
    assert [m.at for m in study.part("figure4").methods] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert [m.at for m in study.part("figure5").methods] == [64, 128, 192, 256, 320]


def test_ssi_is_complete() -> None:
    study = find_study("ssi")
    labels = {part.name: [m.label for m in part.methods] for part in study.parts}
    assert {"POP", "S3-Rec", "GREC", "BERT4Rec", "GRU4Rec", "HGN", "SSI GRU4Rec", "SSI"} <= set(
        labels["table2"]
    )
    assert labels["table2"] == labels["table2-full"]
    asked = {"POP", "MC1", "SASRec", "LMA4Rec", "BERT4Rec", "HGN", "SSI"}
    assert asked <= set(labels["consistency"])
    assert len(labels["figure3"]) == 5 and len(labels["table3"]) == 4
    at = [(m.series, m.at) for m in study.part("figure4").methods]
    assert set(at) == {(name, n) for name in ("SSI", "BERT4Rec") for n in (1, 2, 4, 8)}
    # What is small is never beside what is the paper's.
    for part in study.parts:
        ours = [m for m in part.methods if m.model in ("ssi", "consistency", "bert4rec")]
        assert len({m.label.endswith(" small") for m in ours}) == 1, part.name
        assert len({str(m.recipe).startswith("small") for m in ours}) == 1, part.name
    # Both protocols are measured on one fit: no part makes a run of its own for its protocol.
    sampled, full = (wanted_cells(study, [study.part(n)]) for n in ("table2", "table2-full"))
    assert {w.cell.identity for w in sampled} == {w.cell.identity for w in full}
    assert all(w.shown.protocols for w in sampled) and not any(w.shown for w in full)


def test_runs_that_several_parts_need_are_made_once() -> None:
    study = find_study("lma4rec")
    if "LMA4Rec" in absent_methods(study.parts):
        pytest.skip("lma4rec is not registered yet")
    parts = [study.part(name) for name in ("table2", "table3", "figure4", "figure5", "keep")]
    together = wanted_cells(study, parts, ["toys"], seeds=[0])
    apart = [wanted_cells(study, [part], ["toys"], seeds=[0]) for part in parts]
    names = [each.cell.name for each in together]
    assert len(set(names)) == len(names) < sum(map(len, apart))
    plain = "toys-lma4rec-paper-toys-seed0"
    assert names.count(plain) == 1
    assert all(plain in [each.cell.name for each in cells] for cells in apart)
    assert "toys-lma4rec-paper-toys-contrast_weight=0-seed0" in names


def test_the_most_valuable_runs_come_first() -> None:
    study = find_study("lma4rec")
    order = wanted_cells(study, [study.part("table2"), study.part("table3")], seeds=[0, 1, 2])
    seeds = [each.cell.seed for each in order]
    assert seeds == sorted(seeds)
    first = [each for each in order if each.cell.seed == 0]
    controls = [each.method.role == "control" for each in first]
    assert controls == sorted(controls)
    assert first[0].cell.dataset == "toys" and first[0].method.label == "POP"


def test_choices_are_checked(plan: Study) -> None:
    with pytest.raises(ConfigError, match="did you mean `lma4rec`"):
        find_study("lma4rce")
    with pytest.raises(ConfigError, match="did you mean `table`"):
        plan.part("tabel")
    with pytest.raises(ConfigError, match="unknown dataset `shops`; did you mean `shop`"):
        wanted_cells(plan, plan.parts, ["shops"])
    with pytest.raises(ConfigError, match="nothing to run on toys: figure4-small is about beauty"):
        ssi = find_study("ssi")
        wanted_cells(ssi, [ssi.part("figure4-small")], ["toys"])
    with pytest.raises(ConfigError, match="unknown method `SASrek`; did you mean `SASRec`"):
        wanted_cells(plan, plan.parts, methods=["SASrek"])
    chosen = wanted_cells(plan, plan.parts, ["shop"], ["sasrec", "pop"], [3])
    assert [each.cell.seed for each in chosen] == [0, 3]


def test_a_small_study_is_a_few_lines(plan: Study) -> None:
    cells = wanted_cells(plan, plan.parts)
    names = [each.cell.name for each in cells]
    assert len(names) == 8, names  # pop and mc1 once, three of sasrec with two seeds each
    assert absent_methods(plan.parts) == {"Oracle": "the model oracle is not there yet"}
    assert names[0] == "shop-pop-seed0"
    assert "shop-sasrec-batch_size=16-dropout=0.2-epochs=3-layers=1-width=8-seed1" in names
