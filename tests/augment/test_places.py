"""The gaps of a cloze: how many, where, and how often only the last."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nextup.augment import Packed, cloze_places


def rows_of(lengths: list[int]) -> Packed:
    return Packed.from_lists([[7] * n for n in lengths])


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.6, 1.0])
def test_a_row_has_its_share_of_gaps_and_at_least_one(rate: float) -> None:
    torch.manual_seed(0)
    lengths = [1, 1, 2, 3, 5, 8, 50]
    at, counts = cloze_places(rows_of(lengths), rate)
    assert counts.tolist() == [max(1, round(rate * n)) for n in lengths]
    rows = np.repeat(np.arange(len(lengths)), lengths)[at.numpy()]
    assert np.bincount(rows, minlength=len(lengths)).tolist() == counts.tolist()
    assert (at[1:] > at[:-1]).all()


def test_every_choice_of_gaps_is_as_likely() -> None:
    torch.manual_seed(0)
    copies, length = 6000, 5
    at, counts = cloze_places(rows_of([length] * copies), 0.4)
    assert (counts == 2).all()
    seen = Counter(map(tuple, (at.view(copies, 2) % length).tolist()))
    ways = list(combinations(range(length), 2))
    assert chisquare([seen[way] for way in ways]).pvalue > 1e-3


def test_some_rows_have_the_last_as_their_only_gap() -> None:
    torch.manual_seed(0)
    copies, length, chance = 20000, 5, 0.15
    at, counts = cloze_places(rows_of([length] * copies), 0.6, last_only=chance)
    alone = counts == 1
    assert abs(alone.mean() - chance) < 4 * (chance * (1 - chance) / copies) ** 0.5
    rows = np.repeat(np.arange(copies), counts)
    assert (at.numpy()[alone[rows]] % length == length - 1).all()
    assert set(counts[~alone]) == {3}
    # Elsewhere the last is a gap as often as any other.
    others = at.numpy()[~alone[rows]] % length
    assert chisquare(np.bincount(others)).pvalue > 1e-3
