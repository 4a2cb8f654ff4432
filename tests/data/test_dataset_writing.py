"""Dataset folders are written whole or not at all, and over nothing of other people's."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_folders import make

from nextup.data import folder as folder_module
from nextup.data.dataset import Dataset
from nextup.errors import InputError


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
