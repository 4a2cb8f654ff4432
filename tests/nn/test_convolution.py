"""Dilated convolutions on packed rows are what they are on each row alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from nextup.nn.convolution import (
    BottleneckBlock,
    DilatedBlock,
    DilatedConvolution,
    Neighbours,
    convolution_blocks,
    mean_half_square,
    packed_convolution,
)
from nextup.nn.packing import Packing

CPU = torch.device("cpu")


def rows_of(lengths: list[int]) -> Neighbours:
    return Neighbours(Packing(np.array(lengths), CPU))


def naive(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, causal: bool) -> Tensor:
    """One row, tap by tap, place by place."""
    taps = len(weight)
    out = torch.zeros(len(x), weight.shape[2], dtype=x.dtype)
    for place in range(len(x)):
        out[place] = bias
        for tap in range(taps):
            middle = taps - 1 if causal else taps // 2
            source = place + (tap - middle) * dilation
            if 0 <= source < len(x):
                out[place] += x[source] @ weight[tap]
    return out


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_each_row_is_convolved_as_if_alone(kernel: int, dilation: int, causal: bool) -> None:
    torch.manual_seed(0)
    lengths = [1, 2, 5, 9]
    layer = DilatedConvolution(4, 3, kernel, dilation, causal).double()
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(sum(lengths), 4, dtype=torch.float64)
    found = torch.split(layer(x, rows_of(lengths)), lengths)
    for row, answer in zip(torch.split(x, lengths), found, strict=True):
        expected = naive(row, layer.weight, layer.bias, dilation, causal)
        torch.testing.assert_close(answer, expected)


def test_a_causal_convolution_is_that_of_a_row_padded_with_zeros_on_the_left() -> None:
    layer = DilatedConvolution(4, 6, kernel=3, dilation=2)
    x = torch.randn(9, 4)
    padded = pad(x.T[None], (4, 0))
    expected = conv1d(padded, layer.weight.permute(2, 1, 0), layer.bias, dilation=2)[0].T
    torch.testing.assert_close(layer(x, rows_of([9])), expected)


@pytest.mark.parametrize("distances", [[2, 1, 0], [2, 0, -2], [40, 8, -8]])
def test_gradients_are_those_of_finite_differences(distances: list[int]) -> None:
    torch.manual_seed(0)
    rows = rows_of([1, 3, 4])
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((8, 3), (3, 3, 2), (2,))
    )
    assert torch.autograd.gradcheck(
        lambda x, weight, bias: packed_convolution(x, weight, bias, rows, distances),
        (x, weight, bias),
    )


@pytest.mark.parametrize("kind", [DilatedBlock, BottleneckBlock])
def test_a_block_adds_to_what_it_was_given(kind: type[torch.nn.Module]) -> None:
    block = kind(8, 3, 2)
    for name, parameter in block.named_parameters():
        if name.startswith(("second_norm", "widen")):
            torch.nn.init.zeros_(parameter)
    x = torch.randn(7, 8)
    assert torch.equal(block(x, rows_of([3, 4])), x)


def test_a_block_of_kind_b_is_its_formula() -> None:
    block = DilatedBlock(8, kernel=3, dilation=2)
    rows, x = rows_of([3, 9]), torch.randn(12, 8)

    def normed(y: Tensor) -> Tensor:
        return (y - y.mean(1, keepdim=True)) / (y.var(1, False, keepdim=True) + 1e-8).sqrt()

    y = torch.relu(normed(block.first(x, rows)))
    y = torch.relu(normed(block.second(y, rows)))
    assert block.first.distances == [4, 2, 0] and block.second.distances == [8, 4, 0]
    torch.testing.assert_close(block(x, rows), x + y)


def test_the_penalty_is_a_mean_over_weights() -> None:
    one, two = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.full((2, 2), 2.0))
    assert float(mean_half_square([one, two]).detach()) == (3 / 2 + 16 / 2) / 2


def test_a_block_of_kind_a_is_its_formula() -> None:
    block = BottleneckBlock(8, kernel=3, dilation=2)
    rows, x = rows_of([3, 9]), torch.randn(12, 8)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    def read(y: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        spread = (y.var(1, False, keepdim=True) + 1e-8).sqrt()
        return torch.relu((y - y.mean(1, keepdim=True)) / spread * norm.weight + norm.bias)

    y = block.narrow(read(x, block.input_norm), rows)
    assert y.shape == (12, 4)
    y = block.middle(read(y, block.narrow_norm), rows)
    y = block.widen(read(y, block.middle_norm), rows)
    assert block.middle.distances == [4, 2, 0]
    assert block.narrow.distances == block.widen.distances == [0]
    torch.testing.assert_close(block(x, rows), x + y)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_dropout_is_on_what_a_block_adds(kind: Literal["a", "b"]) -> None:
    (block,) = convolution_blocks(kind, 64, 3, (2,), dropout=0.5)
    rows, x = rows_of([3, 9]), torch.randn(12, 64)
    added = block.eval()(x, rows) - x
    dropped = block.train()(x, rows) - x
    kept = dropped.abs() > 1e-6
    assert 0.3 < float(kept[added.abs() > 1e-6].double().mean()) < 0.7
    torch.testing.assert_close(dropped, torch.where(kept, 2 * added, 0.0), atol=1e-5, rtol=1e-5)


def test_who_comes_after_is_who_comes_before_turned_round() -> None:
    rows = Neighbours(Packing(np.array([1, 3, 4]), torch.device("cpu")))
    for distance in (1, 2, 3):
        before, after = rows.before(distance), rows.before(-distance)
        assert before is not None and after is not None
        assert [torch.equal(*pair) for pair in zip(after, before[::-1], strict=True)] == [True] * 2
    assert rows.before(-4) is None
