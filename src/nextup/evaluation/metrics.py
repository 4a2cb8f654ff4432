"""Metrics: everything that follows from ranks and from recommended lists.

With one relevant item a case, HR@k equals Recall@k; NDCG@k is ``1 / log2(rank + 2)`` within the
cutoff (rank 0 is best) and MRR@k is ``1 / (rank + 1)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from nextup.errors import ConfigError, InputError, suggest
from nextup.evaluation.ranks import CaseRanks

EXPECTED = "expected "
"""Before a metric's name: its mean over all draws of sampled candidates, see `expected_gains`."""

_NAME = re.compile(r"(expected )?(HR|RECALL|NDCG|MRR)(?:@([1-9][0-9]*))?", re.IGNORECASE)


def parse_metric(name: str) -> tuple[str, int | None]:
    """Split a metric's name into kind and cutoff; Recall is HR.

    Examples
    --------
    >>> parse_metric("recall@10"), parse_metric("MRR")
    (('HR', 10), ('MRR', None))

    Raises
    ------
    ConfigError
        If there is no such metric.
    """
    match = _NAME.fullmatch(name.strip())
    if match is None or match[1] or (match[3] is None and match[2].upper() != "MRR"):
        known = [f"{kind}@10" for kind in ("HR", "Recall", "NDCG", "MRR")] + ["MRR"]
        raise ConfigError(f"unknown metric `{name}`{suggest(name, known)}")
    kind = match[2].upper()
    return "HR" if kind == "RECALL" else kind, None if match[3] is None else int(match[3])


def gains(kind: str, ranks: NDArray[np.float64], cutoff: int | None) -> NDArray[np.float64]:
    """``float64``: what each rank is worth under HR, NDCG or MRR with a cutoff."""
    with np.errstate(divide="ignore"):
        if kind == "HR":
            worth = np.ones_like(ranks)
        elif kind == "NDCG":
            worth = 1 / np.log2(ranks + 2)
        else:
            worth = 1 / (ranks + 1)
    inside = np.isfinite(ranks) if cutoff is None else ranks < cutoff
    return np.where(inside, worth, 0.0)


def case_values(ranks: CaseRanks, name: str) -> NDArray[np.float64]:
    """``float64[m]``: the metric called `name` of each case; its mean is the metric.

    The name may begin with ``expected`` where the ranks are among sampled candidates.

    Examples
    --------
    >>> from nextup.evaluation.protocol import Protocol
    >>> five = CaseRanks(np.arange(5), np.array([0, 4, 5, 9, 10.0]), Protocol())
    >>> case_values(five, "NDCG@10").round(4)
    array([1.    , 0.3869, 0.3562, 0.2891, 0.    ])
    """
    kind, cutoff = parse_metric(name.removeprefix(EXPECTED))
    if name.startswith(EXPECTED):
        if cutoff is None:
            raise ConfigError(f"metric `{name}`: needs a cutoff, as {name}@10")
        return expected_gains(ranks, kind, [cutoff])[cutoff]
    return gains(kind, ranks.ranks, cutoff)


def metrics(ranks: CaseRanks, cutoffs: Iterable[int] | None = None) -> dict[str, float]:
    """Return the means over cases: HR@k, NDCG@k and MRR@k for each cutoff, and MRR.

    Ranks among candidates that were sampled alike also give ``expected HR@k`` and so on: what the
    metric would be on average over all draws of negatives, exactly (see `expected_gains`).

    Parameters
    ----------
    ranks
        What `rank_cases` returned.
    cutoffs
        By default those of the protocol.

    Raises
    ------
    InputError
        If there are no cases.
    """
    if len(ranks) == 0:
        raise InputError("metrics: there are no held-out items to average over")
    ks = sorted(set(ranks.protocol.cutoffs if cutoffs is None else cutoffs))
    found: dict[str, float] = {}
    for kind in ("HR", "NDCG", "MRR"):
        for k in ks:
            found[f"{kind}@{k}"] = float(gains(kind, ranks.ranks, k).mean())
    found["MRR"] = float(gains("MRR", ranks.ranks, None).mean())
    if ranks.above is not None and ranks.pool is not None:
        for kind in ("HR", "NDCG", "MRR"):
            for k, value in expected_gains(ranks, kind, ks).items():
                found[f"expected {kind}@{k}"] = float(value.mean())
    return found


def expected_gains(
    ranks: CaseRanks, kind: str, cutoffs: Iterable[int]
) -> dict[int, NDArray[np.float64]]:
    """Return for each cutoff ``float64[m]``: a case's metric averaged over all draws of negatives.

    Of a pool of ``M`` items never met, ``g`` score above the target and ``l`` are level with it.
    Among ``n`` negatives drawn without replacement there are ``X`` and ``Y`` of these, jointly
    hypergeometric, and the target's rank is ``X + Y / 2`` (the other rules for ties count items as
    above or not at all, so there ``l`` is 0).

    Parameters
    ----------
    ranks
        Ranks among sampled candidates.
    kind
        ``"HR"``, ``"NDCG"`` or ``"MRR"``.
    cutoffs
        The ``k`` wanted.

    Raises
    ------
    InputError
        If the ranks are not among candidates that were all equally likely to be sampled.
    """
    if ranks.above is None or ranks.pool is None:
        raise InputError(
            'expected metrics need ranks among sampled candidates (`candidates="sampled"`), not '
            + ranks.protocol.describe()
        )
    ks, n = sorted(set(cutoffs)), ranks.protocol.n_negatives
    level = np.zeros(len(ranks), dtype=np.int64) if ranks.level is None else ranks.level
    above, pool = np.floor(ranks.above - level / 2).astype(np.int64), ranks.pool.astype(np.int64)
    tied = np.flatnonzero(level)
    found = {k: np.zeros(len(ranks)) for k in ks}
    for x in range(min(n + 1, ks[-1])):
        for y in range(min(n - x, 2 * (ks[-1] - x) - 1) + 1):
            some = tied if y else np.arange(len(ranks))
            if len(some) == 0:
                break
            chance = _chance(x, y, above[some], level[some], pool[some], n)
            rank = x + y / 2
            worth = gains(kind, np.array([rank]), None)[0]
            for k in ks:
                if rank < k:
                    found[k][some] += worth * chance
    lost = ~np.isfinite(ranks.ranks)
    return {k: np.where(lost, 0.0, value) for k, value in found.items()}


def _chance(
    x: int,
    y: int,
    above: NDArray[np.int64],
    level: NDArray[np.int64],
    pool: NDArray[np.int64],
    n: int,
) -> NDArray[np.float64]:
    """Probability that of `n` items drawn from `pool`, `x` are of its `above` and `y` `level`."""
    logs = _log_factorials(int(pool.max(initial=0)))

    def log_choose(a: NDArray[np.int64], b: NDArray[np.int64] | int) -> NDArray[np.float64]:
        possible = (a >= b) & (np.asarray(b) >= 0)
        chosen = np.where(possible, b, 0)
        value = logs[np.maximum(a, 0)] - logs[chosen] - logs[np.maximum(a - chosen, 0)]
        return np.asarray(np.where(possible, value, -np.inf))

    rest = log_choose(pool - above - level, n - x - y)
    log = log_choose(above, x) + log_choose(level, y) + rest - log_choose(pool, n)
    return np.asarray(np.exp(log))


@lru_cache(maxsize=4)
def _log_factorials(most: int) -> NDArray[np.float64]:
    return np.asarray(gammaln(np.arange(most + 1) + 1.0))


def list_metrics(
    lists: NDArray[np.integer], popularity: NDArray[np.integer], cutoffs: Iterable[int]
) -> dict[str, float]:
    """Return what lists of recommendations look like as a whole.

    Parameters
    ----------
    lists
        ``int[m, k]``: recommended items, best first; 0 where a list ends early.
    popularity
        ``int[I + 1]``: how often each item occurs in training; entry 0 is padding.
    cutoffs
        Up to the lists' width.

    Returns
    -------
    ``coverage@k``: the share of the catalogue that at least one list shows.
    ``popularity@k``: the mean training count of the items shown.
    """
    found: dict[str, float] = {}
    for k in sorted(set(cutoffs)):
        if not 1 <= k <= lists.shape[1]:
            raise InputError(f"list metrics: cutoff {k}, but the lists hold {lists.shape[1]} items")
        shown = np.bincount(lists[:, :k].reshape(-1), minlength=len(popularity))
        shown[0] = 0
        found[f"coverage@{k}"] = float((shown > 0).sum() / max(len(popularity) - 1, 1))
        found[f"popularity@{k}"] = float((shown * popularity).sum() / max(shown.sum(), 1))
    return found


def feasible(
    found: Mapping[str, float], *, tolerance: float = 1e-9, half_ranks: bool = False
) -> list[str]:
    """Check that HR and NDCG (and MRR) at several cutoffs can come from the same ranks.

    Between cutoffs ``a < b``, each further hit adds to NDCG between ``1 / log2(b + 1)`` and
    ``1 / log2(a + 2)``, so the difference of NDCG is bounded by that of HR. This holds for means
    over cases and seeds; a table that breaks it mixes runs or holds a typing error.

    Parameters
    ----------
    found
        Metrics by name, as `metrics` returns them (``Recall@k`` counts as ``HR@k``).
    tolerance
        What rounding may do to the difference of two numbers: 1e-4 for tables of four decimals.
    half_ranks
        Whether ranks may be halves, as the tie rule ``mean`` makes them.

    Returns
    -------
    One line for each violation; empty if the numbers are possible.

    Examples
    --------
    >>> feasible({"HR@5": 0.2, "NDCG@5": 0.1, "HR@10": 0.3, "NDCG@10": 0.2})
    ['NDCG from 5 to 10 rises by 0.1000, but HR by 0.1000 allows only 0.0289 to 0.0356']
    """
    table: dict[str, dict[int, float]] = {"HR": {}, "NDCG": {}, "MRR": {}}
    for name, value in found.items():
        match = _NAME.fullmatch(name)
        if match and match[3] and not match[1]:
            kind = match[2].upper()
            table["HR" if kind == "RECALL" else kind][int(match[3])] = value
    half = 0.5 if half_ranks else 0.0
    lines = []
    for kind in ("NDCG", "MRR"):
        ks = sorted(table["HR"].keys() & table[kind].keys())
        for a, b in zip([0, *ks], ks, strict=False):
            hits = table["HR"][b] - table["HR"].get(a, 0.0)
            rise = table[kind][b] - table[kind].get(a, 0.0)
            last = b - 1 + half
            if kind == "NDCG":
                least, most = 1 / math.log2(last + 2), 1 / math.log2(a + 2)
            else:
                least, most = 1 / (last + 1), 1 / (a + 1)
            low, high = hits * least, hits * most
            # The hits are rounded as well, which moves what they allow.
            under, over = tolerance * (1 + least), tolerance * (1 + most)
            if hits < -tolerance or not low - under <= rise <= high + over:
                lines.append(
                    f"{kind} from {a} to {b} rises by {rise:.4f}, "
                    f"but HR by {hits:.4f} allows only {low:.4f} to {high:.4f}"
                )
    return lines
