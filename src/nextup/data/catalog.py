"""The catalogue: which raw id, title and attributes each item number stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.data.rawids import RawId, RawIds
from nextup.data.titles import core_of, nearness
from nextup.errors import InputError


@dataclass(frozen=True)
class Catalog:
    """Items by number: item ``n`` of ``1..I`` is ``ids[n - 1]``; 0 is padding and no item.

    Parameters
    ----------
    ids
        The raw id of each item.
    titles
        What people call each item (None where unknown), or None if no titles were given.
    attributes
        Further columns by name, each with one value an item.

    Examples
    --------
    >>> catalog = Catalog(RawIds.of(["m1", "m2"]), titles=["Alien", None])
    >>> len(catalog), catalog.number_of("m2"), catalog.title_of(1), catalog.find_title("ali")
    (2, 2, 'Alien', [1])
    """

    ids: RawIds
    titles: list[str | None] | None = None
    attributes: dict[str, list[Any]] | None = None
    _lower: list[str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns = {"titles": self.titles, **(self.attributes or {})}
        for name, column in columns.items():
            if column is not None and len(column) != len(self.ids):
                raise InputError(
                    f"catalogue: {len(column)} values of `{name}` for {len(self.ids)} items; "
                    "each item needs one (None where unknown)"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def number_of(self, raw: RawId) -> int | None:
        """Return the number ``1..I`` of a raw id, None if the catalogue lacks it."""
        return int(self.numbers_of([raw])[0]) or None

    def numbers_of(self, raws: Sequence[RawId]) -> NDArray[np.int64]:
        """Return ``int64[len(raws)]``: the number of each raw id, 0 where unknown."""
        return self.ids.numbers_of(raws) + 1

    def raw_of(self, number: int) -> RawId:
        """Return the raw id of item `number` (``1..I``).

        Raises
        ------
        IndexError
            If there is no such item (0 is padding).
        """
        if not 1 <= number <= len(self.ids):
            raise IndexError(f"item number {number} is not in 1..{len(self.ids)}")
        return self.ids[number - 1]

    def title_of(self, number: int) -> str | None:
        """Return the title of item `number` (``1..I``), None where it has none."""
        self.raw_of(number)
        return None if self.titles is None else self.titles[number - 1]

    def find_title(self, text: str) -> list[int]:
        """Return the numbers of the items whose title holds `text`, whatever the case.

        The nearest come first, those equally near in order of number; see `title_matches`.
        """
        return [number for number, _ in self.title_matches(text)]

    def title_matches(self, text: str) -> list[tuple[int, int]]:
        """Return item number and nearness of each title that holds `text`, nearest first.

        Titles equal to the text come first, then those equal but for a year at their end, then
        ``Matrix, The`` for ``The Matrix``, then names less article and parentheses, then those
        that begin with it, hold it as words, or hold it at all.
        """
        if self.titles is None:
            return []
        lower = self._lower
        if lower is None:
            lower = [(title or "").casefold() for title in self.titles]
            object.__setattr__(self, "_lower", lower)
        wanted = text.casefold().strip()
        if not wanted:
            return []
        core = core_of(wanted)
        found = [
            (number, near)
            for number, title in enumerate(lower, 1)
            if core in title and (near := nearness(title.strip(), wanted)) is not None
        ]
        return sorted(found, key=lambda each: each[1])

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of plain lists, fit for ``json.dump``."""
        return {"ids": self.ids.tolist(), "titles": self.titles, "attributes": self.attributes}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Catalog:
        """Build from what `to_json` returned.

        Raises
        ------
        InputError
            If the dictionary lacks the ids or its columns differ in length.
        """
        ids = stored.get("ids") if isinstance(stored, dict) else None
        if not isinstance(ids, list):
            raise InputError("catalogue: the stored form has no list `ids`; save it again")
        kept = RawIds.of(ids) if all(type(i) is int for i in ids) else RawIds.of_text(list(ids))
        return cls(kept, stored.get("titles"), stored.get("attributes"))
