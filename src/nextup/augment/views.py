"""Views of a batch: which operators a sequence may meet, and the drawing of them.

CL4SRec (Xie et al., ICDE 2022) draws two of crop, mask and reorder for each sequence. CoSeRec (Liu
et al., 2021, section 4) adds substitute and insert, and lets short sequences, which crop, mask and
reorder would leave little of, meet mostly these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from nextup.augment import operators
from nextup.augment.packed import Packed
from nextup.augment.similarity import SimilarItems
from nextup.errors import ConfigError, suggest

Operator = Literal["crop", "mask", "reorder", "substitute", "insert"]

OPERATORS: tuple[Operator, ...] = get_args(Operator)
"""All operators; the place of one in here is its number."""

_LETTERS: dict[str, Operator] = {
    "S": "substitute",
    "I": "insert",
    "M": "mask",
    "R": "reorder",
    "C": "crop",
}


def short_set(letters: str) -> tuple[Operator, ...]:
    """Read a set of operators as CoSeRec names it, by initials.

    Examples
    --------
    >>> short_set("SIM")
    ('substitute', 'insert', 'mask')

    Raises
    ------
    ConfigError
        If there is no letter, or an unknown or a repeated one.
    """
    for letter in letters:
        if letter not in _LETTERS:
            known = ", ".join(f"{key} ({name})" for key, name in _LETTERS.items())
            raise ConfigError(
                f"augment: `{letter}` in the set `{letters}` is no operator; use letters of {known}"
            )
    found = tuple(_LETTERS[letter] for letter in letters)
    _check_set(f"the set `{letters}`", found)
    return found


def _check_set(where: str, names: tuple[Operator, ...]) -> None:
    if not names:
        raise ConfigError(f"augment: {where} is empty; name at least one operator")
    for name in names:
        if name not in OPERATORS:
            raise ConfigError(
                f"augment: `{name}` in {where} is no operator{suggest(name, OPERATORS)}"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"augment: {where} names an operator twice; name each once")


@dataclass(frozen=True)
class ViewPolicy:
    """Which operators a sequence may meet, by its length, and how much each changes.

    The defaults are CoSeRec's. (With a threshold its public code reorders at the rate of mask; to
    follow it, set `reorder` to 0.7.)

    Parameters
    ----------
    crop, mask, reorder, substitute, insert
        The rate of each operator, see `nextup.augment.operators`.
    long, short
        The operators, each as likely, that long and short sequences meet.
    threshold
        Sequences of more items than this are long. None: all are.
    """

    crop: float = 0.2
    mask: float = 0.7
    reorder: float = 0.2
    substitute: float = 0.1
    insert: float = 0.4
    long: tuple[Operator, ...] = OPERATORS
    short: tuple[Operator, ...] = ("substitute", "insert", "mask")
    threshold: int | None = 4

    def __post_init__(self) -> None:
        for name in OPERATORS:
            operators.check_rate(name, getattr(self, name))
        for where, names in (("`long`", self.long), ("`short`", self.short)):
            _check_set(where, names)

    @property
    def in_use(self) -> frozenset[Operator]:
        """The operators that some sequence may meet."""
        return frozenset(self.long if self.threshold is None else self.long + self.short)


@dataclass(frozen=True, eq=False)
class Augmenter:
    """Draws views of rows: each row meets one random operator.

    Parameters
    ----------
    policy
        Which operators, and how strong.
    similar
        What substitute and insert take, on the device of the rows; None where neither is in use.
        Another one is set with ``dataclasses.replace``.
    max_length
        The most items a view has (its latest); rows must be cut to it already.
    mask_token
        What stands for a masked item; None takes it out, see `nextup.augment.operators.mask`.

    Raises
    ------
    ConfigError
        If substitute or insert is in use and there are no similar items, or if no item may stay.

    Examples
    --------
    >>> augmenter = Augmenter(ViewPolicy(crop=0.5, long=("crop",), threshold=None))
    >>> rows = Packed.from_lists([[1, 2, 3, 4], [5]])
    >>> augmenter.view(rows).lengths.tolist()
    [2, 1]
    """

    policy: ViewPolicy
    similar: SimilarItems | None = None
    max_length: int = 50
    mask_token: int | None = None

    def __post_init__(self) -> None:
        needing = sorted(self.policy.in_use & {"substitute", "insert"})
        if needing and self.similar is None:
            raise ConfigError(
                f"augment: `{needing[0]}` needs similar items; give `similar`, "
                "or take the operator out of `long` and `short`"
            )
        if self.max_length < 1:
            raise ConfigError(f"augment: max_length is {self.max_length}; it must be at least 1")

    def view(
        self,
        rows: Packed,
        generator: torch.Generator | None = None,
        host_generator: torch.Generator | None = None,
    ) -> Packed:
        """Draw one view of each row; row ``r`` of the result is a view of row ``r``.

        Parameters
        ----------
        generator
            On the device of the rows: which items an operator touches. By default the device's.
        host_generator
            On the CPU: which operator a row meets. By default `generator` where that is on the CPU,
            and PyTorch's own otherwise.
        """
        which = self._draw(rows.lengths, 1, False, host_generator or _on_host(generator))
        return self._meet(rows, which, generator)

    def pair(
        self,
        rows: Packed,
        generator: torch.Generator | None = None,
        distinct: bool = False,
        host_generator: torch.Generator | None = None,
    ) -> tuple[Packed, Packed]:
        """Draw two views of each row, in the order of the rows.

        Parameters
        ----------
        distinct
            Whether a row meets two different operators (CL4SRec), where its set has two. Otherwise
            they are drawn independently (CoSeRec).
        generator, host_generator
            As in `view`.
        """
        which = self._draw(rows.lengths, 2, distinct, host_generator or _on_host(generator))
        both = self._meet(rows, which, generator)
        return both.between(0, len(rows)), both.between(len(rows), len(both))

    def _draw(
        self,
        lengths: NDArray[np.int64],
        views: int,
        distinct: bool,
        host_generator: torch.Generator | None,
    ) -> NDArray[np.int64]:
        """``int64[views, B]``: the number of the operator that each view of each row meets."""
        policy = self.policy
        sets = np.zeros((2, len(OPERATORS)), dtype=np.int64)
        for numbers, names in zip(sets, (policy.short, policy.long), strict=True):
            numbers[: len(names)] = [OPERATORS.index(name) for name in names]
        is_long = np.ones(len(lengths), dtype=np.int64)
        if policy.threshold is not None:
            is_long = (lengths > policy.threshold).astype(np.int64)
        sizes = np.array([len(policy.short), len(policy.long)])[is_long]
        drawn = torch.randint(1 << 40, (views, len(lengths)), generator=host_generator).numpy()
        places = drawn % sizes
        if distinct:
            others = np.maximum(sizes - 1, 1)
            places[1] = (places[0] + 1 + drawn[1] % others) % sizes
        found: NDArray[np.int64] = sets[is_long, places]
        return found

    def _meet(
        self, rows: Packed, which: NDArray[np.int64], generator: torch.Generator | None
    ) -> Packed:
        """Apply operator ``which[v, r]`` to row ``r``: one view of all rows after the other."""
        if which.size == 0:
            return rows
        flat = which.ravel()
        order = np.argsort(flat, kind="stable")
        sorted_rows = rows.rows(order % len(rows))
        ends = np.searchsorted(flat[order], np.arange(len(OPERATORS) + 1))
        parts = [
            self._apply(name, sorted_rows.between(first, end), generator)
            for name, first, end in zip(OPERATORS, ends[:-1], ends[1:], strict=True)
            if end > first
        ]
        return Packed.concatenate(parts).rows(np.argsort(order))

    def _apply(self, name: Operator, rows: Packed, generator: torch.Generator | None) -> Packed:
        policy = self.policy
        if name == "crop":
            return operators.crop(rows, policy.crop, generator)
        if name == "mask":
            return operators.mask(rows, policy.mask, self.mask_token, generator)
        if name == "reorder":
            return operators.reorder(rows, policy.reorder, generator)
        assert self.similar is not None
        if name == "substitute":
            return operators.substitute(rows, policy.substitute, self.similar, generator)
        return operators.insert(rows, policy.insert, self.similar, self.max_length, generator)


def _on_host(generator: torch.Generator | None) -> torch.Generator | None:
    return generator if generator is not None and generator.device.type == "cpu" else None
