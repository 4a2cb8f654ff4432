"""Consistency: how little the first recommendations jump when a history changes a little.

A list that turns over because of one wrong click, or because two items were seen in the other
order, looks arbitrary to the person who reads it, however often it holds the right item. Measured
are the overlap of the lists before and after an accident (`nextup.evaluation.perturb`) and, on the
same cases, what the accident costs in accuracy: a model can be steady because it hardly looks.

Overlap
-------
RBO is the rank-biased overlap of Webber, Moffat & Zobel (A Similarity Measure for Indefinite
Rankings, TOIS 2010), extrapolated from the first ``k`` (their equation 32): with ``X_d`` items in
common among the first ``d``,
``RBO = X_k / k * p^k + (1 - p) / p * sum over d <= k of X_d / d * p^d``,
which is 1 for equal lists and 0 for disjoint ones; the truncated sum would reach only
``1 - p^k`` for equal ones. With ``p = 0.9`` the first three places have about half of the weight,
the first ten .86 (their equation 21). Jaccard is the size of the lists' intersection over that of
their union.

What may be shown
-----------------
Before and after are judged on the same candidates, else a list would change although the model
did not: seen items are those of the history as it was, so forgetting does not bring items back.
What the accident added (the wrong click, the strangers' items) stays out of both lists: a shop that
hides what was clicked would never show it. `echo` says how often it would have been shown
otherwise.
For the target's rank nothing more is left out than without the accident, so ranks before are those
of `rank_cases`, and a target among the strangers' items can still be found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextup.data.seed import checked_seed
from nextup.data.sequences import Sequences
from nextup.data.split import Cases
from nextup.errors import ConfigError, suggest
from nextup.evaluation.catalogue import Scorer
from nextup.evaluation.metrics import gains
from nextup.evaluation.perturb import LONGEST_GRAM, PERTURBATIONS
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.evaluation.retrieval import Lists
from nextup.evaluation.scoring import Progress

PERSISTENCE = 0.9
DEPTH = 10

Floats = NDArray[np.float64]


def overlaps(
    before: NDArray[np.integer], after: NDArray[np.integer], p: float = PERSISTENCE
) -> tuple[Floats, Floats]:
    """Return the extrapolated rank-biased overlap and the Jaccard index of pairs of lists.

    Parameters
    ----------
    before, after
        ``int[m, k]``: distinct items, best first; 0 where a list ends early. Each pair is compared
        down to the end of the shorter list; two empty ones are equal.
    p
        How likely a reader is to look one place further.

    Returns
    -------
    ``float64[m]`` each, between 0 and 1.

    Examples
    --------
    >>> before = np.array([[1, 2], [1, 2], [1, 2]])
    >>> rbo, jaccard = overlaps(before, np.array([[1, 2], [2, 1], [3, 4]]))
    >>> rbo.round(2).tolist(), jaccard.tolist()
    ([1.0, 0.9, 0.0], [1.0, 1.0, 0.0])
    """
    m, k = before.shape
    depth = np.minimum((before != 0).sum(axis=1), (after != 0).sum(axis=1))
    inside = np.arange(k) < depth[:, None]
    # Item i of one list that is item j of the other is in common from the deeper place on.
    width = 1 + max(int(before.max(initial=0)), int(after.max(initial=0)))
    row, place = np.nonzero(inside)
    keys = row * width + after[inside]
    order = np.argsort(keys)
    wanted = row * width + before[inside]
    found = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(len(keys) - 1, 0))
    match = order[found] if len(keys) else order
    same = keys[match] == wanted
    deeper = np.maximum(place, place[match])[same]
    common = np.bincount(row[same] * k + deeper, minlength=m * k).reshape(m, k).cumsum(axis=1)
    agreement = common / np.arange(1, k + 1)
    weights = (1 - p) * p ** np.arange(k)
    last = np.maximum(depth - 1, 0)[:, None]
    shared = np.take_along_axis(common, last, axis=1)[:, 0]
    final = np.take_along_axis(agreement, last, axis=1)[:, 0]
    rbo = (agreement * weights * inside).sum(axis=1) + final * p**depth
    union = np.maximum(2 * depth - shared, 1)
    empty = depth == 0
    return np.where(empty, 1.0, rbo), np.where(empty, 1.0, shared / union)


@dataclass(frozen=True)
class Shift:
    """What one kind of accident did, case by case.

    Parameters
    ----------
    rbo, jaccard
        ``float64[c]``: overlap of the lists before and after.
    before, after
        ``float64[c]``: the target's ranks.
    echo
        ``bool[c]``: whether an item that the accident added would be shown next.
    """

    rbo: Floats
    jaccard: Floats
    before: Floats
    after: Floats
    echo: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rbo)

    def values(self, k: int) -> dict[str, Floats]:
        """Return everything measured of each case, by name."""
        found = {f"RBO@{k}": self.rbo, f"Jaccard@{k}": self.jaccard}
        for kind in ("HR", "NDCG"):
            first, then = (gains(kind, ranks, k) for ranks in (self.before, self.after))
            found |= {f"{kind}@{k} before": first, f"{kind}@{k} after": then}
            found[f"{kind}@{k} lost"] = first - then
        found[f"echo@{k}"] = self.echo.astype(np.float64)
        return found


@dataclass(frozen=True)
class Consistency:
    """How consistent a model is; made by `measure_consistency`."""

    shifts: Mapping[str, Shift]
    cases: int
    protocol: Protocol
    k: int = DEPTH
    p: float = PERSISTENCE
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return ``[mean over cases, its standard error]`` by accident and measure, as plain JSON.

        None stands where fewer than two histories changed.
        """
        return {
            "k": self.k,
            "p": self.p,
            "seed": self.seed,
            "protocol": self.protocol.model_dump(mode="json"),
            "cases": self.cases,
            "accidents": {
                name: {
                    "cases": len(shift),
                    **{key: _mean_and_error(value) for key, value in shift.values(self.k).items()},
                }
                for name, shift in self.shifts.items()
            },
        }

    def table(self) -> list[list[str]]:
        """Return plain rows of text, the header first."""
        k = self.k
        shown = [f"RBO@{k}", f"Jaccard@{k}", f"HR@{k} before", f"HR@{k} after"]
        shown += [f"NDCG@{k} before", f"NDCG@{k} after", f"NDCG@{k} lost", f"echo@{k}"]
        names = [name.removesuffix(" before") for name in shown[:-2]]
        rows = [["history", "cases", *names, "lost", "95% of it", "echo"]]
        for name, found in self.to_json()["accidents"].items():
            cells = [_text(found[key], key.endswith("lost")) for key in shown]
            cells.insert(-1, _span(found[f"NDCG@{k} lost"]))
            rows.append([name, f"{found['cases']:,}", *cells])
        return rows

    def describe(self) -> str:
        """Return the line that belongs below the table."""
        return (
            f"lists of {self.k}, RBO with p = {self.p:g}, accidents of seed {self.seed}; "
            f"{self.protocol.describe()}; {self.cases:,} cases"
        )


def measure_consistency(
    model: Scorer,
    cases: Cases,
    *,
    whole: Sequences,
    accidents: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    k: int = DEPTH,
    p: float = PERSISTENCE,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    progress: Progress | None = None,
) -> Consistency:
    """Measure how much a model's first recommendations jump when histories change a little.

    Parameters
    ----------
    model
        What is measured, on `device`.
    cases
        The histories, and the items that came next.
    whole
        Everything each user did, one span a user: a wrong click is none of it.
    accidents
        Names of `PERTURBATIONS`; by default all.
    protocol
        How the target is ranked, and whether seen items may be shown.
    k, p
        Length of the lists, and the persistence of the rank-biased overlap.
    seed
        Decides the accidents.
    device
        Where the model is.
    batch_size
        Histories encoded together.
    progress
        Called with ``(histories done, histories in all)``, all accidents together.

    Raises
    ------
    ConfigError
        If there is no such accident, or `k`, `p` or the seed is out of range.
    InputError
        If a user has met every item, so that no wrong click is left.
    NextupError
        If the model's scores are not finite.
    """
    names = list(PERTURBATIONS) if accidents is None else list(accidents)
    for name in names:
        if name not in PERTURBATIONS:
            raise ConfigError(
                f"consistency: unknown accident `{name}`{suggest(name, PERTURBATIONS)}"
            )
    if k < 1:
        raise ConfigError(f"consistency: k is {k}; lists have at least 1 item")
    if not 0 < p < 1:
        raise ConfigError(f"consistency: p is {p:g}; it must lie between 0 and 1, as 0.9")
    seed = checked_seed(seed)
    protocol = protocol or Protocol()
    happened = {name: PERTURBATIONS[name](cases, whole, model.n_items, seed) for name in names}
    total = len(cases) + sum(len(each.rows) for each in happened.values())
    done = 0

    def look(histories: Sequences, rows: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Return ranks and lists, of more items than are shown, as some will be left out."""
        nonlocal done

        def report(now: int, _: int) -> None:
            if progress is not None:
                progress(done + now, total)

        seen = cases.histories.rows(rows)
        excluded = seen if protocol.seen == "excluded" else None
        width = min(k + LONGEST_GRAM, model.n_items)
        lists = Lists(model, len(rows), width, excluded)
        ranked = rank_cases(
            model,
            Cases(histories, cases.targets[rows], cases.users[rows]),
            protocol,
            whole=whole,
            seen=seen,
            device=device,
            batch_size=batch_size,
            progress=report,
            also=lists,
        )
        done += len(rows)
        return ranked.ranks, lists.items

    ranks, lists = look(cases.histories, np.arange(len(cases)))
    shifts = {}
    for name, each in happened.items():
        after, changed = look(each.histories, each.rows)
        hidden = each.added if protocol.seen == "excluded" else each.added[:, :0]
        shown = [without(some, hidden, k) for some in (lists[each.rows], changed)]
        echo = (changed[:, :k, None] == each.added[:, None, :]) & (each.added[:, None, :] != 0)
        rbo, jaccard = overlaps(shown[0], shown[1], p)
        shifts[name] = Shift(rbo, jaccard, ranks[each.rows], after, echo.any(axis=(1, 2)))
    return Consistency(shifts, len(cases), protocol, k, p, seed)


def without(lists: NDArray[np.int64], hidden: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the first `k` items of each list ``int64[m, w]`` that are not among its `hidden`.

    Examples
    --------
    >>> without(np.array([[5, 6, 7], [5, 6, 7]]), np.array([[6], [9]]), 2).tolist()
    [[5, 7], [5, 6]]
    """
    out = (lists[:, :, None] == hidden[:, None, :]).any(axis=2)
    order = np.argsort(out, axis=1, kind="stable")
    return np.take_along_axis(np.where(out, 0, lists), order, axis=1)[:, :k]


def _mean_and_error(values: Floats) -> list[float] | None:
    if len(values) < 2:
        return None
    return [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]


def _text(found: list[float] | None, signed: bool) -> str:
    return "-" if found is None else f"{found[0]:{'+' if signed else ''}.4f}"


def _span(found: list[float] | None) -> str:
    if found is None:
        return "-"
    mean, error = found
    return f"{mean - 1.96 * error:+.4f} to {mean + 1.96 * error:+.4f}"
