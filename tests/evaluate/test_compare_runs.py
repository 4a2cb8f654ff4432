"""Intervals and tests on differences that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from nextup.errors import ConfigError, InputError
from nextup.evaluation.compare import compare
from nextup.evaluation.metrics import metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks
from nextup.evaluation.significance import (
    bootstrap,
    mcnemar,
    paired_bootstrap,
    resampled_means,
    sign_flips,
)


def ranks_of(values: np.ndarray, **protocol: object) -> CaseRanks:
    return CaseRanks(np.arange(len(values)), values.astype(np.float64), Protocol(**protocol))


def test_both_ways_of_resampling_have_the_right_spread() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.integers(0, 3, 2000).astype(float), rng.normal(size=2000)):
        means = resampled_means(values[:, None], 4000, seed=1)[:, 0]
        assert means.mean() == pytest.approx(values.mean(), abs=4 * values.std() / 2000)
        assert means.std() == pytest.approx(values.std() / np.sqrt(2000), rel=0.05)


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = [
        bootstrap((rng.random(300) < 0.2).astype(float), resamples=500, seed=s).contains(0.2)
        for s in range(300)
    ]
    assert 0.90 <= np.mean(covered) <= 0.985


def test_pairs_share_their_resamples() -> None:
    rng = np.random.default_rng(2)
    a = rng.random(1000).round(2)
    same = paired_bootstrap(a, a - 0.25)
    assert same.low == pytest.approx(0.25) and same.high == pytest.approx(0.25)
    columns = resampled_means(np.stack([a, a - 0.25], axis=1), 50)
    np.testing.assert_allclose(columns[:, 0] - columns[:, 1], 0.25)


def test_a_known_difference_is_found_and_none_is_not_invented() -> None:
    rng = np.random.default_rng(3)
    worse = rng.integers(0, 40, 5000)
    better = np.where(rng.random(5000) < 0.1, worse // 2, worse)
    by_name = {"worse": ranks_of(worse), "better": ranks_of(better), "twin": ranks_of(worse)}
    found = compare(by_name, baseline="worse", metrics=["HR@10", "NDCG@10"])
    rows = {(row.run, row.metric): row for row in found.rows}
    for metric in ("HR@10", "NDCG@10"):
        row, twin = rows["better", metric], rows["twin", metric]
        assert row.difference.low > 0 and row.p_value < 0.001
        assert (twin.difference.low, twin.difference.high, twin.p_value) == (0, 0, 1)
        assert rows["worse", metric].difference is None
    assert rows["better", "HR@10"].test == "McNemar"


def test_p_values_are_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(4)
    ps = []
    for seed in range(200):
        values = rng.random((2, 60)).round(1)
        ps.append(sign_flips(values[0], values[1], resamples=400, seed=seed))
    assert abs(np.mean(ps) - 0.5) < 0.1
    assert 0.01 < np.mean(np.array(ps) < 0.1) < 0.19


def test_sign_flips_equal_enumeration() -> None:
    first = np.array([3.0, 1.0, 2.5, 4.0, 0.5, 2.0])
    second = np.array([1.0, 1.5, 1.0, 1.0, 0.0, 2.0])
    d = first - second
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    exact = np.mean(np.abs(d @ signs) >= abs(d.sum()) - 1e-12)
    assert sign_flips(first, second, resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    first, second = (
        np.array([1] * 30 + [0] * 12 + [1] * 50),
        np.array([0] * 30 + [1] * 12 + [1] * 50),
    )
    assert mcnemar(first, second) == pytest.approx(binomtest(12, 42).pvalue)
    assert mcnemar(first, first) == 1.0


def test_runs_that_cannot_be_compared_are_refused() -> None:
    a = ranks_of(np.arange(5))
    with pytest.raises(InputError, match="one protocol"):
        compare({"a": a, "b": ranks_of(np.arange(5), ties="low_id")})
    with pytest.raises(InputError, match="different cases"):
        compare({"a": a, "b": ranks_of(np.arange(4))})
    moved = CaseRanks(a.users, a.ranks, a.protocol, targets=np.arange(5))
    other = CaseRanks(a.users, a.ranks, a.protocol, targets=np.arange(5) + 1)
    with pytest.raises(InputError, match="different cases"):
        compare({"a": moved, "b": other})
    with pytest.raises(ConfigError, match="did you mean `run-a`"):
        compare({"run-a": a}, baseline="run-b")
    with pytest.raises(InputError, match="no runs"):
        compare({})
    assert compare({"a": a, "b": ranks_of(np.arange(5), cutoffs=(3,))})


def test_order_of_users_does_not_matter_and_their_cases_stay_together() -> None:
    users, targets = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 3, 4, 5, 6])
    ranks = np.array([0, 30, 2, 30, 4, 30.0])
    a = CaseRanks(users, ranks, Protocol(), targets)
    turned = CaseRanks(users[::-1], ranks[::-1], Protocol(), targets[::-1])
    found = compare({"a": a, "turned": turned}, metrics=["HR@10"], resamples=200)
    assert found.rows[1].difference.high == 0 == found.rows[1].difference.low
    # Each user has one hit of two: over users there is nothing to resample.
    assert (found.rows[0].value.low, found.rows[0].value.high) == (0.5, 0.5)


def test_the_table_is_plain_text() -> None:
    found = compare({"a": ranks_of(np.arange(50)), "b": ranks_of(np.arange(50) // 2)})
    table = found.table()
    assert table[0][:3] == ["run", "metric", "value"]
    assert len({len(row) for row in table}) == 1
    assert all(isinstance(cell, str) for row in table for cell in row)
    assert "full ranking" in found.describe() and "against a" in found.describe()


def test_a_user_s_mean_of_several_cases_is_no_hit_or_miss() -> None:
    users = np.repeat(np.arange(3), 2)
    runs = {
        name: CaseRanks(users, np.array(ranks, dtype=np.float64), Protocol())
        for name, ranks in {"a": [0, 0, 99, 99, 99, 99], "b": [99, 99, 0, 99, 0, 99]}.items()
    }
    (_, row) = compare(runs, metrics=["HR@10"]).rows
    assert row.test == "sign flips" and row.p_value == 1.0, "two halves are as much as one whole"


def test_expectations_over_all_draws_are_compared_too() -> None:
    rng = np.random.default_rng(8)
    protocol = Protocol(candidates="sampled")

    def run(shift: int) -> CaseRanks:
        above = rng.integers(0, 900, 400) + shift
        zeros = np.zeros(400, dtype=np.int64)
        return CaseRanks(
            np.arange(400), np.floor(above / 10), protocol,
            above=above, pool=np.full(400, 1000), level=zeros,
        )  # fmt: skip

    runs = {"one": run(0), "other": run(60)}
    found = compare(runs, metrics=["expected HR@5", "expected NDCG@5"])
    for row in found.rows:
        assert row.value.mean == pytest.approx(metrics(runs[row.run])[row.metric])
    assert [row.test for row in found.rows if row.run == "other"] == ["sign flips"] * 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"resamples": 0}, "0 resamples"), ({"seed": -1}, "seed: -1"), ({"level": 1.0}, "level")],
)
def test_what_cannot_be_drawn_is_said(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compare({"one": ranks_of(np.arange(9))}, **wrong)
