"""Packed rows: selected, joined and cut without mixing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import rows_of
from hypothesis import given
from hypothesis import strategies as st

from nextup.augment import Packed
from nextup.augment.packed import spans

some_rows = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=10)


@given(some_rows)
def test_rows_without_gaps_end_at_the_last_place(lists: list[list[int]]) -> None:
    packed = Packed.from_lists(lists)
    assert packed.as_lists() == lists
    assert [[ago for _, ago in row] for row in rows_of(packed)] == [
        list(range(len(row)))[::-1] for row in lists
    ]


@given(some_rows, st.data())
def test_selected_rows_are_those_rows_in_that_order(
    lists: list[list[int]], data: st.DataObject
) -> None:
    packed = Packed.from_lists(lists)
    places = st.lists(st.integers(0, len(lists) - 1), max_size=12)
    index = np.array(data.draw(places), dtype=np.int64)
    assert rows_of(packed.rows(index)) == [rows_of(packed)[row] for row in index]


@given(some_rows, st.data())
def test_cutting_and_joining_returns_the_rows(lists: list[list[int]], data: st.DataObject) -> None:
    packed = Packed.from_lists(lists)
    cut = data.draw(st.integers(0, len(lists)))
    parts = [packed.between(0, cut), packed.between(cut, len(lists))]
    assert parts[0].as_lists() == lists[:cut]
    assert rows_of(Packed.concatenate(parts)) == rows_of(packed)


def test_gaps_move_with_their_rows() -> None:
    packed = Packed(torch.tensor([5, 6, 7]), np.array([2, 1]), torch.tensor([4, 1, 3]))
    assert rows_of(packed.rows(np.array([1, 0]))) == [((7, 3),), ((5, 4), (6, 1))]


def test_no_rows_are_rows_too() -> None:
    none = Packed.from_lists([])
    assert len(none) == 0 and none.as_lists() == []
    assert spans(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []


def test_lengths_that_do_not_fit_the_tokens_and_empty_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 3"):
        Packed.of(torch.tensor([1, 2]), np.array([1, 2]))
    with pytest.raises(ValueError, match="a row is empty"):
        Packed.from_lists([[1], []])
