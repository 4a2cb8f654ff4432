"""Accidents of histories: what each does to a history, whoever the user and whatever the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextup.data.sequences import Sequences
from nextup.data.split import Cases
from nextup.errors import InputError
from nextup.evaluation.perturb import PERTURBATIONS, Perturbed, forget, splice, swap, wrong_click

N_ITEMS = 30

HISTORIES = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=9), min_size=1, max_size=9)


def cases_of(histories: list[list[int]], users: list[int] | None = None) -> tuple[Cases, Sequences]:
    """Cases over histories that do not touch in memory, and everything each user did."""
    flat = [[7], *[each for history in histories for each in (history, [9])]]
    spans = Sequences.from_lists(flat).rows(np.arange(1, 2 * len(histories), 2))
    whole = Sequences.from_lists([[*history, 21] for history in histories])
    owners = np.arange(len(histories)) if users is None else np.array(users)
    return Cases(spans, np.full(len(histories), 21, dtype=np.int32), owners), whole


def changed(found: Perturbed) -> dict[int, list[int]]:
    return dict(zip(found.rows.tolist(), (h.tolist() for h in found.histories), strict=True))


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(0, 5))
def test_a_wrong_click_is_one_item_never_met(histories: list[list[int]], seed: int) -> None:
    cases, whole = cases_of(histories)
    found = wrong_click(cases, whole, N_ITEMS, seed)
    for row, after in changed(found).items():
        assert after[:-1] == histories[row] and found.added[row].tolist() == after[-1:]
        assert 1 <= after[-1] <= N_ITEMS and after[-1] not in {*histories[row], 21}
    assert found.rows.tolist() == list(range(len(histories)))


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(0, 5))
def test_a_swap_exchanges_two_neighbours(histories: list[list[int]], seed: int) -> None:
    cases, whole = cases_of(histories)
    found = swap(cases, whole, N_ITEMS, seed)
    for row, after in changed(found).items():
        before = histories[row]
        differ = [at for at, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1]
        assert len(differ) == 2 and differ[1] == differ[0] + 1
        assert [after[at] for at in differ] == [before[at] for at in reversed(differ)]
    sure = {row for row, h in enumerate(histories) if len(h) > 1 and len({*h}) == len(h)}
    assert sure <= set(found.rows.tolist())
    assert all(len({*histories[row]}) > 1 for row in found.rows)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(0, 5), st.data())
def test_a_splice_inserts_neighbours_of_another_users(
    histories: list[list[int]], seed: int, data: st.DataObject
) -> None:
    m = len(histories)
    users = data.draw(st.lists(st.integers(0, 3), min_size=m, max_size=m))
    cases, _ = cases_of(histories, users)
    found = splice(cases, Sequences.from_lists([[21]] * 4), N_ITEMS, seed)
    assert len(found.rows) == (m if len(set(users)) > 1 else 0)
    for row, after in changed(found).items():
        gram = [item for item in found.added[found.rows.tolist().index(row)].tolist() if item]
        before = histories[row]
        assert 1 <= len(gram) <= 3 and len(after) == len(before) + len(gram)
        assert any(after == before[:at] + gram + before[at:] for at in range(len(before) + 1))
        assert any(
            gram == other[at : at + len(gram)]
            for other, owner in zip(histories, users, strict=True)
            if owner != users[row]
            for at in range(len(other))
        )


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_forgetting_keeps_the_later_half(histories: list[list[int]]) -> None:
    cases, whole = cases_of(histories)
    found = changed(forget(cases, whole, N_ITEMS, 0))
    assert set(found) == {row for row, history in enumerate(histories) if len(history) > 1}
    for row, after in found.items():
        assert after == histories[row][len(histories[row]) // 2 :] != []


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_accidents_depend_on_the_seed_and_leave_the_histories_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    cases, whole = cases_of([rng.permutation(20)[: 4 + n % 5].tolist() for n in range(40)])
    before = cases.histories.items.copy()
    first, again, other = (PERTURBATIONS[name](cases, whole, N_ITEMS, seed) for seed in (1, 1, 2))
    assert changed(first) == changed(again)
    assert (changed(first) == changed(other)) == (name == "forget")
    np.testing.assert_array_equal(cases.histories.items, before)


def test_places_lengths_and_donors_are_even() -> None:
    histories = [[1, 2, 3, 4], [11, 12, 13, 14], [15, 16, 17, 18]] * 2000
    cases, whole = cases_of(histories, [0, 1, 2] * 2000)
    found = splice(cases, whole, N_ITEMS, 3)
    mine = found.rows % 3 == 0
    lengths = (found.added[mine] > 0).sum(axis=1)
    assert np.bincount(lengths, minlength=4)[1:] == pytest.approx(2000 / 3, abs=100)
    assert (found.added[mine, 0] >= 15).mean() == pytest.approx(0.5, abs=0.05)
    at = [
        h.tolist().index(11 if 11 in h else 15)
        for h in found.histories.rows(mine)
        if {11, 15} & {*h}
    ]
    assert set(at) == {0, 1, 2, 3, 4}
    first = [h[0] for row, h in changed(swap(cases, whole, N_ITEMS, 0)).items() if row % 3 == 0]
    assert np.mean(np.array(first) == 2) == pytest.approx(1 / 3, abs=0.05)


def test_nothing_is_left_to_click_on() -> None:
    cases, _ = cases_of([[1, 2]])
    with pytest.raises(InputError, match="has never met only 0"):
        wrong_click(cases, Sequences.from_lists([[1, 2, 3]]), 3, 0)
