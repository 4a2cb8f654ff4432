"""Comparing runs: every metric with its interval, and every difference with its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextup.data.seed import checked_seed
from nextup.errors import ConfigError, InputError, suggest
from nextup.evaluation.metrics import EXPECTED, case_values, parse_metric
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks
from nextup.evaluation.significance import (
    RESAMPLES,
    Interval,
    interval_of,
    mcnemar,
    resampled_means,
    sign_flips,
)


@dataclass(frozen=True)
class Row:
    """One metric of one run, and how it differs from the baseline (None for the baseline).

    `test` names the paired test of `p_value`: ``"McNemar"`` for HR where each user hits or misses,
    ``"sign flips"`` otherwise.
    """

    run: str
    metric: str
    value: Interval
    difference: Interval | None = None
    p_value: float | None = None
    test: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; made by `compare`."""

    rows: list[Row]
    baseline: str
    protocol: Protocol
    cases: int
    level: float

    def describe(self) -> str:
        """Return the line that belongs below the table."""
        return (
            f"{self.protocol.describe()}; {self.cases:,} cases; {self.level:.0%} intervals by "
            f"bootstrap over users; differences and p-values against {self.baseline}"
        )

    def table(self) -> list[list[str]]:
        """Return plain rows of text, the header first."""
        sure = f"{self.level:.0%}"
        header = ["run", "metric", "value", sure, "difference", f"{sure} of it", "p", "test"]
        return [header, *(_cells(row) for row in self.rows)]


def compare(
    runs: Mapping[str, CaseRanks],
    baseline: str | None = None,
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare runs that ranked the same cases under the same protocol.

    Parameters
    ----------
    runs
        Ranks by the name of the run.
    baseline
        The run that the others are compared with; by default the first.
    metrics
        Their names; by default HR and NDCG at the protocol's cutoffs.
    level
        Confidence of the intervals.
    resamples, seed
        Of the bootstrap and the permutation test. All runs meet the same resamples.

    Raises
    ------
    ConfigError
        If the baseline or a metric is unknown.
    InputError
        If there is no run, or the runs cannot be compared: other protocols or other cases.
    """
    if not runs:
        raise InputError("compare: no runs were given")
    names = list(runs)
    base = names[0] if baseline is None else baseline
    if base not in runs:
        raise ConfigError(f"compare: unknown baseline `{base}`{suggest(base, names)}")
    if not 0 < level < 1:
        raise ConfigError(f"compare: the level is {level}; it must lie between 0 and 1, as 0.95")
    if resamples < 1:
        raise ConfigError(f"compare: {resamples} resamples; draw at least 1, better thousands")
    seed = checked_seed(seed)
    for name in names:
        _check_same(base, runs[base], name, runs[name])
    first = runs[base]
    shown = [f"{kind}@{k}" for kind in ("HR", "NDCG") for k in first.protocol.cutoffs]
    wanted = list(metrics) if metrics is not None else shown
    order = {name: np.lexsort((_targets(r), r.users)) for name, r in runs.items()}
    users = np.sort(first.users)
    rows = []
    for metric in wanted:
        kind, _ = parse_metric(metric.removeprefix(EXPECTED))
        values = {
            name: _by_user(case_values(runs[name], metric)[order[name]], users) for name in names
        }
        means = resampled_means(np.stack(list(values.values()), axis=1), resamples, seed)
        reference = means[:, names.index(base)]
        for at, name in enumerate(names):
            value = interval_of(float(values[name].mean()), means[:, at], level)
            if name == base:
                rows.append(Row(name, metric, value))
                continue
            apart = float((values[name] - values[base]).mean())
            difference = interval_of(apart, means[:, at] - reference, level)
            both = np.stack([values[name], values[base]])
            if kind == "HR" and np.isin(both, (0.0, 1.0)).all():
                p, test = mcnemar(values[name], values[base]), "McNemar"
            else:
                p, test = sign_flips(values[name], values[base], resamples, seed), "sign flips"
            rows.append(Row(name, metric, value, difference, p, test))
    return Comparison(rows, base, first.protocol, len(first), level)


def _by_user(values: NDArray[np.float64], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the cases of each user, who is what gets resampled.

    Cases of users who differ in their number of cases stay as they are: averaging would change
    the metric.
    """
    _, first, counts = np.unique(users, return_index=True, return_counts=True)
    if counts.max(initial=1) == 1 or counts.min() != counts.max():
        return values
    return np.asarray(np.add.reduceat(values, first) / counts)


def _targets(ranks: CaseRanks) -> NDArray[np.int64]:
    return np.zeros(len(ranks), dtype=np.int64) if ranks.targets is None else ranks.targets


def _check_same(first: str, a: CaseRanks, second: str, b: CaseRanks) -> None:
    if not a.protocol.ranks_like(b.protocol):
        raise InputError(
            f"compare: {first} was ranked with {a.protocol.describe()}, {second} with "
            f"{b.protocol.describe()}; evaluate both under one protocol"
        )
    same = len(a) == len(b) and bool((np.sort(a.users) == np.sort(b.users)).all())
    if same and a.targets is not None and b.targets is not None:
        left, right = (np.lexsort((_targets(r), r.users)) for r in (a, b))
        same = bool((a.targets[left] == b.targets[right]).all())
    if not same:
        raise InputError(
            f"compare: {first} and {second} ranked different cases ({len(a):,} and {len(b):,}); "
            "evaluate both on the same dataset and split"
        )


def _cells(row: Row) -> list[str]:
    value = [row.run, row.metric, f"{row.value.mean:.4f}", _span(row.value)]
    if row.difference is None or row.p_value is None:
        return [*value, "", "", "", ""]
    p = "<.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    return [*value, f"{row.difference.mean:+.4f}", _span(row.difference), p, row.test or ""]


def _span(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"
