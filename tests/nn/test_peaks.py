"""Peaks of filters against convolutions, whose gradients go everywhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import conv1d

from nextup.nn.peaks import peaks


def convolved(image: Tensor, across: Tensor) -> Tensor:
    _, length, width = image.shape
    filters = torch.split(across, [height * width for height in range(1, length + 1)])
    found = [
        conv1d(image.mT, each.view(height, width, -1).permute(2, 1, 0)).amax(dim=2)
        for height, each in enumerate(filters, start=1)
    ]
    return torch.stack(found, dim=1)


def drawn(rows: int, length: int, width: int, filters: int) -> tuple[Tensor, Tensor]:
    image = torch.randn(rows, length, width, dtype=torch.float64, requires_grad=True)
    shape = length * (length + 1) // 2 * width, filters
    return image, torch.randn(shape, dtype=torch.float64, requires_grad=True)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99)
)
def test_value_and_gradients_are_those_of_convolutions(
    rows: int, length: int, width: int, filters: int, seed: int
) -> None:
    torch.manual_seed(seed)
    leaves = drawn(rows, length, width, filters)
    found, expected = peaks(*leaves), convolved(*leaves)
    torch.testing.assert_close(found, expected)
    share = torch.randn_like(found) * (torch.rand_like(found) < 0.5)  # some are dropped
    ours = torch.autograd.grad((share * found).sum(), leaves)
    theirs = torch.autograd.grad((share * expected).sum(), leaves)
    torch.testing.assert_close(ours, theirs)


def test_gradients_are_finite_differences() -> None:
    torch.manual_seed(0)
    assert gradcheck(peaks, drawn(2, 4, 3, 2))


def test_places_that_are_alike_share_no_more_than_one_gradient() -> None:
    """Padding is the same vector over and over: it may be met anywhere, but counts once."""
    padding = torch.ones(3, dtype=torch.float64, requires_grad=True)
    _, across = drawn(1, 4, 3, 2)
    (ours,) = torch.autograd.grad(peaks(padding.expand(2, 4, 3), across).sum(), padding)
    (theirs,) = torch.autograd.grad(convolved(padding.expand(2, 4, 3), across).sum(), padding)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_asked_for_gives_no_gradient(dtype: torch.dtype) -> None:
    image, across = (each.detach().to(dtype).requires_grad_() for each in drawn(3, 5, 2, 2))
    grads = torch.autograd.grad(
        peaks(image, across), (image, across), torch.zeros(3, 5, 2).to(dtype)
    )
    assert all(not each.any() and each.dtype == dtype for each in grads)
