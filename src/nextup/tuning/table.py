"""What came of all searches, as a section of the report and as tables of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nextup.evaluation.significance import RESAMPLES
from nextup.studies.cell import short
from nextup.studies.document import Block, Grid, Heading, Paragraph
from nextup.studies.results import Results
from nextup.tuning.search import METRIC, UNDER, is_done, read_search
from nextup.tuning.winner import base_trial, best_trial, score
from nextup.tuning.worth import worth_blocks

HEADER = (
    *("model", "settings that won", "from", "trials", "seconds spent", "out of time"),
    *(f"base {METRIC}", f"best {METRIC}"),
)
_ABOUT = (
    "Made by `nextup tune`: each model gets the same number of trials with the same seconds of "
    "training and validation, and the test items are cut off before a trial begins. The first "
    "trial is the base recipe, the others are drawn at random from the model's space. **base** and "
    f"**best** are validation {METRIC} of that recipe and of the best trial; as the best of "
    "several, the latter flatters, and only a fit of its own says what it is worth on test. Every "
    "trial is in `tuning/*.json`."
)


def read_searches(results: Path) -> list[dict[str, Any]]:
    """Return all searches of a results folder, by dataset and model.

    Raises
    ------
    RunError
        If a file is none.
    """
    found = [read_search(file) for file in sorted((results / UNDER).glob("*.json"))]
    return sorted(found, key=lambda each: (each["dataset"], each["model"]))


def tuning_blocks(results: Path, resamples: int = RESAMPLES) -> Iterator[Block]:
    """Yield a section of the report: two tables for each dataset; nothing if nothing was tuned.

    Raises
    ------
    RunError
        If a search or a result is damaged.
    """
    found = read_searches(results)
    if not found:
        return
    known = Results(results)
    yield Heading("Tuned with equal effort", 2)
    yield Paragraph(_ABOUT)
    for dataset in dict.fromkeys(each["dataset"] for each in found):
        here = [each for each in found if each["dataset"] == dataset]
        yield Heading(dataset, 3)
        yield Paragraph("; ".join(_effort(here)) + ".")
        yield Grid(HEADER, tuple(search_row(each) for each in here), left=3)
        yield from worth_blocks(here, known, resamples)


def search_row(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a search as a row below `HEADER`."""
    trials = document["trials"]
    done = [trial for trial in trials if is_done(trial)]
    of = "" if len(done) == len(trials) else f" of {len(trials)}"
    diverged = sum("diverged" in trial for trial in done)
    best, base = best_trial(document), score(base_trial(document))
    return (
        document["model"],
        "none done" if best is None else settings_text(best),
        document["recipe"] or "defaults",
        f"{len(done)}{of}" + (f" ({diverged} diverged)" if diverged else ""),
        f"{sum(trial['seconds'] for trial in done):,.0f}",
        str(sum(bool(trial.get("out_of_time")) for trial in done)),
        "" if base is None else f"{base:.4f}",
        "" if best is None else f"{score(best):.4f}",
    )


def settings_text(trial: Mapping[str, Any]) -> str:
    """Return in what a trial departs from the base recipe."""
    said = [f"{key}={short(value)}" for key, value in sorted(trial["settings"].items())]
    return ", ".join(said) or "the base recipe"


def _effort(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the budget that all had, or say that it was not the same."""
    by_budget: dict[str, list[str]] = {}
    for each in found:
        by_budget.setdefault(_budget_text(each), []).append(each["model"])
    if len(by_budget) > 1:
        yield "**not the same effort for all**"
    for budget, models in by_budget.items():
        yield budget if len(by_budget) == 1 else f"{', '.join(models)}: {budget}"


def _budget_text(document: Mapping[str, Any]) -> str:
    budget = document["budget"]
    where = [_machine(trial) for trial in document["trials"] if "hardware" in trial]
    machines = " and ".join(dict.fromkeys(where)) or "not run yet"
    return (
        f"{budget['trials']} trials of {budget['seconds']:g} s, seed {budget['seed']}, "
        f"{budget['threads']} thread{'s' * (budget['threads'] != 1)} each, {machines}"
    )


def _machine(trial: Mapping[str, Any]) -> str:
    hardware, jobs = trial["hardware"], trial["how"]["jobs"]
    name = hardware.get("gpu") or hardware["processor"]
    return f"{name}, {jobs} at once"
