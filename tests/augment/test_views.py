"""Which operators rows meet, how often, and that views keep the order of the rows."""

from __future__ import annotations

import dataclasses
from collections import Counter

import by_hand
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from nextup.augment import (
    OPERATORS,
    Augmenter,
    Packed,
    ViewPolicy,
    co_occurrence,
    short_set,
)
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError

SHIFT = by_hand.SHIFT
SIMILAR = by_hand.shifted()
HALF = {"crop": 0.5, "mask": 0.5, "reorder": 0.9, "substitute": 0.5, "insert": 0.5}
"""Rates at which the view of a row of twenty tells which operator it met."""


def operator_of(source: list[int], row: by_hand.Row) -> str:
    """Tell by the outcome which operator made `row`."""
    items = [item for item, _ in row]
    if len(items) > len(source):
        return "insert"
    if any(item >= SHIFT for item in items):
        return "substitute"
    if len(items) == len(source):
        return "reorder" if items != source else "none"
    return (
        "crop"
        if [ago for _, ago in row] == list(range(len(row)))[::-1]
        and (items == list(range(items[0], items[0] + len(items))))
        else "mask"
    )


def operators_met(sources: list[list[int]], view: Packed) -> list[str]:
    return [operator_of(*both) for both in zip(sources, by_hand.rows_of(view), strict=True)]


def twenty(count: int) -> list[list[int]]:
    return [list(range(100, 120))] * count


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_long_and_short_rows_meet_the_operators_of_their_set_equally_often() -> None:
    policy = ViewPolicy(**HALF, long=("crop", "mask", "insert"), short=("reorder", "substitute"))
    augmenter = Augmenter(dataclasses.replace(policy, threshold=20), SIMILAR)
    sources = [list(range(100, 120 + number % 2)) for number in range(6000)]
    met = operators_met(sources, augmenter.view(Packed.from_lists(sources), seeded(0)))
    for part, names in ((0, policy.short), (1, policy.long)):
        counts = Counter(met[part::2])
        assert set(counts) == set(names)
        assert chisquare(list(counts.values())).pvalue > 1e-3


def test_without_a_threshold_all_rows_meet_the_long_set() -> None:
    policy = ViewPolicy(**HALF, long=("substitute",), short=("insert",), threshold=None)
    rows = Packed.from_lists([[1], [2, 3, 4, 5, 6, 7]])
    view = Augmenter(policy, SIMILAR).view(rows)
    assert view.lengths.tolist() == [1, 6]


@pytest.mark.parametrize("distinct", [False, True])
def test_the_two_views_of_a_row_meet_independent_operators_or_distinct_ones(distinct: bool) -> None:
    augmenter = Augmenter(ViewPolicy(**HALF, threshold=None), SIMILAR)
    sources = twenty(8000)
    views = augmenter.pair(Packed.from_lists(sources), seeded(1), distinct=distinct)
    first, second = (operators_met(sources, view) for view in views)
    both = Counter(zip(first, second, strict=True))
    table = np.array([[both[one, other] for other in OPERATORS] for one in OPERATORS])
    assert table.sum() == 8000
    if distinct:
        assert np.trace(table) == 0
        assert chisquare(table[~np.eye(5, dtype=bool)]).pvalue > 1e-3
    else:
        assert chisquare(table.ravel()).pvalue > 1e-3
        assert chi2_contingency(table).pvalue > 1e-3


def test_distinct_operators_from_a_set_of_one_are_that_one_twice() -> None:
    augmenter = Augmenter(ViewPolicy(crop=0.5, long=("crop",), threshold=None))
    first, second = augmenter.pair(Packed.from_lists(twenty(9)), distinct=True)
    assert first.lengths.tolist() == second.lengths.tolist() == [10] * 9


def test_the_two_views_of_a_row_differ_although_they_meet_one_operator() -> None:
    augmenter = Augmenter(ViewPolicy(reorder=1.0, long=("reorder",), threshold=None))
    first, second = augmenter.pair(Packed.from_lists(twenty(5)), seeded(2))
    assert all(one != other for one, other in zip(first.as_lists(), second.as_lists(), strict=True))


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
    st.sampled_from([None, -1, 0, 4, 100]),
    st.sampled_from([None, 4 * SHIFT]),
    st.booleans(),
)
def test_row_r_of_a_view_is_a_view_of_row_r_however_the_rows_are_ordered(
    lengths: list[int], threshold: int | None, token: int | None, distinct: bool
) -> None:
    sources = [[100 * (row + 1) + place for place in range(n)] for row, n in enumerate(lengths)]
    augmenter = Augmenter(ViewPolicy(threshold=threshold), SIMILAR, 10, token)
    rows = Packed.from_lists(sources)
    torch.manual_seed(sum(lengths))
    for view in (augmenter.view(rows), *augmenter.pair(rows, distinct=distinct)):
        assert len(view) == len(sources) and (view.lengths >= 1).all()
        for source, row in zip(sources, by_hand.rows_of(view), strict=True):
            assert {item % SHIFT for item, _ in row if item != token} <= set(source)
            places = np.array([ago for _, ago in row])
            assert (np.diff(places) < 0).all() and places[-1] >= 0 and places[0] < 10


def test_single_items_never_become_empty() -> None:
    rows = Packed.from_lists([[7]] * 200)
    for policy in (ViewPolicy(), ViewPolicy(**HALF, threshold=None), ViewPolicy(mask=0.99)):
        for view in Augmenter(policy, SIMILAR).pair(rows):
            assert (view.lengths >= 1).all()
            assert set((view.tokens % SHIFT).tolist()) == {7}


def test_no_rows_have_no_views() -> None:
    rows = Packed.from_lists([])
    augmenter = Augmenter(ViewPolicy(), SIMILAR)
    assert len(augmenter.view(rows)) == 0
    assert [len(view) for view in augmenter.pair(rows)] == [0, 0]


def test_the_same_seed_gives_the_same_views() -> None:
    augmenter = Augmenter(ViewPolicy(**HALF, threshold=None), SIMILAR)
    rows = Packed.from_lists([list(range(1, n + 1)) for n in (9, 3, 12, 1, 20)])

    def views(generator: torch.Generator | None) -> list[list[by_hand.Row]]:
        drawn = [augmenter.view(rows, generator), *augmenter.pair(rows, generator)]
        return [by_hand.rows_of(view) for view in drawn]

    assert views(seeded(3)) == views(seeded(3)) != views(seeded(4))
    torch.manual_seed(5)
    default = views(None)
    torch.manual_seed(5)
    assert views(None) == default


def test_the_generator_of_the_host_decides_which_operators_are_met() -> None:
    augmenter = Augmenter(ViewPolicy(**HALF, threshold=None), SIMILAR)
    sources = twenty(30)
    one, two = (
        operators_met(
            sources,
            augmenter.view(Packed.from_lists(sources), seeded(seed), host_generator=seeded(6)),
        )
        for seed in (7, 8)
    )
    assert one == two and len(set(one)) == 5


def test_only_items_of_training_ever_come_out() -> None:
    whole = Sequences.from_lists([[1, 2, 3, 8, 9], [2, 3, 4, 9, 8], [5, 4, 1, 10, 11], [6, 12, 13]])
    train = whole.without_last(2)
    augmenter = Augmenter(ViewPolicy(**HALF), co_occurrence(train, n_items=13))
    rows = Packed.from_lists([history.tolist() for history in train] * 100)
    for view in augmenter.pair(rows):
        assert set(view.tokens.tolist()) <= set(train.flat().tolist())


def test_the_sets_of_the_paper_are_named_by_initials() -> None:
    assert short_set("SI") == ("substitute", "insert")
    assert short_set("SIMRC") == ("substitute", "insert", "mask", "reorder", "crop")


@pytest.mark.parametrize(
    ("letters", "message"), [("SIX", "`X`"), ("", "is empty"), ("SIS", "twice"), ("sim", "`s`")]
)
def test_a_set_that_cannot_be_read_is_refused(letters: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        short_set(letters)
    assert "\n" not in str(error.value)


def test_policies_that_cannot_be_followed_are_refused() -> None:
    with pytest.raises(ConfigError, match="`long` is empty"):
        ViewPolicy(long=())
    with pytest.raises(ConfigError, match="did you mean `insert`"):
        ViewPolicy(short=("inserts",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rate of `mask` is 1"):
        ViewPolicy(mask=1.0)


def test_operators_that_need_similar_items_are_refused_without_unless_not_in_use() -> None:
    with pytest.raises(ConfigError, match="`insert` needs similar items"):
        Augmenter(ViewPolicy())
    with pytest.raises(ConfigError, match="max_length is 0"):
        Augmenter(ViewPolicy(), SIMILAR, max_length=0)
    only = ViewPolicy(long=("crop", "mask", "reorder"), threshold=None)
    Augmenter(only).view(Packed.from_lists([[1, 2]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_drawing_views_never_waits_for_the_device() -> None:
    similar = SIMILAR.to("cuda")
    augmenter = Augmenter(ViewPolicy(threshold=None), similar)
    rows = Packed.from_lists(twenty(64), device="cuda")
    augmenter.pair(rows)  # what is known is asked once
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, second = augmenter.pair(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(first) == len(second) == 64
