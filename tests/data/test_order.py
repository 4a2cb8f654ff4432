"""The order of a log: stable, whatever its size and numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextup.data.order import by_code, order_of


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 4), st.integers(0, 2**31 - 1)),
            st.one_of(st.integers(-3, 3), st.integers(-(2**62), 2**62)),
        ),
        min_size=1,
        max_size=60,
    ),
    st.booleans(),
)
def test_is_the_stable_sort(rows: list[tuple[int, int]], timed: bool) -> None:
    users = np.array([user for user, _ in rows], dtype=np.int32)
    times = np.array([time for _, time in rows], dtype=np.int64) if timed else None
    expected = sorted(range(len(rows)), key=lambda r: rows[r] if timed else rows[r][0])
    order = order_of(users, times)
    assert (list(range(len(rows))) if order is None else order.tolist()) == expected


@pytest.mark.parametrize("highest", [10, 100_000])
def test_by_code_on_many_rows(highest: int) -> None:
    codes = np.random.default_rng(0).integers(0, highest, 50_000).astype(np.int32)
    assert np.array_equal(by_code(codes), np.argsort(codes, kind="stable"))
