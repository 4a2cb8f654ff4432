"""The table of a report that says how consistent recommendations are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nextup.studies.document import Block, Grid, Paragraph
from nextup.studies.measured import Block as Measured
from nextup.studies.measured import Row

_ABOUT = (
    "Consistency: how much of the first {k} stays when a history changes a little. **RBO** (p = "
    "{p:g}) weighs the first places most, **Jaccard** counts; 1 is all of it. **lost** is the "
    "NDCG@{k} that the change costs, on the same cases: a list can also stay because nobody looks "
    "at the history. Each with its 95% interval over cases and, with more than one seed, seeds."
)


def consistency_blocks(found: Measured) -> Iterator[Block]:
    """Yield a table for each accident, of the rows whose runs were measured so."""
    rows = [(row, documents) for row in found.rows if (documents := _documents(row))]
    if not rows:
        return
    first = rows[0][1][0]
    k = first["k"]
    yield Paragraph(_ABOUT.format(k=k, p=first["p"]))
    shown = (f"RBO@{k}", f"Jaccard@{k}", f"NDCG@{k} lost", f"echo@{k}")
    for name in first["accidents"]:
        header = [name, "seeds", "cases"]
        for measure in shown[:3]:
            header += [measure.removeprefix(f"NDCG@{k} "), "95%"]
        grid = []
        for row, documents in rows:
            accidents = [document["accidents"][name] for document in documents]
            cells = [row.method.label, str(len(documents)), f"{accidents[0]['cases']:,}"]
            for measure in shown[:3]:
                cells += _cells([found[measure] for found in accidents], measure.endswith("lost"))
            grid.append((*cells, _cells([found[shown[3]] for found in accidents], False)[0]))
        yield Grid((*header, "echo"), tuple(grid))


def overlaps(row: Row) -> dict[str, tuple[float, float]]:
    """Return the rank-biased overlap after each accident: its mean and half its 95% interval."""
    documents = _documents(row)
    if not documents:
        return {}
    measure = f"RBO@{documents[0]['k']}"
    found = {
        name: [document["accidents"][name][measure] for document in documents]
        for name in documents[0]["accidents"]
    }
    return {name: _mean(each) for name, each in found.items() if None not in each}


def _documents(row: Row) -> list[dict[str, Any]]:
    return [run.consistency for run in row.runs.values() if run.consistency is not None]


def _mean(found: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the mean over seeds and half its interval, which adds that of cases and of seeds."""
    means, errors = np.array(found, dtype=np.float64).T
    spread = means.var(ddof=1) / len(means) if len(means) > 1 else 0.0
    return float(means.mean()), 1.96 * math.sqrt((errors**2).mean() + spread)


def _cells(found: Sequence[Sequence[float] | None], signed: bool) -> tuple[str, str]:
    """Return a mean and its interval as a table shows them."""
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return "-", "-"
    mean, half = _mean(known)
    form = "+.4f" if signed else ".4f"
    return f"{mean:{form}}", f"{mean - half:{form}} to {mean + half:{form}}"
