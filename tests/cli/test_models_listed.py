"""What is said of the models, by the command line and in the documentation, is what they are."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest
import torch

import nextup.describe
from nextup import measured
from nextup.describe import full_paper, parameters_in_words, short_paper
from nextup.measured import EpochSeconds, StageSeconds, ship
from nextup.model_page import COMMAND, models_page
from nextup.models.base import Kind
from nextup.models.registry import available_models, make_model, model_class

from .command_line import Cli

ROOT = Path(__file__).parents[2]
MODELS = list(available_models())


def timed(**more: object) -> EpochSeconds:
    said: dict[str, object] = {
        "recipe": "sasrec/paper",
        "dataset": "beauty",
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "hardware": {"processor": "an abacus", "cores": 2},
        "threads": 1,
        "stages": [StageSeconds(name="train", batch_size=256, seconds=1.25, **STEPS)],
    }
    return EpochSeconds(**{**said, **more})


STEPS = {"steps_timed": 3, "steps_per_epoch": 88}


def test_the_documentation_lists_the_models_as_they_are() -> None:
    written = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert written == models_page(), f"docs/models.md is stale: {COMMAND}"


def test_the_readme_names_every_model() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Models")[2]
    section = section.partition("\n## ")[0]
    assert [name for name in MODELS if f"`{name}`" not in section] == []


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_what_it_is(name: str) -> None:
    cls = model_class(name)
    assert cls.kind in typing.get_args(Kind) and cls.kind != "other"
    assert (cls.kind == "counting") == (cls.learns_by == "counting")
    assert short_paper(cls.paper)[-4:].isdigit() or cls.paper.startswith("baseline")
    assert full_paper(cls)[-4:].isdigit() or cls.paper.startswith("baseline")
    reads_users = any(key.endswith("users") for key in make_model(name, 20).extents())
    assert not reads_users or cls.needs in ("users", "what its student needs")
    assert reads_users or cls.needs != "users"


def test_parameters_are_counted_with_what_a_user_adds_and_what_is_left_behind() -> None:
    assert parameters_in_words("bpr", 5) == f"{6 * 64 + 6:,} + 64 a user"
    assert parameters_in_words("pop") == ""
    whole = parameters_in_words("ssi", 5)
    assert whole.startswith(parameters_in_words("hgn", 5)) and whole.endswith(" while learning)")


def test_counting_parameters_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    parameters_in_words("sasrec", 5)
    assert torch.equal(before, torch.get_rng_state())


def test_the_list_has_a_line_for_each_model(cli: Cli) -> None:
    found = cli("models")
    assert found.code == 0
    first = [line.split()[0] for line in found.out.splitlines() if line[:1].isalpha()]
    assert [word for word in first if word in MODELS] == MODELS
    assert "Kang & McAuley" in found.out  # (the rest may stand on the next line)
    assert "10,000 items" in found.err


def test_one_model_shows_its_whole_paper(cli: Cli) -> None:
    found = " ".join(cli("models", "hgn").out.split())
    assert "Ma, Kang & Liu, Hierarchical Gating Networks" in found
    assert "is answered with a vector that their history suggests" in found
    assert "hgn/paper" in found


def test_parts_are_shown_in_words_and_settings_that_do_nothing_are_not(cli: Cli) -> None:
    said = " ".join(cli("models", "ssi").out.split())
    assert "max_length" not in said and "Part(" not in said
    assert "task=temporal, consistency" in said and "consistency task=global]" in said
    assert "max_length" in cli("models", "hgn").out


def test_seconds_are_shown_where_measured_with_their_conditions(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = StageSeconds(name="again", batch_size=256, seconds=0.5, **STEPS)
    found = {"sasrec": timed(), "gru4rec": timed(threads=2, stages=[*timed().stages, later])}
    monkeypatch.setattr(nextup.describe, "epoch_seconds", lambda: found)
    listed = cli("models")
    lines = {line.split()[0]: line for line in listed.out.splitlines() if line[:1].isalpha()}
    assert lines["sasrec"].split()[-1] == "1.25"
    assert lines["gru4rec"].rstrip().endswith("1.25 + 0.5")
    assert lines["hgn"].rstrip().endswith("a user"), "nothing where it was not measured"
    assert "beauty, an abacus, 1 thread, 2026-01-02, 012345678: sasrec" in listed.err
    assert "2 threads, 2026-01-02, 012345678: gru4rec" in listed.err
    one = " ".join(cli("models", "sasrec").out.split())
    assert "1.25; sasrec/paper; beauty, an abacus, 1 thread, 2026-01-02, 012345678" in one


def test_seconds_of_another_recipe_say_so() -> None:
    assert timed(recipe="coserec/paper-toys").seconds == "1.25"
    assert timed(recipe="ssi/small").seconds == "1.25 (small)"
    assert timed(recipe=None).seconds == "1.25 (defaults)"
    counted = StageSeconds(name="count", batch_size=None, seconds=0.02, **STEPS)
    assert timed(recipe=None, stages=[counted]).seconds == "0.02"


def test_shipping_replaces_what_was_measured_again_and_keeps_the_rest(tmp_path: Path) -> None:
    ship({"hgn": timed(), "sasrec": timed()}, tmp_path)
    path = ship({"sasrec": timed(dataset="toys")}, tmp_path)
    written = {name: EpochSeconds(**said) for name, said in json.loads(path.read_text()).items()}
    assert list(written) == ["hgn", "sasrec"]
    assert (written["hgn"].dataset, written["sasrec"].dataset) == ("beauty", "toys")
    assert written["hgn"] == timed() and written["hgn"].stages[0].extrapolated


def test_what_is_shipped_can_be_read_and_is_of_models_that_exist() -> None:
    assert set(measured.epoch_seconds()) <= set(MODELS)
