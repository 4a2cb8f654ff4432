"""Raw ids and catalogue: every id is found again, by its text form."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextup.data.catalog import Catalog
from nextup.data.rawids import RawIds
from nextup.errors import InputError
from nextup.recommend.typed import typed_items

SOME_IDS = st.one_of(
    st.lists(st.integers(0, 2**62), unique=True), st.lists(st.text(max_size=8), unique=True)
)


@given(SOME_IDS)
def test_ids_are_kept_and_found(raws: list) -> None:
    ids = RawIds.of(raws)
    assert ids.tolist() == raws == list(ids) == [ids[n] for n in range(len(raws))]
    assert ids.numbers_of(raws).tolist() == list(range(len(raws)))
    assert ids.numbers_of([str(raw) for raw in raws]).tolist() == list(range(len(raws)))
    assert ids.numbers_of(["no such id", -5]).tolist() == [-1, -1]
    assert pickle.loads(pickle.dumps(ids)) == ids


@given(SOME_IDS, st.randoms())
def test_take(raws: list, random) -> None:
    index = [random.randrange(len(raws)) for _ in range(5)] if raws else []
    taken = RawIds.of(raws).take(np.array(index, dtype=np.int64))
    assert taken.tolist() == [raws[n] for n in index]


def test_matching_is_by_text_form() -> None:
    assert RawIds.of([12, 7]).numbers_of(["12", 7, "012", " 7", "7.0"]).tolist() == [
        0,
        1,
        -1,
        -1,
        -1,
    ]
    assert RawIds.of(["12", "a"]).numbers_of([12, "a", 1]).tolist() == [0, 1, -1]


def test_wrong_index() -> None:
    ids = RawIds.of(["a", "b"])
    assert ids[-1] == "b" and ids[0:2] == ["a", "b"]
    with pytest.raises(IndexError):
        ids[2]


def test_catalog_counts_from_one() -> None:
    catalog = Catalog(RawIds.of([10, 20, 30]), ["The Cat", None, "Cat"], {"year": [1, 2, None]})
    assert catalog.number_of("20") == 2 and catalog.number_of(99) is None
    assert catalog.numbers_of([30, "x", 10]).tolist() == [3, 0, 1]
    assert catalog.raw_of(3) == 30 and catalog.title_of(2) is None
    assert catalog.find_title("cat") == [3, 1] and catalog.find_title(" ") == []
    for number in (0, 4):
        with pytest.raises(IndexError):
            catalog.raw_of(number)
        with pytest.raises(IndexError):
            catalog.title_of(number)


FILMS = [
    *("Aliens (1986)", "Alien (1979)", "Up Close and Personal (1996)", "Up (2009)", "Cup, The"),
    *("Matrix Reloaded, The (2003)", "Matrix, The (1999)", "Seven (a.k.a. Se7en) (1995)"),
    *("Seven Samurai (Shichinin no samurai) (1954)", "Titanic (1953)", "Titanic (1997)"),
    *("American in Paris, An (1951)", "Bug's Life, A (1998)", "Alien: Resurrection (1997)", None),
]


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("Alien", "Alien (1979)"),
        ("aliens", "Aliens (1986)"),
        ("ALIEN (1979)", "Alien (1979)"),
        ("Up", "Up (2009)"),
        ("The Matrix", "Matrix, The (1999)"),
        ("the matrix (1999)", "Matrix, The (1999)"),
        ("Matrix, The", "Matrix, The (1999)"),
        ("Matrix", "Matrix, The (1999)"),
        ("The Matrix Rel", "Matrix Reloaded, The (2003)"),
        ("Seven", "Seven (a.k.a. Se7en) (1995)"),
        ("se7en", "Seven (a.k.a. Se7en) (1995)"),
        ("Titanic", "Titanic (1953)"),
        ("an american in paris", "American in Paris, An (1951)"),
        ("A Bug's Life", "Bug's Life, A (1998)"),
        ("personal", "Up Close and Personal (1996)"),
        ("alien:", "Alien: Resurrection (1997)"),
        ("sistance", None),
        ("the alien", None),
    ],
)
def test_the_nearest_title_comes_first(typed: str, first: str | None) -> None:
    catalog = Catalog(RawIds.of(range(len(FILMS))), FILMS)
    found = catalog.find_title(typed)
    assert (catalog.title_of(found[0]) if found else None) == first


def test_titles_that_fit_as_well_are_named() -> None:
    catalog = Catalog(RawIds.of(range(len(FILMS))), FILMS)
    titanic, up, alien = (each.note for each in typed_items(catalog, ["titanic", "Up", "Alien"]))
    assert titanic == "Titanic (1953) (the first of 2 that fit as well: `Titanic (1997)`)"
    assert up == "Up (2009) (2 more titles hold `Up`)"
    assert alien == "Alien (1979) (2 more titles hold `Alien`)"


@pytest.mark.parametrize("raws", [[3, 1], ["3", "1"], ["é", "a b"]])
def test_catalog_through_json(raws: list) -> None:
    catalog = Catalog(RawIds.of(raws), ["x", None], {"genres": [["a"], None]})
    again = Catalog.from_json(json.loads(json.dumps(catalog.to_json())))
    assert again.ids.tolist() == raws and again.ids.are_integers == catalog.ids.are_integers
    assert again.titles == catalog.titles and again.attributes == catalog.attributes


def test_catalog_refuses_columns_of_another_length() -> None:
    with pytest.raises(InputError, match="1 values of `titles` for 2 items"):
        Catalog(RawIds.of([1, 2]), ["only one"])
    with pytest.raises(InputError, match="ids"):
        Catalog.from_json({"titles": []})
