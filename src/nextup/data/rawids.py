"""Raw ids: the names that the log gives to users and items, as plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

RawId = int | str


def integer_of(text: str) -> int | None:
    """Return the integer whose text form is exactly `text`, else None.

    Examples
    --------
    >>> integer_of("12"), integer_of("012"), integer_of("x")
    (12, None, None)
    """
    try:
        number = int(text)
    except ValueError:
        return None
    return number if str(number) == text and abs(number) < 2**63 else None


class RawIds(Sequence[RawId]):
    """An immutable list of distinct raw ids, all integers or all text.

    Integers are one ``int64`` array; text is one ``uint8`` array of UTF-8 bytes and the ``int64``
    offsets between the ids, so that both can lie in a memory-mapped file.

    Parameters
    ----------
    values
        ``int64[n]``: the integer ids; or ``uint8[bytes]``: the UTF-8 bytes of all ids.
    offsets
        ``int64[n + 1]``: id ``i`` is ``values[offsets[i]:offsets[i + 1]]``; None for integers.

    Examples
    --------
    >>> ids = RawIds.of(["b", "a"])
    >>> ids[1], len(ids), ids.numbers_of(["a", "zzz"])
    ('a', 2, array([ 1, -1]))
    >>> RawIds.of([10, 12]).numbers_of(["12", 12])
    array([1, 1])
    """

    __slots__ = ("_lookup", "offsets", "values")

    def __init__(self, values: NDArray, offsets: NDArray[np.int64] | None = None) -> None:
        expected = np.dtype(np.int64 if offsets is None else np.uint8)
        if values.dtype != expected or values.ndim != 1:
            raise TypeError(f"raw ids are {values.dtype}[{values.ndim} axes], expected {expected}")
        self.values = values
        self.offsets = offsets
        self._lookup: dict[RawId, int] | None = None

    @classmethod
    def of(cls, ids: Iterable[RawId]) -> RawIds:
        """Build from a list: integers stay integers if all are, else every id becomes text."""
        listed = list(ids)
        if all(isinstance(raw, (int, np.integer)) for raw in listed):
            return cls(np.array(listed, dtype=np.int64))
        return cls.of_text([str(raw) for raw in listed])

    @classmethod
    def of_text(cls, texts: Sequence[str]) -> RawIds:
        """Build from a list of texts, which stay text even where they look like numbers."""
        encoded = [text.encode() for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    @property
    def are_integers(self) -> bool:
        """Whether the ids are integers (else they are text)."""
        return self.offsets is None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> RawId: ...
    @overload
    def __getitem__(self, index: slice) -> list[RawId]: ...
    def __getitem__(self, index: int | slice) -> RawId | list[RawId]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"raw id {index} of {len(self)}")
        if self.offsets is None:
            return int(self.values[index])
        return self.values[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[RawId]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawIds) and self.tolist() == other.tolist()

    def __hash__(self) -> int:
        return hash((len(self), self.are_integers))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"RawIds([{shown}{', ...' if len(self) > 3 else ''}], n={len(self)})"

    def __getstate__(self) -> tuple[NDArray, NDArray[np.int64] | None]:
        return self.values, self.offsets

    def __setstate__(self, state: tuple[NDArray, NDArray[np.int64] | None]) -> None:
        self.values, self.offsets = state
        self._lookup = None

    def tolist(self) -> list[RawId]:
        """Return all ids as Python integers or texts."""
        if self.offsets is None:
            numbers: list[RawId] = self.values.tolist()
            return numbers
        blob = self.values.tobytes()
        ends = self.offsets.tolist()
        return [blob[a:b].decode() for a, b in pairwise(ends)]

    def take(self, index: NDArray[np.integer]) -> RawIds:
        """Return the ids at `index`, in that order."""
        if self.offsets is None:
            return RawIds(self.values[index])
        lengths = np.diff(self.offsets)[index]
        offsets = np.zeros(len(index) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        starts = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        return RawIds(self.values[np.arange(int(offsets[-1])) + starts], offsets)

    def numbers_of(self, raws: Sequence[RawId]) -> NDArray[np.int64]:
        """Return where each raw id stands, -1 where it does not; matching is by text form.

        Parameters
        ----------
        raws
            Integers or texts; ``12`` and ``"12"`` find the same id.

        Returns
        -------
        ``int64[len(raws)]``
        """
        if self._lookup is None:
            self._lookup = {raw: number for number, raw in enumerate(self.tolist())}
        found = list(map(self._lookup.get, raws))
        if None in found:
            found = [
                self._by_text_form(r) if n is None else n for r, n in zip(raws, found, strict=True)
            ]
        return np.array(found, dtype=np.int64)

    def _by_text_form(self, raw: RawId) -> int:
        assert self._lookup is not None
        other = integer_of(raw) if isinstance(raw, str) and self.are_integers else str(raw)
        return -1 if other is None else self._lookup.get(other, -1)
