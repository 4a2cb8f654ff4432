"""Learnable dropout: estimators against enumeration, closed forms, limits, and what they learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nextup.errors import ConfigError
from nextup.nn import learnable_dropout
from nextup.nn.contrast import contrastive_losses, swap_differences
from nextup.nn.learnable_dropout import (
    LearnableDropout,
    answer_sample,
    antithetic,
    antithetic_masks,
    antithetic_weights,
    negative_entropy,
    random_state,
    replay,
)
from nextup.nn.noise import Dropout, twin_noise
from nextup.nn.packing import Packing

Loss = Callable[[Tensor], Tensor]
ANTITHETIC = pytest.mark.parametrize("estimator", ["arm", "disarm"])


def coupled(bits: int, seed: int = 0) -> Loss:
    """A loss of ``[S, bits]`` masks in which every bit interacts with every other."""
    torch.manual_seed(seed)
    mix, head = torch.randn(bits, 6).double(), torch.randn(6).double()
    return lambda z: torch.tanh(z.double() @ mix / 2) @ head + (z.double() @ mix[:, 0]).square() / 9


def all_masks(bits: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=bits))).double()


def exact_gradient(loss: Loss, logits: Tensor) -> Tensor:
    """The gradient of the expected loss, over all masks: ``sum_z p(z) f(z) (z - p)``."""
    z, p = all_masks(len(logits)), torch.sigmoid(logits)
    chance = torch.where(z > 0, p, 1 - p).prod(dim=1)
    return (chance * loss(z)) @ (z - p)


def regions(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of masks that one draw of noise can give: noise in the middle, spread, chance.

    Noise of a unit falls below ``min(p, 1-p)``, between, or above ``max(p, 1-p)``; nothing within
    a region changes the masks. Returns ``[3^N, N]`` middles and ``[3^N]`` chances.
    """
    p = torch.sigmoid(logits)
    low, high = torch.minimum(p, 1 - p), torch.maximum(p, 1 - p)
    edges = torch.stack([torch.zeros_like(p), low, high, torch.ones_like(p)])
    which = torch.tensor(list(itertools.product(range(3), repeat=len(logits))))
    unit = torch.arange(len(logits))
    below, above = edges[which, unit], edges[which + 1, unit]
    return (below + above) / 2, (above - below).prod(dim=1), above - below


@ANTITHETIC
@pytest.mark.parametrize("bits", [1, 3, 8, 12])
def test_the_mean_estimate_is_the_gradient_exactly(estimator: str, bits: int) -> None:
    """Over every region of the noise, which is every pair of masks (3^12 = 531,441 for 12)."""
    loss = coupled(bits)
    logits = torch.linspace(-1.5, 2.0, bits).double()
    noise, chance, _ = regions(logits)
    first, second = antithetic_masks(noise, logits)
    differences = loss(first.double()) - loss(second.double())
    # ARM is linear in the noise, so its mean over a region is its value in the middle.
    weights = antithetic_weights(noise, logits, estimator)  # type: ignore[arg-type]
    found = (chance * differences) @ weights
    torch.testing.assert_close(found, exact_gradient(loss, logits), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("bits", [1, 2, 6, 10])
def test_disarm_never_varies_more_than_arm(bits: int) -> None:
    loss, logits = coupled(bits, seed=bits), torch.linspace(-1.0, 1.5, bits).double()
    noise, chance, wide = regions(logits)
    first, second = antithetic_masks(noise, logits)
    squares = (loss(first.double()) - loss(second.double())).square() * chance
    disarm = squares @ antithetic_weights(noise, logits, "disarm").square()
    # Within a region the noise is uniform: its mean square is middle^2 + width^2 / 12.
    arm = squares @ ((noise - 0.5).square() + wide.square() / 12)
    assert (disarm <= arm * (1 + 1e-12)).all()
    assert (disarm < arm).any()


@ANTITHETIC
def test_the_layer_estimates_what_enumeration_says(estimator: str) -> None:
    """The layer's own draws, masks and weights, over many rows: within 4 standard errors."""
    torch.manual_seed(1)
    layer = LearnableDropout(5, spread=1.0, estimator=estimator).train()  # type: ignore[arg-type]
    loss, ones = coupled(5), torch.ones(1, 5)
    found = []
    for _ in range(40):
        state = random_state(torch.device("cpu"))
        first = layer(ones.expand(1000, 5))
        replay(state, torch.device("cpu"))
        with antithetic([layer]):
            second = layer(ones.expand(1000, 5))
        found.append(layer.estimate(loss(first.detach()) - loss(second.detach())) / 1000)
    each = torch.stack(found).double()
    exact = exact_gradient(loss, layer.logits.detach().double())
    error = each.std(dim=0) / math.sqrt(len(each))
    assert ((each.mean(dim=0) - exact).abs() < 4 * error).all()


@ANTITHETIC
def test_inverse_scaling_needs_the_gradient_through_the_scale(estimator: str) -> None:
    """ARM plus what autograd finds in 1/p is unbiased; ARM alone is far off."""
    bits, loss = 4, coupled(4)
    logits = torch.linspace(-1.0, 1.0, bits).double().requires_grad_()
    z = all_masks(bits)
    p = torch.sigmoid(logits)
    chance = torch.where(z > 0, p, 1 - p).prod(dim=1)
    (exact,) = torch.autograd.grad((chance * loss(z / p)).sum(), logits)
    noise, weight, _ = regions(logits.detach())
    first, second = (m.double() for m in antithetic_masks(noise, logits.detach()))
    p = torch.sigmoid(logits)
    (pathwise,) = torch.autograd.grad((weight * loss(first / p)).sum(), logits)
    with torch.no_grad():
        differences = loss(first / p) - loss(second / p)
        arm = (weight * differences) @ antithetic_weights(noise, logits, estimator)  # type: ignore[arg-type]
    torch.testing.assert_close(arm + pathwise, exact, atol=1e-10, rtol=1e-8)
    assert (arm - exact).abs().max() > 0.5 * exact.abs().max()


def test_autograd_adds_the_scales_gradient_only_with_inverse_scaling() -> None:
    for scale, has_path in (("none", False), ("inverse", True)):
        layer = LearnableDropout(4, scale=scale).train()  # type: ignore[arg-type]
        out = layer(torch.ones(3, 4, requires_grad=True))
        out.sum().backward()
        grad = layer.logits.grad
        assert (grad is not None and bool((grad != 0).any())) == has_path


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda z: z[:, 0].double(), lambda p: p * (1 - p)),
        (lambda z: (z[:, 0].double() - 0.49) ** 2, lambda p: (1 - 2 * 0.49) * p * (1 - p)),
    ],
)
@ANTITHETIC
def test_one_unit_has_a_closed_form(
    estimator: str, loss: Loss, expected: Callable[[float], float]
) -> None:
    logits = torch.tensor([0.7]).double()
    noise, chance, _ = regions(logits)
    first, second = antithetic_masks(noise, logits)
    weights = antithetic_weights(noise, logits, estimator)  # type: ignore[arg-type]
    found = (chance * (loss(first) - loss(second))) @ weights
    assert float(found) == pytest.approx(expected(float(torch.sigmoid(logits))), abs=1e-12)


def test_both_masks_keep_with_the_same_chance() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, -0.3, 0.0, 1.0, 3.0])
    masks = antithetic_masks(torch.rand(200_000, 5), logits)
    for mask in masks:
        p = torch.sigmoid(logits)
        error = (p * (1 - p) / 200_000).sqrt()
        assert ((mask.double().mean(dim=0) - p).abs() < 4 * error).all()
    first, second = antithetic_masks(torch.rand(1000, 3), torch.zeros(3))
    assert torch.equal(second, ~first)


def test_swapping_rows_credits_their_masks_without_bias() -> None:
    """Every pair of masks of 4 coupled rows with 2 units each: 3^8 regions of the noise."""
    torch.manual_seed(0)
    rows, units = 4, 2
    partner = torch.tensor([2, 3, 0, 1])
    inputs = torch.randn(rows, units, 3).double() * 1.5
    shift = torch.randn(rows, 3).double()

    def views(z: Tensor) -> Tensor:
        return torch.einsum("ru,rud->rd", z.double().view(rows, units), inputs) + shift

    def whole(z: Tensor) -> Tensor:
        v = views(z)
        return contrastive_losses(v @ v.T, partner).mean()

    logits = torch.tensor([0.6, -0.8]).double()
    shared = logits.repeat(rows)
    loss: Loss = lambda z: torch.stack([whole(one) for one in z])  # noqa: E731
    exact = exact_gradient(loss, shared).view(rows, units).sum(dim=0)
    noise, chance, _ = regions(shared)
    firsts, seconds = antithetic_masks(noise, shared)
    weights = antithetic_weights(noise, shared, "disarm").view(-1, rows, units)
    found = torch.zeros(units).double()
    for first, second, part, weight in zip(firsts, seconds, chance, weights, strict=True):
        a, b = views(first), views(second)
        found += part * (swap_differences(a @ a.T, b @ a.T, partner) @ weight)
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=1e-7)


def test_certain_units_are_kept_and_lost_units_are_dropped() -> None:
    x = torch.randn(6, 3)
    for estimator in ("arm", "concrete", "straight_through", "frozen"):
        layer = LearnableDropout(3, estimator=estimator).train()  # type: ignore[arg-type]
        with torch.no_grad():
            layer.logits.fill_(60.0)
        torch.testing.assert_close(layer(x), x)
        with torch.no_grad():
            layer.logits.fill_(-60.0)
        assert layer(x).abs().max() < 1e-6


def test_frozen_at_one_half_for_each_token_is_dropout_given_the_same_mask() -> None:
    layer = LearnableDropout(4, share="token", scale="inverse", estimator="frozen").train()
    x = torch.randn(7, 4)
    found = layer(x)
    kept = found != 0
    torch.testing.assert_close(found, torch.where(kept, 2 * x, torch.zeros(())))
    assert torch.equal(layer.eval()(x), x) and torch.equal(Dropout(0.5).eval()(x), x)


def test_a_mask_is_shared_along_a_row_or_drawn_for_each_token() -> None:
    torch.manual_seed(0)
    packing = Packing(np.array([5, 7]), torch.device("cpu"))
    for share in ("sequence", "token"):
        kept = LearnableDropout(40, share=share).train()(torch.ones(12, 40), packing) > 0  # type: ignore[arg-type]
        same_row = bool((kept[:5] == kept[0]).all() and (kept[5:] == kept[5]).all())
        assert same_row == (share == "sequence")
        assert not torch.equal(kept[0], kept[5])


def test_twins_get_the_two_masks_of_the_same_noise() -> None:
    layer = LearnableDropout(16).train()
    torch.manual_seed(3)
    with twin_noise():
        first, second = layer(torch.ones(8, 16)).chunk(2)
    assert torch.equal(first + second, torch.ones(4, 16))  # at one half they are opposite
    torch.manual_seed(3)
    assert torch.equal(layer(torch.ones(4, 16)), first)


def test_equal_noise_gives_equal_masks() -> None:
    layer, x = LearnableDropout(16).train(), torch.ones(4, 16)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(layer(x))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("estimator", ["concrete", "straight_through"])
def test_one_pass_estimators_have_a_gradient_of_their_own(estimator: str) -> None:
    layer = LearnableDropout(6, estimator=estimator).train()  # type: ignore[arg-type]
    assert not layer.needs_twin
    layer(torch.randn(9, 6)).square().sum().backward()
    assert layer.logits.grad is not None and (layer.logits.grad != 0).all()


def test_the_entropys_gradient_is_phi_p_one_minus_p() -> None:
    logits = torch.tensor([-1.0, 0.3, 2.0]).double().requires_grad_()
    negative_entropy(torch.sigmoid(logits)).backward()
    p = torch.sigmoid(logits.detach())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, logits.detach() * p * (1 - p))
    assert torch.autograd.gradcheck(lambda x: negative_entropy(torch.sigmoid(x)), (logits,))


@pytest.mark.parametrize("scale", ["none", "inverse"])
def test_a_useful_unit_is_kept_and_a_useless_one_lost(scale: str) -> None:
    """y = w (z x) with one unit of signal and one of noise: without scaling p is a gain.

    With the inverse scaling p sets the variance alone, and both go up (Jensen).
    """
    for seed in range(20):
        torch.manual_seed(seed)
        layer = LearnableDropout(2, estimator="disarm", scale=scale).train()  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(150):
            signal, noise = torch.randn(64, 1), torch.randn(64, 1)
            x, y = torch.cat([signal, noise], dim=1), signal[:, 0]
            state = random_state(torch.device("cpu"))
            first = (layer(x).sum(dim=1) - y).square()
            replay(state, torch.device("cpu"))
            with antithetic([layer]):
                second = (layer(x).sum(dim=1) - y).square()
            optimizer.zero_grad()
            (
                first.mean() + (layer.logits * layer.estimate((first - second).detach()) / 64).sum()
            ).backward()
            optimizer.step()
        useful, useless = layer.keep.tolist()
        assert useful > 0.7
        assert useless > 0.7 if scale == "inverse" else useless < 0.3


def test_answers_are_expected_masks_or_the_same_sample_for_all() -> None:
    layer = LearnableDropout(8, keep=0.25).eval()
    x = torch.randn(5, 8)
    torch.testing.assert_close(layer(x), x * 0.25)
    with answer_sample(3):
        one, again = layer(x), layer(x)
    assert torch.equal(one, again)
    kept = one != 0
    assert (kept == kept[0]).all() and 0 < kept[0].sum() < 8
    with answer_sample(4):
        assert not torch.equal(layer(x), one)


def test_logits_are_held_within_bounds_and_survive_saving() -> None:
    layer = LearnableDropout(3, spread=1.0)
    with torch.no_grad():
        layer.logits.copy_(torch.tensor([-50.0, 0.25, 50.0]))
    layer.clamp()
    limits = [learnable_dropout.LOWEST, 0.25, learnable_dropout.HIGHEST]
    assert layer.logits.tolist() == limits
    other = LearnableDropout(3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.logits, layer.logits)


def test_a_certain_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep is 1"):
        LearnableDropout(3, keep=1.0)


def test_credit_is_not_rounded_by_autocast() -> None:
    layer = LearnableDropout(8, keep=0.6).train()
    layer(torch.ones(5, 8), Packing(np.ones(5, dtype=np.int64), torch.device("cpu")))
    differences = torch.randn(5, dtype=torch.float64)
    expected = layer.estimate(differences)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.estimate(differences), expected)
