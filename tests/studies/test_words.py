"""Words that mean the same run: a result keeps its own, and there is never a second one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nextup.evaluation.protocol import Protocol
from nextup.studies.asked import Asked
from nextup.studies.cell import Cell
from nextup.studies.overview import lacking_cells
from nextup.studies.places import Places
from nextup.studies.results import Results
from nextup.studies.run_cell import How, fitted_already, run_cell
from nextup.train.recipe import read_recipe

ASKED = Asked((Protocol(candidates="sampled", n_negatives=20, cutoffs=(5, 10)),))


@pytest.fixture
def words(shop: Path) -> tuple[Cell, Cell]:
    """Settings on top of `paper`, and the recipe that says the same."""
    _, model, train = read_recipe("bpr", "fast")
    now = Cell(str(shop), "bpr", "fast", {"epochs": 1})
    before = replace(now, recipe="paper", settings={**model, **train, "epochs": 1})
    assert before.identity == now.identity and before.name != now.name
    return before.plain, now.plain


def lacking(cell: Cell) -> list[Cell]:
    return lacking_cells([cell], Results("results"), {cell.identity: ASKED})


def test_a_result_is_measured_further_where_its_run_lies(
    folder: Path, words: tuple[Cell, Cell]
) -> None:
    before, now = words
    file = run_cell(before, Places(), How("cpu"))
    (found,) = lacking(now)
    assert found.name == before.name and fitted_already(found, Places())
    assert run_cell(found, Places(), How("cpu"), ASKED) == file
    assert [result.name for result in Results("results").all] == [before.name]
    assert not lacking(now)


@pytest.mark.parametrize("recipe", ["tuned", "paper"])
def test_words_that_say_nothing_or_else_by_now_are_replaced(
    folder: Path, words: tuple[Cell, Cell], recipe: str
) -> None:
    before, now = words
    file = run_cell(before, Places(), How("cpu"))
    stored = json.loads(file.read_text())
    stored["cell"] |= {"recipe": recipe, "settings": {}}
    file.write_text(json.dumps(stored))
    assert lacking(now) == [now]
    run_cell(now, Places(), How("cpu"), ASKED)
    (result,) = Results("results").all
    assert (result.name, result.document["name"]) == (now.name, now.name)
    assert (result.cell.name, result.document["recipe"]) == (now.name, "fast")
    assert "shop:bpr:fast" in result.document["command"]
    assert not lacking(now) and len(list(Path("results/runs").iterdir())) == 2
