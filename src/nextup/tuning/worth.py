"""What searches are worth on test: base recipes and winners, each fitted as long as it wants.

A trial never meets the test items. What its settings are worth is said by a run of its own, made
by `nextup study runs` like any other (``nextup tune`` names the command in the end); here such runs
are found among the results and held against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nextup.evaluation.significance import RESAMPLES
from nextup.studies.document import Block, Grid, Paragraph
from nextup.studies.measured import measured_runs
from nextup.studies.results import Result, Results
from nextup.studies.spelling import parse_cell
from nextup.studies.tables import p_text, span_text
from nextup.tuning.search import is_done
from nextup.tuning.winner import base_trial, best_trial

METRICS = ("HR@10", "NDCG@10")
_BASE, _BEST = "base", "best"
HEADER = (
    *("model", "seeds", *(f"{name} {metric}" for metric in METRICS for name in (_BASE, _BEST))),
    *("difference", "p"),
)
_ABOUT = (
    "On **test**, fitted anew without a limit of seconds, ranked among all items. **difference** "
    f"is of {METRICS[-1]}, best less base, with the interval and p of users paired; empty where "
    "the base recipe itself won."
)


def worth_blocks(
    searches: Iterable[Mapping[str, Any]], results: Results, resamples: int = RESAMPLES
) -> Iterator[Block]:
    """Yield what the searches of a dataset are worth on test, and which runs are missing.

    Parameters
    ----------
    searches
        Of one dataset, as `nextup.tuning.search.read_search` returns them.
    results
        Where the runs are looked for.
    resamples
        Of users, for intervals and tests.

    Raises
    ------
    RunError
        If a result is damaged, or two of a model ranked other cases.
    """
    rows, missing = [], []
    for document in searches:
        best = best_trial(document)
        texts = {_BASE: base_trial(document)["run"]}
        if best is not None and sum(map(is_done, document["trials"])) > 1:
            texts[_BEST] = best["run"]  # a base recipe tried alone has won nothing
        runs = {label: results.seeds(parse_cell(text)) for label, text in texts.items()}
        missing += [text for label, text in texts.items() if not runs[label]]
        there = {label: found for label, found in runs.items() if found}
        if there:
            rows.append((document["model"], *_columns(there, resamples)))
    if rows:
        yield Paragraph(_ABOUT)
        yield Grid(HEADER, tuple(rows))
    if missing:
        named = ", ".join(f"`{text}`" for text in dict.fromkeys(missing))
        yield Paragraph(f"Not fitted without a limit yet: {named}.")


def _columns(runs: Mapping[str, Mapping[int, Result]], resamples: int) -> Iterator[str]:
    """Yield the columns of a model but for its name."""
    measured = measured_runs(runs, METRICS, _BASE if _BASE in runs else None, resamples)
    yield " / ".join(dict.fromkeys(str(len(found)) for found in runs.values()))
    for metric in METRICS:
        for label in (_BASE, _BEST):
            found = measured.get((label, metric))
            yield "" if found is None else f"{found.value.mean:.4f}"
    compared = measured.get((_BEST, METRICS[-1]))
    same = runs.get(_BASE) == runs.get(_BEST)
    if same or compared is None or compared.difference is None or compared.p_value is None:
        yield from ("", "")
    else:
        span = span_text(compared.difference, signed=True)
        yield f"{compared.difference.mean:+.4f} ({span})"
        yield p_text(compared.p_value)
