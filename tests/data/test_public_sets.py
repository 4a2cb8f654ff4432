"""The real sets: their published counts, read from the files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nextup.data.dataset import Dataset
from nextup.data.public import PUBLIC, public_path, read_public
from nextup.errors import InputError

pytestmark = pytest.mark.data

# users, items, interactions, shortest, longest
FACTS = {
    "beauty": (22_363, 12_101, 198_502, 5, 204),
    "sports": (35_598, 18_357, 296_337, 5, 296),
    "toys": (19_412, 11_924, 167_597, 5, 550),
    "yelp": (30_431, 20_033, 316_354, 5, 350),
    "musical-instruments": (1_429, 900, 10_261, 5, 42),
    "musical-instruments-json": (1_429, 900, 10_261, 5, 42),
    "instruments-2018": (24_772, 9_922, 206_153, 5, 218),
    "bert4rec-beauty": (40_226, 54_542, 353_962, 5, 293),
    "ml-latest-small": (610, 9_724, 100_836, 20, 2_698),
    "ml-1m": (6_040, 3_706, 1_000_209, 20, 2_314),
}


def load(name: str, **settings: object) -> Dataset:
    try:
        public_path(name)
    except InputError as absent:
        pytest.skip(str(absent))
    return read_public(name, **settings)


@pytest.mark.parametrize("name", FACTS)
def test_counts(name: str) -> None:
    dataset = load(name, titles=name != "yelp")
    lengths = dataset.sequences.lengths
    counted = (dataset.n_users, dataset.n_items, dataset.n_interactions)
    assert (*counted, int(lengths.min()), int(lengths.max())) == FACTS[name]
    assert dataset.card["rows"]["left_out"] == {}


def test_item_numbers_are_the_ids_of_the_papers_files() -> None:
    dataset = load("toys")
    assert dataset.catalog.ids.tolist() == list(range(1, 11_925))
    assert dataset.sequences[0].tolist() == [1, 2, 3, 4, 5]


def test_yelp_repeats_and_titles() -> None:
    dataset = load("yelp")
    assert dataset.card["counts"]["repeats"] == 11_830
    assert dataset.catalog.title_of(1) == "The Great Greek"
    last = dataset.sequences.items[dataset.sequences.ends - 1]
    seen = [bool((dataset.sequences[row][:-1] == target).any()) for row, target in enumerate(last)]
    assert round(100 * float(np.mean(seen)), 2) == 6.66


def test_gaps_carry_the_same_histories() -> None:
    plain, timed = load("beauty"), load("beauty-times")
    assert np.array_equal(plain.sequences.items, timed.sequences.items)
    assert timed.times is not None and timed.times[0] == 0
    assert timed.card["time"]["unit"] == "gaps"


def test_movielens_is_put_in_order_and_has_titles() -> None:
    dataset = load("ml-latest-small")
    assert dataset.times is not None
    for row in (0, 300, 609):
        span = slice(dataset.sequences.starts[row], dataset.sequences.ends[row])
        assert bool((np.diff(dataset.times[span]) >= 0).all())
    assert dataset.catalog.title_of(dataset.catalog.number_of(1) or 0) == "Toy Story (1995)"
    assert any("," in (title or "") for title in dataset.catalog.titles or [])


def test_both_forms_of_movielens_1m_agree() -> None:
    table = load("ml-1m", titles=False)
    try:
        text = public_path("ml-1m").with_name("ml-1m_DERIVED.txt.gz")
    except InputError as absent:
        pytest.skip(str(absent))
    from nextup.data.prepare import read

    sequences = read(text)
    assert np.array_equal(table.sequences.items, sequences.sequences.items)
    assert np.array_equal(table.sequences.ends, sequences.sequences.ends)


def test_movielens_titles_need_their_encoding() -> None:
    load("ml-1m", titles=False, min_rating=5)
    with pytest.raises(InputError, match="ISO-8859-1"):
        read_public("ml-1m", items_encoding=None)


def test_unknown_and_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean `beauty`"):
        public_path("beuty")
    monkeypatch.setenv("NEXTUP_DATA", str(tmp_path))
    for name in PUBLIC:
        with pytest.raises(InputError, match="NEXTUP_DATA"):
            public_path(name)
