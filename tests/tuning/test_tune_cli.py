"""`nextup tune` and its section of the report, on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.command_line import run_cli
from nextup.studies.document import Grid, Paragraph
from nextup.studies.places import Places
from nextup.studies.results import Results
from nextup.studies.spelling import parse_cell
from nextup.studies.watch import Watch
from nextup.train.recipe import resolve
from nextup.tuning.search import METRIC, note_outcome, read_search
from nextup.tuning.table import search_row, tuning_blocks
from nextup.tuning.winner import best_trial, recipe_text, write_recipe

from .conftest import search_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def fabricate(places: Places, shop: Path, values: list[float | None], **budget: Any) -> Path:
    """Enter made-up outcomes of as many trials; None diverges."""
    search = search_of(shop, trials=len(values), **budget)
    search.begin(places)
    how = {"jobs": 2, "threads": 1}
    for cell, value in zip(search.cells, values, strict=True):
        said: dict[str, Any] = {"seconds": 30.0, "hardware": {"processor": "Abacus"}, "how": how}
        said |= {"diverged": "far"} if value is None else {"valid": {METRIC: value}}
        note_outcome(places, cell, {**said, "out_of_time": value == 0.25})
    return search.file(places)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["toys"], "name the models to tune; `nextup tune` lists those with a space"),
        (["toys", "sasrek"], "unknown model `sasrek`; did you mean `sasrec`?"),
        (["toys", "pop"], "learns by counting, so there is nothing to tune"),
        (["toys", "lma4gru"], "has no space to search; did you mean `lma4rec`?"),
        (["toyz", "sasrec"], "neither a prepared dataset nor a public set; did you mean `toys`?"),
        (["toys", "sasrec", "--trials", "0"], "trials: 0 is too few"),
        (["toys", "sasrec", "--seconds", "0"], "seconds: 0 is no time to train"),
        (["toys", "sasrec", "--seconds", "nan"], "seconds: nan is no time"),
        (["toys", "sasrec", "--seed", "-1"], "seed: -1 is out of range"),
        (["toys", "sasrec", "--jobs", "0"], "jobs: 0 is too few"),
        (["toys", "sasrec", "--budget", "soon"], "budget `soon`: write it as"),
        (["toys", "sasrec", "--device", "tpu"], "device: `tpu` is not one of"),
    ],
)
@pytest.mark.usefixtures("places")
def test_one_line_with_the_remedy(arguments: list[str], says: str) -> None:
    found = run_cli("tune", *arguments)
    assert found.code == 2
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert says in line and "Traceback" not in found.err
    assert not list(Path("results").rglob("*.json")), "something is left"


@pytest.mark.usefixtures("places")
def test_what_is_searched_and_which_trials_there_would_be() -> None:
    found = run_cli("tune")
    assert found.code == 0 and "gru4rec_official" in found.out and "attention_weight" in found.out
    assert "next: nextup tune DATASET sasrec --dry-run" in found.err
    found = run_cli("tune", "toys", "bpr", "coserec", "--trials", "3", "--dry-run")
    rows = [line.split() for line in found.out.splitlines() if line.startswith(("bpr", "coserec"))]
    assert [row[:3] for row in rows] == [
        [model, str(number), recipe]
        for model, recipe in (("bpr", "paper"), ("coserec", "paper-toys"))
        for number in range(3)
    ]
    assert rows[0][3:] == ["the", "base", "recipe"]
    assert "next: nextup tune toys bpr coserec --trials 3" in found.err
    assert not list(Path.cwd().iterdir())
    assert "its space holds 18" in run_cli("tune", "toys", "bpr", "--trials", "99", "--dry-run").err


def test_a_search_by_the_command_line(shop: Path, places: Places) -> None:
    words = ["tune", shop, "bpr", "fossil", "--trials", "1", "--seconds", "0.01"]
    words += ["--device", "cpu", "--jobs", "2"]
    found = run_cli(*words)
    assert found.code == 0, found.err
    assert "0 of 2 trials are there already" in found.err and "2 trials done" in found.err
    assert "# bpr/tuned-shop.toml" in found.out and "# fossil/tuned-shop.toml" in found.out
    assert "next: nextup study runs shop:bpr:paper" in found.err
    assert sorted(file.name for file in Path("results/tuning").iterdir()) == [
        *("shop-bpr.json", "shop-fossil.json")
    ]
    assert not list(places.runs.rglob("state.safetensors")), "not tidied up"
    assert not Results("results").all, "a trial is no result of a study"
    found = run_cli(*words, "--write", "recipes")
    assert "2 of 2 trials are there already" in found.err
    for model in ("bpr", "fossil"):
        said = tomllib.loads(Path(f"recipes/{model}/tuned-shop.toml").read_text())
        assert said["about"].startswith("Best of 1 trials of 0.01 s on NDCG@10")
    report = run_cli("report", "lma4rec", "--no-figures", "--resamples", "200")
    assert report.code == 0
    text = Path("results/studies.md").read_text()
    assert "## Tuned with equal effort" in text and "| bpr | the base recipe | paper | 1 |" in text


def test_ctrl_c_stops_in_order_and_names_how_to_go_on(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Watch, running: list[Any], waiting: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "show", interrupted)
    found = run_cli("tune", shop, "sasrec", "--device", "cpu", "--jobs", "1", "--overwrite")
    assert found.code == 130
    assert f"stopped; go on with: nextup tune {shop} sasrec --device cpu --jobs 1\n" in found.err


def test_a_search_that_is_not_at_its_end_has_no_recipe(
    shop: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextup.studies.runner.Runner._start", lambda self, cell, watch: None)
    found = run_cli("tune", shop, "sasrec", "--device", "cpu")
    assert "0 of 12" in found.out and "none done" in found.out
    assert ".toml" not in found.out and "next:" not in found.err


# ---- what won --------------------------------------------------------------------------------
def test_the_recipe_is_the_best_trial_without_its_limits(shop: Path, places: Places) -> None:
    document = read_search(fabricate(places, shop, [0.1, None, 0.3, 0.3]))
    best = best_trial(document)
    assert best is not None and best["number"] == 2, "the first of equals"
    said = tomllib.loads(recipe_text(document))
    cell = search_of(shop, trials=4).cells[2]
    spelt = {**said["model"], **said["train"]}
    config, train = resolve("sasrec", "fast", dict(cell.settings))
    assert resolve("sasrec", None, spelt) == (
        config,
        train.model_copy(update={"max_seconds": None}),
    )
    # The run that is named next trains with just these settings.
    named = parse_cell(best["run"])
    assert resolve(named.model, named.recipe, dict(named.settings))[1].max_seconds is None
    assert {**named.settings, "max_seconds": 60.0} == dict(cell.settings)


def test_another_recipe_is_not_replaced(shop: Path, places: Places, tmp_path: Path) -> None:
    from nextup.errors import RunError

    document = read_search(fabricate(places, shop, [0.1]))
    file = write_recipe(document, tmp_path / "recipes")
    assert file == write_recipe(document, tmp_path / "recipes"), "the same may be written again"
    file.write_text("about = 'mine'\n")
    with pytest.raises(RunError, match="is there already and differs"):
        write_recipe(document, tmp_path / "recipes")
    with pytest.raises(RunError, match="no trial came to anything"):
        recipe_text({**document, "trials": [{**document["trials"][0], "valid": None}]})


def test_a_row_is_what_its_trials_say(shop: Path, places: Places) -> None:
    document = read_search(fabricate(places, shop, [0.1, None, 0.25]))
    row = search_row(document)
    assert row[0] == "sasrec" and row[1].startswith("epochs=3, learning_rate=")
    assert row[2:] == ("fast", "3 (1 diverged)", "90", "1", "0.1000", "0.2500")


def test_the_section_says_whether_the_effort_was_equal(shop: Path, places: Places) -> None:
    assert not list(tuning_blocks(places.results))
    file = fabricate(places, shop, [0.1, 0.2])
    text = "".join(
        each.text for each in tuning_blocks(places.results) if isinstance(each, Paragraph)
    )
    assert "2 trials of 60 s, seed 0, 1 thread each, Abacus, 2 at once." in text
    assert "not the same effort" not in text
    other = json.loads(file.read_text())
    other |= {"model": "bpr", "budget": {**other["budget"], "seconds": 600.0}}
    file.with_name("shop-bpr.json").write_text(json.dumps(other))
    blocks = list(tuning_blocks(places.results))
    text = "".join(each.text for each in blocks if isinstance(each, Paragraph))
    assert "**not the same effort for all**; bpr: 2 trials of 600 s" in text
    (grid,) = [each for each in blocks if isinstance(each, Grid)]
    assert "Not fitted without a limit yet: `shop:sasrec:fast`" in text
    assert [row[0] for row in grid.rows] == ["bpr", "sasrec"]


def test_a_damaged_search_is_named_by_the_report(places: Places) -> None:
    (places.results / "tuning").mkdir(parents=True)
    (places.results / "tuning/bad.json").write_text("{")
    found = run_cli("report", "--no-figures")
    assert found.code == 2 and "bad.json: is not the record of a search" in found.err
