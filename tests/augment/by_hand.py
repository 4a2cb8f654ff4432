"""The operators again, in plain Python, on one row: every way they can come out, as likely."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import torch
from scipy.stats import chisquare

from nextup.augment import Packed, SimilarItems

Row = tuple[tuple[int, int], ...]
"""Of each token its item and how many places it stands before the end."""

SHIFT = 5000
"""In the tests the item most similar to `i` is `i + SHIFT`."""


def shifted() -> SimilarItems:
    item = torch.arange(2 * SHIFT) + SHIFT
    item[0] = 0
    return SimilarItems(item, torch.ones(2 * SHIFT), n_items=2 * SHIFT - 1)


def floor_of(rate: str, length: int) -> int:
    product = Fraction(rate) * length
    return product.numerator // product.denominator


def close(items: list[int]) -> Row:
    return tuple((item, len(items) - 1 - place) for place, item in enumerate(items))


def crops(items: list[int], rate: str) -> Iterator[Row]:
    count = max(1, floor_of(rate, len(items)))
    for start in range(len(items) - count + 1):
        yield close(items[start : start + count])


def masks(items: list[int], rate: str, token: int | None = None) -> Iterator[Row]:
    row = close(items)
    for hidden in itertools.combinations(range(len(items)), floor_of(rate, len(items))):
        if token is None:
            yield tuple(seen for place, seen in enumerate(row) if place not in hidden)
        else:
            yield tuple(
                (token if place in hidden else item, ago) for place, (item, ago) in enumerate(row)
            )


def reorders(items: list[int], rate: str) -> Iterator[Row]:
    count = floor_of(rate, len(items))
    for start in range(len(items) - count + 1):
        for order in itertools.permutations(items[start : start + count]):
            yield close([*items[:start], *order, *items[start + count :]])


def substitutes(items: list[int], rate: str) -> Iterator[Row]:
    count = max(1, floor_of(rate, len(items)))
    for places in itertools.combinations(range(len(items)), count):
        yield close([item + SHIFT if place in places else item for place, item in enumerate(items)])


def inserts(items: list[int], rate: str, max_length: int) -> Iterator[Row]:
    count = max(1, floor_of(rate, len(items)))
    for places in itertools.combinations(range(len(items)), count):
        grown: list[int] = []
        for place, item in enumerate(items):
            grown += [item + SHIFT, item] if place in places else [item]
        yield close(grown[-max_length:])


def rows_of(packed: Packed) -> list[Row]:
    tokens, ago = packed.tokens.tolist(), packed.ago.tolist()
    ends = np.cumsum(packed.lengths)
    return [
        tuple(zip(tokens[end - n : end], ago[end - n : end], strict=True))
        for end, n in zip(ends, packed.lengths, strict=True)
    ]


def assert_comes_out_as(
    operator: Callable[[Packed], Packed],
    reference: Callable[[list[int]], Iterator[Row]],
    lengths: range = range(1, 6),
    copies: int = 4000,
) -> None:
    """Check that rows of several lengths, mixed, come out as often as the reference says."""
    torch.manual_seed(0)
    sources = [[10 * length + place for place in range(length)] for length in lengths]
    found = rows_of(operator(Packed.from_lists(sources * copies)))
    for number, source in enumerate(sources):
        seen = Counter(found[number :: len(sources)])
        ways = Counter(reference(source))
        assert set(seen) <= set(ways), f"{set(seen) - set(ways)} cannot come of {source}"
        if len(ways) > 1:
            share = copies / sum(ways.values())
            rows = list(ways)
            p = chisquare([seen[row] for row in rows], [ways[row] * share for row in rows]).pvalue
            assert p > 1e-3, (source, seen, ways)
