"""What a search is worth on test: read from the results, base and winner paired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nextup.errors import RunError
from nextup.studies.document import Grid, Paragraph
from nextup.studies.results import Results
from nextup.studies.spelling import parse_cell
from nextup.tuning.worth import HEADER, worth_blocks
from studies.fabricate import fabricate, ranks_of

BASE, BEST = "toys:sasrec:paper", "toys:sasrec:paper:layers=3"


def search(*scores: float) -> dict[str, Any]:
    trials = [
        {"number": at, "run": text, "valid": {"NDCG@10": score}}
        for at, (text, score) in enumerate(zip((BASE, BEST), scores, strict=False))
    ]
    return {"model": "sasrec", "trials": trials}


def shown(results: Path, *scores: float) -> tuple[list[dict[str, str]], str]:
    blocks = list(worth_blocks([search(*scores)], Results(results), resamples=2000))
    rows = [
        dict(zip(HEADER, row, strict=True))
        for each in blocks
        if isinstance(each, Grid)
        for row in each.rows
    ]
    return rows, " ".join(each.text for each in blocks if isinstance(each, Paragraph))


def test_nothing_fitted_yet_names_both_runs(tmp_path: Path) -> None:
    rows, text = shown(tmp_path, 0.1, 0.2)
    assert not rows and text == f"Not fitted without a limit yet: `{BASE}`, `{BEST}`."


def test_the_winner_beside_its_base_paired(tmp_path: Path) -> None:
    fabricate(tmp_path, parse_cell(BASE))
    fabricate(tmp_path, parse_cell(BEST), skill=1.5)
    ((row,), text) = shown(tmp_path, 0.1, 0.2)
    results = Results(tmp_path)
    for name, run in (("base", BASE), ("best", BEST)):
        (found,) = results.seeds(parse_cell(run)).values()
        for metric in ("HR@10", "NDCG@10"):
            assert row[f"{name} {metric}"] == f"{found.test[metric]:.4f}"
    assert row["difference"].startswith("+0.") and row["p"] == "<.001" and row["seeds"] == "1"
    assert "Not fitted" not in text and "fitted anew without a limit of seconds" in text


def test_a_base_that_won_is_compared_with_nothing(tmp_path: Path) -> None:
    fabricate(tmp_path, parse_cell(BASE))
    (row,), text = shown(tmp_path, 0.2, 0.2)
    assert row["base HR@10"] == row["best HR@10"] != ""
    assert row["difference"] == row["p"] == "" and "Not fitted" not in text


def test_a_base_that_was_tried_alone_has_not_won(tmp_path: Path) -> None:
    fabricate(tmp_path, parse_cell(BASE))
    (row,), _ = shown(tmp_path, 0.2)
    assert row["base HR@10"] and row["best HR@10"] == row["best NDCG@10"] == ""


def test_one_of_the_two_is_shown_alone_and_the_other_named(tmp_path: Path) -> None:
    fabricate(tmp_path, parse_cell(BEST))
    (row,), text = shown(tmp_path, 0.1, 0.2)
    assert row["base HR@10"] == row["difference"] == "" and row["best HR@10"]
    assert text.endswith(f"Not fitted without a limit yet: `{BASE}`.")


def test_a_trial_is_no_run_of_the_winner(tmp_path: Path) -> None:
    """A fit that a clock ended is another run than the one that is named."""
    cell = parse_cell(BEST)
    fabricate(tmp_path, replace(cell, settings={**cell.settings, "max_seconds": 60.0}))
    rows, text = shown(tmp_path, 0.1, 0.2)
    assert not rows and BEST in text


def test_runs_that_ranked_other_cases_are_refused(tmp_path: Path) -> None:
    fabricate(tmp_path, parse_cell(BASE))
    cell = parse_cell(BEST)
    fabricate(tmp_path, cell, ranks=ranks_of(cell, users=300))
    with pytest.raises(RunError, match="ranked other cases"):
        shown(tmp_path, 0.1, 0.2)
