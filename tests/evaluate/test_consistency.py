"""Consistency: lists compared by hand, models that cannot jump, and what may be shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.data.simulate import simulate
from nextup.data.split import Cases, leave_one_out
from nextup.errors import ConfigError
from nextup.evaluation.consistency import measure_consistency, overlaps, without
from nextup.evaluation.perturb import PERTURBATIONS
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.evaluation.retrieval import top_items
from nextup.models.base import ModelConfig, Recommender
from nextup.models.registry import make_model

SPLIT = simulate(150, 60, seed=3).dataset.split()


def by_hand(before: list[int], after: list[int], p: float) -> tuple[float, float]:
    """RBO as Webber et al. write it, and Jaccard."""
    k = min(len(before), len(after))
    if k == 0:
        return 1.0, 1.0
    common = [len(set(before[:d]) & set(after[:d])) for d in range(1, k + 1)]
    rbo = common[-1] / k * p**k
    rbo += (1 - p) / p * sum(x / d * p**d for d, x in enumerate(common, 1))
    return rbo, common[-1] / len(set(before[:k]) | set(after[:k]))


LISTS = st.lists(st.integers(1, 15), max_size=10, unique=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LISTS, LISTS), min_size=1, max_size=8), st.floats(0.05, 0.95))
def test_overlaps_are_those_of_the_definition(
    pairs: list[tuple[list[int], list[int]]], p: float
) -> None:
    before, after = (
        np.array([[*each[side], *[0] * (10 - len(each[side]))] for each in pairs])
        for side in (0, 1)
    )
    rbo, jaccard = overlaps(before, after, p)
    for row, pair in enumerate(pairs):
        assert (rbo[row], jaccard[row]) == pytest.approx(by_hand(*pair, p))
    back = overlaps(after, before, p)
    np.testing.assert_allclose(back, (rbo, jaccard))
    assert (rbo >= 0).all() and (rbo <= 1 + 1e-12).all()


def test_equal_lists_are_one_and_disjoint_ones_nothing() -> None:
    lists = np.random.default_rng(0).permuted(np.tile(np.arange(1, 21), (50, 1)), axis=1)
    first, second = lists[:, :10], lists[:, 10:]
    for value in overlaps(first, first):
        np.testing.assert_allclose(value, 1)
    for value in overlaps(first, second):
        np.testing.assert_array_equal(value, 0)


def test_an_exchange_high_up_weighs_more() -> None:
    whole = np.arange(1, 11)
    rows = np.tile(whole, (9, 1))
    for at in range(9):
        rows[at, [at, at + 1]] = rows[at, [at + 1, at]]
    rbo, jaccard = overlaps(np.tile(whole, (9, 1)), rows)
    assert (np.diff(rbo) > 0).all() and (jaccard == 1).all()


def test_what_is_popular_never_jumps() -> None:
    model = make_model("pop", 60)
    model.count(SPLIT.train)
    found = measure_consistency(model, SPLIT.test, whole=SPLIT.whole)
    assert list(found.shifts) == ["wrong click", "swap", "splice", "forget"]
    for shift in found.shifts.values():
        np.testing.assert_allclose(shift.rbo, 1)
        np.testing.assert_allclose(shift.jaccard, 1)
        np.testing.assert_array_equal(shift.before, shift.after)
    echo = found.shifts["wrong click"].echo.mean()
    assert 0 < echo < 1, "popular items are among those never met"


def test_a_markov_chain_does_not_mind_forgetting() -> None:
    model = make_model("mc1", 60)
    model.count(SPLIT.train)
    found = measure_consistency(model, SPLIT.test, whole=SPLIT.whole, seed=1)
    shift = found.shifts["forget"]
    np.testing.assert_allclose(shift.rbo, 1)
    np.testing.assert_array_equal(shift.before, shift.after)
    # The last item is all that it reads, and a wrong click is the last item.
    assert found.shifts["wrong click"].rbo.mean() < 0.6 < found.shifts["swap"].rbo.mean()


@pytest.mark.parametrize("candidates", ["full", "sampled"])
def test_ranks_before_are_those_of_the_evaluation(candidates: str) -> None:
    protocol = Protocol(candidates=candidates, n_negatives=20)  # type: ignore[arg-type]
    model = make_model("mc1", 60)
    model.count(SPLIT.train)
    found = measure_consistency(model, SPLIT.test, whole=SPLIT.whole, protocol=protocol)
    plain = rank_cases(model, SPLIT.test, protocol, whole=SPLIT.whole)
    np.testing.assert_array_equal(found.shifts["wrong click"].before, plain.ranks)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_ranks_and_lists_are_those_that_are_found_apart(name: str) -> None:
    model = make_model("gru4rec", 60, {"width": 8, "hidden": 8}).eval()
    cases = SPLIT.test
    (shift,) = measure_consistency(
        model, cases, whole=SPLIT.whole, accidents=[name], seed=5, k=4
    ).shifts.values()
    each = PERTURBATIONS[name](cases, SPLIT.whole, 60, 5)
    seen = cases.histories.rows(each.rows)
    now = Cases(each.histories, cases.targets[each.rows], cases.users[each.rows])
    after = rank_cases(model, now, Protocol(), seen=seen).ranks
    np.testing.assert_array_equal(shift.after, after)
    lists = []
    for histories in (seen, each.histories):
        scores = np.full((len(seen), 61), -np.inf)
        found, value = top_items(model, histories, 60, seen=seen)
        np.put_along_axis(scores, found, value, axis=1)
        np.put_along_axis(scores, np.where(each.added > 0, each.added, 0), -np.inf, axis=1)
        scores[:, 0] = -np.inf
        lists.append(np.argsort(-scores, axis=1, kind="stable")[:, :4])
    rbo, jaccard = overlaps(lists[0], lists[1])
    np.testing.assert_allclose((shift.rbo, shift.jaccard), (rbo, jaccard))


class Echo(Recommender):
    """Shows the items read, the last first, then all others by number."""

    name = "echo"

    def __init__(self, n_items: int) -> None:
        super().__init__(ModelConfig(max_length=50), n_items)

    def scores(self, batch: Batch) -> Tensor:
        scores = -torch.arange(self.n_items + 1.0).repeat(len(batch), 1)
        padded = batch.padded()
        for place in range(padded.shape[1]):
            row = torch.arange(len(batch))[padded[:, place] > 0]
            scores[row, padded[row, place]] = 100.0 + place
        return scores


def plain_cases(histories: list[list[int]], target: int) -> tuple[Cases, Sequences]:
    spans = Sequences.from_lists(histories)
    targets = np.full(len(histories), target, dtype=np.int32)
    whole = Sequences.from_lists([[*history, target] for history in histories])
    return Cases(spans, targets, np.arange(len(histories))), whole


def test_what_the_accident_added_is_not_shown_and_seen_items_stay_seen() -> None:
    cases, whole = plain_cases([[1, 2, 3], [4, 5, 6, 7], [8, 9]], 30)
    model = Echo(30)
    found = measure_consistency(model, cases, whole=whole, k=5)
    for name, shift in found.shifts.items():
        np.testing.assert_allclose(shift.rbo, 1, err_msg=name)
    assert found.shifts["wrong click"].echo.all() and found.shifts["splice"].echo.all()
    # For the target's rank what was added is a candidate like any other: it stands above.
    assert (found.shifts["wrong click"].after >= found.shifts["wrong click"].before).all()
    # Forgotten items would be shown again if they were no longer seen; the model still shows none.
    assert (found.shifts["forget"].after == found.shifts["forget"].before).all()
    included = measure_consistency(
        model, cases, whole=whole, k=5, protocol=Protocol(seen="included")
    )
    assert (included.shifts["wrong click"].jaccard < 1).all()


def test_a_target_among_the_strangers_items_can_be_found() -> None:
    cases, whole = plain_cases([[1, 2], [9, 9, 9]], 9)
    shift = measure_consistency(Echo(20), cases, whole=whole, accidents=["splice"]).shifts["splice"]
    assert np.isfinite(shift.after[0]) and shift.after[0] < shift.before[0]
    assert np.isinf([shift.before[1], shift.after[1]]).all(), "it was seen before"


def test_small_catalogues_end_the_lists_early() -> None:
    cases, whole = plain_cases([[1, 2, 3], [2, 3]], 4)
    found = measure_consistency(Echo(6), cases, whole=whole)
    assert all(np.isfinite(shift.rbo).all() for shift in found.shifts.values())
    np.testing.assert_allclose(found.shifts["forget"].rbo, 1)


def test_histories_that_cannot_change_are_left_out() -> None:
    split = leave_one_out(Sequences.from_lists([[1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]))
    model = make_model("pop", 12)
    model.count(split.train)
    found = measure_consistency(model, split.valid, whole=split.whole)
    assert {name: len(shift) for name, shift in found.shifts.items()} == {
        "wrong click": 3,
        "swap": 1,
        "splice": 3,
        "forget": 1,
    }
    assert found.to_json()["accidents"]["swap"]["RBO@10"] is None
    assert "-" in found.table()[2]


def test_what_is_measured_is_said() -> None:
    model = make_model("mc1", 60)
    model.count(SPLIT.train)
    found = measure_consistency(model, SPLIT.test, whole=SPLIT.whole, seed=4, k=5)
    document = json.loads(json.dumps(found.to_json()))
    one = document["accidents"]["wrong click"]
    assert document["seed"] == 4 and one["cases"] == 150
    lost = one["NDCG@5 before"][0] - one["NDCG@5 after"][0]
    assert one["NDCG@5 lost"][0] == pytest.approx(lost)
    shift = found.shifts["wrong click"]
    assert one["RBO@5"] == pytest.approx([shift.rbo.mean(), shift.rbo.std(ddof=1) / 150**0.5])
    header, *rows = found.table()
    assert len(header) == len(rows[0]) == 11 and [row[0] for row in rows] == list(found.shifts)
    assert "150 cases" in found.describe() and "seen items excluded" in found.describe()
    again = measure_consistency(model, SPLIT.test, whole=SPLIT.whole, seed=4, k=5)
    assert again.to_json() == found.to_json()


def test_it_can_be_watched() -> None:
    seen: list[tuple[int, int]] = []
    model = make_model("pop", 60)
    model.count(SPLIT.train)
    measure_consistency(
        model, SPLIT.test, whole=SPLIT.whole, progress=lambda *now: seen.append(now)
    )
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"accidents": ["swop"]}, "did you mean `swap`"),
        ({"k": 0}, "at least 1 item"),
        ({"p": 1.0}, "between 0 and 1"),
        ({"seed": -1}, "seed: -1 is out of range"),
    ],
)
def test_what_cannot_be_asked_is_said(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        measure_consistency(make_model("pop", 60), SPLIT.test, whole=SPLIT.whole, **wrong)  # type: ignore[arg-type]


def test_hidden_items_make_room_for_the_next() -> None:
    lists = np.array([[1, 2, 3, 4], [1, 2, 0, 0]])
    hidden = np.array([[2, 0], [1, 9]])
    np.testing.assert_array_equal(without(lists, hidden, 3), [[1, 3, 4], [2, 0, 0]])
