"""Cheap dropout is dropout: exact rates, the right scale, the right gradient."""

from __future__ import annotations

import pytest
import torch

from nextup.errors import ConfigError
from nextup.nn.noise import Dropout, dropout, keep_mask

RATES = [0.5, 0.25, 0.2, 0.1, 0.3, 0.75, 0.999, 1 / 256, 0.001]
N = 400_000


@pytest.mark.parametrize("rate", RATES)
def test_entries_are_dropped_at_exactly_the_rate_asked_for(rate: float) -> None:
    torch.manual_seed(1)
    keep, scale = keep_mask(torch.Size([N]), rate, torch.device("cpu"))
    dropped = 1.0 - keep.double().mean().item()
    # What is drawn differs from the rate by at most half of 2^-16.
    assert abs(dropped - rate) < 4 * (rate * (1 - rate) / N) ** 0.5 + 2**-17
    assert abs(scale * (1 - rate) - 1) < 2**-17 / (1 - rate)


@pytest.mark.parametrize("rate", RATES)
def test_the_mean_is_preserved(rate: float) -> None:
    torch.manual_seed(2)
    mean = dropout(torch.ones(N, dtype=torch.float64), rate).mean().item()
    assert abs(mean - 1.0) < 4 * (rate / (1 - rate) / N) ** 0.5


def test_no_part_of_a_random_word_is_biased_or_tied_to_another() -> None:
    for rate, per_word in ((0.5, 8), (0.3, 4)):
        torch.manual_seed(3)
        keep, _ = keep_mask(torch.Size([N // per_word, per_word]), rate, torch.device("cpu"))
        dropped = 1.0 - keep.double()
        rows = len(dropped)
        assert ((dropped.mean(dim=0) - rate).abs() < 4.5 * (rate * (1 - rate) / rows) ** 0.5).all()
        correlation = torch.corrcoef(dropped.T) - torch.eye(per_word)
        assert correlation.abs().max() < 4.5 / rows**0.5


def test_the_gradient_is_the_mask() -> None:
    for rate in (0.5, 0.2):
        x = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
        y = dropout(x, rate)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient * x, y)
        assert set((gradient != 0).unique().tolist()) == {True, False}
        assert len(gradient.unique()) == 2


def test_dropout_does_nothing_when_answering_or_at_rate_zero() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    layer = Dropout(0.5).eval()
    assert layer(x) is x
    assert not torch.equal(Dropout(0.5)(torch.ones(64)), torch.ones(64))


def test_the_same_seed_draws_the_same_mask_and_each_call_another() -> None:
    def two() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(4)
        return dropout(torch.ones(100), 0.5), dropout(torch.ones(100), 0.5)

    first, again = two(), two()
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0, 4), (3, 5, 7)])
def test_any_shape_can_be_dropped(shape: tuple[int, ...]) -> None:
    for rate in (0.5, 0.3):
        assert dropout(torch.ones(shape), rate).shape == shape


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="must lie in"):
        Dropout(rate)


def test_a_rate_just_below_one_still_works() -> None:
    assert torch.isfinite(dropout(torch.ones(1000), 1 - 1e-7)).all()
