"""Spans over one array: prefixes, rows and flattening never copy nor mix histories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextup.data.sequences import Sequences
from nextup.errors import InputError

histories = st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=8)


def lists(sequences: Sequences) -> list[list[int]]:
    return [row.tolist() for row in sequences]


@given(histories)
def test_lists_come_back_as_they_went_in(given_lists: list[list[int]]) -> None:
    sequences = Sequences.from_lists(given_lists)
    assert lists(sequences) == given_lists
    assert len(sequences) == len(given_lists)
    assert sequences.lengths.tolist() == [len(row) for row in given_lists]
    assert sequences.items.dtype == np.int32


@given(histories, st.integers(0, 8))
def test_leaving_out_the_last_items_is_slicing_without_a_copy(
    given_lists: list[list[int]], n: int
) -> None:
    sequences = Sequences.from_lists(given_lists)
    shorter = sequences.without_last(n)
    assert lists(shorter) == [row[: max(len(row) - n, 0)] for row in given_lists]
    assert shorter.items is sequences.items


@given(histories, st.data())
def test_flat_and_positions_follow_any_choice_of_rows(
    given_lists: list[list[int]], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(given_lists) - 1), max_size=10))
    cut = data.draw(st.integers(0, 3))
    chosen = Sequences.from_lists(given_lists).without_last(cut).rows(np.array(rows, dtype=int))
    expected = [given_lists[row][: max(len(given_lists[row]) - cut, 0)] for row in rows]
    assert lists(chosen) == expected
    joined = [item for row in expected for item in row]
    assert chosen.flat().tolist() == joined
    assert chosen.items[chosen.positions()].tolist() == joined


def test_touching_spans_are_flattened_without_a_copy() -> None:
    sequences = Sequences.from_lists([[1, 2], [3], [4, 5]])
    assert np.shares_memory(sequences.flat(), sequences.items)
    assert np.shares_memory(sequences.rows(slice(1, 3)).flat(), sequences.items)


def test_no_histories_are_a_possible_input() -> None:
    empty = Sequences.from_lists([])
    assert len(empty) == 0 and len(empty.flat()) == 0 and len(empty.positions()) == 0


def test_starts_without_ends_are_refused() -> None:
    with pytest.raises(InputError, match="2 starts but 1 ends"):
        Sequences(np.zeros(3, np.int32), np.array([0, 1]), np.array([1]))
