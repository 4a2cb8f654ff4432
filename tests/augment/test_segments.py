"""Segments and strangers: where they lie, how often, and that nobody meets himself."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from nextup.augment.packed import Packed
from nextup.augment.segments import items_not_in_row, random_segments

CORPUS = torch.arange(100, 130)


def test_a_segment_is_at_most_half_a_row_and_lies_within_it() -> None:
    torch.manual_seed(0)
    rows = Packed.from_lists([[5] * n for n in (2, 3, 4, 7, 20)])
    for _ in range(50):
        found = random_segments(rows, CORPUS)
        lengths = rows.lengths.tolist()
        for row, other in zip(
            torch.split(found.inside, lengths), torch.split(found.strangers, lengths), strict=True
        ):
            at = torch.nonzero(row).squeeze(1)
            assert 1 <= len(at) <= len(row) // 2
            assert (at.diff() == 1).all()
            assert (other[~row] == 0).all()
            assert (other[at].diff() == 1).all() and (other[at] >= 100).all()  # one stretch of it


def test_lengths_starts_and_strangers_are_equally_likely() -> None:
    torch.manual_seed(0)
    draws = 6000
    rows = Packed.from_lists([[5] * 4] * draws)
    found = random_segments(rows, CORPUS)
    inside = found.inside.view(draws, 4)
    counts = Counter(tuple(row) for row in inside.int().tolist())
    single = [counts[tuple(int(n == at) for n in range(4))] / draws for at in range(4)]
    double = [counts[tuple(int(at <= n <= at + 1) for n in range(4))] / draws for at in range(3)]
    np.testing.assert_allclose(single, 1 / 8, atol=0.02)
    np.testing.assert_allclose(double, 1 / 6, atol=0.02)
    first = found.strangers.view(draws, 4).max(dim=1).values
    assert set(first.tolist()) == set(range(100, 130))
    alone = first[inside.sum(dim=1) == 1]  # the first item of a stretch of one is the stretch
    shares = torch.bincount(alone - 100, minlength=30) / len(alone)
    np.testing.assert_allclose(shares, 1 / 30, atol=0.016)  # five standard deviations


def test_a_stranger_is_any_item_that_its_row_has_not() -> None:
    torch.manual_seed(0)
    rows = Packed.from_lists([[1, 2, 3], [4, 5], [6, 6]])
    asked = torch.tensor([0, 2, 3, 6]).repeat(3000)
    drawn = items_not_in_row(rows, asked, n_items=6).view(-1, 4)
    for column, left in zip(
        drawn.T, ({4, 5, 6}, {4, 5, 6}, {1, 2, 3, 6}, {1, 2, 3, 4, 5}), strict=True
    ):
        counts = torch.bincount(column, minlength=7) / len(column)
        assert set(torch.nonzero(counts).squeeze(1).tolist()) == left
        np.testing.assert_allclose(counts[sorted(left)], 1 / len(left), atol=0.04)
