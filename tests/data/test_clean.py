"""Filters: against naive references, and counted to the row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextup.data.clean import core_remedy, first_of_each, k_core, repeats
from nextup.data.prepare import read
from nextup.errors import InputError

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def naive_core(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> list[int]:
    rows = list(range(len(pairs)))
    while True:
        users, items = Counter(pairs[r][0] for r in rows), Counter(pairs[r][1] for r in rows)
        kept = [
            r for r in rows if users[pairs[r][0]] >= min_user and items[pairs[r][1]] >= min_item
        ]
        if kept == rows:
            return rows
        rows = kept


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, dtype=np.int32)
    return both[:, 0], both[:, 1]


@given(PAIRS, st.integers(0, 6), st.integers(0, 6))
def test_k_core_is_the_naive_one(pairs: list[tuple[int, int]], u: int, i: int) -> None:
    mask = k_core(*columns(pairs), u, i)
    assert np.flatnonzero(mask).tolist() == naive_core(pairs, u, i)


@given(PAIRS)
def test_duplicates_and_repeats(pairs: list[tuple[int, int]]) -> None:
    mask = first_of_each(*columns(pairs))
    kept = [pair for pair, keep in zip(pairs, mask, strict=True) if keep]
    assert kept == list(dict.fromkeys(pairs))
    assert repeats(*columns(pairs)) == len(pairs) - len(kept)


@settings(deadline=None, max_examples=40)
@given(PAIRS, st.integers(2, 12), st.integers(2, 12))
def test_what_the_core_error_advises_works(pairs: list[tuple[int, int]], u: int, i: int) -> None:
    users, items = columns(pairs)
    if k_core(users, items, u, i).any():
        return
    advice = core_remedy(users, items, u, i)
    if "leaves something" in advice:
        lower = [int(word.strip(",")) for word in advice.split() if word.strip(",").isdigit()]
        assert k_core(users, items, *lower).any()
    else:
        assert "at most" in advice


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(0, 5), st.integers(0, 9), st.integers(1, 5)
        ),
        min_size=1,
        max_size=80,
    )
)  # fmt: skip
def test_all_filters_together_against_a_naive_one(rows: list[tuple[int, int, int, int]]) -> None:
    left = [row for row in rows if 1 <= row[2] < 8 and row[3] >= 2]
    left.sort(key=lambda row: (row[0], row[2]))
    left = list({(row[0], row[1]): row for row in reversed(left)}.values())
    left.sort(key=lambda row: (row[0], row[2]))
    kept = naive_core([(row[0], row[1]) for row in left], 2, 2) if left else []
    names = ("user", "item", "time", "rating")
    frame = pl.DataFrame(dict(zip(names, zip(*rows, strict=True), strict=True)))

    def prepared():
        return read(
            frame, since=1, until=8, min_rating=2, drop_duplicates=True, min_user=2, min_item=2
        )

    if not kept:
        with pytest.raises(InputError, match=r"removes all \d+ rows; "):
            prepared()
        return
    dataset = prepared()
    pairs = [
        (dataset.users[row], dataset.catalog.raw_of(int(n)))
        for row in range(dataset.n_users)
        for n in dataset.sequences[row]
    ]
    assert Counter(pairs) == Counter((left[r][0], left[r][1]) for r in kept)
    removed = sum(each["rows_removed"] for each in dataset.card["filters"])
    assert removed == len(rows) - len(kept) == dataset.card["rows"]["filtered"]


def test_filters_are_said_and_stand_in_the_card(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,rating\n1,1,5,1\n1,2,6,5\n2,2,7,4\n2,2,8,4\n")
    said: list[str] = []
    dataset = read(path, min_rating=3, drop_duplicates=True, say=said.append)
    assert [f["rows_removed"] for f in dataset.card["filters"]] == [1, 1]
    assert any("min-rating 3.0: 1 rows removed" in message for message in said)
    assert dataset.card["counts"]["repeats"] == 0
    assert read(path).card["counts"]["repeats"] == 1


@pytest.mark.parametrize(
    ("settings_", "parts"),
    [
        ({"min_user": 9}, ["min-user 9", "most active user has 3 rows", "lower min-user to 3"]),
        ({"min_item": 9}, ["min-item 9", "most popular item has 2 rows"]),
        ({"min_user": 3, "min_item": 2}, ["lower both"]),
        ({"min_rating": 6}, ["min-rating", "highest rating is 5"]),
        ({"since": 100}, ["since 100", "runs from 1 to 5"]),
        ({"until": 0}, ["until 0", "choose a point inside"]),
        ({"until": "2020-01-01"}, ["`2020-01-01` is a date", "give the point as a number"]),
        ({"since": "soon"}, ["`soon` is no point in time"]),
        ({"min_user": -1}, ["min-user is -1"]),
        ({"min_item": 2.5}, ["min-item is 2.5"]),
    ],
)
def test_filters_that_remove_everything(settings_: dict, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,rating\n1,1,1,5\n1,2,2,5\n1,3,3,5\n2,3,4,5\n3,9,5,1\n")
    with pytest.raises(InputError) as error:
        read(path, **settings_)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_point_that_is_advised_is_one_that_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,1,10.5\n1,2,11\n1,3,12.25\n2,3,11.5\n")
    with pytest.raises(InputError, match=r"runs from 10\.5 to 12\.25; choose a point inside"):
        read(path, since=20)
    assert read(path, since="11.5").n_interactions == 2
