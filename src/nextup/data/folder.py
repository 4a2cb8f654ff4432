"""Folders written whole or not at all, of plain arrays that can be memory-mapped."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.errors import InputError

_MADE: set[str] = set()
"""The hidden folders that this very process made."""


def write_folder(
    path: Path,
    arrays: Mapping[str, NDArray],
    documents: Mapping[str, Any],
    overwrite: bool,
    may_replace: Callable[[Path], bool],
) -> None:
    """Write ``NAME.npy`` and ``NAME.json`` files into a new folder that appears all at once.

    The files go to a hidden folder beside `path` that is renamed at the end; an old folder is
    removed only when the new one stands complete. What a process that was killed had half
    written there is removed first.

    Parameters
    ----------
    path
        The folder to make; parents that are missing are made too.
    arrays, documents
        What each ``NAME.npy`` and each ``NAME.json`` holds.
    overwrite
        Whether a folder that stands there is replaced.
    may_replace
        Whether this very folder may be: whether it is one that was written by this function.

    Raises
    ------
    InputError
        If `path` exists and `overwrite` is false or `may_replace` refuses it, or if writing
        fails (a full disk, no permission); nothing is left behind then.
    """
    path = Path(path)
    clear_leftovers(path)
    check_free(path, overwrite, may_replace)
    partial = beside(path, "partial")
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True)
        for name, array in arrays.items():
            _write_array(partial / f"{name}.npy", array)
        for name, document in documents.items():
            _write_document(partial / f"{name}.json", document)
        _sync(partial)
        _put_in_place(partial, path)
    except OSError as error:
        _remove(partial, made)
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: could not be written ({reason}); nothing was left behind: free some disk "
            "space, check the permissions, or choose another path"
        ) from error
    except BaseException:
        _remove(partial, made)
        raise


def check_free(path: Path, overwrite: bool, may_replace: Callable[[Path], bool]) -> None:
    """Check that a folder may be made at `path`.

    Parameters
    ----------
    path, overwrite, may_replace
        As in `write_folder`.

    Raises
    ------
    InputError
        If something stands there that is not to be, or may not be, replaced.
    """
    if not (path.is_symlink() or path.exists()):
        return
    if not overwrite:
        raise InputError(
            f"{path}: exists already; choose another path or pass --overwrite (overwrite=True)"
        )
    if path.is_symlink():
        raise InputError(
            f"{path}: is a link, which is not overwritten; name the folder it leads to, or "
            "remove the link yourself"
        )
    if not may_replace(path):
        raise InputError(
            f"{path}: exists and is not a prepared dataset, so it is not overwritten; "
            "choose another path or remove it yourself"
        )


def beside(path: Path, what: str) -> Path:
    """Return a hidden path beside another: ``.NAME.WHAT-PROCESS-RANDOM``."""
    hidden = path.parent / f".{path.name}.{what}-{os.getpid()}-{secrets.token_hex(4)}"
    _MADE.add(hidden.name)
    return hidden


def clear_leftovers(path: Path, worthless: Callable[[Path], bool] | None = None) -> None:
    """Remove what processes that were killed left beside `path`; put back what they set aside.

    A process that was killed while it replaced a folder leaves the old one under a hidden name.
    The old one also comes back where the new folder is `worthless`: it came to nothing.
    """
    hidden = f".{glob.escape(path.name)}."
    with contextlib.suppress(OSError):
        for left in list(path.parent.glob(f"{hidden}partial-*")):
            if left.is_dir() and not left.is_symlink() and not _at_work(left):
                shutil.rmtree(left, ignore_errors=True)
        for left in list(path.parent.glob(f"{hidden}old-*")):
            if not left.is_dir() or left.is_symlink() or _at_work(left):
                continue
            new = path.is_dir() and not path.is_symlink()
            if worthless is not None and new and worthless(path):
                shutil.rmtree(path, ignore_errors=True)
            if path.is_symlink() or path.exists():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.rename(path)


def _at_work(hidden: Path) -> bool:
    """Whether the process that made a hidden folder still runs (so far as can be told)."""
    process = hidden.name.rpartition(".")[2].split("-")[1]
    if not process.isdecimal():
        return False
    if int(process) == os.getpid():  # numbers come again, in containers even at once
        return hidden.name in _MADE
    if os.name != "posix":
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def read_array(path: Path, dtype: type[np.generic]) -> NDArray:
    """Memory-map one array, checking that it is one axis of `dtype`.

    Raises
    ------
    InputError
        If the file is missing, truncated or no such array.
    """
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        array: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing from this dataset; prepare it again") from error
    except Exception as error:  # a damaged header can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is damaged or truncated ({reason}); prepare it again") from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != np.dtype(dtype):
        raise InputError(
            f"{path}: is not a list of {np.dtype(dtype).name}; the file is damaged: prepare again"
        )
    return array


def read_document(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises
    ------
    InputError
        If the file is missing or is no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); prepare it again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged (not JSON); prepare the dataset again") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: is damaged (not a JSON object); prepare the dataset again")
    return document


def _write_array(path: Path, array: NDArray) -> None:
    # Not np.save: on a full disk it raises an error without the reason.
    plain = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
        file.write(plain.data.cast("B") if plain.size else b"")
        file.flush()
        os.fsync(file.fileno())


def _write_document(path: Path, document: Any) -> None:
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: holds what JSON cannot ({error}); give titles and attributes as text, "
            "finite numbers, lists and dictionaries"
        ) from error
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _remove(partial: Path, made: list[Path]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    for parent in made:
        with contextlib.suppress(OSError):
            parent.rmdir()


def _put_in_place(partial: Path, path: Path) -> None:
    if not path.exists():
        partial.rename(path)
    else:
        old = beside(path, "old")
        path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a system whose folders cannot be opened
        return
    try:
        os.fsync(handle)
    except OSError:  # a file system that cannot sync folders; the files themselves are synced
        pass
    finally:
        os.close(handle)
