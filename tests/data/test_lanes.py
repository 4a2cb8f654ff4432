"""Session-parallel batches: nothing lost, nothing mixed up, whatever the lengths."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextup.data.lanes import LaneStream, schedule
from nextup.data.negatives import SupportNegatives
from nextup.data.sequences import Sequences
from nextup.errors import InputError

HISTORIES = st.lists(st.integers(1, 9), min_size=1, max_size=25).filter(lambda n: max(n) > 1)


def numbered(lengths: list[int], times: list[int] | None = None) -> Sequences:
    """Histories in which no item occurs twice: 11, 12, 13; 21, 22; ..."""
    rows = [[10 * (r + 1) + k + 1 for k in range(n)] for r, n in enumerate(lengths)]
    found = Sequences.from_lists(rows)
    if times is None:
        return found
    at = np.zeros(len(found.items), np.int64)
    at[found.starts] = times
    return Sequences(found.items, found.starts, found.ends, at)


def walked_by_hand(train: Sequences, lanes: int) -> list[list[tuple[int, int, int, bool]]]:
    """What each step shows, written out: (lane, item, target, whether the state goes on)."""
    waiting = [row.tolist() for row in train if len(row) > 1]
    under_way: list[list[int]] = [[] for _ in range(min(lanes, len(waiting)))]
    steps = []
    while True:
        shown = []
        for lane, row in enumerate(under_way):
            goes_on = len(row) > 1
            if not goes_on:
                if not waiting:
                    under_way[lane] = []
                    continue
                under_way[lane] = waiting.pop(0)
            row = under_way[lane]
            shown.append((lane, row[0], row[1], goes_on))
            under_way[lane] = row[1:]
        if not shown:
            return steps
        steps.append(shown)


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.integers(1, 6))
def test_steps_are_those_of_the_loop_written_out(lengths: list[int], lanes: int) -> None:
    train = numbered(lengths)
    stream = LaneStream(train, lanes=lanes)
    expected = walked_by_hand(train, lanes)
    assert len(stream) == len(expected)
    for step, shown in enumerate(expected):
        batch = stream.batch(stream.order(0), 0, step)
        assert batch.targets is not None
        found = zip(batch.lanes, batch.tokens, batch.targets, batch.goes_on, strict=True)
        assert [tuple(each.item() for each in row) for row in found] == shown


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.integers(1, 6), st.integers(1, 5), st.integers(1, 9))
def test_every_item_of_every_history_is_met_once_and_in_order(
    lengths: list[int], lanes: int, stretch: int, max_length: int
) -> None:
    train = numbered(lengths)
    stream = LaneStream(train, lanes=lanes, stretch=stretch, max_length=max_length)
    read, aims = defaultdict(list), defaultdict(list)
    carried: dict[int, int] = {}
    for step in range(len(stream)):
        batch = stream.batch(stream.order(0), 0, step)
        assert batch.targets is not None
        assert (np.diff(batch.lengths) >= 0).all() and len(batch.tokens) <= stream.targets
        was, carried = carried, {}
        ends = np.cumsum(batch.lengths)
        for row, (end, length) in enumerate(zip(ends, batch.lengths, strict=True)):
            lane, user = int(batch.lanes[row]), int(batch.users[row])
            assert bool(batch.goes_on[row]) == bool(read[user])
            if batch.goes_on[row]:
                assert was.pop(lane) == user, "the state of a lane goes to another history"
            read[user] += batch.tokens[end - length : end].tolist()
            aims[user] += batch.targets[end - length : end].tolist()
            if batch.carried[row]:
                assert lane not in carried
                carried[lane] = user
        assert not was, "a state is lost"
    assert not carried
    for user, row in enumerate(train):
        kept = row.tolist()[-max_length - 1 :]
        assert read[user] == kept[:-1] and aims[user] == kept[1:]


def test_the_batch_shrinks_at_the_end_and_the_longest_history_is_read_to_its_end() -> None:
    stream = LaneStream(numbered([2, 3, 9]), lanes=3)
    sizes = [len(stream.batch(stream.order(0), 0, step)) for step in range(len(stream))]
    assert sizes == [3, 2, 1, 1, 1, 1, 1, 1]
    assert stream.batch(stream.order(0), 0, 7).target_total == 3


def test_histories_are_taken_by_their_first_time_where_it_is_known() -> None:
    for times, expected in ((None, [11, 21, 31]), ([7, 9, 5], [31, 11, 21])):
        stream = LaneStream(numbered([2, 2, 2], times), lanes=1)
        found = [stream.batch(stream.order(0), 0, step).tokens.item() for step in range(3)]
        assert found == expected


def test_a_lane_that_is_free_takes_the_next_history_the_first_lane_first() -> None:
    lane, begins = schedule(np.array([2, 2, 5, 1, 1, 1]), lanes=3)
    assert lane.tolist() == [0, 1, 2, 0, 1, 0] and begins.tolist() == [0, 0, 0, 2, 2, 3]


def test_without_two_items_anywhere_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(InputError, match="no history has two items"):
        LaneStream(Sequences.from_lists([[1], [2]]), lanes=2)


def test_negatives_follow_from_seed_epoch_and_step_alone() -> None:
    def drawn(seed: int, epoch: int, step: int) -> list[int]:
        negatives = SupportNegatives(np.ones(99), 20, 0.5)
        stream = LaneStream(numbered([4, 4]), lanes=2, negatives=negatives, seed=seed)
        batch = stream.batch(stream.order(epoch), epoch, step)
        assert batch.negatives is not None
        return batch.negatives.tolist()

    assert drawn(0, 1, 2) == drawn(0, 1, 2)
    others = [drawn(*other) for other in ((1, 1, 2), (0, 2, 2), (0, 1, 1))]
    assert drawn(0, 1, 2) not in others


def test_a_step_has_no_more_rows_than_it_says() -> None:
    train = Sequences.from_lists([[1, 2], [3, 4], [5, 6]])
    stream = LaneStream(train, lanes=1, stretch=3)
    batch = stream.batch(stream.order(0), 0, 0)
    assert len(batch) == 3, "three histories in one stretch of one lane"
    assert batch.row_total == 3
