"""Sampled candidates: who is drawn, and what the draw leads one to expect."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare
from scorers import Table

from nextup.data.sequences import Sequences
from nextup.data.split import leave_one_out
from nextup.errors import InputError
from nextup.evaluation.metrics import expected_gains, gains, metrics
from nextup.evaluation.negatives import draw_negatives, draw_popular
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks, rank_cases


def whole_of(m: int, n_items: int, length: int, seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    first = np.arange(1, m + 1)
    rest = np.stack(
        [
            rng.choice(np.setdiff1d(np.arange(1, n_items + 1), [u]), length - 1, replace=False)
            for u in first
        ]
    )
    return Sequences.from_lists(np.concatenate([first[:, None], rest], axis=1).tolist())


def test_negatives_are_distinct_items_the_user_never_met() -> None:
    whole = whole_of(60, 120, 15)
    drawn = draw_negatives(whole, np.arange(60), 120, 99, seed=0)
    for user, row in enumerate(drawn):
        assert len(set(row)) == 99
        assert row.min() >= 1 and row.max() <= 120
        assert not set(row) & set(whole[user].tolist())


def test_all_items_left_can_be_drawn_and_no_more() -> None:
    whole = Sequences.from_lists([[1, 3, 3]])
    assert sorted(draw_negatives(whole, np.array([0]), 6, 4, seed=5)[0]) == [2, 4, 5, 6]
    with pytest.raises(InputError, match="only 4 of 6 items"):
        draw_negatives(whole, np.array([0]), 6, 5, seed=5)


def test_negatives_depend_on_seed_and_user_alone() -> None:
    whole = whole_of(50, 200, 8)
    everyone = draw_negatives(whole, np.arange(50), 200, 20, seed=3)
    some = np.array([7, 3, 7, 41])
    assert (draw_negatives(whole, some, 200, 20, seed=3) == everyone[some]).all()
    assert (draw_negatives(whole, np.arange(50), 200, 20, seed=4) != everyone).mean() > 0.8
    twin = Sequences.from_lists([[1, 2], [1, 2]])
    two = draw_negatives(twin, np.arange(2), 500, 20, seed=3)
    assert (two[0] != two[1]).mean() > 0.8


def test_every_item_left_is_equally_likely() -> None:
    whole = Sequences.from_lists([[2, 5, 9]] * 20_000)
    drawn = draw_negatives(whole, np.arange(20_000), 15, 5, seed=11)
    counts = np.bincount(drawn.reshape(-1), minlength=16)[1:]
    left = np.setdiff1d(np.arange(1, 16), [2, 5, 9])
    assert counts.sum() == counts[left - 1].sum()
    assert chisquare(counts[left - 1]).pvalue > 1e-4
    pairs = (drawn == 1).any(axis=1) & (drawn == 15).any(axis=1)
    assert abs(pairs.mean() - (5 * 4) / (12 * 11)) < 4 * np.sqrt(0.1515 * 0.8485 / 20_000)


def test_popular_negatives_are_distinct_items_the_user_never_met() -> None:
    whole = whole_of(60, 120, 15)
    drawn = draw_popular(whole, np.arange(60), 120, 90, seed=0)
    for user, row in enumerate(drawn):
        assert len(set(row)) == 90
        assert row.min() >= 1 and row.max() <= 120
        assert not set(row) & set(whole[user].tolist())
    some = np.array([7, 3, 7, 41])
    assert (draw_popular(whole, some, 120, 90, seed=0) == drawn[some]).all()
    assert (draw_popular(whole, np.arange(60), 120, 90, seed=1) != drawn).mean() > 0.8


@pytest.mark.parametrize("owned", [[6], [1, 6]])
def test_popular_negatives_are_drawn_one_after_the_other_by_popularity(owned: list[int]) -> None:
    """Items 1 to 4 are met 600, 300, 90 and 10 times; 5 by nobody; 6 by everybody.

    Most draws hit what the users have, so that for some of them the clocks have to decide.
    """
    m, weights = 10_000, {1: 600, 2: 300, 3: 90, 4: 10}
    rows = [owned] * m + [[item] * count for item, count in weights.items()]
    whole = Sequences.from_lists(rows)
    if 1 in owned:
        weights.pop(1)
    drawn = draw_popular(whole, np.arange(m), 6, 2, seed=1)
    total, expected, found = sum(weights.values()), [], []
    for a, b in itertools.permutations(weights, 2):
        expected.append(m * weights[a] / total * weights[b] / (total - weights[a]))
        found.append(int(((drawn[:, 0] == a) & (drawn[:, 1] == b)).sum()))
    assert sum(found) == m
    assert chisquare(found, expected).pvalue > 1e-4
    with pytest.raises(InputError, match="items that anybody met"):
        draw_popular(whole, np.arange(m), 6, len(weights) + 1, seed=1)


def test_ranks_among_popular_items_are_counted_and_expect_nothing() -> None:
    rng = np.random.default_rng(4)
    whole = whole_of(40, 60, 9)
    split = leave_one_out(whole)
    table = rng.standard_normal((40, 61))
    protocol = Protocol(candidates="popular", n_negatives=10, cutoffs=(5,))
    ranks = rank_cases(Table(table), split.test, protocol, whole=whole)
    drawn = draw_popular(whole, split.test.users, 60, 10, seed=0)
    own = table[split.test.users, split.test.targets]
    above = (table[split.test.users[:, None], drawn] > own[:, None]).sum(axis=1)
    assert (ranks.ranks == above).all()
    assert not any(name.startswith("expected") for name in metrics(ranks))
    with pytest.raises(InputError, match="sampled by popularity"):
        expected_gains(ranks, "HR", [5])
    assert "popularity" in ranks.protocol.describe()


@pytest.mark.parametrize("ties", ["mean", "low_id", "pessimistic"])
@pytest.mark.parametrize("levels", [8, 1000])
def test_the_expectation_is_the_mean_over_many_draws(ties: str, levels: int) -> None:
    m, n_items, n = 30, 80, 12
    rng = np.random.default_rng(2)
    table = rng.integers(0, levels, size=(m, n_items + 1)).astype(np.float64)
    whole = whole_of(m, n_items, 6)
    split = leave_one_out(whole)
    draws: dict[str, list[float]] = {}
    for seed in range(150):
        protocol = Protocol(
            candidates="sampled", n_negatives=n, seed=seed, ties=ties, cutoffs=(1, 5)
        )
        ranks = rank_cases(Table(table), split.test, protocol, whole=whole)
        for name, value in metrics(ranks).items():
            draws.setdefault(name, []).append(value)
    for name in ("HR@1", "HR@5", "NDCG@5", "MRR@5"):
        expected = draws[f"expected {name}"]
        assert len(set(expected)) == 1
        error = np.std(draws[name]) / np.sqrt(len(draws[name]))
        assert abs(np.mean(draws[name]) - expected[0]) < 4 * error + 1e-12


def test_the_expectation_with_ties_is_that_of_every_draw() -> None:
    """2 items above and 4 level in a pool of 10, of which 4 are drawn: all 210 draws."""
    protocol = Protocol(candidates="sampled", n_negatives=4, cutoffs=(1, 2, 3))
    one = np.array([1])
    ranks = CaseRanks(one, one * 1.0, protocol, one, np.array([4.0]), one * 10, one * 4)
    worth = {kind: dict.fromkeys((1, 2, 3), 0.0) for kind in ("HR", "NDCG", "MRR")}
    draws = list(itertools.combinations([1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0], 4))
    for draw in draws:
        for kind, table in worth.items():
            for k in table:
                table[k] += gains(kind, np.array([sum(draw)]), k)[0] / len(draws)
    for kind, table in worth.items():
        for k, value in expected_gains(ranks, kind, (1, 2, 3)).items():
            assert float(value[0]) == pytest.approx(table[k], abs=1e-12)
    assert worth["HR"][2] == pytest.approx(0.5952, abs=1e-4)


def test_drawing_everything_is_certain() -> None:
    m, n_items = 10, 40
    table = np.random.default_rng(3).normal(size=(m, n_items + 1))
    whole = whole_of(m, n_items, 6)
    split = leave_one_out(whole)
    protocol = Protocol(candidates="sampled", n_negatives=n_items - 6, cutoffs=(1, 5, 20))
    ranks = rank_cases(Table(table), split.test, protocol, whole=whole)
    assert (ranks.ranks == ranks.above).all()
    for kind in ("HR", "NDCG", "MRR"):
        for k, value in expected_gains(ranks, kind, (1, 5, 20)).items():
            np.testing.assert_allclose(value, gains(kind, ranks.ranks, k), atol=1e-9)


def test_sampled_ranks_never_beat_full_ones_from_above() -> None:
    m, n_items = 80, 300
    table = np.random.default_rng(4).integers(0, 50, size=(m, n_items + 1)).astype(np.float64)
    whole = whole_of(m, n_items, 9)
    split = leave_one_out(whole)
    for cases in (split.valid, split.test):
        for ties in ("mean", "low_id", "pessimistic"):
            full = rank_cases(Table(table), cases, Protocol(ties=ties))
            protocol = Protocol(candidates="sampled", ties=ties)
            sampled = rank_cases(Table(table), cases, protocol, whole=whole)
            assert (sampled.ranks <= full.ranks).all()
            assert (gains("HR", sampled.ranks, 10) >= gains("HR", full.ranks, 10)).all()


def test_random_scores_are_found_k_times_in_a_hundred() -> None:
    m, n_items = 1500, 1600
    rng = np.random.default_rng(5)
    table = np.repeat(rng.random((1, n_items + 1)), m, axis=0)  # the target is what is random
    whole = whole_of(m, n_items, 4)
    split = leave_one_out(whole)
    ranks = rank_cases(
        Table(table), split.test, Protocol(candidates="sampled"), whole=whole, batch_size=64
    )
    assert abs(metrics(ranks)["HR@10"] - 0.1) < 4 * np.sqrt(0.09 / m)
    assert abs(metrics(ranks)["expected HR@10"] - 0.1) < 4 * np.sqrt(0.09 / m)


def test_sampled_candidates_need_the_whole_histories() -> None:
    split = leave_one_out(whole_of(5, 20, 4))
    with pytest.raises(InputError, match="pass `whole`"):
        rank_cases(Table(np.zeros((5, 21))), split.test, Protocol(candidates="sampled"))


def test_a_target_met_before_is_lost_in_sampled_ranks_too() -> None:
    whole = Sequences.from_lists([[1, 2, 3, 2]])
    split = leave_one_out(whole)
    protocol = Protocol(candidates="sampled", n_negatives=3, cutoffs=(5,))
    ranks = rank_cases(Table(np.zeros((1, 9))), split.test, protocol, whole=whole)
    assert ranks.ranks.tolist() == [np.inf]
    assert metrics(ranks)["expected HR@5"] == 0.0
