"""Negatives: never met, drawn as promised, with the log-probabilities that go with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nextup.data.negatives import PopularityNegatives, UniformNegatives
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError, InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def histories(n_items: int, users: int = 20) -> Sequences:
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.integers(1, n_items + 1, 12) for _ in range(users)])


def test_a_negative_was_never_met_by_its_user() -> None:
    seen = histories(25)
    sampler = UniformNegatives(25, 6, seen)
    users = torch.arange(20).repeat(50)
    drawn = sampler.draw(users, torch.ones(1000, dtype=torch.int64), generator()).items
    assert drawn.shape == (1000, 6)
    assert drawn.min() >= 1 and drawn.max() <= 25
    for user, items in zip(users.tolist(), drawn, strict=True):
        assert not set(items.tolist()) & set(seen[user].tolist())


def test_all_items_not_met_are_equally_likely() -> None:
    seen = Sequences.from_lists([[2, 5, 5, 9]])
    sampler = UniformNegatives(20, 3, seen)
    drawn = sampler.draw(torch.zeros(20_000, dtype=torch.int64), torch.ones(20_000), generator())
    counts = torch.bincount(drawn.items.reshape(-1), minlength=21).numpy()
    allowed = [n for n in range(1, 21) if n not in (2, 5, 9)]
    assert counts[allowed].sum() == 60_000
    assert chisquare(counts[allowed]).pvalue > 1e-4


def test_without_histories_every_item_is_equally_likely() -> None:
    drawn = UniformNegatives(10, 5).draw(torch.zeros(8000), torch.ones(8000), generator()).items
    counts = torch.bincount(drawn.reshape(-1), minlength=11).numpy()
    assert counts[0] == 0 and chisquare(counts[1:]).pvalue > 1e-4


def test_a_user_who_met_all_but_one_item_always_gets_that_one() -> None:
    seen = Sequences.from_lists([[n for n in range(1, 201) if n != 77], [1]])
    drawn = UniformNegatives(200, 4, seen).draw(
        torch.zeros(50, dtype=torch.int64), torch.ones(50), generator()
    )
    assert (drawn.items == 77).all()


def test_a_user_who_met_everything_is_an_error_that_names_them() -> None:
    with pytest.raises(InputError, match="user number 1 has met all 3 items"):
        UniformNegatives(3, 1, Sequences.from_lists([[1, 2], [3, 1, 2, 2]]))


def test_repeats_in_a_history_do_not_count_twice() -> None:
    UniformNegatives(3, 1, Sequences.from_lists([[1, 1, 1, 2]]))


def test_the_same_generator_draws_the_same() -> None:
    sampler = UniformNegatives(25, 6, histories(25))
    users, targets = torch.arange(20), torch.ones(20)
    one, other, third = (sampler.draw(users, targets, generator(s)).items for s in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)


COUNTS = np.array([1, 0, 4, 100, 25, 9, 49, 2])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_popular_items_are_drawn_by_their_count_to_a_power(power: float) -> None:
    sampler = PopularityNegatives(COUNTS, 50_000, power)
    drawn = sampler.draw(torch.zeros(3), torch.tensor([1, 2, 3]), generator())
    assert drawn.items.shape == (50_000,)
    counts = torch.bincount(drawn.items, minlength=9).numpy()[1:]
    share = COUNTS.astype(float) ** power if power else np.ones(8)
    allowed = share > 0
    assert counts[~allowed].sum() == 0
    expected = share[allowed] / share.sum() * 50_000
    assert chisquare(counts[allowed], expected).pvalue > 1e-4


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("in_batch", [False, True])
def test_log_q_is_the_log_of_how_often_an_item_is_expected(power: float, in_batch: bool) -> None:
    n, targets = 20, torch.tensor([4, 5, 7, 4])
    sampler = PopularityNegatives(COUNTS, n, power, in_batch)
    drawn = sampler.draw(torch.zeros(4), targets, generator())
    assert drawn.log_q is not None and drawn.target_log_q is not None
    share = COUNTS.astype(float) ** power if power else np.ones(8)
    expected = n * share / share.sum()
    if in_batch:
        assert drawn.items[n:].tolist() == targets.tolist()
        expected = expected + 4 * COUNTS / COUNTS.sum()
    else:
        assert len(drawn.items) == n
    with np.errstate(divide="ignore"):
        log = np.log(expected)
    np.testing.assert_allclose(drawn.log_q, log[drawn.items.numpy() - 1], atol=1e-5)
    np.testing.assert_allclose(drawn.target_log_q, log[targets.numpy() - 1], atol=1e-5)


def test_in_batch_expectations_are_those_of_targets_drawn_by_occurrence() -> None:
    sampler = PopularityNegatives(COUNTS, 5, 0.5, in_batch=True)
    rng = np.random.default_rng(0)
    steps, m = 1500, 6
    counts = np.zeros(9)
    for step in range(steps):
        targets = torch.from_numpy(rng.choice(8, m, p=COUNTS / COUNTS.sum()) + 1)
        items = sampler.draw(torch.zeros(m), targets, generator(step)).items
        counts += np.bincount(items.numpy(), minlength=9)
    expected = sampler.log_q(torch.arange(1, 9), m).exp().numpy() * steps
    allowed = COUNTS > 0
    error = np.abs(counts[1:] - expected)[allowed]
    assert (error < 5 * np.sqrt(expected[allowed])).all()


@pytest.mark.parametrize("power", [-0.1, 1.5])
def test_a_power_out_of_range_is_refused(power: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        PopularityNegatives(COUNTS, 1, power)
