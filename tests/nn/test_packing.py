"""Where packed rows stand in their windows, for any lengths."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextup.nn.packing import WINDOW, Packing

CPU = torch.device("cpu")
lengths_of_rows = st.lists(st.integers(1, 90), min_size=1, max_size=40).map(
    lambda found: np.array(found, dtype=np.int64)
)


def place_of_tokens(packing: Packing) -> np.ndarray:
    numbers = torch.arange(1, packing.n_tokens + 1, dtype=torch.float32)[:, None]
    flat = packing.spread(numbers).reshape(-1).numpy()
    places = np.zeros(packing.n_tokens, dtype=np.int64)
    places[flat[flat > 0].astype(np.int64) - 1] = np.flatnonzero(flat > 0)
    return places


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows)
def test_spreading_and_collecting_returns_what_was_packed(lengths: np.ndarray) -> None:
    packing = Packing(lengths, CPU)
    packed = torch.randn(packing.n_tokens, 3)
    spread = packing.spread(packed)
    assert spread.shape == (packing.windows, packing.width, 3)
    assert torch.equal(packing.collect(spread), packed)
    assert spread.abs().sum() == packed.abs().sum() or torch.isclose(
        spread.abs().sum(), packed.abs().sum()
    )


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows)
def test_every_row_stands_in_one_window_in_order_and_apart_from_the_others(
    lengths: np.ndarray,
) -> None:
    packing = Packing(lengths, CPU)
    places = place_of_tokens(packing)
    assert len(np.unique(places)) == lengths.sum() == packing.n_tokens
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        row = places[end - length : end]
        assert (np.diff(row) == 1).all()
        assert row[0] // packing.width == row[-1] // packing.width


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows, st.booleans())
def test_a_token_sees_exactly_its_row_and_never_another(lengths: np.ndarray, causal: bool) -> None:
    packing = Packing(lengths, CPU)
    mask = packing.mask(causal, torch.float32)
    seen = torch.ones(packing.windows, packing.width, packing.width, dtype=torch.bool)
    if mask is not None:
        assert set(mask.unique().tolist()) <= {0.0, -np.inf}
        seen = mask == 0
    assert seen.any(dim=2).all(), "a place that sees nothing would make NaN"
    places = place_of_tokens(packing)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    window, column = np.divmod(places, packing.width)
    sees = seen[window[:, None], column[:, None], column[None, :]].numpy()
    allowed = owner[:, None] == owner[None, :]
    if causal:
        allowed &= np.arange(len(owner))[:, None] >= np.arange(len(owner))[None, :]
    same_window = window[:, None] == window[None, :]
    np.testing.assert_array_equal(sees & same_window, allowed)


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows, st.integers(0, 10))
def test_slots_count_from_the_end_of_each_row(lengths: np.ndarray, more: int) -> None:
    window = int(lengths.max()) + more
    slots = Packing(lengths, CPU).slots(window).numpy()
    expected = np.concatenate([np.arange(window - n, window) for n in lengths])
    np.testing.assert_array_equal(slots, expected)


def test_rows_are_even_where_all_have_one_length() -> None:
    evens = [Packing(np.array(ns), CPU).even for ns in ([7], [3, 3, 3], [3, 4], [2, 4, 3])]
    assert evens == [7, 3, None, None]


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows)
def test_no_window_is_empty_and_a_row_opens_one_only_where_the_last_is_full(
    lengths: np.ndarray,
) -> None:
    packing = Packing(lengths, CPU)
    assert packing.width >= lengths.max()
    assert packing.width <= max(int(lengths.max()), WINDOW)
    window = place_of_tokens(packing) // packing.width
    tokens = np.bincount(window, minlength=packing.windows)
    assert (tokens > 0).all()
    firsts = np.cumsum(lengths) - lengths
    for row in range(1, len(lengths)):
        before, here = window[firsts[row] - 1], window[firsts[row]]
        if here != before:
            assert tokens[before] + lengths[row] > packing.width


def test_full_windows_are_a_view_of_the_packed_tokens() -> None:
    packing = Packing(np.full(16, 8), CPU)
    packed = torch.randn(128, 4)
    assert packing.places is None
    assert packing.spread(packed).data_ptr() == packed.data_ptr()
