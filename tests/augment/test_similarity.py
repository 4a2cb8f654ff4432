"""The most similar items, against dense matrices and counts by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextup.augment import SimilarItems, better_of, by_embedding, co_occurrence, similarity
from nextup.data.sequences import Sequences

N_ITEMS = 9
histories = st.lists(st.lists(st.integers(1, N_ITEMS), max_size=7), min_size=1, max_size=12)


def dense(lists: list[list[int]], inverse_user_frequency: bool) -> np.ndarray:
    """``[I+1, I+1]``: the similarity of every pair, by its definition."""
    sets = [set(found) for found in lists]
    similar = np.zeros((N_ITEMS + 1, N_ITEMS + 1))
    owners = [sum(item in found for found in sets) for item in range(N_ITEMS + 1)]
    for found in sets:
        weight = 1 / math.log(1 + len(found)) if inverse_user_frequency and found else 1.0
        for one in found:
            for other in found - {one}:
                similar[one, other] += weight / math.sqrt(owners[one] * owners[other])
    return similar


def best_of_dense(similar: np.ndarray) -> tuple[list[int], np.ndarray]:
    item, score = [0] * (N_ITEMS + 1), np.zeros(N_ITEMS + 1)
    stored = similar[similar > 0]
    for one in range(1, N_ITEMS + 1):
        best = similar[one].max()
        if best > 0:
            item[one] = int(np.flatnonzero(similar[one] > best * (1 - 1e-9))[0])
            low, high = stored.min(), stored.max()
            score[one] = (best - low) / (high - low) if high > low * (1 + 1e-9) else 1.0
    return item, score


@settings(max_examples=150)
@given(histories, st.booleans(), st.sampled_from([1, 20, 1 << 20]))
def test_co_occurrence_is_that_of_the_dense_matrix_in_chunks_of_any_size(
    lists: list[list[int]], inverse_user_frequency: bool, at_once: int
) -> None:
    matrix = dense(lists, inverse_user_frequency)
    np.testing.assert_allclose(matrix, matrix.T)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "_PAIRS_AT_ONCE", at_once)
        found = co_occurrence(Sequences.from_lists(lists), N_ITEMS, inverse_user_frequency)
    item, score = best_of_dense(matrix)
    assert found.item.dtype == torch.int64 and found.score.dtype == torch.float32
    assert found.item.tolist() == item
    np.testing.assert_allclose(found.score.numpy(), score, atol=1e-6)


def test_co_occurrence_of_three_users_by_hand() -> None:
    train = Sequences.from_lists([[1, 2, 1], [2, 3, 4], [3, 2]])
    found = co_occurrence(train, n_items=5)
    two, three = 1 / math.log(3), 1 / math.log(4)
    pairs = {
        (1, 2): two / math.sqrt(3),
        (2, 3): (two + three) / math.sqrt(6),
        (2, 4): three / math.sqrt(3),
        (3, 4): three / math.sqrt(2),
    }
    low, high = min(pairs.values()), max(pairs.values())
    assert found.item.tolist() == [0, 2, 3, 2, 3, 0]
    expected = [0, (pairs[1, 2] - low), high - low, high - low, pairs[3, 4] - low, 0]
    np.testing.assert_allclose(found.score.numpy(), np.array(expected) / (high - low), rtol=1e-6)


def test_of_equally_similar_items_the_lower_number_is_taken() -> None:
    found = co_occurrence(Sequences.from_lists([[4, 3, 2, 1]]), n_items=4)
    assert found.item.tolist() == [0, 2, 1, 1, 1]
    assert found.score.tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("sizes", [(4, 5, 8), (8, 5, 4)])
def test_similarities_that_differ_by_rounding_alone_are_equal(sizes: tuple[int, ...]) -> None:
    # The same three weights in another order: one of the sums is greater in its last bit.
    fillers = iter(range(4, 100))
    train = Sequences.from_lists(
        [1, item, *(next(fillers) for _ in range(size - 2))]
        for item, order in ((2, sizes), (3, sizes[::-1]))
        for size in order
    )
    assert co_occurrence(train, n_items=99).item[1] == 2


def test_only_the_spans_given_are_counted() -> None:
    whole = Sequences.from_lists([[1, 2, 3, 4], [2, 1, 5, 6], [3, 1, 2]])
    train = whole.without_last(2)
    found = co_occurrence(train, n_items=6)
    assert found.known.tolist() == [1, 2]
    stood_in = found.of(torch.arange(1, 7).repeat(50))
    assert set(stood_in.tolist()) == {1, 2}


def test_a_user_with_thousands_of_items_does_not_fill_the_memory() -> None:
    count = 4000  # all pairs together would take 190 MB
    train = Sequences.from_lists([list(range(1, count + 1)), [1, 2], [7, 9]])
    tracemalloc.start()
    try:
        found = co_occurrence(train, count)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.item[[1, 2, 7, 9]].tolist() == [2, 1, 9, 7]
    assert peak < 100e6


def test_where_no_similar_item_is_known_any_known_one_comes_out_as_often() -> None:
    similar = SimilarItems(torch.tensor([0, 3, 0, 1, 1]), torch.zeros(5), n_items=4)
    generator = torch.Generator().manual_seed(0)
    drawn = similar.of(torch.full((9000,), 2), generator)
    counts = torch.bincount(drawn, minlength=5)
    assert counts[[0, 2]].tolist() == [0, 0]
    error = 4 * math.sqrt(9000 * (1 / 3) * (2 / 3))
    assert (counts[[1, 3, 4]] - 3000).abs().max() < error
    again = similar.of(torch.full((9000,), 2), torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    assert similar.of(torch.tensor([1, 3, 4])).tolist() == [3, 1, 1]


def test_where_nothing_is_similar_to_anything_items_stand_for_themselves() -> None:
    alone = co_occurrence(Sequences.from_lists([[1], [2], []]), n_items=3)
    assert alone.item.tolist() == [0, 0, 0, 0]
    assert alone.of(torch.tensor([2, 1])).tolist() == [2, 1]


@pytest.mark.parametrize("at_once", [1, 50, 1 << 20])
def test_by_embedding_is_that_of_the_dense_products_without_padding_and_special_tokens(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_PAIRS_AT_ONCE", at_once)
    table = torch.randn(23, 4, generator=torch.Generator().manual_seed(1))
    table[0] = table[21:] = 100.0  # would be everybody's nearest
    found = by_embedding(table.requires_grad_(), n_items=20)
    vectors = table.detach()[1:21]
    products = vectors @ vectors.T
    low, high = products.min(), products.max()
    products.fill_diagonal_(-torch.inf)
    assert found.item.tolist() == [0, *(products.argmax(dim=1) + 1).tolist()]
    expected = (products.max(dim=1).values - low) / (high - low)
    torch.testing.assert_close(found.score[1:], expected)
    assert found.score[0] == 0 and not found.score.requires_grad


def test_by_embedding_takes_and_asks_only_items_of_training() -> None:
    table = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    table[4] = 100.0
    found = by_embedding(table, n_items=7, among=torch.tensor([1, 3, 6]))
    assert found.known.tolist() == [1, 3, 6]
    assert set(found.item.tolist()) <= {0, 1, 3, 6}
    assert set(found.of(torch.arange(1, 8).repeat(20)).tolist()) <= {1, 3, 6}


def test_by_embedding_of_equal_vectors_or_one_item_gives_no_nonsense() -> None:
    equal = by_embedding(torch.ones(4, 2), n_items=3)
    assert equal.item.tolist() == [0, 2, 1, 1] and equal.score.tolist() == [0, 1, 1, 1]
    assert by_embedding(torch.ones(2, 2), n_items=1).item.tolist() == [0, 0]


def test_the_better_of_two_has_the_greater_score_and_knows_what_either_knows() -> None:
    first = SimilarItems(
        torch.tensor([0, 2, 3, 0, 0, 1]), torch.tensor([0, 0.5, 0.2, 0, 0, 0.3]), 5
    )
    second = SimilarItems(
        torch.tensor([0, 4, 4, 4, 0, 4]), torch.tensor([0, 0.4, 0.6, 0, 0, 0.3]), 5
    )
    both = better_of(first, second)
    assert both.item.tolist() == [0, 2, 4, 4, 0, 1]
    torch.testing.assert_close(both.score, torch.tensor([0, 0.5, 0.6, 0, 0, 0.3]))
    assert both.known.tolist() == [1, 2, 3, 5]


def test_similar_items_that_are_there_already_are_not_copied() -> None:
    similar = SimilarItems(torch.tensor([0, 2, 1]), torch.ones(3), n_items=2)
    assert similar.to("cpu") is similar
