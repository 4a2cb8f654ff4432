"""Who was there in training is answered with the vector learnt for them, if they are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shelf import catalog, histories

from nextup.data.dataset import Dataset
from nextup.data.rawids import RawIds
from nextup.errors import InputError, RunError
from nextup.evaluation.retrieval import top_items
from nextup.models.store import USERS, load_users
from nextup.recommend.files import recommend_file
from nextup.recommend.recommender import LoadedRecommender, load
from nextup.train.fit import fit

SETTINGS = {"width": 8, "epochs": 3, "learning_rate": 0.05, "batch_size": 64}


@pytest.fixture(scope="module", params=["numbers", "texts"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = histories()
    numbers = [100 + row for row in range(len(train))]
    users = RawIds.of(numbers if request.param == "numbers" else [f"u{n}" for n in numbers])
    data = Dataset(train, catalog(), users, None, {"name": "small"})
    place = tmp_path_factory.mktemp("known") / "run"
    fit(data, "bpr", run=place, settings=SETTINGS, progress=False)
    return place


@pytest.fixture
def recommender(folder: Path) -> LoadedRecommender:
    return load(folder)


def raws(rows: list[int]) -> list[list[str]]:
    train = histories()
    return [[f"item-{n}" for n in train[row].tolist()] for row in rows]


def numbers_of(recommender: LoadedRecommender, found: list[object]) -> list[list[int]]:
    return [recommender.catalog.numbers_of(each.items).tolist() for each in found]  # type: ignore[attr-defined]


def test_named_users_get_what_is_measured_and_others_what_their_history_suggests(
    recommender: LoadedRecommender,
) -> None:
    rows = [7, 3, 50]
    assert recommender.users is not None
    names = [recommender.users[row] for row in rows]
    expected, _ = top_items(
        recommender.model, histories().rows(np.array(rows)), 5, users=np.array(rows)
    )
    named = recommender.recommend(raws(rows), k=5, users=names)
    assert numbers_of(recommender, named) == expected.tolist()
    nobody = recommender.recommend(raws(rows), k=5)
    assert numbers_of(recommender, nobody) != expected.tolist()
    for strangers in (["who", "ever", -1], [None, None, None]):
        found = recommender.recommend(raws(rows), k=5, users=strangers)
        assert [each.items for each in found] == [each.items for each in nobody]
    mixed = recommender.recommend([*raws(rows[:1]), []], k=5, users=[names[0], names[1]])
    assert mixed[0].items == named[0].items and mixed[1].note  # an empty history: popular items


def test_a_user_for_each_history_or_none_at_all(recommender: LoadedRecommender) -> None:
    with pytest.raises(InputError, match="1 users for 2 histories"):
        recommender.recommend(raws([1, 2]), users=["u101"])
    with pytest.raises(InputError, match="`users` is a list of raw ids, not the text"):
        recommender.recommend(raws([1, 2]), users="ab")
    with pytest.raises(InputError, match="a user is neither text nor a whole number"):
        recommender.recommend(raws([1]), users=[["u101"]])  # type: ignore[list-item]


def test_users_of_a_file_are_known_again_and_lines_without_a_name_are_not(
    recommender: LoadedRecommender, tmp_path: Path
) -> None:
    assert recommender.users is not None
    rows, names = [7, 3], [recommender.users[7], recommender.users[3]]
    named = [each.items for each in recommender.recommend(raws(rows), k=4, users=names)]
    nobody = [each.items for each in recommender.recommend(raws(rows), k=4)]
    mixed = [named[0], nobody[1]]
    for said, expected in ((names, named), ([None, None], nobody), ([names[0], None], mixed)):
        lines = [
            json.dumps({"history": items, **({} if user is None else {"user": user})})
            for user, items in zip(said, raws(rows), strict=True)
        ]
        (tmp_path / "in.jsonl").write_text("\n".join(lines))
        out = tmp_path / "out.jsonl"
        recommend_file(recommender, tmp_path / "in.jsonl", out, 4, overwrite=True, quiet=True)
        found = [json.loads(line)["items"] for line in out.read_text().splitlines()]
        assert [[each["item"] for each in items] for items in found] == expected


def test_only_models_with_users_keep_their_names(folder: Path, tmp_path: Path) -> None:
    assert load_users(folder / "recommender") is not None
    data = Dataset(
        histories(), catalog(), RawIds.of([f"u{n}" for n in range(80)]), None, {"name": "small"}
    )
    fit(data, "mc1", run=tmp_path / "mc1", progress=False)
    assert load_users(tmp_path / "mc1" / "recommender") is None
    assert not (tmp_path / "mc1" / "recommender" / USERS).exists()
    recommender = load(tmp_path / "mc1")
    one, other = (recommender.recommend(raws([4]), users=user) for user in (None, ["u4"]))
    assert one[0].items == other[0].items


def test_damaged_names_are_refused(folder: Path) -> None:
    file = folder / "recommender" / USERS
    before = file.read_bytes()
    try:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(RunError, match=f"{USERS}: is damaged"):
            load(folder)
        file.unlink()
        with pytest.raises(RunError, match="missing"):
            load(folder)
    finally:
        file.write_bytes(before)
