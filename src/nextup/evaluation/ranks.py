"""Ranks by counting: how many candidates a model scores above the item that came next.

No sort and no top-k: each block of scores is compared with the targets' own scores while it is in
the cache. Seen items are not masked out of the block; their own scores are counted and taken off.
The target's score is read from the same block, since another way to compute it could round
differently and so make or break ties.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.sequences import Sequences
from nextup.data.split import Cases
from nextup.errors import InputError, RunError
from nextup.evaluation.catalogue import Scorer
from nextup.evaluation.negatives import draw_negatives, draw_popular, unique_pairs
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.scoring import Block, Progress, visit_scores


@dataclass(frozen=True)
class CaseRanks:
    """The rank of every held-out item, from which all metrics follow.

    Parameters
    ----------
    users
        ``int64[m]``: whose case it is.
    ranks
        ``float64[m]``: candidates above the target, so 0 is best; halves come from ties, infinity
        means that the target is no candidate (it stands in its own history).
    protocol
        How they were ranked.
    targets
        ``int64[m]``: the items that had to be found.
    above, pool, level
        For candidates sampled alike, the exact expectation's ingredients: of ``pool: int64[m]``
        items that the user never met, how many (``float64[m]``, ties by the rule) score above the
        target, and how many of these are level with it and count as halves (``int64[m]``).
    """

    users: NDArray[np.int64]
    ranks: NDArray[np.float64]
    protocol: Protocol
    targets: NDArray[np.int64] | None = None
    above: NDArray[np.float64] | None = None
    pool: NDArray[np.int64] | None = None
    level: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ranks)

    def save(self, file: Path | str) -> None:
        """Write to an ``.npz`` file of plain arrays."""
        arrays: dict[str, Any] = {"users": self.users, "ranks": self.ranks}
        names = ("targets", "above", "pool", "level")
        optional = {name: getattr(self, name) for name in names}
        arrays.update({name: array for name, array in optional.items() if array is not None})
        with Path(file).open("wb") as out:
            np.savez(out, protocol=np.array(self.protocol.model_dump_json()), **arrays)

    @classmethod
    def load(cls, file: Path | str) -> CaseRanks:
        """Read what `save` wrote.

        Raises
        ------
        RunError
            If the file is missing or is not such a file.
        """
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
            protocol = Protocol(**json.loads(str(arrays.pop("protocol"))))
            return cls(protocol=protocol, **arrays)
        except FileNotFoundError:
            raise RunError(f"{file}: no such file of ranks; evaluate the run first") from None
        except Exception as error:
            reason = type(error).__name__  # the library's own words advise to allow pickles
            raise RunError(
                f"{file}: not a readable file of ranks ({reason}); evaluate the run again"
            ) from None


def rank_cases(
    model: Scorer,
    cases: Cases,
    protocol: Protocol,
    *,
    whole: Sequences | None = None,
    seen: Sequences | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    progress: Progress | None = None,
    also: Callable[[Block], None] | None = None,
) -> CaseRanks:
    """Rank every held-out item among the candidates of the protocol.

    Parameters
    ----------
    model
        What is measured, on `device`.
    cases
        The held-out items and what may be read to find them.
    protocol
        Candidates, seen items and ties.
    whole
        Everything each user did, one span a user; needed only for sampled candidates.
    seen
        ``m`` spans: what counts as seen, where that is not what is read.
    device
        Where the model is.
    batch_size
        Histories encoded together.
    progress
        Called with ``(cases done, cases in all)``.
    also
        Called with each block of scores once its cases are ranked; may overwrite it.

    Raises
    ------
    InputError
        If sampled candidates are wanted without `whole`, or a user has met too many items.
    NextupError
        If the model's scores are not finite.
    """
    n_items, m = model.n_items, len(cases)
    targets = cases.targets.astype(np.int64)
    if m and not 1 <= targets.min() <= targets.max() <= n_items:
        raise InputError(
            f"evaluation: a held-out item is not one of the model's {n_items} items; "
            "evaluate on the dataset the model was fitted on"
        )
    seen = cases.histories if seen is None else seen
    history_rows, history_items = unique_pairs(seen, n_items)
    met_target = np.zeros(m, dtype=bool)
    met_target[history_rows[history_items == targets[history_rows]]] = True
    negatives: NDArray[np.int64] | None = None
    rows, items = history_rows, history_items
    if protocol.candidates != "full":
        if whole is None:
            raise InputError(
                "sampled evaluation draws items a user never met: pass `whole`, "
                "the complete histories, or use full ranking"
            )
        draw = draw_popular if protocol.candidates == "popular" else draw_negatives
        negatives = draw(whole, cases.users, n_items, protocol.n_negatives, protocol.seed)
        rows, items = unique_pairs(whole.rows(cases.users), n_items)
    elif protocol.seen == "included":
        rows, items = rows[:0], items[:0]
    off = items != targets[rows]  # the target itself is never taken off
    counter = _Counter(n_items, targets, _spans(rows[off], items[off], m), protocol, negatives)

    def visit(block: Block) -> None:
        counter(block)
        if also is not None:
            also(block)

    visit_scores(
        model,
        cases.histories,
        visit,
        device=device,
        batch_size=batch_size,
        users=cases.users,
        progress=progress,
    )
    ranks = counter.full
    above = pool = level = None
    if negatives is not None:
        ranks = counter.sampled
    if protocol.candidates == "sampled":
        above, level = counter.full, counter.level
        pool = n_items - np.bincount(rows[off], minlength=m) - 1
    if protocol.seen == "excluded":
        ranks = np.where(met_target, np.inf, ranks)
    return CaseRanks(cases.users, ranks, protocol, targets, above, pool, level)


def _spans(rows: NDArray[np.int64], items: NDArray[np.int64], m: int) -> Sequences:
    lengths = np.bincount(rows, minlength=m)
    ends = np.cumsum(lengths)
    return Sequences(items.astype(np.int32), ends - lengths, ends)


class _Counter:
    """Visits blocks of scores and notes the rank of each case."""

    def __init__(
        self,
        n_items: int,
        targets: NDArray[np.int64],
        taken_off: Sequences,
        protocol: Protocol,
        negatives: NDArray[np.int64] | None,
    ) -> None:
        self.n_items, self.targets, self.taken_off = n_items, targets, taken_off
        self.ties, self.negatives = protocol.ties, negatives
        self.full = np.full(len(targets), np.nan)
        self.sampled = np.full(len(targets), np.nan)
        self.level = np.zeros(len(targets), dtype=np.int64)
        self.flags: dict[int, NDArray[np.bool_]] = {}

    def __call__(self, block: Block) -> None:
        cases, scores = block.cases, block.scores
        targets, row = self.targets[cases], np.arange(len(cases))
        own = _take(scores, row, targets - 1)
        above, level = self.count(scores, own, block.worker)
        level -= above + 1  # the target is level with itself
        off = self.taken_off.rows(cases)
        off_row, off_item = np.repeat(row, off.lengths), off.items[off.positions()]
        off_score = _take(scores, off_row, off_item - 1)
        off_level = off_score == own[off_row]
        above -= np.bincount(off_row[off_score > own[off_row]], minlength=len(row))
        level -= np.bincount(off_row[off_level], minlength=len(row))
        lower = np.zeros(len(row), dtype=np.int64)
        if self.ties == "low_id" and level.any():
            tied = np.flatnonzero(level)
            lower[tied] = _level_below(scores, own, targets, tied)
            off_level &= off_item < targets[off_row]
            lower[tied] -= np.bincount(off_row[off_level], minlength=len(row))[tied]
        self.full[cases] = self.rule(above, level, lower)
        if self.ties == "mean":
            self.level[cases] = level
        if self.negatives is not None:
            drawn = self.negatives[cases]
            met = _take(scores, row[:, None], drawn - 1)
            equal = met == own[:, None]
            self.sampled[cases] = self.rule(
                (met > own[:, None]).sum(axis=1),
                equal.sum(axis=1),
                (equal & (drawn < targets[:, None])).sum(axis=1),
            )

    def rule(
        self, above: NDArray[Any], level: NDArray[Any], lower: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Return ranks from counts of items above, level, and level with a lower number."""
        if self.ties == "mean":
            return np.asarray(above + level / 2, dtype=np.float64)
        return np.asarray(above + (lower if self.ties == "low_id" else level), dtype=np.float64)

    def count(
        self, scores: Tensor, own: NDArray[Any], worker: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each row how many scores are above `own`, and how many at least that."""
        if scores.device.type != "cpu":
            limit = torch.from_numpy(own).to(scores.device)[:, None]
            both = torch.stack([(scores > limit).sum(1), (scores >= limit).sum(1)]).cpu().numpy()
            return both[0], both[1]
        values, least = scores.numpy(), own[:, None]
        some = max(1, _CACHED // (values.itemsize * self.n_items))
        if worker not in self.flags:
            width = -(-self.n_items // _SEGMENT) * _SEGMENT
            self.flags[worker] = np.zeros((2, some, width), dtype=bool)
        both = np.empty((2, len(values)), dtype=np.int64)
        for at in range(0, len(values), some):  # few rows, read twice while they are near
            rows = slice(at, at + some)
            flags = self.flags[worker][:, : len(least[rows])]
            inside = flags[:, :, : self.n_items]
            np.greater(values[rows], least[rows], out=inside[0])
            np.greater_equal(values[rows], least[rows], out=inside[1])
            both[:, rows] = _sums(flags)
        return both[0], both[1]


_CACHED = 3 << 18
"""Bytes of scores that are counted at a time."""

_WORDS = 128
_SEGMENT = 8 * _WORDS


def _sums(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the true flags along the last axis (a multiple of `_SEGMENT`), eight at a time.

    Words of eight flags are added as whole numbers: a byte of the sum stays below 256.
    """
    words = flags.view(np.int64).reshape(*flags.shape[:-1], -1, _WORDS)
    sums = np.add.reduce(words, axis=-1)
    return np.asarray(np.add.reduce(sums.view(np.uint8), axis=-1, dtype=np.int64))


def _take(scores: Tensor, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    if scores.device.type == "cpu":
        return np.asarray(scores.numpy()[rows, columns])
    at = torch.from_numpy(rows).to(scores.device), torch.from_numpy(columns).to(scores.device)
    return np.asarray(scores[at].cpu().numpy())


def _level_below(
    scores: Tensor, own: NDArray[Any], targets: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count for each of `rows` the items before the target whose score equals the target's."""
    if scores.device.type == "cpu":
        values = scores.numpy()
        counts = [np.count_nonzero(values[r, : targets[r] - 1] == own[r]) for r in rows]
        return np.array(counts, dtype=np.int64)
    device = scores.device
    level = scores[torch.from_numpy(rows).to(device)]
    level = level == torch.from_numpy(own[rows]).to(device)[:, None]
    before = torch.arange(scores.shape[1], device=device)
    before = before < torch.from_numpy(targets[rows] - 1).to(device)[:, None]
    return np.asarray((level & before).sum(1).cpu().numpy())
