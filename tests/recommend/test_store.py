"""Saving and loading: the same scores, whole or not at all, and nothing that could run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shelf import N_ITEMS, catalog, fitted, histories, popularity

import nextup.data.folder as folders
import nextup.models.store as store
from nextup.data.batches import gather
from nextup.data.catalog import Catalog
from nextup.data.folder import clear_leftovers
from nextup.data.rawids import RawIds
from nextup.errors import RunError
from nextup.models.registry import available_models
from nextup.models.store import load_model, save_model
from nextup.recommend.recommender import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(fitted("sasrec"), tmp_path / "saved", catalog(), popularity(), {"seed": 3})
    return tmp_path / "saved"


def edit(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "recommender.json").read_text())
    card.update(changes)
    (folder / "recommender.json").write_text(json.dumps(card))


def note_checksums(folder: Path) -> None:
    names = ("weights.safetensors", "popularity.safetensors", "catalog.json")
    edit(folder, sha256={name: store._checksum(folder / name) for name in names})


@pytest.mark.parametrize("name", available_models())
def test_every_model_answers_the_same_after_a_file(name: str, tmp_path: Path) -> None:
    model = fitted(name)
    save_model(model, tmp_path / "m", catalog(), popularity(), {"epochs": [1, 2]})
    again, items, counts, about = load_model(tmp_path / "m")
    data = histories(seed=9)
    batch = gather(torch.from_numpy(data.items), data.starts, data.ends, 12)
    with torch.inference_mode():
        assert torch.equal(model.scores(batch), again.scores(batch))
    assert again.config == model.config and not again.training
    assert items.ids.tolist() == catalog().ids.tolist() and items.titles == catalog().titles
    assert (counts == popularity()).all() and counts.dtype == np.int64
    assert about == {"epochs": [1, 2]}
    files = sorted(path.suffix for path in (tmp_path / "m").iterdir())
    assert files == [".json", ".json", ".safetensors", ".safetensors"]


def test_saving_again_replaces_but_only_a_recommender(folder: Path, tmp_path: Path) -> None:
    save_model(fitted("pop"), folder, catalog(), popularity())
    assert load_model(folder)[0].name == "pop"
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not a recommender"):
        save_model(fitted("pop"), other, catalog(), popularity())
    assert (other / "chapter.txt").read_text() == "years of work"


def test_a_folder_of_something_else_with_a_card_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "recommender.json").write_text('{"cook": "book"}')
    with pytest.raises(RunError, match="is not a recommender"):
        save_model(fitted("pop"), tmp_path, catalog(), popularity())
    assert [path.name for path in tmp_path.iterdir()] == ["recommender.json"]


def test_halves_of_characters_in_a_title_are_kept(tmp_path: Path) -> None:
    half = Catalog(catalog().ids, ["half \ud83d", *(catalog().titles or [])[1:]])
    save_model(fitted("pop"), tmp_path / "m", half, popularity())
    assert load_model(tmp_path / "m")[1].titles == half.titles


def test_what_json_cannot_hold_is_no_matter_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds what JSON cannot"):
        save_model(fitted("pop"), tmp_path / "m", catalog(), popularity(), {"score": np.nan})
    assert not list(tmp_path.iterdir())


def test_a_failing_write_leaves_the_old_one_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_json", full)
    with pytest.raises(RunError, match="No space left on device"):
        save_model(fitted("pop"), folder, catalog(), popularity())
    assert load_model(folder)[0].name == "sasrec"
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_a_model_and_a_catalogue_that_differ_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="knows 60 items"):
        save_model(fitted("pop"), tmp_path / "m", catalog(), popularity()[:-1])
    assert not list(tmp_path.iterdir())


def test_a_model_and_users_that_differ_are_not_saved(tmp_path: Path) -> None:
    model = fitted("bpr")
    known = 5
    model.extend({"users": known})
    for count in (known - 1, known + 1):
        users = RawIds.of(list(range(count)))
        with pytest.raises(RunError, match=f"vectors of {known} users, but {count} were named"):
            save_model(model, tmp_path / "m", catalog(), popularity(), users=users)
    with pytest.raises(RunError, match="vectors of 0 users"):
        save_model(fitted("pop"), tmp_path / "m", catalog(), popularity(), users=RawIds.of([1]))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_no_hindrance_and_the_old_one_comes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / f".{folder.name}.partial-{os.getpid()}").mkdir()
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            save_model(fitted("pop"), folder, catalog(), popularity())
    monkeypatch.setattr(folders, "_MADE", set())  # as another process sees it
    clear_leftovers(folder)
    assert load_model(folder)[0].name == "sasrec"
    save_model(fitted("pop"), folder, catalog(), popularity())
    assert load_model(folder)[0].name == "pop"
    assert not [each for each in folder.parent.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not the card of a nextup recommender"),
        ({"model": "sasrce"}, "did you mean `sasrec`"),
        ({"n_items": N_ITEMS + 1}, "does not fit model|differ"),
        ({"n_items": "many"}, "damaged"),
        ({"config": {"width": -3}}, "width"),
        ({"config": {"droput": 0.1}}, "did you mean `dropout`"),
        ({"config": {"width": 32}}, "does not fit model sasrec"),
        ({"config": None}, "damaged"),
        ({"sha256": None}, "checksum"),
        ({"weights": {}}, "not those noted"),
    ],
)
def test_cards_that_cannot_be_true(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(RunError, match=message):
        load_model(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "popularity.safetensors", "catalog.json"])
def test_damaged_files(folder: Path, name: str) -> None:
    good = (folder / name).read_bytes()
    middle = bytearray(good)
    middle[len(good) // 2] ^= 1
    for bad in (b"", good[:-20], bytes(middle), pickle.dumps({"weights": [1]})):
        (folder / name).write_bytes(bad)
        with pytest.raises(RunError, match=f"{name}: is damaged"):
            load_model(folder)
    (folder / name).unlink()
    with pytest.raises(RunError, match="is missing"):
        load_model(folder)


def test_damage_under_a_true_checksum_is_found_too(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    first = sorted(weights)[0]
    cases = {
        "not those noted": {**weights, first: weights[first].double()},
        "only one of the two has": {k: v for k, v in weights.items() if k != first},
        "is torch.float64, not torch.float32": {**weights, first: weights[first].double()},
        "size mismatch": {**weights, first: torch.zeros(3)},
    }
    for message, changed in cases.items():
        save_file(changed, folder / "weights.safetensors")
        note_checksums(folder)
        if message != "not those noted":
            edit(folder, weights={k: store._describe(v) for k, v in changed.items()})
        with pytest.raises(RunError, match=message):
            load_model(folder)


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/nextup-was-trapped"),)


def test_pickles_are_never_opened(folder: Path, tmp_path: Path) -> None:
    trap = Path("/tmp/nextup-was-trapped")
    trap.unlink(missing_ok=True)
    for name in ("model.pt", "model.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(_Trap()))
        with pytest.raises(RunError, match="pickled models are not opened"):
            load(tmp_path / name)
    for name in ("weights.safetensors", "popularity.safetensors", "catalog.json"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(_Trap()))
        note_checksums(folder)
        with pytest.raises(RunError):
            load(folder)
        (folder / name).write_bytes(good)
    (folder / "recommender.json").write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(RunError, match="damaged"):
        load(folder)
    assert not trap.exists()


def test_paths_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no `recommender.json`"):
        load(tmp_path)
    (tmp_path / "recommender.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="damaged"):
        load(tmp_path)
