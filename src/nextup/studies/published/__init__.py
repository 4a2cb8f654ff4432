"""Published figures, one CSV file a table: a row a dataset and method, a column a metric.

The column ``source`` is empty for what the paper itself prints; else it says who reports the row.
Which cells cannot be true is computed, not stored.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from nextup.evaluation.metrics import feasible, parse_metric


@dataclass(frozen=True)
class PublishedRow:
    """What was published about one method on one dataset.

    Parameters
    ----------
    values
        By metric.
    decimals
        How many digits were printed after the point.
    source
        Who reports it, if it is not the paper itself.
    """

    values: Mapping[str, float]
    decimals: int
    source: str = ""


@dataclass(frozen=True)
class Published:
    """A published table, by dataset and method."""

    rows: Mapping[tuple[str, str], PublishedRow] = field(default_factory=dict)

    def value(self, dataset: str, method: str, metric: str) -> float | None:
        """Return a published figure, or None where there is none."""
        row = self.rows.get((dataset, method))
        return None if row is None else row.values.get(metric)

    def impossible(self, dataset: str, method: str) -> dict[str, str]:
        """Return the metrics of a row that cannot be true beside its others, and why."""
        row = self.rows.get((dataset, method))
        return {} if row is None else impossible(row.values, row.decimals)


@cache
def published(name: str | None) -> Published:
    """Return a published table by the name of its file, or an empty one for None."""
    if name is None:
        return Published()
    text = resources.files(__name__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    rows: dict[tuple[str, str], PublishedRow] = {}
    for line in csv.DictReader(text.splitlines()):
        dataset, method, source = (line.pop(key) for key in ("dataset", "method", "source"))
        given = {metric: value for metric, value in line.items() if value}
        decimals = max((len(value.partition(".")[2]) for value in given.values()), default=0)
        values = {metric: float(value) for metric, value in given.items()}
        rows[dataset, method] = PublishedRow(values, decimals, source)
    return Published(rows)


def impossible(values: Mapping[str, float], decimals: int) -> dict[str, str]:
    """Return which of the metrics cannot come from the same ranks as the others, and why.

    A figure is judged against the one at the next smaller cutoff, with all that rounding may have
    done to the two hit rates and the two gains allowed for.

    Examples
    --------
    >>> impossible({"HR@5": 0.0171, "NDCG@5": 0.0008}, 4)
    {'NDCG@5': 'NDCG from 0 to 5 rises by 0.0008, but HR by 0.0171 allows only 0.0066 to 0.0171'}
    """
    found: dict[str, str] = {}
    hits = {k: value for (kind, k), value in _parsed(values).items() if kind == "HR"}
    for kind in ("NDCG", "MRR"):
        own = {k: value for (name, k), value in _parsed(values).items() if name == kind}
        cutoffs = sorted(hits.keys() & own.keys())
        for a, b in zip([0, *cutoffs], cutoffs, strict=False):
            pair = {f"HR@{k}": hits[k] for k in (a, b) if k}
            pair |= {f"{kind}@{k}": own[k] for k in (a, b) if k}
            unit = 10.0**-decimals  # what rounding, or cutting off digits, does to a difference
            lines = feasible(pair, tolerance=unit - 1e-9)
            wrong = [line for line in lines if line.startswith(f"{kind} from {a} ")]
            if wrong:
                found[f"{kind}@{b}"] = wrong[0]
    return found


def _parsed(values: Mapping[str, float]) -> dict[tuple[str, int], float]:
    found = {}
    for name, value in values.items():
        kind, cutoff = parse_metric(name)
        if cutoff is not None:
            found[kind, cutoff] = value
    return found
