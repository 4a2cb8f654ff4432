"""The simulated shop: its law is what it says, and its ceiling is one."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest

import nextup
from nextup.data.sequences import Sequences
from nextup.data.shop import GOES_WITH, Shop
from nextup.data.simulate import simulate
from nextup.errors import ConfigError
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks, rank_cases
from nextup.models.registry import make_model


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate(n_users=1500, n_items=120, seed=4)


def by_enumeration(shop: Shop, history: list[int]) -> np.ndarray:
    """Sum over every path of intents, the slow and obvious way."""
    partner = np.zeros((shop.n_items + 1, shop.n_items + 1))
    for item in range(1, shop.n_items + 1):
        for other, weight in zip(shop.goes_with[item], GOES_WITH, strict=True):
            partner[item, other] += weight

    def chances(intent: int, before: list[int]) -> np.ndarray:
        f = shop.taste[intent]
        if before:
            f = (1 - shop.follow) * f + shop.follow * partner[before[-1]]
        if not shop.repeats:
            f = f.copy()
            f[before] = 0.0
        return f / f.sum()

    total = np.zeros(shop.n_items + 1)
    for path in itertools.product(range(len(shop.start)), repeat=len(history) + 1):
        weight = shop.start[path[0]]
        for step, item in enumerate(history):
            weight *= chances(path[step], history[:step])[item]
            weight *= shop.drift[path[step], path[step + 1]]
        total += weight * chances(path[-1], history)
    return total / total.sum()


@pytest.mark.parametrize("repeats", [False, True])
def test_best_scores_equal_the_sum_over_all_paths(repeats: bool) -> None:
    shop = simulate(n_users=5, n_items=20, seed=2, repeats=repeats, stickiness=0.6, follow=0.4)
    first = [int(item) for item in shop.dataset.sequences[0][:2]]
    goes_with = int(shop.goes_with[first[0], 0])
    for history in ([], [3], [first[0], goes_with], first):
        np.testing.assert_allclose(
            shop.best_scores([history])[0], by_enumeration(shop, history), atol=1e-12
        )


@pytest.mark.parametrize("repeats", [False, True])
def test_predictions_are_distributions(repeats: bool) -> None:
    shop = simulate(n_users=700, n_items=60, seed=1, repeats=repeats)
    scores = shop.best_scores(shop.dataset.sequences)
    assert scores.shape == (700, 61)
    assert (scores >= 0).all() and (scores[:, 0] == 0).all()
    np.testing.assert_allclose(scores.sum(1), 1.0, atol=1e-12)
    bought = [np.isin(np.arange(61), history) for history in shop.dataset.sequences]
    if not repeats:
        assert (scores[np.stack(bought)] == 0).all()


def test_histories_are_answered_alike_alone_and_together(shop: Shop) -> None:
    histories = [[5, 9, 2], [], [7], [1, 2, 3, 4, 5, 6]]
    together = shop.best_scores(histories)
    alone = np.concatenate([shop.best_scores([history]) for history in histories])
    np.testing.assert_allclose(together, alone, atol=1e-14)
    assert shop.best_scores([]).shape == (0, 121)


def test_same_seed_same_shop() -> None:
    one, same, other = (simulate(n_users=40, n_items=30, seed=seed) for seed in (7, 7, 8))
    assert (one.dataset.sequences.items == same.dataset.sequences.items).all()
    assert (one.taste == same.taste).all() and list(one.log()) == list(same.log())
    assert list(one.log()) != list(other.log())


def test_people_buy_once_by_default_and_again_if_asked() -> None:
    for repeats in (False, True):
        shop = simulate(n_users=200, n_items=25, seed=3, repeats=repeats)
        bought = [len(history) == len(set(history.tolist())) for history in shop.dataset.sequences]
        assert all(bought) is not repeats


def test_items_are_titled_and_told_apart(shop: Shop) -> None:
    catalog = shop.dataset.catalog
    assert catalog.titles is not None and len(set(catalog.titles)) == len(catalog)
    assert len(set(catalog.ids)) == len(catalog)
    large = simulate(n_users=1, n_items=3000, seed=0).dataset.catalog
    assert large.titles is not None and len(set(large.titles)) == 3000


def test_the_ceiling_is_what_the_oracle_reaches_on_average(shop: Shop) -> None:
    split = shop.dataset.split()
    expected = shop.ceiling(split.test, cutoffs=(10,))
    ranks = rank_cases(shop.oracle(), split.test, Protocol()).ranks
    hits = ranks < 10
    gains = np.where(hits, 1 / np.log2(ranks + 2), 0.0)
    for name, values in (("HR@10", hits), ("NDCG@10", gains)):
        noise = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - expected[name]) < 3 * noise, name


def test_nothing_seen_can_be_found_when_repeats_are_excluded() -> None:
    shop = simulate(n_users=300, n_items=30, seed=5, repeats=True)
    cases = shop.dataset.split().test
    excluded, included = (shop.ceiling(cases, seen) for seen in ("excluded", "included"))
    assert excluded["HR@10"] < included["HR@10"]


def hit_rate(ranks: CaseRanks) -> float:
    return float((ranks.ranks < 10).mean())


def test_the_oracle_beats_what_only_counts(shop: Shop) -> None:
    split = shop.dataset.split()
    found = {"oracle": hit_rate(rank_cases(shop.oracle(), split.test, Protocol()))}
    for name in ("pop", "mc1"):
        model = make_model(name, shop.n_items)
        model.count(split.train)
        found[name] = hit_rate(rank_cases(model, split.test, Protocol()))
    assert found["oracle"] > found["mc1"] > found["pop"]


def test_history_matters_beyond_the_last_item(shop: Shop) -> None:
    test = shop.dataset.split().test
    last = Sequences(test.histories.items, test.histories.ends - 1, test.histories.ends)
    target = np.arange(len(test)), test.targets
    whole, short = shop.best_scores(test.histories)[target], shop.best_scores(last)[target]
    assert np.log(whole).mean() > np.log(np.maximum(short, 1e-12)).mean() + 0.05


def test_written_files_read_back_as_the_same_shop(tmp_path) -> None:
    shop = simulate(n_users=30, n_items=30, seed=6)
    log, titles = shop.write(tmp_path)
    with log.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == shop.dataset.n_interactions
    assert [int(row["time"]) for row in rows] == sorted(int(row["time"]) for row in rows)
    data = nextup.read(log, items=titles, item_id="item", title="title")
    assert data.n_interactions == shop.dataset.n_interactions
    user = str(shop.dataset.users[0])
    own = [shop.dataset.catalog.raw_of(int(item)) for item in shop.dataset.sequences[0]]
    row = list(data.users).index(user)
    assert [data.catalog.raw_of(int(item)) for item in data.sequences[row]] == own


@pytest.mark.parametrize(
    "wrong", [{"n_items": 3}, {"n_users": 0}, {"follow": 1.5}, {"stickiness": -1}]
)
def test_impossible_shops_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="simulate"):
        simulate(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**63, "three", True])
def test_a_seed_that_is_none_is_one_line(seed: object) -> None:
    with pytest.raises(ConfigError, match=r"seed: .* (is out of range|is no whole number)"):
        simulate(20, 20, seed=seed)  # type: ignore[arg-type]
