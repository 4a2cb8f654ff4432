"""What answering leaves out changes nothing: the same blocks with and without gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import attention, close
from torch import Tensor, nn

from nextup.nn.answering import FEW, ROOM, equal_rows, linear
from nextup.nn.attention import packed_attention
from nextup.nn.packing import Packing
from nextup.nn.transformer import OriginalBlock, PostNormBlock, begin_blocks, finish_blocks

CPU = torch.device("cpu")
SHAPES = [
    [4] * 12,
    [1, 1],
    [1] * 70,
    [9, 10, 10, 12],
    [50] * 3,
    [7] * 20 + [8] * 9,
    [2, 3, 60],
    [5],
]


def blocks_of(kind: str, layers: int, causal: bool = True) -> nn.ModuleList:
    torch.manual_seed(0)
    blocks = nn.ModuleList(
        PostNormBlock(12, 3, 24, 0.5, 0.5, causal) if kind == "s3" else OriginalBlock(12, 3, 0.5)
        for _ in range(layers)
    )
    for parameter in blocks.parameters():
        nn.init.normal_(parameter, std=0.4)
    return blocks.double().eval()


def run(blocks: nn.ModuleList, x: Tensor, lengths: np.ndarray, last: bool) -> Tensor:
    last_at = torch.from_numpy(np.cumsum(lengths) - 1) if last else None
    return finish_blocks(blocks, begin_blocks(blocks, x, Packing(lengths, CPU), last_at))


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["s3", "s3, both ways", "original"])
def test_blocks_give_the_same_with_and_without_gradients(
    kind: str, last: bool, lengths: list[int]
) -> None:
    ns = np.array(lengths)
    blocks = blocks_of(kind[:2] if kind[0] == "s" else kind, 2, causal="both" not in kind)
    x = torch.randn(int(ns.sum()), 12, dtype=torch.float64)
    expected = run(blocks, x, ns, last)
    assert expected.requires_grad
    with torch.no_grad():
        found = run(blocks, x, ns, last)
    close(found, expected.detach(), 1e-11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=30), st.booleans())
def test_attention_without_gradients_is_plain_attention(lengths: list[int], causal: bool) -> None:
    ns = np.array(lengths)
    queries = torch.randn(int(ns.sum()), 8, dtype=torch.float64)
    keys_values = torch.randn(int(ns.sum()), 16, dtype=torch.float64)
    with torch.inference_mode():
        found = packed_attention(queries, keys_values, Packing(ns, CPU), heads=2, causal=causal)
    close(found, attention(queries, keys_values, ns, 2, causal), 1e-12)


def test_rows_are_a_matrix_only_where_that_wastes_little_and_nothing_is_learned() -> None:
    equal, unequal = Packing(np.full(6, 4), CPU), Packing(np.array([2, 2, 2, 40]), CPU)
    assert equal_rows(equal) is None, "gradients are wanted"
    with torch.no_grad():
        rows = equal_rows(equal)
        assert rows is not None and rows.places is None, "exactly equal rows are a view"
        assert equal_rows(unequal) is None
        assert equal_rows(Packing(np.array([30]), CPU)) is None, "one row has a way of its own"
        just = equal_rows(Packing(np.array([1, 2]), CPU))
        assert just is not None and just.places is not None and ROOM > 4 / 3


@pytest.mark.parametrize("rows", [1, FEW - 1, FEW, 3 * FEW])
def test_a_linear_layer_is_itself(rows: int) -> None:
    layer, x = nn.Linear(8, 5), torch.randn(rows, 8)
    with torch.no_grad():
        torch.testing.assert_close(linear(layer, x), layer(x))
    assert linear(layer, x).requires_grad
