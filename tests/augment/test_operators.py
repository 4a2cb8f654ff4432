"""Each operator comes out as its plain reference does, and keeps what it must keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import by_hand
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from nextup.augment import Packed, crop, insert, mask, reorder, share, substitute
from nextup.errors import ConfigError

SHIFT = by_hand.SHIFT
SIMILAR = by_hand.shifted()
MASK = 4 * SHIFT

lengths_of_rows = st.lists(st.integers(1, 12), min_size=1, max_size=15)
rates = st.integers(0, 99).map(lambda percent: percent / 100)

OPERATORS: dict[str, Callable[[Packed, float], Packed]] = {
    "crop": crop,
    "mask": mask,
    "mask with a token": lambda rows, rate: mask(rows, rate, token=MASK),
    "reorder": reorder,
    "substitute": lambda rows, rate: substitute(rows, rate, SIMILAR),
    "insert": lambda rows, rate: insert(rows, rate, SIMILAR, max_length=15),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def distinct_rows(lengths: list[int]) -> list[list[int]]:
    """Rows whose items tell the row (hundreds) and the place (the rest) they come from."""
    return [[100 * (row + 1) + place for place in range(n)] for row, n in enumerate(lengths)]


def meet(name: str, lengths: list[int], rate: float) -> tuple[list[list[int]], Packed]:
    torch.manual_seed(sum(lengths))
    sources = distinct_rows(lengths)
    return sources, OPERATORS[name](Packed.from_lists(sources), rate)


@pytest.mark.parametrize("rate", ["0.2", "0.4", "0.6", "1"])
def test_crop_comes_out_as_often_as_the_reference(rate: str) -> None:
    by_hand.assert_comes_out_as(
        lambda rows: crop(rows, float(rate)), lambda items: by_hand.crops(items, rate)
    )


@pytest.mark.parametrize("token", [None, MASK])
@pytest.mark.parametrize("rate", ["0", "0.3", "0.7"])
def test_mask_comes_out_as_often_as_the_reference(rate: str, token: int | None) -> None:
    by_hand.assert_comes_out_as(
        lambda rows: mask(rows, float(rate), token), lambda items: by_hand.masks(items, rate, token)
    )


@pytest.mark.parametrize("rate", ["0.2", "0.6", "0.8"])
def test_reorder_comes_out_as_often_as_the_reference(rate: str) -> None:
    by_hand.assert_comes_out_as(
        lambda rows: reorder(rows, float(rate)), lambda items: by_hand.reorders(items, rate)
    )


@pytest.mark.parametrize("rate", ["0.1", "0.5", "1"])
def test_substitute_comes_out_as_often_as_the_reference(rate: str) -> None:
    by_hand.assert_comes_out_as(
        lambda rows: substitute(rows, float(rate), SIMILAR),
        lambda items: by_hand.substitutes(items, rate),
    )


@pytest.mark.parametrize("max_length", [3, 50])
@pytest.mark.parametrize("rate", ["0.1", "0.4", "1"])
def test_insert_comes_out_as_often_as_the_reference(rate: str, max_length: int) -> None:
    by_hand.assert_comes_out_as(
        lambda rows: insert(rows, float(rate), SIMILAR, max_length),
        lambda items: by_hand.inserts(items, rate, max_length),
    )


@every_operator
def test_neighbouring_rows_are_drawn_independently(name: str) -> None:
    torch.manual_seed(1)
    rows = Packed.from_lists([[1, 2, 3], [4, 5, 6]] * 4000)
    found = by_hand.rows_of(OPERATORS[name](rows, 0.67))
    both = Counter(zip(found[::2], found[1::2], strict=True))
    first, second = (sorted(set(found[part::2])) for part in (0, 1))
    table = np.array([[both[one, other] for other in second] for one in first])
    assert table.size > 1
    assert chi2_contingency(table).pvalue > 1e-3


@settings(max_examples=50)
@given(st.sampled_from(sorted(OPERATORS)), lengths_of_rows, rates)
def test_rows_keep_their_order_never_mix_and_never_become_empty(
    name: str, lengths: list[int], rate: float
) -> None:
    sources, found = meet(name, lengths, rate)
    assert len(found) == len(lengths)
    assert found.lengths.dtype == np.int64
    assert (found.lengths >= 1).all()
    assert len(found.tokens) == len(found.ago) == found.lengths.sum()
    for source, row in zip(sources, found.as_lists(), strict=True):
        assert {item % SHIFT for item in row if item != MASK} <= set(source)


@settings(max_examples=50)
@given(st.sampled_from(sorted(OPERATORS)), lengths_of_rows, rates)
def test_places_fall_along_every_row_and_are_consecutive_unless_masked(
    name: str, lengths: list[int], rate: float
) -> None:
    _, found = meet(name, lengths, rate)
    for row in by_hand.rows_of(found):
        places = np.array([ago for _, ago in row])
        assert (np.diff(places) < 0).all() and places[-1] >= 0
        if name != "mask":
            np.testing.assert_array_equal(places, np.arange(len(row))[::-1])


@given(lengths_of_rows, rates)
def test_crop_is_a_slice_of_the_row_of_the_right_length(lengths: list[int], rate: float) -> None:
    sources, found = meet("crop", lengths, rate)
    for source, row in zip(sources, found.as_lists(), strict=True):
        assert len(row) == max(1, by_hand.floor_of(str(rate), len(source)))
        assert row == list(range(row[0], row[0] + len(row)))
        assert set(row) <= set(source)


@given(lengths_of_rows, rates)
def test_mask_hides_the_right_number_and_the_others_stay_where_they_were(
    lengths: list[int], rate: float
) -> None:
    sources, found = meet("mask", lengths, rate)
    for source, row in zip(sources, by_hand.rows_of(found), strict=True):
        assert len(row) == len(source) - by_hand.floor_of(str(rate), len(source))
        assert all(source[len(source) - 1 - ago] == item for item, ago in row)


@given(lengths_of_rows, rates)
def test_mask_with_a_token_changes_the_right_number_of_places_and_nothing_else(
    lengths: list[int], rate: float
) -> None:
    sources, found = meet("mask with a token", lengths, rate)
    for source, row in zip(sources, found.as_lists(), strict=True):
        assert row.count(MASK) == by_hand.floor_of(str(rate), len(source))
        assert all(new in (MASK, old) for new, old in zip(row, source, strict=True))


@given(lengths_of_rows, rates)
def test_reorder_keeps_all_items_and_moves_none_outside_of_a_slice(
    lengths: list[int], rate: float
) -> None:
    sources, found = meet("reorder", lengths, rate)
    for source, row in zip(sources, found.as_lists(), strict=True):
        assert Counter(row) == Counter(source)
        moved = np.flatnonzero(np.array(row) != np.array(source))
        if len(moved):
            assert moved[-1] - moved[0] < by_hand.floor_of(str(rate), len(source))


@given(lengths_of_rows, rates)
def test_substitute_changes_the_right_number_of_items_to_their_similar_ones(
    lengths: list[int], rate: float
) -> None:
    sources, found = meet("substitute", lengths, rate)
    for source, row in zip(sources, found.as_lists(), strict=True):
        changed = [new - old for new, old in zip(row, source, strict=True) if new != old]
        assert changed == [SHIFT] * max(1, by_hand.floor_of(str(rate), len(source)))


@given(lengths_of_rows, rates)
def test_insert_without_what_was_inserted_is_the_end_of_the_row(
    lengths: list[int], rate: float
) -> None:
    sources, found = meet("insert", lengths, rate)
    for source, row in zip(sources, found.as_lists(), strict=True):
        count = max(1, by_hand.floor_of(str(rate), len(source)))
        assert len(row) == min(len(source) + count, 15)
        kept = [item for item in row if item < SHIFT]
        assert kept == source[len(source) - len(kept) :]
        for place, item in enumerate(row):
            if item >= SHIFT:
                assert row[place + 1] == item - SHIFT


def test_a_masked_last_item_leaves_the_last_place_empty() -> None:
    torch.manual_seed(2)
    last = mask(Packed.from_lists([[1, 2]] * 50), rate=0.5).ago
    assert set(last.tolist()) == {0, 1}


def test_rows_with_gaps_keep_them_where_items_only_change_or_move() -> None:
    gaps = Packed(torch.tensor([5, 6, 7]), np.array([2, 1]), torch.tensor([4, 1, 3]))
    for change in ("mask with a token", "reorder", "substitute"):
        assert OPERATORS[change](gaps, 0.9).ago.tolist() == [4, 1, 3]
    assert OPERATORS["crop"](gaps, 1.0).ago.tolist() == [1, 0, 0]


def test_a_rate_means_the_decimal_it_is_written_as() -> None:
    lengths = np.arange(1, 400)
    for percent in range(101):
        expected = lengths * percent // 100
        np.testing.assert_array_equal(share(lengths, percent / 100), expected)
    assert share(np.array([3, 10]), 1 / 3).tolist() == [1, 3]
    assert share(np.array([10]), 0.1 + 0.2).tolist() == [3]
    assert share(np.array([10]), np.float32(0.5)).tolist() == [5]


@every_operator
def test_a_generator_decides_all_and_the_default_one_is_left_alone(name: str) -> None:
    rows = Packed.from_lists(distinct_rows([7, 1, 9, 4, 12]))
    plain = {"crop": crop, "mask": mask, "reorder": reorder}
    similar = {
        "substitute": lambda *args, **more: substitute(*args, SIMILAR, **more),
        "insert": lambda *args, **more: insert(*args, SIMILAR, 50, **more),
        "mask with a token": lambda *args, **more: mask(*args, MASK, **more),
    }
    operator = {**plain, **similar}[name]
    before = torch.get_rng_state()
    one, two, other = (
        by_hand.rows_of(operator(rows, 0.5, generator=torch.Generator().manual_seed(seed)))
        for seed in (3, 3, 4)
    )
    assert one == two != other
    assert torch.equal(torch.get_rng_state(), before)
    assert by_hand.rows_of(rows) == by_hand.rows_of(
        Packed.from_lists(distinct_rows([7, 1, 9, 4, 12]))
    )


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
@every_operator
def test_a_rate_that_is_no_share_is_refused(name: str, rate: float) -> None:
    with pytest.raises(ConfigError, match="must lie in"):
        OPERATORS[name](Packed.from_lists([[1, 2]]), rate)


def test_masking_everything_is_refused_and_nearly_everything_leaves_one() -> None:
    rows = Packed.from_lists([[1, 2, 3], [4]])
    with pytest.raises(ConfigError, match=r"\[0, 1\)"):
        mask(rows, 1.0)
    assert mask(rows, 0.9999999).lengths.tolist() == [1, 1]


def test_insert_needs_room() -> None:
    with pytest.raises(ConfigError, match="max_length is 0"):
        insert(Packed.from_lists([[1]]), 0.5, SIMILAR, max_length=0)
