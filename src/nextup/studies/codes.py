"""Ranks as few bytes: what a result keeps of every test case.

One byte holds twice the rank, since ties make halves: exact up to rank 126.5, hence for every
cutoff of at most 100. Among sampled candidates the ingredients of the exact expectation are kept
too, as whole numbers as small as they allow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks

_FAR, _NEVER = 254, 255


def encode(ranks: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return one byte a rank: twice the rank, 254 for 127 and beyond, 255 for never.

    Examples
    --------
    >>> encode(np.array([0, 0.5, 99.5, 126.5, 127, 5000, np.inf])).tolist()
    [0, 1, 199, 253, 254, 254, 255]
    """
    doubled = np.where(np.isfinite(ranks), 2 * np.nan_to_num(ranks, posinf=0.0), np.inf)
    whole = np.isinf(doubled) | (doubled == np.floor(doubled))
    if np.isnan(ranks).any() or not (whole & (doubled >= 0)).all():
        raise ValueError("ranks must be whole or half numbers of at least 0, or infinity")
    return np.where(np.isinf(doubled), _NEVER, np.minimum(doubled, _FAR)).astype(np.uint8)


def decode(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the ranks: exact below 127, 127 for all beyond, infinity for never."""
    return np.where(codes == _NEVER, np.inf, codes / 2)


def packed(ranks: CaseRanks, place: int = 0) -> dict[str, NDArray[Any]]:
    """Return the arrays that are kept of ranks.

    Parameters
    ----------
    ranks
        Of the test cases.
    place
        Which measurement of the cases they are; names the arrays of all but the first.
    """
    arrays: dict[str, NDArray[Any]] = {"codes": encode(ranks.ranks)}
    if ranks.above is not None and ranks.pool is not None:
        level = np.zeros(len(ranks), dtype=np.int64) if ranks.level is None else ranks.level
        arrays["above"] = _small(np.rint(2 * ranks.above).astype(np.int64))
        arrays["pool"], arrays["level"] = _small(ranks.pool), _small(level)
    return {f"{name}_{place}" if place else name: array for name, array in arrays.items()}


def unpacked(arrays: Mapping[str, NDArray[Any]], place: int, protocol: Protocol) -> CaseRanks:
    """Return the ranks of which `packed` made arrays; users by number, so many cases each.

    Parameters
    ----------
    arrays
        Those of `packed`, and ``cases_each``.
    place, protocol
        Which measurement they are, and how it was made.
    """
    suffix = f"_{place}" if place else ""
    codes, each = arrays[f"codes{suffix}"], int(arrays["cases_each"])
    owners = np.repeat(np.arange(len(codes) // each), each)
    if f"above{suffix}" not in arrays:
        return CaseRanks(owners, decode(codes), protocol)
    return CaseRanks(
        owners,
        decode(codes),
        protocol,
        above=arrays[f"above{suffix}"] / 2,
        pool=arrays[f"pool{suffix}"].astype(np.int64),
        level=arrays[f"level{suffix}"].astype(np.int64),
    )


def checksum(*arrays: NDArray[Any]) -> str:
    """Return the sha256 of arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _small(whole: NDArray[np.integer]) -> NDArray[Any]:
    """Return whole numbers of at least 0 in the narrowest type that holds them."""
    return whole.astype(np.min_scalar_type(int(whole.max(initial=0))))
