"""Contrast: products over real slots, the loss against brute force, credit by exchanging rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nextup.nn.contrast import (
    SlotLayout,
    all_products,
    contrastive_losses,
    row_means,
    slot_products,
    swap_differences,
)
from nextup.nn.packing import Packing
from nextup.nn.running import running_sum


def packed(seed: int = 0, rows: int = 14, width: int = 4) -> tuple[Tensor, Tensor, Tensor, int]:
    """States of rows with gaps, and the places of their tokens."""
    rng = np.random.default_rng(seed)
    row, ago = [], []
    for r in range(rows):
        reach = int(rng.integers(1, 12))
        places = rng.choice(reach, int(rng.integers(1, reach + 1)), replace=False)
        row += [r] * len(places)
        ago += sorted(places.tolist(), reverse=True)
    states = torch.from_numpy(rng.normal(size=(len(row), width)))
    return states, torch.tensor(row), torch.tensor(ago), rows


def laid_end_to_end(states: Tensor, row: Tensor, ago: Tensor, rows: int) -> Tensor:
    flat = states.new_zeros(rows, 12, states.shape[1])
    for state, r, a in zip(states, row.tolist(), ago.tolist(), strict=True):
        flat[r, a] = state
    return flat.view(rows, -1)


def partners(rows: int) -> Tensor:
    half = rows // 2
    return torch.cat([torch.arange(half, rows), torch.arange(half)])


def test_slot_products_are_those_of_vectors_laid_end_to_end() -> None:
    states, row, ago, rows = packed()
    layout = SlotLayout(row, ago, rows)
    flat = laid_end_to_end(states, row, ago, rows)
    torch.testing.assert_close(slot_products(states, layout), flat @ flat.T)
    other = torch.randn_like(states)
    theirs = laid_end_to_end(other, row, ago, rows)
    torch.testing.assert_close(slot_products(other, layout, states), theirs @ flat.T)


def test_slot_products_have_the_gradient_of_the_long_way() -> None:
    states, row, ago, rows = packed(1)
    layout, weights = SlotLayout(row, ago, rows), torch.randn(rows, rows, dtype=torch.float64)
    gradients = []
    for way in (
        lambda x: slot_products(x, layout),
        lambda x: laid_end_to_end(x, row, ago, rows) @ laid_end_to_end(x, row, ago, rows).T,
    ):
        x = states.clone().requires_grad_()
        (way(x) * weights).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_row_means() -> None:
    states, row, _, rows = packed(2)
    means = row_means(states, row, rows)
    for r in range(rows):
        torch.testing.assert_close(means[r], states[row == r].mean(dim=0))


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_loss_is_that_of_a_loop_over_rows(scale: float) -> None:
    rows, partner = 10, partners(10)
    views = torch.randn(rows, 5, dtype=torch.float64) * math.sqrt(scale)
    alike = views @ views.T
    for m, found in enumerate(contrastive_losses(alike, partner)):
        total = sum(math.exp(float(alike[m, n])) for n in range(rows) if n != m)
        assert float(found) == pytest.approx(math.log(total) - float(alike[m, partner[m]]))


def test_equal_views_of_orthogonal_sequences() -> None:
    """-log(e^a / (e^a + 2 (Q - 1))) for squared length a."""
    q, a = 6, 2.5
    views = (torch.eye(q) * math.sqrt(a)).repeat(2, 1)
    expected = -math.log(math.exp(a) / (math.exp(a) + 2 * (q - 1)))
    losses = contrastive_losses(views @ views.T, partners(2 * q))
    torch.testing.assert_close(losses, torch.full((2 * q,), expected))


@pytest.mark.parametrize("scale", [0.1, 3.0, 300.0])
def test_swap_is_brute_force_to_1e_8(scale: float) -> None:
    torch.manual_seed(3)
    rows = 12
    partner = partners(rows)
    base = torch.randn(rows // 2, 6, dtype=torch.float64).repeat(2, 1)
    ours, theirs = ((base + 0.5 * torch.randn_like(base)) * math.sqrt(scale) for _ in range(2))
    found = swap_differences(ours @ ours.T, theirs @ ours.T, partner)
    whole = contrastive_losses(ours @ ours.T, partner).mean()
    for r in range(rows):
        mixed = ours.clone()
        mixed[r] = theirs[r]
        expected = whole - contrastive_losses(mixed @ mixed.T, partner).mean()
        assert abs(float(found[r] - expected)) < 1e-8


def test_exchanging_a_row_for_itself_changes_nothing() -> None:
    views = torch.randn(8, 5, dtype=torch.float64) * 9
    alike = views @ views.T
    found = swap_differences(alike, alike, partners(8))
    assert found.abs().max() < 1e-9


def test_a_pair_alone_has_nobody_to_be_mistaken_for() -> None:
    alike, swapped = torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([[2.0, 3.0], [-1.0, 0.0]])
    assert contrastive_losses(alike, partners(2)).abs().max() < 1e-6
    assert swap_differences(alike, swapped, partners(2)).tolist() == [0.0, 0.0]


def test_products_are_not_rounded_where_the_rest_is() -> None:
    one, other = torch.randn(5, 64) * 8, torch.randn(7, 64) * 8
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ other.T).dtype == torch.bfloat16
        found = all_products(one, other)
    torch.testing.assert_close(found, (one[:, None] * other).sum(2), atol=1e-3, rtol=1e-5)
    assert all_products(one.double(), other.double()).dtype == torch.float64
    states, row, ago, rows = packed()
    layout = SlotLayout(row, ago, rows)
    narrow = states.to(torch.bfloat16)
    expected = slot_products(narrow.float(), layout)
    with torch.autocast("cpu", torch.bfloat16):
        for found in (slot_products(narrow, layout), slot_products(narrow, layout, narrow)):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected)


def test_sums_of_many_are_made_in_single_precision() -> None:
    torch.manual_seed(0)
    states, row = torch.randn(200, 4).bfloat16() + 3, torch.arange(200) // 50
    torch.testing.assert_close(row_means(states, row, 4), row_means(states.float(), row, 4))
    rows = Packing(np.array([50, 50, 100]), torch.device("cpu"))
    x = torch.randn(200, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = running_sum(x, rows)
    assert torch.equal(found, running_sum(x, rows)) and found.dtype == torch.float32
