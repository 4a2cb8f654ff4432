"""A recommender as a folder: weights, catalogue and settings, and nothing that could run.

The folder holds ``recommender.json`` (what it is, with the checksums of the other files),
``weights.safetensors``, ``popularity.safetensors`` and ``catalog.json``; where users have vectors
also ``users.safetensors``, their raw ids. It is written beside its place and renamed when complete.
Pickles are neither written nor read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextup.data.catalog import Catalog
from nextup.data.folder import beside, clear_leftovers
from nextup.data.rawids import RawIds
from nextup.errors import NextupError, RunError
from nextup.models.base import Recommender
from nextup.models.registry import make_model

FORMAT, VERSION = "nextup recommender", 1
CARD, CATALOG = "recommender.json", "catalog.json"
WEIGHTS, POPULARITY = "weights.safetensors", "popularity.safetensors"
USERS = "users.safetensors"


def save_model(
    model: Recommender,
    folder: Path | str,
    catalog: Catalog,
    popularity: NDArray[np.int64],
    about: dict[str, Any] | None = None,
    users: RawIds | None = None,
) -> None:
    """Write a recommender so that it needs nothing else to answer.

    Parameters
    ----------
    model
        Any registered model.
    folder
        Where; a recommender that stands there already is replaced once the new one is complete.
    catalog
        The raw ids and titles of the items.
    popularity
        ``int64[I + 1]``: how often each item occurs in training; answers empty histories.
    about
        Anything of JSON to keep with it: the dataset's card, the run's settings, its metrics.
    users
        The raw ids of the users that the model has vectors of, by which it knows them again.

    Raises
    ------
    RunError
        If the folder holds something else, or cannot be written (nothing is left behind then).
    """
    folder = Path(folder)
    if len(catalog) != model.n_items or len(popularity) != model.n_items + 1:
        raise RunError(
            f"{folder}: the model knows {model.n_items} items, the catalogue {len(catalog)} and "
            f"the popularity {len(popularity) - 1}; save a model with the dataset it was fitted on"
        )
    known = model.extents().get("users", 0)
    if users is not None and len(users) != known:
        raise RunError(
            f"{folder}: the model has vectors of {known} users, but {len(users)} were named; save "
            "it with the users of the dataset it was fitted on"
        )
    clear_leftovers(folder)
    if (folder.exists() or folder.is_symlink()) and not _is_recommender(folder):
        raise RunError(f"{folder}: exists and is not a recommender; choose another folder")
    state = {k: v.detach().cpu().clone().contiguous() for k, v in model.state_dict().items()}
    partial = beside(folder, "partial")
    try:
        partial.mkdir(parents=True)
        save_file(state, partial / WEIGHTS)
        counts = torch.from_numpy(np.ascontiguousarray(popularity, dtype=np.int64))
        save_file({"popularity": counts}, partial / POPULARITY)
        _write_json(partial / CATALOG, catalog.to_json())
        names = [WEIGHTS, POPULARITY, CATALOG]
        if users is not None:
            save_file(_tensors_of(users), partial / USERS)
            names.append(USERS)
        card = {
            "format": FORMAT,
            "version": VERSION,
            "model": model.name,
            "config": model.config.model_dump(mode="json"),
            "n_items": model.n_items,
            "extents": model.extents(),
            "weights": {name: _describe(tensor) for name, tensor in state.items()},
            "sha256": {name: _checksum(partial / name) for name in names},
            "about": about or {},
        }
        _write_json(partial / CARD, card)
        _put_in_place(partial, folder)
    except (TypeError, ValueError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(
            f"{folder}: the recommender holds what JSON cannot ({error}); give titles, attributes "
            "and `about` as text, finite numbers, lists and dictionaries"
        ) from error
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"{folder}: the recommender could not be written ({reason}); nothing was left behind: "
            "free some disk space, check the permissions, or choose another folder"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load_model(
    folder: Path | str,
) -> tuple[Recommender, Catalog, NDArray[np.int64], dict[str, Any]]:
    """Read what `save_model` wrote: the model (answering mode), catalogue, popularity and about.

    Raises
    ------
    RunError
        If the folder is no recommender, is of another version of the format, or is damaged.
    """
    folder = Path(folder)
    card = _card(folder, (WEIGHTS, POPULARITY, CATALOG))
    if not isinstance(card.get("config"), dict):
        raise _damaged(folder / CARD, "`config` is not a JSON object")
    try:
        model = make_model(card["model"], int(card["n_items"]), card["config"])
        model.extend(card.get("extents", {}))
        catalog = Catalog.from_json(_read_json(folder, CATALOG))
    except NextupError as error:
        raise RunError(f"{folder}: cannot be loaded: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(folder / CARD, f"{type(error).__name__}: {error}") from None
    _fill(model, _read_tensors(folder / WEIGHTS), card.get("weights"), folder / WEIGHTS)
    popularity = _read_tensors(folder / POPULARITY).get("popularity", torch.empty(0)).numpy()
    if len(catalog) != model.n_items or popularity.shape != (model.n_items + 1,):
        raise _damaged(folder, "catalogue, popularity and model differ in their number of items")
    about = card.get("about")
    return model, catalog, popularity.astype(np.int64), about if isinstance(about, dict) else {}


def load_users(folder: Path | str) -> RawIds | None:
    """Read the raw ids of the users whom a recommender knows; None where it knows nobody.

    Raises
    ------
    RunError
        As `load_model`.
    """
    folder = Path(folder)
    if USERS not in _card(folder, ())["sha256"]:
        return None
    _card(folder, (USERS,))
    tensors = {name: each.numpy() for name, each in _read_tensors(folder / USERS).items()}
    try:
        return RawIds(tensors["values"], tensors.get("offsets"))
    except (KeyError, TypeError) as error:
        raise _damaged(folder / USERS, str(error)) from None


def _tensors_of(ids: RawIds) -> dict[str, Tensor]:
    arrays = {"values": ids.values, "offsets": ids.offsets}
    return {
        name: torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if array is not None
    }


def _card(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Read a recommender's card, and check that the files `names` are those it was saved with."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RunError(
            f"{folder}: {what}; a recommender is a folder that `nextup fit` or `save_model` wrote"
        )
    card = _read_json(folder, CARD)
    if card.get("format") != FORMAT:
        raise RunError(f"{folder / CARD}: is not the card of a nextup recommender")
    if card.get("version") != VERSION:
        raise RunError(
            f"{folder}: has version {card.get('version')!r} of the format, this nextup reads "
            f"version {VERSION}; use the nextup it was saved with, or fit again"
        )
    sums = card.get("sha256")
    if not isinstance(sums, dict):
        raise _damaged(folder / CARD, "its checksums are not a JSON object")
    for name in names:
        if not (folder / name).is_file():
            raise RunError(f"{folder}: `{name}` is missing; the recommender is incomplete")
        if _checksum(folder / name) != sums.get(name):
            raise _damaged(folder / name, "its checksum is not the one noted when it was saved")
    return card


def _fill(model: Recommender, state: dict[str, Tensor], noted: object, file: Path) -> None:
    """Put stored weights into a fresh model, checking names, types and shapes."""
    if {name: _describe(tensor) for name, tensor in state.items()} != noted:
        raise _damaged(file, "its tensors are not those noted in the card")
    fresh = model.state_dict()
    if fresh.keys() != state.keys():
        odd = ", ".join(sorted(fresh.keys() ^ state.keys())[:5])
        raise RunError(
            f"{file}: does not fit model {model.name}: only one of the two has {odd}; "
            "use the nextup it was saved with, or fit again"
        )
    for name, tensor in state.items():
        if tensor.dtype != fresh[name].dtype:
            raise _damaged(file, f"`{name}` is {tensor.dtype}, not {fresh[name].dtype}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(
            f"{file}: does not fit model {model.name}: {reason}; "
            "use the nextup it was saved with, or fit again"
        ) from None
    model.eval()


def _is_recommender(folder: Path) -> bool:
    """Whether a folder is what `save_model` wrote, not something else with a file of that name."""
    try:
        return not folder.is_symlink() and _read_json(folder, CARD).get("format") == FORMAT
    except RunError:
        return False


def _describe(tensor: Tensor) -> list[Any]:
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]


def _damaged(file: Path, reason: str) -> RunError:
    return RunError(f"{file}: is damaged ({reason}); copy the recommender again, or fit again")


def _checksum(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except Exception as error:  # the library's own errors share no public base
        raise _damaged(file, str(error)) from None
    return tensors


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        text = (folder / name).read_text(encoding="utf-8", errors="surrogatepass")
        document = json.loads(text)
    except FileNotFoundError:
        raise RunError(
            f"{folder}: holds no `{name}`, so it is not a recommender that nextup saved"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder / name, str(error)) from None
    if not isinstance(document, dict):
        raise _damaged(folder / name, "not a JSON object")
    return document


def _write_json(file: Path, document: Any) -> None:
    with file.open("w", encoding="utf-8", errors="surrogatepass") as opened:
        json.dump(document, opened, ensure_ascii=False, indent=1, allow_nan=False)
        opened.write("\n")


def _put_in_place(partial: Path, folder: Path) -> None:
    for file in partial.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    if not folder.exists():
        partial.rename(folder)
        return
    old = beside(folder, "old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
