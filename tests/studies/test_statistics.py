"""Intervals over users and seeds, and paired tests, against the plainest computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nextup.errors import InputError
from nextup.evaluation.significance import mcnemar
from nextup.studies.statistics import flip_p_values, measure, resampled_means


def sparse(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values as metrics have them: mostly nothing."""
    return np.where(rng.random(shape) < 0.2, rng.random(shape), 0.0)


def test_resampling_equals_drawing_users_one_by_one() -> None:
    rng = np.random.default_rng(0)
    values = sparse(rng, 200, 2)
    fast = resampled_means(values, 20_000, seed=1)
    drawn = rng.integers(0, 200, (20_000, 200))
    slow = values[drawn].mean(axis=1)
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    for column in (0, 1):
        np.testing.assert_allclose(
            np.quantile(fast[:, column], quantiles),
            np.quantile(slow[:, column], quantiles),
            atol=0.002,
        )
    assert np.corrcoef(fast.T)[0, 1] == pytest.approx(np.corrcoef(slow.T)[0, 1], abs=0.03)


def test_nothing_but_zeros_stays_zero() -> None:
    assert not resampled_means(np.zeros((50, 3)), 10).any()
    assert flip_p_values([np.zeros(50)], 10) == [1.0]
    assert flip_p_values([], 10) == [] and measure({}) == {}


def test_flips_equal_the_enumeration_of_all() -> None:
    first = np.array([0.3, -0.1, 0.0, 0.25, 0.4, -0.05, 0.1])
    second = np.array([1.0, 1, 1, 0, 1, -1, 0])
    for differences, found in zip(
        (first, second), flip_p_values([first, second], 100_000), strict=True
    ):
        signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
        exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
        assert found == pytest.approx(exact, abs=0.006)


def test_for_hits_of_single_runs_flips_are_mcnemar() -> None:
    rng = np.random.default_rng(2)
    first, second = (rng.random((2, 300)) < [[0.30], [0.22]]).astype(float)
    (found,) = flip_p_values([first - second], 50_000)
    assert found == pytest.approx(mcnemar(first, second), abs=0.004)


def test_means_seeds_and_differences_by_hand() -> None:
    rng = np.random.default_rng(3)
    values = {
        "best": {"HR@10": sparse(rng, 3, 400), "NDCG@10": sparse(rng, 3, 400)},
        "ours": {"HR@10": sparse(rng, 2, 400) + 0.01, "NDCG@10": sparse(rng, 2, 400)},
        "once": {"HR@10": sparse(rng, 1, 400), "NDCG@10": sparse(rng, 1, 400)},
    }
    found = measure(values, "best", resamples=4000)
    for method, metric in itertools.product(values, ("HR@10", "NDCG@10")):
        measured, own = found[method, metric], values[method][metric]
        assert measured.value.mean == pytest.approx(own.mean())
        assert measured.seeds == len(own)
        if method == "once":
            assert measured.spread is None
        else:
            assert measured.spread == pytest.approx(own.mean(axis=1).std(ddof=1))
        if method == "best":
            assert measured.difference is None and measured.p_value is None
            continue
        apart = own.mean(axis=0) - values["best"][metric].mean(axis=0)
        assert measured.difference is not None and measured.p_value is not None
        assert measured.difference.mean == pytest.approx(apart.mean())
        assert measured.difference.low < apart.mean() < measured.difference.high
        (p,) = flip_p_values([apart], 4000)
        assert measured.p_value == pytest.approx(p, abs=0.03)


def test_an_interval_covers_users_and_seeds() -> None:
    """Its width is that of both sources of chance together, worked out separately."""
    rng = np.random.default_rng(4)
    users = rng.random(500)
    seeds = np.array([0.0, 0.05, 0.1, 0.02])
    own = users + seeds[:, None]
    other = np.tile(rng.random(500), (2, 1))  # two seeds that agree: users alone
    found = measure({"own": {"m": own}, "other": {"m": other}}, "other", resamples=40_000)

    def width(variance: float) -> float:
        return float(2 * 1.96 * np.sqrt(variance))

    over_users, over_seeds = users.var() / 500, seeds.var(ddof=1) / 4
    value = found["own", "m"].value
    assert value.high - value.low == pytest.approx(width(over_users + over_seeds), rel=0.05)
    value = found["other", "m"].value
    assert value.high - value.low == pytest.approx(width(other[0].var() / 500), rel=0.05)
    difference = found["own", "m"].difference
    paired = (users - other[0]).var() / 500
    assert difference is not None
    assert difference.high - difference.low == pytest.approx(width(paired + over_seeds), rel=0.05)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Users and seeds are drawn again from a law whose mean is known."""
    rng, held = np.random.default_rng(5), 0
    for trial in range(200):
        values = rng.random(150) + rng.normal(0, 0.03, 5)[:, None] + rng.normal(0, 0.1, (5, 150))
        held += measure({"a": {"m": values}}, resamples=400, seed=trial)["a", "m"].value.contains(
            0.5
        )
    assert 0.87 <= held / 200 <= 0.99


def test_pairing_uses_the_users() -> None:
    """A small difference on the same users is sure, on others it is not."""
    rng = np.random.default_rng(6)
    base = sparse(rng, 1, 2000)
    better = np.where(base > 0, base + 0.02, base)
    found = measure(
        {
            "base": {"m": base},
            "better": {"m": better},
            "mixed": {"m": rng.permuted(better, axis=1)},
        },
        "base",
        resamples=1000,
    )
    sure, unsure = (found[name, "m"].difference for name in ("better", "mixed"))
    assert sure is not None and unsure is not None
    assert sure.low > 0 and unsure.low < 0 < unsure.high
    assert sure.mean == pytest.approx(unsure.mean)


def test_what_is_compared_are_the_seeds_that_both_have() -> None:
    rng = np.random.default_rng(2)
    theirs = sparse(rng, 3, 100)
    theirs[2] += 0.5  # a lucky seed
    own = theirs[:1] + 0.1 * sparse(rng, 1, 100)
    values = {"own": {"m": own}, "reference": {"m": theirs}}
    seeds = {"own": [4], "reference": [4, 5, 6]}
    found = measure(values, "reference", resamples=4000, seeds=seeds)["own", "m"].difference
    once = {"own": {"m": own}, "reference": {"m": theirs[:1]}}
    alone = measure(once, "reference", resamples=4000)["own", "m"].difference
    assert found is not None and alone is not None
    assert found.mean == (own - theirs[0]).mean() == alone.mean
    assert found.low == pytest.approx(alone.low, rel=0.1)
    assert found.high == pytest.approx(alone.high, rel=0.1)
    strangers = measure(values, "reference", resamples=500, seeds={**seeds, "own": [9]})["own", "m"]
    assert strangers.difference is not None
    assert strangers.difference.mean == pytest.approx(own.mean() - theirs.mean())


def test_methods_of_other_users_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be paired"):
        measure({"a": {"m": np.zeros((1, 4))}, "b": {"m": np.zeros((1, 5))}})


def test_an_unknown_reference_compares_nothing() -> None:
    found = measure({"a": {"m": np.ones((1, 4))}}, "b", resamples=10)
    assert found["a", "m"].difference is None
