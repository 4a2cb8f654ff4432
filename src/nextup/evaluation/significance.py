"""Intervals and paired tests over users: how sure a number and a difference are.

Users with the same values in all runs are one group, so that resampling users is resampling
counts of groups; with metrics cut off at k there are few. The distribution is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from nextup.errors import InputError

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over users and the range that holds it with the level's confidence."""

    mean: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether `value` lies in the interval."""
        return self.low <= value <= self.high


def resampled_means(
    values: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return the means of `values` over resamples of the users, drawn with replacement.

    Parameters
    ----------
    values
        ``float64[m, c]``: for each user one value of each of ``c`` columns. All columns meet the
        same resamples, which is what makes differences between them paired.
    resamples, seed
        How many, and where their randomness starts.

    Returns
    -------
    ``float64[resamples, c]``
    """
    m = len(values)
    if m == 0:
        raise InputError("resampling: there are no cases")
    rng = np.random.default_rng(seed)
    groups, sizes = np.unique(values, axis=0, return_counts=True)
    few = len(groups) * 16 <= m
    means = np.empty((resamples, values.shape[1]))
    at_once = max(1, (1 << 22) // m)
    for at in range(0, resamples, at_once):
        count = min(at_once, resamples - at)
        if few:
            drawn = rng.multinomial(m, sizes / m, size=count)
            means[at : at + count] = drawn.astype(np.float64) @ groups / m
        else:
            users = rng.integers(0, m, size=(count, m), dtype=np.int32)
            places = (users + np.arange(count)[:, None] * m).reshape(-1)
            times = np.bincount(places, minlength=count * m).reshape(count, m)
            means[at : at + count] = times.astype(np.float64) @ values / m
    return means


def interval_of(mean: float, means: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the percentile interval of resampled means around the mean observed."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def bootstrap(
    values: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean of one value a user with its bootstrap interval.

    Examples
    --------
    >>> hits = np.array([1.0] * 50 + [0.0] * 50)
    >>> bootstrap(hits).contains(0.5), bootstrap(hits).contains(0.7)
    (True, False)
    """
    means = resampled_means(values[:, None], resamples, seed)[:, 0]
    return interval_of(float(values.mean()), means, level)


def paired_bootstrap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``first - second`` with its interval, user by user."""
    if len(first) != len(second):
        raise InputError(f"paired test: {len(first)} cases against {len(second)}")
    return bootstrap(first - second, level, resamples, seed)


def mcnemar(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the exact two-sided p-value that two runs hit equally often (McNemar, 1947).

    Only users whom one run hits and the other misses speak; if the runs are equal, each is as
    likely to go one way as the other.

    Examples
    --------
    >>> a, b = np.array([1, 1, 1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 0, 0, 0])
    >>> mcnemar(a, b)
    0.03125
    """
    if len(first) != len(second):
        raise InputError(f"paired test: {len(first)} cases against {len(second)}")
    won, lost = int((first > second).sum()), int((first < second).sum())
    if won + lost == 0:
        return 1.0
    return float(binomtest(won, won + lost, 0.5).pvalue)


def sign_flips(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of a paired permutation test that two means are equal.

    If the runs are equal, each user's difference is as likely to have the other sign; the value
    is the share of such flips with a mean difference at least as large (the observed one counts
    as one of them, so it is never 0).
    """
    if len(first) != len(second):
        raise InputError(f"paired test: {len(first)} cases against {len(second)}")
    differences = first - second
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if len(sizes) == 0:
        return 1.0
    observed = abs(float(differences.sum()))
    rng = np.random.default_rng(seed)
    at_least, at_once = 0, max(1, (1 << 22) // len(sizes))
    for at in range(0, resamples, at_once):
        shape = (min(at_once, resamples - at), len(sizes))
        flipped = 2 * rng.binomial(counts, 0.5, size=shape) - counts
        at_least += int((np.abs(flipped @ sizes) >= observed * (1 - 1e-12)).sum())
    return (at_least + 1) / (resamples + 1)
