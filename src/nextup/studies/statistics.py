"""Means over seeds with their intervals, and paired differences, from one resampling of users.

All methods and metrics of a dataset meet the same resamples, which is what makes differences
paired. A method's seeds are drawn apart from any other's, since seed 0 of one has nothing to do
with seed 0 of another; an interval over seeds and users adds the two. Where one method has more
seeds than the other, those that both have are compared: models that share a seed may share more
(SSI's students their teachers), and a mean of three is not held against a single one. The p-values
are of paired sign flips over users (for hits of single runs that is McNemar's test) and hold the
trained models fixed, so with few seeds the interval is the more careful of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nextup.errors import InputError
from nextup.evaluation.significance import RESAMPLES, Interval, interval_of

Floats = NDArray[np.float64]

_DRAWN_AT_ONCE = 1 << 20
"""How many users or signs: arrays that stay in the cache are several times as fast."""


@dataclass(frozen=True)
class Measured:
    """One metric of one method.

    Parameters
    ----------
    value
        The mean over seeds and users, with its interval.
    seeds
        How many there are.
    spread
        The standard deviation of the seeds' means; None with one seed.
    difference, p_value
        Against the reference, None for itself.
    """

    value: Interval
    seeds: int
    spread: float | None
    difference: Interval | None = None
    p_value: float | None = None


def measure(
    values: Mapping[str, Mapping[str, Floats]],
    reference: str | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    seeds: Mapping[str, Sequence[int]] | None = None,
) -> dict[tuple[str, str], Measured]:
    """Measure methods on the same users.

    Parameters
    ----------
    values
        ``values[method][metric]: float64[s, u]``, a row a seed and a column a user.
    reference
        The method that the others are compared with.
    level, resamples, seed
        Of the intervals and tests.
    seeds
        Which seed each row of a method's values is; where that is not known, all are compared.

    Returns
    -------
    What was measured, by method and metric.

    Raises
    ------
    InputError
        If the methods differ in their number of users.
    """
    columns = [(method, metric) for method, found in values.items() for metric in found]
    if not columns:
        return {}
    users = {values[method][metric].shape[1] for method, metric in columns}
    if len(users) > 1:
        raise InputError(f"methods cannot be paired: they rank {sorted(users)} users")
    moved = {
        method: _seed_moves(found, resamples, seed + 1 + place)
        for place, (method, found) in enumerate(values.items())
    }
    pairs = _pairs(values, moved, reference, seeds, resamples, seed)
    means = [values[method][metric].mean(axis=0) for method, metric in columns]
    some = {column: pair.apart for column, pair in pairs.items() if not pair.of_all_seeds}
    drawn = resampled_means(np.stack([*means, *some.values()], axis=1), resamples, seed)
    place = {column: at for at, column in enumerate(columns)}
    place_of_some = {column: at for at, column in enumerate(some, len(columns))}
    flipped = flip_p_values([pair.apart for pair in pairs.values()], resamples, seed)
    p_values = dict(zip(pairs, flipped, strict=True))
    measured = {}
    for at, column in enumerate(columns):
        method, metric = column
        by_seed = values[method][metric].mean(axis=1)
        spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
        value = interval_of(float(by_seed.mean()), drawn[:, at] + moved[method][metric], level)
        measured[column] = Measured(value, len(by_seed), spread, None, p_values.get(column))
    for (method, metric), pair in pairs.items():
        if pair.of_all_seeds:
            means_apart = drawn[:, place[method, metric]] - drawn[:, place[str(reference), metric]]
        else:
            means_apart = drawn[:, place_of_some[method, metric]]
        difference = interval_of(float(pair.apart.mean()), means_apart + pair.moves, level)
        measured[method, metric] = replace(measured[method, metric], difference=difference)
    return measured


@dataclass(frozen=True)
class _Pair:
    apart: Floats
    """By how much a method is ahead of the reference, for each user."""
    moves: Floats
    """By how much drawing the seeds of both again moves its mean."""
    of_all_seeds: bool
    """Whether all seeds of both are compared: resamples of both then tell those of `apart`."""


def _pairs(
    values: Mapping[str, Mapping[str, Floats]],
    moved: Mapping[str, Mapping[str, Floats]],
    reference: str | None,
    seeds: Mapping[str, Sequence[int]] | None,
    resamples: int,
    seed: int,
) -> dict[tuple[str, str], _Pair]:
    """Return what is compared with the reference, over the seeds that both have."""
    pairs: dict[tuple[str, str], _Pair] = {}
    if reference is None or reference not in values:
        return pairs
    theirs = values[reference]
    for place, (method, found) in enumerate(values.items()):
        metrics = [metric for metric in found if metric in theirs]
        if method == reference or not metrics:
            continue
        own_rows, their_rows = _shared(method, reference, values, seeds)
        own = {metric: found[metric][own_rows] for metric in metrics}
        other = {metric: theirs[metric][their_rows] for metric in metrics}
        all_of_them = len(own_rows) == _rows(found) and len(their_rows) == _rows(theirs)
        own_moves = moved[method] if all_of_them else _seed_moves(own, resamples, seed + 1 + place)
        their_moves = moved[reference] if all_of_them else _seed_moves(other, resamples, seed)
        for metric in metrics:
            apart = own[metric].mean(axis=0) - other[metric].mean(axis=0)
            moves = own_moves[metric] - their_moves[metric]
            pairs[method, metric] = _Pair(apart, moves, all_of_them)
    return pairs


def _rows(found: Mapping[str, Floats]) -> int:
    return len(next(iter(found.values())))


def _shared(
    method: str,
    reference: str,
    values: Mapping[str, Mapping[str, Floats]],
    seeds: Mapping[str, Sequence[int]] | None,
) -> tuple[list[int], list[int]]:
    """Return which rows of a method and of the reference are of the same seeds; all if none are."""
    every = {name: list(range(_rows(values[name]))) for name in (method, reference)}
    if seeds is None or not set(seeds[method]) & set(seeds[reference]):
        return every[method], every[reference]
    own, theirs = list(seeds[method]), list(seeds[reference])
    both = [one for one in own if one in theirs]
    return [own.index(one) for one in both], [theirs.index(one) for one in both]


def resampled_means(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return ``float64[resamples, c]``: means of ``values[u, c]`` over users drawn again.

    Most users are hit by nobody: rows of zeros add nothing, so of them only the number is drawn.
    """
    n = len(values)
    spoken = values[values.any(axis=1)]
    rng = np.random.default_rng(seed)
    means = np.zeros((resamples, values.shape[1]))
    if len(spoken) == 0:
        return means
    counts = rng.binomial(n, len(spoken) / n, size=resamples)
    at_once = max(1, _DRAWN_AT_ONCE // len(spoken))
    for first in range(0, resamples, at_once):
        some = counts[first : first + at_once]
        rows = np.repeat(np.arange(len(some)), some)
        users = rng.integers(0, len(spoken), size=len(rows), dtype=np.int64)
        times = np.bincount(rows * len(spoken) + users, minlength=len(some) * len(spoken))
        weights = times.reshape(len(some), len(spoken)).astype(np.float64)
        means[first : first + len(some)] = weights @ spoken / n
    return means


def _seed_moves(found: Mapping[str, Floats], resamples: int, seed: int) -> dict[str, Floats]:
    """Return by how much drawing a method's seeds again moves the mean of each metric.

    Drawing n of n has (n - 1) / n of the variance that the mean of n seeds has; this is made up.
    """
    by_seed = np.stack([values.mean(axis=1) for values in found.values()], axis=1)
    n = len(by_seed)
    if n == 1:
        return {metric: np.zeros(resamples) for metric in found}
    chosen = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    moves = (by_seed[chosen].mean(axis=1) - by_seed.mean(axis=0)) * math.sqrt(n / (n - 1))
    return {metric: moves[:, at] for at, metric in enumerate(found)}


def flip_p_values(
    differences: Sequence[Floats], resamples: int = RESAMPLES, seed: int = 0
) -> list[float]:
    """Return the two-sided p-values of paired permutation tests, all with the same sign flips.

    If two methods are equal, each user's difference is as likely to have the other sign; the value
    is the share of flips with a mean at least as far from 0 (the observed one counts as one).
    """
    if not differences:
        return []
    matrix = np.stack(differences, axis=1)
    matrix = matrix[matrix.any(axis=1)]
    if len(matrix) == 0:
        return [1.0] * len(differences)
    observed = np.abs(matrix.sum(axis=0)) * (1 - 1e-9)
    rng = np.random.default_rng(seed)
    at_least = np.zeros(len(differences), dtype=np.int64)
    at_once = max(8, _DRAWN_AT_ONCE // len(matrix) // 8 * 8)  # whole bytes of signs
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        bits = np.frombuffer(rng.bytes(-(-count * len(matrix) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits)[: count * len(matrix)].reshape(count, len(matrix))
        flipped = 2 * (signs.astype(np.float64) @ matrix) - matrix.sum(axis=0)
        at_least += (np.abs(flipped) >= observed).sum(axis=0)
    return [float(value) for value in (at_least + 1) / (resamples + 1)]
