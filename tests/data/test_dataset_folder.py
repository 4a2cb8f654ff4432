"""Dataset folders: whole or not at all, and read back as they were."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextup.data import folder as folder_module
from nextup.data.catalog import Catalog
from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.data.rawids import RawIds
from nextup.data.sequences import Sequences
from nextup.errors import InputError

HISTORIES = st.lists(st.lists(st.integers(1, 5), max_size=6), min_size=1, max_size=8)


def make(histories: list[list[int]], text: bool = False, timed: bool = True) -> Dataset:
    sequences = Sequences.from_lists(histories)
    n = len(sequences.items)
    names = [f"ü{k}" if text else k for k in (50, 40, 30, 20, 10)]
    titles = [None, "Zwei", "Drei, vier", "", "Fünf"]
    users = RawIds.of([f"u{k}" for k in range(len(histories))] if text else range(len(histories)))
    times = np.arange(n, dtype=np.int64) if timed else None
    return Dataset(sequences, Catalog(RawIds.of(names), titles), users, times, {"name": "small"})


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


def test_existing_paths(tmp_path: Path) -> None:
    first, second = make([[1, 2, 3]]), make([[3, 2]])
    first.save(tmp_path / "d")
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        second.save(tmp_path / "d")
    opened = Dataset.load(tmp_path / "d")
    second.save(tmp_path / "d", overwrite=True)
    assert opened.sequences[0].tolist() == [1, 2, 3]  # what is open stays as it was
    assert Dataset.load(tmp_path / "d").sequences[0].tolist() == [3, 2]
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("years of work")
    for path in (precious, precious / "chapter.txt"):
        with pytest.raises(InputError, match="is not overwritten"):
            second.save(path, overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["d", "thesis"]
    first.save(tmp_path / "new" / "deeper")


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": "business card"}', "no JSON"])
def test_a_folder_of_something_else_with_a_card_is_never_overwritten(
    content: str, tmp_path: Path
) -> None:
    precious = tmp_path / "cards"
    precious.mkdir()
    (precious / "card.json").write_text(content)
    with pytest.raises(InputError, match=r"is not a prepared dataset, so it is not overwritten"):
        make([[3, 2]]).save(precious, overwrite=True)
    assert (precious / "card.json").read_text() == content


def test_a_link_to_a_dataset_is_not_overwritten(tmp_path: Path) -> None:
    path = make([[1, 2, 3]]).save(tmp_path / "d")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match="is a link, which is not overwritten"):
        make([[3, 2]]).save(tmp_path / "link", overwrite=True)
    assert Dataset.load(tmp_path / "link").n_interactions == 3


def test_what_a_killed_process_left_is_cleared_at_the_next_writing(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    stale = [
        f".d.partial-{int(gone.stdout)}-abcd1234",  # its process is gone
        f".d.partial-{os.getpid()}-abcd1234",  # of another process that had our number
        ".d.partial-0a1b2c3d",  # as earlier versions named them
        f".d.old-{int(gone.stdout)}-abcd1234",
    ]
    mine, other = folder_module.beside(tmp_path / "d", "partial"), tmp_path / ".e.partial-0a1b2c3d"
    for path in (*(tmp_path / name for name in stale[:3]), mine, other):
        path.mkdir()
        (path / "items.npy").write_bytes(b"half")
    # One was killed between setting the old dataset aside and putting the new one in its place.
    make([[5, 5]]).save(tmp_path / "d").rename(tmp_path / stale[3])
    with pytest.raises(InputError, match="exists already"):
        make([[1, 2, 3]]).save(tmp_path / "d")
    assert Dataset.load(tmp_path / "d").sequences[0].tolist() == [5, 5]
    assert {each.name for each in tmp_path.iterdir()} == {"d", mine.name, other.name}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_while_writing_it_can_be_written_again(tmp_path: Path) -> None:
    code = (
        "import os, signal; from nextup.data import folder, simulate\n"
        "folder._write_document = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"simulate.simulate(30, 20).dataset.save({str(tmp_path / 'd')!r})"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert [each.name.startswith(".d.partial-") for each in tmp_path.iterdir()] == [True]
    make([[1, 2, 3]]).save(tmp_path / "d")
    assert [each.name for each in tmp_path.iterdir()] == ["d"]


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


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_full_disk(
    after: int, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up after some files: an error that says so, and nothing half-written."""
    if overwrite:
        make([[5, 5]]).save(tmp_path / "d")
    written: list[object] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        if len(written) >= after:
            raise OSError(28, "No space left on device")
        written.append(handle)
        real(handle)

    monkeypatch.setattr(folder_module.os, "fsync", fsync)
    with pytest.raises(InputError, match=r"No space left on device.*nothing was left behind"):
        make([[1, 2, 3]]).save(tmp_path / "d", overwrite=overwrite)
    monkeypatch.undo()
    assert [each.name for each in tmp_path.iterdir()] == (["d"] if overwrite else [])
    if overwrite:
        assert Dataset.load(tmp_path / "d").sequences[0].tolist() == [5, 5]


def test_file_size_limit(tmp_path: Path) -> None:
    """The kernel itself refuses to write on, as it does on a full disk."""
    dataset = make([[1, 2, 3] * 50_000])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match="nothing was left behind"):
            dataset.save(tmp_path / "new" / "folders" / "d")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "_write_document", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make([[1, 2, 3]]).save(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_failed_rename_restores_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make([[5, 5]]).save(tmp_path / "d")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if "partial" in self.name:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(InputError, match="Input/output error"):
        make([[1]]).save(tmp_path / "d", overwrite=True)
    monkeypatch.undo()
    assert Dataset.load(tmp_path / "d").sequences[0].tolist() == [5, 5]
    assert [each.name for each in tmp_path.iterdir()] == ["d"]


def test_no_permission(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(InputError, match="could not be written"):
        make([[1]]).save(blocker / "d")


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
