"""The stream of training batches against naive enumeration, and batches as the models meet them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nextup.data.batches import (
    Batch,
    batch_of_lists,
    batch_of_one,
    gather,
    items_on,
)
from nextup.data.negatives import UniformNegatives
from nextup.data.sequences import Sequences
from nextup.data.split import leave_one_out
from nextup.data.stream import Samples, TrainingStream, Windows, hash_seed
from nextup.errors import InputError

MODES: list[Samples] = ["every", "prefix", "last", "item", Windows(1), Windows(3)]
histories = st.lists(
    st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=10
).filter(lambda rows: any(len(row) >= 2 for row in rows))
Sample = tuple[int, tuple[int, ...], tuple[int, ...]]


def samples(batch: Batch) -> list[Sample]:
    """Each row as ``(user, what it reads, what it must find)``."""
    assert batch.targets is not None and batch.target_at is not None
    ends = np.cumsum(batch.lengths)
    row_of_token = np.repeat(np.arange(len(batch)), batch.lengths)
    row_of_target = row_of_token[batch.target_at.numpy()]
    return [
        (
            int(batch.users[row]),
            tuple(batch.tokens[ends[row] - batch.lengths[row] : ends[row]].tolist()),
            tuple(batch.targets[torch.from_numpy(row_of_target == row)].tolist()),
        )
        for row in range(len(batch))
    ]


def naive(rows: list[list[int]], mode: Samples, max_length: int) -> Counter[Sample]:
    """What an epoch must hold, written out."""
    found: list[Sample] = []
    for user, row in enumerate(rows):
        if mode == "item":
            found += [(user, (0,), (item,)) for item in row]
        elif len(row) < 2:
            continue
        elif mode == "every":
            read, aims = row[:-1][-max_length:], row[1:][-max_length:]
            found.append((user, tuple(read), tuple(aims)))
        elif isinstance(mode, Windows):
            size = max_length + mode.targets
            for end in range(min(size, len(row)), len(row) + 1):
                window = row[max(end - size, 0) : end]
                read, aims = window[: -mode.targets], window[-mode.targets :]
                found.append((user, tuple(read) or (0,), tuple(aims)))
        elif mode == "last":
            found.append((user, tuple(row[:-1][-max_length:]), (row[-1],)))
        else:
            found += [
                (user, tuple(row[:at][-max_length:]), (row[at],)) for at in range(1, len(row))
            ]
    return Counter(found)


def epoch_of(stream: TrainingStream, epoch: int = 0) -> list[Batch]:
    return [batch for _, batch in stream.epoch(epoch)]


@settings(max_examples=50, deadline=None)
@given(histories, st.sampled_from(MODES), st.integers(1, 10), st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_holds_exactly_the_samples_of_its_mode(
    rows: list[list[int]], mode: Samples, max_length: int, size: int, epoch: int
) -> None:
    train = Sequences.from_lists(rows)
    stream = TrainingStream(train, targets=mode, max_length=max_length, batch_size=size)
    batches = epoch_of(stream, epoch)
    assert len(batches) == len(stream)
    assert Counter(s for batch in batches for s in samples(batch)) == naive(rows, mode, max_length)
    for batch in batches:
        assert len(batch) <= size
        assert (np.diff(batch.lengths) >= 0).all() and batch.lengths.min() >= 1
        assert batch.targets is not None and batch.target_total == len(batch.targets)


def test_the_three_modes_by_hand() -> None:
    train = Sequences.from_lists([[1, 2, 3, 4], [5], [6, 7]])
    found = {}
    for mode in MODES:
        (batch,) = epoch_of(TrainingStream(train, targets=mode, max_length=2))
        assert batch.until is not None
        for (user, read, aims), until in zip(samples(batch), batch.until, strict=True):
            row = [[1, 2, 3, 4], [5], [6, 7]][user]
            assert tuple(row[max(until - len(read), 0) : until]) == read or read == (0,)
            assert mode == "every" or tuple(row[until : until + len(aims)]) == aims
        found[mode] = sorted(samples(batch))
    assert found["every"] == [(0, (2, 3), (3, 4)), (2, (6,), (7,))]
    assert found["prefix"] == [
        (0, (1,), (2,)),
        (0, (1, 2), (3,)),
        (0, (2, 3), (4,)),
        (2, (6,), (7,)),
    ]
    assert found["last"] == [(0, (2, 3), (4,)), (2, (6,), (7,))]
    alone = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (2, 6), (2, 7)]
    assert found["item"] == [(user, (0,), (item,)) for user, item in alone]
    assert found[Windows(1)] == [(0, (1, 2), (3,)), (0, (2, 3), (4,)), (2, (6,), (7,))]
    assert found[Windows(3)] == [(0, (1,), (2, 3, 4)), (2, (0,), (6, 7))]


@pytest.mark.parametrize("mode", MODES)
def test_prefix_samples_are_spans_and_never_copies(mode: Samples) -> None:
    train = Sequences.from_lists([list(range(1, 41))] * 3)
    stream = TrainingStream(train, targets=mode)
    assert stream.items.data_ptr() == torch.from_numpy(train.items).data_ptr()
    assert stream.rows == 3 * {"prefix": 39, "item": 40}.get(mode, 1)


@settings(max_examples=30, deadline=None)
@given(histories, st.integers(1, 5), st.integers(1, 6))
def test_whole_histories_are_rows_without_targets(
    rows: list[list[int]], max_length: int, size: int
) -> None:
    train = Sequences.from_lists(rows)
    expected = {
        "whole": [tuple(row[-max_length:]) for row in rows],
        "whole_prefix": [
            tuple(row[:end][-max_length:]) for row in rows for end in range(1, len(row) + 1)
        ],
    }
    modes: list[Samples] = ["whole", "whole_prefix"]
    for mode in modes:
        found: list[tuple[int, ...]] = []
        for batch in epoch_of(
            TrainingStream(train, targets=mode, max_length=max_length, batch_size=size)
        ):
            assert batch.targets is None and batch.row_total == len(batch)
            found += [tuple(t) for t in np.split(batch.tokens.numpy(), np.cumsum(batch.lengths))]
            found = [row for row in found if len(row)]
        assert sorted(found) == sorted(expected[str(mode)])


@given(histories, st.integers(1, 9))
def test_a_batch_cut_short_or_read_from_its_end_keeps_the_latest_items(
    rows: list[list[int]], count: int
) -> None:
    batch, short = batch_of_lists(rows, 9), batch_of_lists(rows, count)
    cut = batch.cut(count)
    for row, items in zip(
        cut.rows, np.split(cut.tokens.numpy(), np.cumsum(cut.lengths)), strict=False
    ):
        assert items.tolist() == rows[row][-count:]
    assert sorted(cut.lengths) == sorted(short.lengths)
    for row, items in zip(batch.rows, batch.latest(count).tolist(), strict=True):
        assert items == ([0] * count + rows[row])[-count:]


@settings(max_examples=40, deadline=None)
@given(histories, st.sampled_from(MODES), st.integers(1, 5))
def test_no_validation_or_test_item_is_in_any_batch(
    rows: list[list[int]], mode: Samples, size: int
) -> None:
    whole = Sequences.from_lists(rows)
    assume(any(len(row) >= 4 for row in rows))
    # Each place in the data is an item of its own, so that none can hide behind a repeat.
    split = leave_one_out(
        Sequences(np.arange(1, len(whole.items) + 1, dtype=np.int32), whole.starts, whole.ends)
    )
    held_out = set(split.valid.targets.tolist()) | set(split.test.targets.tolist())
    for batch in epoch_of(TrainingStream(split.train, targets=mode, batch_size=size)):
        assert batch.targets is not None
        assert not held_out & set(batch.tokens.tolist())
        assert not held_out & set(batch.targets.tolist())


@settings(max_examples=40, deadline=None)
@given(histories, st.sampled_from(MODES), st.integers(2, 4), st.integers(1, 9))
def test_processes_share_out_each_step_and_divide_by_the_same_total(
    rows: list[list[int]], mode: Samples, world: int, size: int
) -> None:
    train = Sequences.from_lists(rows)

    def stream(rank: int, of: int) -> TrainingStream:
        return TrainingStream(
            train, targets=mode, batch_size=size, seed=3, max_length=4, rank=rank, world=of
        )

    alone = epoch_of(stream(0, 1))
    shares = [epoch_of(stream(rank, world)) for rank in range(world)]
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        totals = {part.target_total for part in parts}
        assert all(len(part) >= 1 for part in parts)
        assert totals == {sum(len(part.targets) for part in parts if part.targets is not None)}
        together = Counter(s for part in parts for s in samples(part))
        if len(whole) >= world:
            assert together == Counter(samples(whole))
            assert totals == {whole.target_total}
        else:  # fewer rows than processes: rows are repeated, so that none stands idle
            assert set(together) == set(samples(whole))


def test_shares_of_a_step_are_of_equal_size_and_of_like_lengths() -> None:
    rng = np.random.default_rng(0)
    train = Sequences.from_lists([rng.integers(1, 40, n) for n in rng.integers(2, 40, 64)])
    tokens = []
    for rank in range(2):
        stream = TrainingStream(train, batch_size=64, rank=rank, world=2)
        (batch,) = epoch_of(stream)
        assert len(batch) == 32
        tokens.append(len(batch.tokens))
    assert abs(tokens[0] - tokens[1]) < 0.1 * sum(tokens)


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(vars(one).items(), vars(other).values(), strict=True)
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)
        for (_, a), b in pairs
    )


def negative_stream(seed: int, rank: int = 0, world: int = 1) -> TrainingStream:
    rng = np.random.default_rng(1)
    train = Sequences.from_lists([rng.integers(1, 60, 8) for _ in range(30)])
    negatives = UniformNegatives(60, 2, train)
    return TrainingStream(
        train, batch_size=7, seed=seed, negatives=negatives, rank=rank, world=world
    )


def test_seed_epoch_and_step_decide_everything_in_a_batch() -> None:
    one, other = negative_stream(5), negative_stream(5)
    for epoch in (0, 3):
        for a, b in zip(epoch_of(one, epoch), epoch_of(other, epoch), strict=True):
            assert same(a, b)
    # A stream that starts in the middle goes on as if it had run from the beginning.
    later = dict(other.epoch(3, first_step=2))
    assert list(later) == list(range(2, len(one)))
    assert all(same(later[step], dict(one.epoch(3))[step]) for step in later)


def test_another_seed_epoch_or_process_draws_other_rows_and_negatives() -> None:
    first = epoch_of(negative_stream(5))[0]
    for other in (
        epoch_of(negative_stream(6))[0],
        epoch_of(negative_stream(5), 1)[0],
        epoch_of(negative_stream(5))[1],
    ):
        assert not same(first, other)
    a, b = (epoch_of(negative_stream(5, rank, 2))[0].negatives for rank in (0, 1))
    assert a is not None and b is not None and not torch.equal(a[:5], b[:5])


def test_seeds_made_of_parts_differ_and_repeat() -> None:
    found = {hash_seed(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(found) == 125
    assert hash_seed(1, 2, 3) == hash_seed(1, 2, 3) != hash_seed(3, 2, 1)
    assert all(0 <= value < 2**63 for value in found)


def test_a_stream_without_two_items_in_any_history_says_so() -> None:
    with pytest.raises(InputError, match="no history has two items"):
        TrainingStream(Sequences.from_lists([[1], [2]]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=9),
    st.integers(1, 9),
)
def test_a_batch_of_lists_keeps_the_latest_items_and_the_way_back(
    rows: list[list[int]], max_length: int
) -> None:
    batch = batch_of_lists(rows, max_length)
    cut = [row[-max_length:] for row in rows]
    ends = np.cumsum(batch.lengths)
    packed = [batch.tokens[e - n : e].tolist() for e, n in zip(ends, batch.lengths, strict=True)]
    assert [packed[list(batch.rows).index(r)] for r in range(len(rows))] == cut
    padded = batch.padded()
    width = max(len(row) for row in cut)
    assert batch.in_source_order(padded).tolist() == [row + [0] * (width - len(row)) for row in cut]
    lasts = batch.in_source_order(batch.tokens[batch.last_at])
    assert lasts.tolist() == [row[-1] for row in rows]


def test_an_empty_history_cannot_be_batched() -> None:
    with pytest.raises(InputError, match="a history is empty"):
        batch_of_lists([[1], []], 5)
    items = torch.arange(1, 5)
    with pytest.raises(InputError, match="a history is empty"):
        gather(items, np.array([0, 2]), np.array([2, 2]), 5)


def test_read_only_items_are_taken_without_touching_the_file() -> None:
    array = np.arange(1, 5, dtype=np.int32)
    array.flags.writeable = False
    items = items_on(Sequences(array, np.array([0]), np.array([4])), "cpu")
    items[0] = 9
    assert array[0] == 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 12))
def test_a_batch_of_one_is_what_gather_makes_of_it(items: list[int], max_length: int) -> None:
    one = batch_of_one(np.array(items, dtype=np.int32), max_length, "cpu")
    expected = batch_of_lists([items], max_length)
    for name in ("tokens", "users"):
        assert torch.equal(getattr(one, name), getattr(expected, name))
    assert one.lengths.tolist() == expected.lengths.tolist()
    assert one.rows.tolist() == expected.rows.tolist()


def test_an_empty_history_is_no_batch_of_one() -> None:
    with pytest.raises(InputError, match="empty"):
        batch_of_one(np.empty(0, dtype=np.int32), 5, "cpu")


def test_rows_in_source_order_are_returned_as_they_are() -> None:
    values = torch.randn(3, 2)
    ascending, mixed = batch_of_lists([[1], [1, 2], [1, 2, 3]], 9), batch_of_lists([[1, 2], [1]], 9)
    assert ascending.in_source_order(values) is values
    assert torch.equal(mixed.in_source_order(values[:2]), values[:2].flip(0))
