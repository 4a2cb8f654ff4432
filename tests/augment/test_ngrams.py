"""Each corruption comes out as a plain one of a single row does, and keeps what it must keep."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from nextup.augment import Packed, Strangers, cut_ngram, shuffle_ngrams, splice_strangers
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError

MODES = ["blocks", "inside", "swap2"]
Row = tuple[int, ...]


def pieces_of(row: list[int], n: int) -> list[list[int]]:
    return [row[first : first + n] for first in range(0, len(row), n)]


def picked(rng: random.Random, among: list[int], at_least: int) -> list[int]:
    """Each with probability one half; where too few are, any others in their place."""
    order = rng.sample(among, len(among))
    chosen = [place for place in order if rng.random() < 0.5]
    rest = [place for place in order if place not in chosen]
    return sorted(chosen + rest[: max(0, at_least - len(chosen))])


def plain_shuffle(row: list[int], mode: str, rng: random.Random) -> Row:
    """One row, the plain way, again and again until it has changed."""
    while True:
        if mode == "inside":
            pieces = pieces_of(row, rng.choice([2, 3]) if len(row) > 2 else 2)
            for place in picked(rng, [p for p, each in enumerate(pieces) if len(each) > 1], 1):
                pieces[place] = rng.sample(pieces[place], len(pieces[place]))
        else:
            pieces = pieces_of(row, rng.randint(1, min(3, len(row) // 2)))
            among = list(range(len(pieces)))
            chosen = rng.sample(among, 2) if mode == "swap2" else picked(rng, among, 2)
            others = chosen
            while others == chosen:
                others = rng.sample(chosen, len(chosen))
            moved = dict(zip(chosen, others, strict=True))
            pieces = [pieces[moved.get(place, place)] for place in among]
        found = [item for piece in pieces for item in piece]
        if found != row:
            return tuple(found)


def plain_splice(row: list[int], others: list[list[int]], rng: random.Random) -> Row:
    """One row, the plain way; `others` have nothing of it."""
    half = len(row) // 2
    n = rng.randint(1, min(3, half))
    pieces = pieces_of(row, n)
    among = list(range(len(pieces)))
    keys = sorted((rng.random(), place) for place in among)
    order = [place for nth, (key, place) in enumerate(keys) if key < 0.5 or nth == 0]
    for place in order:
        half -= len(pieces[place])
        if half < 0:
            break
        size = len(pieces[place])
        grams = [o[i : i + size] for o in others for i in range(len(o) - size + 1)]
        pieces[place] = rng.choice(grams)
    return tuple(item for piece in pieces for item in piece)


def plain_cut(row: list[int], rng: random.Random) -> Row:
    size = rng.randint(1, min(5, max(1, len(row) // 2)))
    start = rng.randint(0, len(row) - size)
    return tuple(99 if start <= place < start + size else item for place, item in enumerate(row))


def assert_alike(found: list[Row], plain: list[Row]) -> None:
    """Two samples of one law."""
    one, other = Counter(found), Counter(plain)
    ways = sorted(set(one) | set(other))
    common = [way for way in ways if one[way] + other[way] >= 20]
    table = [[c[way] for way in common] for c in (one, other)]
    rest = [sum(c.values()) - sum(line) for c, line in zip((one, other), table, strict=True)]
    if sum(rest) >= 20:
        table = [[*line, left] for line, left in zip(table, rest, strict=True)]
    if len(table[0]) > 1:
        assert chi2_contingency(np.array(table)).pvalue > 1e-3
    assert set(one) <= {way for way in ways if other[way] or one[way] < 20}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", [[1, 2], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 1, 2, 3, 3, 4]])
def test_shuffles_come_out_as_often_as_the_plain_ones(mode: str, row: list[int]) -> None:
    torch.manual_seed(0)
    rng, copies = random.Random(0), 4000
    rows, changed = shuffle_ngrams(Packed.from_lists([row, [9]] * copies), mode)  # type: ignore[arg-type]
    assert changed[::2].all() and not changed[1::2].any()
    found = [tuple(each) for each in rows.as_lists()[::2]]
    assert_alike(found, [plain_shuffle(row, mode, rng) for _ in range(copies)])


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1, max_size=12),
    st.sampled_from(MODES),
    st.integers(0, 9),
)
def test_a_shuffled_row_has_the_same_items_in_another_order(
    lists: list[list[int]], mode: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, changed = shuffle_ngrams(Packed.from_lists(lists), mode, rng)  # type: ignore[arg-type]
    for source, row, moved in zip(lists, rows.as_lists(), changed, strict=True):
        assert sorted(row) == sorted(source)
        assert (row != source) == moved
        assert moved or len(set(source)) == 1 or mode == "inside"


def test_what_cannot_change_is_said_not_to_have() -> None:
    rows, changed = shuffle_ngrams(Packed.from_lists([[5], [7, 7, 7], [1, 2]]))
    assert rows.as_lists() == [[5], [7, 7, 7], [2, 1]]
    assert changed.tolist() == [False, False, True]


def test_an_unknown_shuffle_or_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="no shuffle `all`"):
        shuffle_ngrams(Packed.from_lists([[1, 2]]), "all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no source `nobody`"):
        Strangers(Sequences.from_lists([[1]]), 5, "nobody")  # type: ignore[arg-type]


# ---- strangers ----------------------------------------------------------------------------
OTHERS = [[11, 12, 13, 14], [15, 16], [17]]


@pytest.mark.parametrize("row", [[1, 2], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7]])
def test_splices_come_out_as_often_as_the_plain_ones(row: list[int]) -> None:
    torch.manual_seed(0)
    rng, copies = random.Random(0), 6000
    strangers = Strangers(Sequences.from_lists([row, *OTHERS]), 20)
    users = np.zeros(copies, dtype=np.int64)
    rows, changed = splice_strangers(Packed.from_lists([row] * copies), users, strangers)
    assert changed.all()
    found = [tuple(each) for each in rows.as_lists()]
    plain = [plain_splice(row, OTHERS, rng) for _ in range(copies)]
    where = [[tuple(a != b for a, b in zip(row, each, strict=True)) for each in found]]
    where += [[tuple(a != b for a, b in zip(row, each, strict=True)) for each in plain]]
    assert_alike(*where)
    if len(row) < 6:
        assert_alike(found, plain)


def shop_of(lists: list[list[int]]) -> Callable[..., tuple[Packed, np.ndarray]]:
    train = Sequences.from_lists(lists)

    def splice(source: str, seed: int) -> tuple[Packed, np.ndarray]:
        strangers = Strangers(train, 30, source)  # type: ignore[arg-type]
        users = np.arange(len(lists))
        rng = np.random.default_rng(seed)
        return splice_strangers(Packed.from_lists(lists), users, strangers, rng)

    return splice


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=2, max_size=12),
    st.sampled_from(["user", "items"]),
    st.integers(0, 9),
)
def test_at_most_half_of_a_row_is_replaced_and_never_by_what_its_user_had(
    lists: list[list[int]], source: str, seed: int
) -> None:
    rows, changed = shop_of(lists)(source, seed)
    for own, row, moved in zip(lists, rows.as_lists(), changed, strict=True):
        new = [b for a, b in zip(own, row, strict=True) if a != b]
        assert moved == bool(new)
        assert len(new) <= len(own) // 2
        assert not set(new) & set(own)
        if source == "user":
            others = {item for other in lists if other is not own for item in other}
            assert set(new) <= others


def test_who_has_it_all_or_one_item_alone_stays_as_they_are() -> None:
    rows, changed = shop_of([[1, 2, 3], [2, 3], [1]])("user", 0)
    assert changed.tolist() == [False, True, False]
    assert rows.as_lists()[0] == [1, 2, 3] and rows.as_lists()[2] == [1]
    assert sorted(set(rows.as_lists()[1]) & {1}) == [1]


def test_random_items_are_all_as_likely() -> None:
    torch.manual_seed(0)
    copies = 6000
    strangers = Strangers(Sequences.from_lists([[1, 2], [3, 4]]), 8, "items")
    rows, _ = splice_strangers(
        Packed.from_lists([[1, 2]] * copies), np.zeros(copies, dtype=np.int64), strangers
    )
    new = rows.tokens.numpy()[rows.tokens.numpy() > 2]
    assert len(new) == copies
    assert chisquare(np.bincount(new)[3:]).pvalue > 1e-3


# ---- cut n-grams --------------------------------------------------------------------------
@pytest.mark.parametrize("row", [[1], [1, 2, 3], [1, 2, 3, 4, 5, 6]])
def test_cuts_come_out_as_often_as_the_plain_ones(row: list[int]) -> None:
    torch.manual_seed(0)
    rng, copies = random.Random(0), 4000
    left, cut, at = cut_ngram(Packed.from_lists([row] * copies), token=99)
    assert_alike([tuple(r) for r in left.as_lists()], [plain_cut(row, rng) for _ in range(copies)])
    whole = left.tokens.clone()
    whole[at] = cut.tokens
    assert whole.tolist() == row * copies


def test_a_cut_is_at_most_so_long() -> None:
    torch.manual_seed(0)
    _, cut, _ = cut_ngram(Packed.from_lists([list(range(1, 41))] * 500), token=99, most=5)
    assert set(cut.lengths.tolist()) == {1, 2, 3, 4, 5}
    assert (np.diff(cut.tokens[:5].numpy()[: cut.lengths[0]]) == 1).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_of_pytorch_decides(seed: int) -> None:
    rows = Packed.from_lists([[1, 2, 3, 4, 5, 6]] * 30)
    found = []
    for _ in range(2):
        torch.manual_seed(seed)
        found.append(shuffle_ngrams(rows)[0].as_lists())
    assert found[0] == found[1]
    assert shuffle_ngrams(rows)[0].as_lists() != found[0]
