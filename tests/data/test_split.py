"""Splits against naive slicing of lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nextup.data.sequences import Sequences
from nextup.data.split import Cases, Split, by_time, last_n, leave_one_out
from nextup.errors import InputError

histories = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=8)


def read(cases: Cases) -> list[tuple[int, list[int], int]]:
    """All cases as ``(user, what may be read, what must be found)``."""
    return [
        (int(user), history.tolist(), int(target))
        for user, history, target in zip(cases.users, cases.histories, cases.targets, strict=True)
    ]


@given(histories, st.integers(1, 3))
def test_last_n_holds_out_each_users_last_items_as_cases_of_their_own(
    rows: list[list[int]], n: int
) -> None:
    assume(any(len(row) >= 2 * n + 1 for row in rows))
    split = last_n(Sequences.from_lists(rows), n)
    train, valid, test = [], [], []
    for user, row in enumerate(rows):
        if len(row) < 2 * n + 1:
            train.append(row)
            continue
        train.append(row[: -2 * n])
        valid += [(user, row[:at], row[at]) for at in range(len(row) - 2 * n, len(row) - n)]
        test += [(user, row[:at], row[at]) for at in range(len(row) - n, len(row))]
    assert [row.tolist() for row in split.train] == train
    assert read(split.valid) == valid
    assert read(split.test) == test
    assert len(split.test) == len(test)


@given(histories, st.integers(1, 3))
def test_train_and_valid_is_everything_before_the_first_test_item(
    rows: list[list[int]], n: int
) -> None:
    assume(any(len(row) >= 2 * n + 1 for row in rows))
    split = last_n(Sequences.from_lists(rows), n)
    expected = [row[:-n] if len(row) >= 2 * n + 1 else row for row in rows]
    assert [row.tolist() for row in split.train_and_valid] == expected


def test_leave_one_out_by_hand() -> None:
    split = leave_one_out(Sequences.from_lists([[1, 2, 3, 4], [5, 6], [7, 8, 9]]))
    assert [row.tolist() for row in split.train] == [[1, 2], [5, 6], [7]]
    assert read(split.valid) == [(0, [1, 2], 3), (2, [7], 8)]
    assert read(split.test) == [(0, [1, 2, 3], 4), (2, [7, 8], 9)]
    assert split.name == "leave-one-out" and "after some test items" in split.leaks


def test_a_split_copies_nothing() -> None:
    whole = Sequences.from_lists([[1, 2, 3, 4], [5, 6, 7]])
    split = leave_one_out(whole)
    for part in (split.train, split.valid.histories, split.test.histories, split.train_and_valid):
        assert part.items is whole.items


def timed(rows: list[list[int]], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.sort(rng.integers(0, 20, len(row))) for row in rows])


@given(histories, st.integers(0, 1000), st.integers(0, 20), st.integers(1, 10))
def test_a_split_by_time_learns_nothing_from_after_the_point(
    rows: list[list[int]], seed: int, valid_from: int, gap: int
) -> None:
    times, test_from = timed(rows, seed), valid_from + gap
    whole = Sequences.from_lists(rows)
    train, valid, test, before_test = [], [], [], []
    for user, row in enumerate(rows):
        stamps = times[whole.starts[user] : whole.ends[user]]
        a, b = int((stamps < valid_from).sum()), int((stamps < test_from).sum())
        train.append(row[:a])
        before_test.append(row[:b])
        if 0 < a < b:
            valid.append((user, row[:a], row[a]))
        if 0 < b < len(row):
            test.append((user, row[:b], row[b]))
    if not valid or not test:
        with pytest.raises(InputError, match=r"no (validation|test) case"):
            by_time(whole, times, valid_from, test_from)
        return
    split = by_time(whole, times, valid_from, test_from)
    assert [row.tolist() for row in split.train] == train
    assert read(split.valid) == valid
    assert read(split.test) == test
    assert [row.tolist() for row in split.train_and_valid] == before_test


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: leave_one_out(s.without_last(1)), "no user has the 3 items"),
        (lambda s: last_n(s, 0), "n is 0"),
        (lambda s: last_n(s, 9), "no user has the 19 items"),
        (lambda s: by_time(s, None, 1, 2), "no times"),
        (lambda s: by_time(s, np.arange(6), 2, 2), "not before the test"),
        (lambda s: by_time(s, np.arange(6), 90, 91), "no validation case"),
        (lambda s: by_time(s, np.arange(6), 1, 91), "no test case"),
    ],
)
def test_a_split_that_leaves_a_part_empty_says_which_and_why(call: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(Sequences.from_lists([[1, 2, 3], [4, 5, 6]]))  # type: ignore[operator]


@given(histories)
def test_no_held_out_item_is_learnt_from(rows: list[list[int]]) -> None:
    assume(any(len(row) >= 3 for row in rows))
    whole = Sequences.from_lists(rows)
    split: Split = leave_one_out(Sequences(np.arange(len(whole.items)), whole.starts, whole.ends))
    learnt = set(split.train.flat().tolist())
    assert not learnt & set(split.valid.targets.tolist())
    assert not learnt & set(split.test.targets.tolist())
    assert not set(split.valid.targets.tolist()) & set(split.test.targets.tolist())
    assert not set(split.train_and_valid.flat().tolist()) & set(split.test.targets.tolist())
