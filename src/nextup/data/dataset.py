"""The prepared dataset: sequences, catalogue and users, in memory or as a folder of arrays.

The folder holds ``card.json`` (what it is and how it came about), ``items.npy`` and
``offsets.npy`` (the histories), ``times.npy`` where the log had times, the raw ids of users and
items, and ``catalog.json`` (titles and attributes). Opening it needs numpy alone and reads only
what is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.data.catalog import Catalog
from nextup.data.folder import check_free, clear_leftovers, read_array, read_document, write_folder
from nextup.data.rawids import RawIds
from nextup.data.sequences import Sequences
from nextup.data.split import Split, by_time, last_n, leave_one_out
from nextup.data.times import parse_point
from nextup.errors import InputError

FORMAT = "nextup-dataset"
VERSION = 1


@dataclass(frozen=True)
class Dataset:
    """Everything known about who did what in which order.

    Parameters
    ----------
    sequences
        One history a user, oldest first, of item numbers ``1..I``.
    catalog
        The raw id, title and attributes of each item number.
    users
        The raw id of each user, in the order of `sequences`.
    times
        ``int64[n]``: the time of each item of ``sequences.items`` (unit: ``card["time"]``), or
        None.
    card
        What the dataset is and how it came about, as plain JSON.
    """

    sequences: Sequences
    catalog: Catalog
    users: RawIds
    times: NDArray[np.int64] | None = None
    card: dict[str, Any] = dataclasses.field(default_factory=dict)
    _checksum: str | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.users) != len(self.sequences):
            raise InputError(
                f"dataset: {len(self.users)} user ids for {len(self.sequences)} histories"
            )
        if self.times is not None and len(self.times) != len(self.sequences.items):
            raise InputError(
                f"dataset: {len(self.times)} times for {len(self.sequences.items)} interactions"
            )

    @property
    def n_users(self) -> int:
        """How many users, hence histories, there are."""
        return len(self.sequences)

    @property
    def n_items(self) -> int:
        """How many items the catalogue holds; their numbers are ``1..n_items``."""
        return len(self.catalog)

    @property
    def n_interactions(self) -> int:
        """How many interactions all histories hold together."""
        return int(self.sequences.lengths.sum())

    @property
    def name(self) -> str:
        """What the dataset is called in tables."""
        return str(self.card.get("name", "unnamed"))

    @property
    def checksum(self) -> str:
        """What the histories are, as one short text: equal histories have equal checksums.

        Taken over the item numbers and the span of each user, once; a saved dataset has it in
        its card.
        """
        if self._checksum is None:
            offsets = np.concatenate(([0], np.cumsum(self.sequences.lengths)))
            digest = hashlib.blake2b(digest_size=16)
            digest.update(np.ascontiguousarray(self.sequences.flat(), dtype="<i4").data)
            digest.update(np.ascontiguousarray(offsets, dtype="<i8").data)
            object.__setattr__(self, "_checksum", digest.hexdigest())
        assert self._checksum is not None
        return self._checksum

    @property
    def times_checksum(self) -> str:
        """What the times are, as one short text; empty without any.

        They decide a split by time, and the order in which some models read histories.
        """
        if self.times is None:
            return ""
        times = np.ascontiguousarray(self.times[self.sequences.positions()], dtype="<i8")
        return hashlib.blake2b(times.data, digest_size=16).hexdigest()

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name}: {self.n_users:,} users, {self.n_items:,} items, "
            f"{self.n_interactions:,} interactions)"
        )

    def split(self, name: str = "leave-one-out") -> Split:
        """Part the histories into what is learnt from and what must be found.

        Parameters
        ----------
        name
            ``"leave-one-out"``; ``"last-N"`` (the last N of each user for test, the N before for
            validation); ``"time:VALID,TEST"`` (two points in time, as numbers in the log's unit
            or as ISO dates).

        Raises
        ------
        InputError
            If the name is none of these, or the split leaves a part empty.
        """
        sequences = dataclasses.replace(self.sequences, times=self.times)
        if name == "leave-one-out":
            return leave_one_out(sequences)
        if name.startswith("last-") and name[5:].isdecimal():
            return last_n(sequences, int(name[5:]))
        if name.startswith("time:") and name.count(",") == 1:
            valid, test = (
                parse_point(point, self.card.get("time"), f"split `{name}`")
                for point in name[5:].split(",")
            )
            return by_time(sequences, self.times, valid, test)
        raise InputError(
            f"split `{name}` is unknown; use leave-one-out, last-N (last-2) or time:VALID,TEST "
            "(time:2018-01-01,2018-07-01)"
        )

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the dataset as a folder, whole or not at all, and return its path.

        Parameters
        ----------
        path
            The folder to make.
        overwrite
            Replace a prepared dataset that stands there (only once the new one is complete).

        Raises
        ------
        InputError
            If the path exists, or cannot be written; nothing half-written is left.
        """
        sequences = self.sequences
        offsets = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(sequences.lengths, out=offsets[1:])
        arrays: dict[str, NDArray] = {
            "items": sequences.flat().astype(np.int32, copy=False),
            "offsets": offsets,
            **_id_arrays("user", self.users),
            **_id_arrays("item", self.catalog.ids),
        }
        if self.times is not None:
            whole = np.array_equal(sequences.starts, offsets[:-1])  # end to end, as they stand
            whole = whole and len(self.times) == len(arrays["items"])
            arrays["times"] = self.times if whole else self.times[sequences.positions()]
        catalog = {"titles": self.catalog.titles, "attributes": self.catalog.attributes}
        counts = {
            "users": self.n_users,
            "items": self.n_items,
            "interactions": self.n_interactions,
        }
        card = {**self.card, "format": FORMAT, "version": VERSION, "checksum": self.checksum}
        card["counts"] = {**card.get("counts", {}), **counts}
        card["arrays"] = sorted(arrays)
        documents = {"catalog": catalog, "card": card}
        write_folder(Path(path), arrays, documents, overwrite, _may_replace)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Open a prepared dataset; its arrays are memory-mapped, read-only.

        Raises
        ------
        InputError
            If the folder is missing, is no prepared dataset, is of a newer version, or one of
            its files is missing, truncated or contradicts the card.
        """
        folder = Path(path)
        card = _read_card(folder)
        counts, names = card["counts"], set(card["arrays"])
        items = read_array(folder / "items.npy", np.int32)
        offsets = read_array(folder / "offsets.npy", np.int64)
        times = read_array(folder / "times.npy", np.int64) if "times" in names else None
        users = _read_ids(folder, "user", names)
        stored = read_document(folder / "catalog.json")
        catalog = Catalog(
            _read_ids(folder, "item", names), stored.get("titles"), stored.get("attributes")
        )
        _check(folder / "items.npy", len(items), counts["interactions"])
        _check(folder / "offsets.npy", len(offsets), counts["users"] + 1)
        _check(folder / "user_ids.npy", len(users), counts["users"])
        _check(folder / "item_ids.npy", len(catalog), counts["items"])
        if times is not None:
            _check(folder / "times.npy", len(times), counts["interactions"])
        if offsets[0] != 0 or offsets[-1] != len(items) or bool((np.diff(offsets) < 0).any()):
            raise InputError(f"{folder / 'offsets.npy'}: is damaged; prepare the dataset again")
        if len(items) and not (items.min() >= 1 and items.max() <= len(catalog)):
            raise InputError(
                f"{folder / 'items.npy'}: holds item numbers outside 1..{len(catalog)}; the file "
                "is damaged: prepare the dataset again"
            )
        found = cls(Sequences(items, offsets[:-1], offsets[1:]), catalog, users, times, card)
        if isinstance(noted := card.get("checksum"), str):  # older datasets have none
            object.__setattr__(found, "_checksum", noted)
        return found


def check_place(path: str | Path, overwrite: bool = False) -> None:
    """Check, before any work, that `Dataset.save` may write to a path.

    Raises
    ------
    InputError
        If something stands there that is not to be, or may not be, replaced.
    """
    clear_leftovers(Path(path))
    check_free(Path(path), overwrite, _may_replace)


def _id_arrays(kind: str, ids: RawIds) -> dict[str, NDArray]:
    if ids.offsets is None:
        return {f"{kind}_ids": ids.values}
    return {f"{kind}_ids": ids.values, f"{kind}_id_offsets": ids.offsets}


def _read_ids(folder: Path, kind: str, names: set[str]) -> RawIds:
    path = folder / f"{kind}_ids.npy"
    if f"{kind}_id_offsets" not in names:
        return RawIds(read_array(path, np.int64))
    blob = read_array(path, np.uint8)
    offsets = read_array(folder / f"{kind}_id_offsets.npy", np.int64)
    if (
        len(offsets) == 0
        or offsets[0] != 0
        or offsets[-1] != len(blob)
        or bool((np.diff(offsets) < 0).any())
    ):
        raise InputError(f"{path}: is damaged or truncated; prepare the dataset again")
    return RawIds(blob, offsets)


def _read_card(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder; make it with `nextup prepare`")
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is a file, not a prepared dataset; make one with `nextup prepare`"
        )
    if not (folder / "card.json").is_file():
        raise InputError(
            f"{folder}: is not a prepared dataset (it has no card.json); make one with "
            "`nextup prepare`"
        )
    card = read_document(folder / "card.json")
    if card.get("format") != FORMAT:
        raise InputError(f"{folder}: card.json is not that of a nextup dataset; prepare it again")
    if card.get("version") != VERSION:
        raise InputError(
            f"{folder}: is of version {card.get('version')!r}, this nextup reads version "
            f"{VERSION}; prepare it again or use the nextup that wrote it"
        )
    counts, arrays = card.get("counts"), card.get("arrays")
    wanted = ("users", "items", "interactions")
    if not isinstance(counts, dict) or not all(type(counts.get(key)) is int for key in wanted):
        raise InputError(f"{folder}: card.json is damaged (no counts); prepare it again")
    if not isinstance(arrays, list):
        raise InputError(f"{folder}: card.json is damaged (no arrays); prepare it again")
    return card


def _may_replace(folder: Path) -> bool:
    """Whether a folder is a dataset that nextup wrote; other people have files `card.json` too."""
    try:
        return read_document(folder / "card.json").get("format") == FORMAT
    except InputError:
        return False


def _check(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(
            f"{path}: has {found:,} entries where card.json says {expected:,}; the dataset is "
            "damaged: prepare it again"
        )
