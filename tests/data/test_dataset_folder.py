"""Dataset folders are read back as they were, and what is damaged is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_folders import make

from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.data.rawids import RawIds
from nextup.errors import InputError

HISTORIES = st.lists(st.lists(st.integers(1, 5), max_size=6), min_size=1, max_size=8)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(histories=HISTORIES, text=st.booleans(), timed=st.booleans())
def test_round_trip(histories: list, text: bool, timed: bool, tmp_path: Path) -> None:
    dataset = make(histories, text, timed)
    again = Dataset.load(dataset.save(tmp_path / "d", overwrite=True))
    assert [row.tolist() for row in again.sequences] == histories
    assert again.users == dataset.users and again.catalog.ids == dataset.catalog.ids
    assert again.catalog.titles == dataset.catalog.titles
    assert (again.times is None) == (dataset.times is None)
    if timed:
        assert np.array_equal(again.times, dataset.times)
    assert again.name == "small" and again.n_items == 5
    assert [each.name for each in tmp_path.iterdir()] == ["d"]


def test_a_part_of_a_dataset_is_saved_as_a_whole(tmp_path: Path) -> None:
    whole = make([[1, 2, 3], [4, 5], [1, 1]])
    part = Dataset(
        whole.sequences.without_last(1).rows(np.array([0, 2])),
        whole.catalog,
        whole.users.take(np.array([0, 2])),
        whole.times,
        whole.card,
    )
    again = Dataset.load(part.save(tmp_path / "part"))
    assert [row.tolist() for row in again.sequences] == [[1, 2], [1]]
    assert again.times is not None and again.times.tolist() == [0, 1, 5]


def test_loading_needs_no_polars_and_copies_nothing(tmp_path: Path) -> None:
    make([[1, 2, 3]]).save(tmp_path / "d")
    code = (
        "import sys; from nextup.data.dataset import Dataset; "
        f"d = Dataset.load({str(tmp_path / 'd')!r}); d.split('leave-one-out'); "
        "import numpy; assert isinstance(d.sequences.items, numpy.memmap); "
        "assert not {'polars', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_splits_by_name(tmp_path: Path) -> None:
    dataset = make([[1, 2, 3, 4, 5], [1, 2]])
    assert len(dataset.split("leave-one-out").test) == 1
    assert len(dataset.split("last-2").test) == 2
    assert dataset.split("time:1,3").test.targets.tolist() == [4]
    for name, part in (
        ("leave-two-out", "is unknown; use leave-one-out"),
        ("last-0", "at least 1"),
        ("time:5", "is unknown"),
        ("time:a,b", "`a` is no point in time"),
        ("time:2020-01-01,2021-01-01", "give the point as a number"),
    ):
        with pytest.raises(InputError, match=part):
            dataset.split(name)


def test_a_checksum_tells_histories_apart(tmp_path: Path) -> None:
    one, other = make([[1, 2, 3], [4, 5]]), make([[1, 2], [3, 4, 5]])
    assert one.checksum == make([[1, 2, 3], [4, 5]], text=True, timed=False).checksum
    assert one.checksum != other.checksum != make([[2, 1], [3, 4, 5]]).checksum
    again = Dataset.load(one.save(tmp_path / "d"))
    assert again.card["checksum"] == again.checksum == one.checksum
    card = json.loads((tmp_path / "d/card.json").read_text())
    del card["checksum"]  # as earlier versions wrote it
    (tmp_path / "d/card.json").write_text(json.dumps(card))
    assert Dataset.load(tmp_path / "d").checksum == one.checksum
    part = Dataset(again.sequences.without_last(1), again.catalog, again.users, None, again.card)
    assert part.checksum == make([[1, 2], [4]]).checksum


def test_one_log_read_with_and_without_times_is_two_datasets(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n1,10,7\n1,11,6\n1,12,5\n")
    assert read(log).checksum != read(log, time="none").checksum


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    for path, part in (
        (tmp_path / "none", "there is no such folder"),
        (tmp_path, "is not a prepared dataset"),
    ):
        with pytest.raises(InputError, match=part):
            Dataset.load(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Dataset.load(tmp_path / "file")


@pytest.mark.parametrize("text", [False, True])
def test_damaged_folders(text: bool, tmp_path: Path) -> None:
    """Each file of a dataset emptied, cut, garbled or removed: an error that names it."""
    path = make([[1, 2, 3], [4, 5]], text).save(tmp_path / "d")
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for broken in (
            b"",
            whole[: len(whole) // 2],
            whole[:-1],
            b"\x93NUMPY" + b"\xff" * 40,
            None,
        ):
            if file.suffix == ".json" and broken == whole[:-1]:
                continue  # only the last line feed is gone
            file.unlink()
            if broken is not None:
                file.write_bytes(broken)
            with pytest.raises(InputError) as error:
                Dataset.load(path)
            assert str(path) in str(error.value) and "\n" not in str(error.value)
            file.write_bytes(whole)
    assert Dataset.load(path).n_users == 2


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"version": 99}, "is of version 99"),
        ({"format": "other"}, "not that of a nextup dataset"),
        ({"counts": {"users": 2, "items": 5, "interactions": 9}}, "card.json says 9"),
        ({"counts": {"users": 3, "items": 5, "interactions": 5}}, "card.json says"),
        ({"counts": 7}, "no counts"),
        ({"arrays": None}, "no arrays"),
    ],
)
def test_cards_that_contradict(change: dict, part: str, tmp_path: Path) -> None:
    path = make([[1, 2, 3], [4, 5]]).save(tmp_path / "d")
    card = json.loads((path / "card.json").read_text())
    (path / "card.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(InputError, match=part):
        Dataset.load(path)


def test_items_out_of_range(tmp_path: Path) -> None:
    path = make([[1, 2, 3]]).save(tmp_path / "d")
    np.save(path / "items.npy", np.array([1, 2, 9], dtype=np.int32))
    with pytest.raises(InputError, match=r"outside 1\.\.5"):
        Dataset.load(path)


def test_card_tells_where_it_came_from(tmp_path: Path) -> None:
    import hashlib

    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n1,10,5\n1,11,6\n2,10,7\n")
    dataset = Dataset.load(read(log).save(tmp_path / "d"))
    card = dataset.card
    assert card["source"]["sha256"] == hashlib.sha256(log.read_bytes()).hexdigest()
    assert card["source"]["bytes"] == log.stat().st_size and card["source"]["name"] == "log.csv"
    assert card["counts"] == {"users": 2, "items": 2, "interactions": 3, "repeats": 0}
    assert card["length"]["mean"] == 1.5 and card["length"]["max"] == 2
    assert "2 users, 2 items, 3 interactions" in repr(dataset)


def test_times_stay_with_their_items_where_histories_stand_in_another_order(tmp_path: Path) -> None:
    data = make([[1, 2], [3, 4, 5]])
    turned = Dataset(
        data.sequences.rows(np.array([1, 0])),
        data.catalog,
        RawIds.of(["u1", "u0"]),
        data.times,
        {"name": "turned"},
    )
    loaded = Dataset.load(turned.save(tmp_path / "turned"))
    assert loaded.sequences.flat().tolist() == [3, 4, 5, 1, 2]
    assert loaded.times is not None and loaded.times.tolist() == [2, 3, 4, 0, 1]
