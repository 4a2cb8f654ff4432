"""The stable order of a log by user and time, in time that grows linearly with the log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def order_of(users: NDArray[np.int32], times: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return the rows by user and, within a user, by time; rows of equal time keep their order.

    Parameters
    ----------
    users
        ``int32[n]``: codes from 0.
    times
        ``int64[n]``, or None where the order of the log is the order in time.

    Returns
    -------
    ``int64[n]``, or None if the rows stand in that order already.

    Examples
    --------
    >>> order_of(np.array([1, 0, 1, 0], dtype=np.int32), np.array([5, 9, 4, 9]))
    array([1, 3, 2, 0])
    """
    if _in_order(users, times):
        return None
    order = by_code(users)
    if times is None:
        return order
    users, times = users[order], times[order]
    if _in_order(users, times):
        return order
    first = int(times.min())
    span = int(times.max()) - first + 1
    if span * (int(users[-1]) + 1) < 2**63:
        # One key in nearly the right order, since users are together: the sort only has to mend
        # the order within each of them.
        key = users.astype(np.int64)
        key *= span
        times -= first
        key += times
        return order[np.argsort(key, kind="stable")]
    return order[np.lexsort((times, users))]


def by_code(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the stable order by code: a radix sort, 16 bits at a time."""
    order = np.argsort((codes & 0xFFFF).astype(np.uint16), kind="stable")
    high = (codes >> 16).astype(np.uint16)
    if high.any():
        order = order[np.argsort(high[order], kind="stable")]
    return order


def _in_order(users: NDArray[np.int32], times: NDArray[np.int64] | None) -> bool:
    later = users[1:] > users[:-1]
    same = users[1:] == users[:-1]
    if times is not None:
        same &= times[1:] >= times[:-1]
    later |= same
    return bool(later.all())
