"""Splits: which items a model learns from, and which it must find.

Every split is arithmetic on spans; nothing is copied.

What each leaks
---------------
leave-one-out, last-n
    The held-out items are each user's last, whenever that was, so training holds interactions
    that happened after some test items (the global timeline leaks). Where two items carry the
    same time, the order of the log decides which is held out.
time
    Nothing after the point in time is learnt from; users and items that appear only later are
    unknown to the model, as in production.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nextup.data.sequences import Sequences
from nextup.errors import InputError


@dataclass(frozen=True)
class Cases:
    """Held-out items: for each what a model may read, and what it must find.

    Parameters
    ----------
    histories
        ``m`` spans: what the model reads.
    targets
        ``int32[m]``: the item that came next.
    users
        ``int64[m]``: whose case it is (row in the dataset).
    """

    histories: Sequences
    targets: NDArray[np.int32]
    users: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Split:
    """Training histories and the held-out cases of validation and test.

    `train` has one span a user (possibly empty), and so has `train_and_valid`: all that lies
    before the user's first test item, or before the point in time. `whole` is everything a user
    did, used only to draw negatives a user never met.
    """

    name: str
    train: Sequences
    train_and_valid: Sequences
    valid: Cases
    test: Cases
    whole: Sequences
    leaks: str

    def without_test(self) -> Split:
        """Return the split with the test items cut off: nothing that reads it can learn of them."""
        none = np.zeros(0, np.int64)
        cases = self.test
        test = Cases(cases.histories.rows(none), cases.targets[none], cases.users[none])
        return replace(self, test=test, whole=self.train_and_valid)


TIMELINE_LEAK = (
    "the held-out items are each user's last, so training holds interactions that happened "
    "after some test items"
)


def leave_one_out(whole: Sequences) -> Split:
    """Hold out each user's last item for test and the one before it for validation."""
    return last_n(whole, 1)


def last_n(whole: Sequences, n: int) -> Split:
    """Hold out each user's last `n` items for test and the `n` before them for validation.

    Each held-out item is a case of its own, read with all that came before it.

    Parameters
    ----------
    whole
        One span a user.
    n
        Items held out for each part; users with fewer than ``2 n + 1`` items are only learnt from.

    Raises
    ------
    InputError
        If no user is long enough.
    """
    if n < 1:
        raise InputError(f"split last-n: n is {n}; it must be at least 1")
    long = np.flatnonzero(whole.lengths >= 2 * n + 1)
    if len(long) == 0:
        raise InputError(
            f"split: no user has the {2 * n + 1} items that holding out {n} for validation and "
            f"{n} for test needs; prepare with longer histories (min-user) or a smaller n"
        )
    ends = whole.ends.copy()
    ends[long] -= 2 * n
    before_test = whole.ends.copy()
    before_test[long] -= n
    name = "leave-one-out" if n == 1 else f"last-{n}"

    def cases(first: int) -> Cases:
        at = (whole.ends[long, None] - first + np.arange(n)).reshape(-1)
        users = np.repeat(long, n)
        return Cases(Sequences(whole.items, whole.starts[users], at), whole.items[at], users)

    return Split(
        name,
        replace(whole, ends=ends),
        replace(whole, ends=before_test),
        cases(2 * n),
        cases(n),
        whole,
        TIMELINE_LEAK,
    )


def by_time(
    whole: Sequences, times: NDArray[np.int64] | None, valid_from: int, test_from: int
) -> Split:
    """Learn from all before `valid_from`; find each user's first item after each point in time.

    Parameters
    ----------
    whole
        One span a user, each in order of time.
    times
        ``int64[n]``: the time of each item of ``whole.items``, in the log's own unit.
    valid_from, test_from
        Validation cases start in ``[valid_from, test_from)``, test cases at or after `test_from`.

    Raises
    ------
    InputError
        If the data carries no times, or a part would be empty.
    """
    if times is None:
        raise InputError("split by time: this dataset has no times; prepare it with a time column")
    if valid_from >= test_from:
        raise InputError(
            f"split by time: validation starts at {valid_from}, not before the test at {test_from}"
        )

    def first_at(point: int) -> NDArray[np.int64]:
        before = np.concatenate(([0], np.cumsum(np.asarray(times) < point)))
        at: NDArray[np.int64] = whole.starts + (before[whole.ends] - before[whole.starts])
        return at

    valid_at, test_at = first_at(valid_from), first_at(test_from)

    def cases(at: NDArray[np.int64], until: NDArray[np.int64], part: str) -> Cases:
        users = np.flatnonzero((at < until) & (at > whole.starts))
        if len(users) == 0:
            raise InputError(
                f"split by time: no {part} case between the points {valid_from} and {test_from}; "
                "choose points inside the log's time range"
            )
        history = Sequences(whole.items, whole.starts[users], at[users])
        return Cases(history, whole.items[at[users]], users)

    return Split(
        "time",
        replace(whole, ends=valid_at),
        replace(whole, ends=test_at),
        cases(valid_at, test_at, "validation"),
        cases(test_at, whole.ends, "test"),
        whole,
        "nothing after the point in time is learnt from; items first seen later cannot be found",
    )
