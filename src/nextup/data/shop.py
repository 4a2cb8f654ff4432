"""A simulated shop whose best possible ranking is known exactly.

Every customer follows a hidden intent that drifts (camping turns to hiking, hiking to running).
The next item is drawn, with probability ``follow``, from the few items that go with the one just
bought, and otherwise from the taste of the present intent; by default nothing is bought twice.
In symbols, with intent ``z``, item ``x`` and the items bought before, ``S``:

    z_1 ~ start,   z_t ~ drift[z_{t-1}]
    f(x | z, y)      = (1 - follow) taste[z, x] + follow goes_with[y, x]
    P(x_t = x | ...) = f(x | z_t, x_{t-1}) [x not in S] / (1 - sum of f over S)

The intent of a known history follows by forward filtering (Rabiner, Proc. IEEE 1989), and with it
the exact probability of each next item. No recommender can expect to rank better than by that
probability, so it is the ceiling that demo and tests compare with.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nextup.data.batches import Batch
from nextup.data.dataset import Dataset
from nextup.data.sequences import Sequences
from nextup.data.split import Cases

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GOES_WITH = np.array([0.6, 0.3, 0.1])
"""With which probability each of the items that go with another is taken."""
_CHUNK = 512  # histories filtered at once: bounds the memory of the bought-before table


@dataclass(frozen=True)
class Shop:
    """The shop: its customers' log, and the law by which they buy.

    Parameters
    ----------
    start
        ``float64[K]``: probability of each intent at first.
    drift
        ``float64[K, K]``: probability of the next intent (column) after each (row).
    taste
        ``float64[K, I + 1]``: probability of each item under each intent; column 0 is 0.
    goes_with
        ``int64[I + 1, 3]``: the items that go with each, taken with probabilities .6, .3, .1.
    follow
        Probability that the next item is one that goes with the last.
    repeats
        Whether an item may be bought again.
    """

    start: Floats
    drift: Floats
    taste: Floats
    goes_with: Ints
    follow: float
    repeats: bool
    dataset: Dataset = field(repr=False)

    @property
    def n_items(self) -> int:
        """Items of the catalogue; they are numbered ``1..n_items`` as in `dataset`."""
        return int(self.taste.shape[1]) - 1

    def best_scores(self, histories: Sequences | Sequence[Sequence[int]]) -> Floats:
        """Return the exact probability of each next item: the best possible scores.

        Parameters
        ----------
        histories
            Item numbers, oldest first; an empty history is answered too.

        Returns
        -------
        ``float64[B, I + 1]``; each row sums to 1, column 0 is 0.
        """
        known = histories if isinstance(histories, Sequences) else Sequences.from_lists(histories)
        chunks = [slice(at, at + _CHUNK) for at in range(0, len(known), _CHUNK)]
        parts = [self._predict(known.rows(chunk)) for chunk in chunks]
        return np.concatenate(parts) if parts else np.zeros((0, self.n_items + 1))

    def ceiling(
        self,
        cases: Cases,
        seen: Literal["excluded", "included"] = "excluded",
        cutoffs: Sequence[int] = (5, 10, 20),
    ) -> dict[str, float]:
        """Return the HR@k and NDCG@k that the best possible ranking expects on these histories.

        The expectation is over what each customer may buy next, not only over what was bought,
        so it carries no luck of the draw. Candidates are the whole catalogue.

        Parameters
        ----------
        cases
            The histories; what was really bought after them is not looked at.
        seen
            Whether items of the history are candidates.
        cutoffs
            The ``k`` of the metrics.

        Returns
        -------
        The expected metrics by name, such as ``"NDCG@10"``.
        """
        totals = {f"{name}@{k}": 0.0 for k in cutoffs for name in ("HR", "NDCG")}
        for at in range(0, len(cases), _CHUNK):
            histories = cases.histories.rows(slice(at, at + _CHUNK))
            p = self.best_scores(histories)
            if seen == "excluded":
                owner = np.repeat(np.arange(len(histories)), histories.lengths)
                p[owner, histories.items[histories.positions()]] = 0.0
            best = -np.sort(-p, axis=1)[:, : max(cutoffs)]
            gain = best / np.log2(np.arange(2, best.shape[1] + 2))
            for k in cutoffs:
                totals[f"HR@{k}"] += float(best[:, :k].sum())
                totals[f"NDCG@{k}"] += float(gain[:, :k].sum())
        return {name: total / max(1, len(cases)) for name, total in totals.items()}

    def oracle(self) -> Oracle:
        """Return the best possible recommender, fit to be ranked like any model."""
        return Oracle(self)

    def log(self) -> Iterator[tuple[str, str, int]]:
        """Yield ``(user, item, time)`` of every purchase, in the order of time."""
        data = self.dataset
        assert data.times is not None
        users = np.repeat(np.arange(data.n_users), data.sequences.lengths)
        for at in np.argsort(data.times, kind="stable"):
            item = data.catalog.raw_of(int(data.sequences.items[at]))
            yield str(data.users[int(users[at])]), str(item), int(data.times[at])

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``log.csv`` and ``titles.csv`` as a shop would hand them over; return the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        catalog = self.dataset.catalog
        titles = catalog.titles or []
        categories = (catalog.attributes or {})["category"]
        tables: list[tuple[Path, list[str], Any]] = [
            (folder / "log.csv", ["user", "item", "time"], self.log()),
            (
                folder / "titles.csv",
                ["item", "title", "category"],
                zip(catalog.ids, titles, categories, strict=True),
            ),
        ]
        for path, header, rows in tables:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(rows)
        return tables[0][0], tables[1][0]

    # ---- the forward filter -------------------------------------------------------------------
    def _predict(self, histories: Sequences) -> Floats:
        """Filter the intent through each history and return the probability of what follows."""
        count, lengths = len(histories), histories.lengths
        rows = np.arange(count)
        belief = np.tile(self.start, (count, 1))
        bought = np.zeros((count, self.n_items + 1), dtype=bool)
        spent = np.zeros_like(belief)  # taste of the items bought, which can no longer be drawn
        last = np.zeros(count, dtype=np.int64)
        for step in range(int(lengths.max(initial=0))):
            rows = rows[lengths[rows] > step]
            item = histories.items[histories.starts[rows] + step].astype(np.int64)
            likely = self._mixed(last[rows], self.taste[:, item].T, self._goes(last[rows], item))
            belief[rows] *= likely / self._free(last[rows], spent[rows], bought[rows])
            belief[rows] = (belief[rows] / belief[rows].sum(1, keepdims=True)) @ self.drift
            new = ~bought[rows, item]
            spent[rows] += new[:, None] * self.taste[:, item].T
            bought[rows, item] = True
            last[rows] = item
        weights = belief / self._free(last, spent, bought)
        chance = weights @ self.taste
        partners = np.zeros_like(chance)
        np.add.at(partners, (np.arange(count)[:, None], self.goes_with[last]), GOES_WITH)
        result = self._mixed(last, chance, partners * weights.sum(1, keepdims=True))
        if not self.repeats:
            result[bought] = 0.0
        return result

    def _mixed(self, last: Ints, by_taste: Floats, by_last: Floats) -> Floats:
        follow = np.where(last > 0, self.follow, 0.0)[:, None]
        mixed: Floats = (1.0 - follow) * by_taste + follow * by_last
        return mixed

    def _goes(self, last: Ints, item: Ints) -> Floats:
        matches: Floats = (self.goes_with[last] == item[:, None]) @ GOES_WITH
        return matches[:, None]

    def _free(self, last: Ints, spent: Floats, bought: NDArray[np.bool_]) -> Floats:
        """``float64[B, K]``: probability, by intent, that a draw is not an item bought before."""
        if self.repeats:
            return np.ones_like(spent)
        partners = np.take_along_axis(bought, self.goes_with[last], axis=1) @ GOES_WITH
        return 1.0 - self._mixed(last, spent, partners[:, None])


class Oracle(torch.nn.Module):
    """The best possible recommender of a shop; it can be ranked like any other model."""

    name = "best possible"
    factors = False

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self.shop = shop
        self.n_items = shop.n_items
        self.max_length = int(shop.dataset.sequences.lengths.max())

    def scores(self, batch: Batch) -> torch.Tensor:
        """``[B, I + 1]``: the exact probability of each next item, in the batch's row order."""
        items = batch.tokens.cpu().numpy().astype(np.int32)
        ends = np.cumsum(batch.lengths)
        best = self.shop.best_scores(Sequences(items, ends - batch.lengths, ends))
        return torch.from_numpy(best).to(batch.device)

    def query(self, batch: Batch) -> torch.Tensor:
        """Refuse: probabilities of a mixture do not factor."""
        raise NotImplementedError("the scores of the best possible ranking do not factor")

    def item_vectors(self) -> torch.Tensor:
        """Refuse: probabilities of a mixture do not factor."""
        raise NotImplementedError("the scores of the best possible ranking do not factor")

    def item_bias(self) -> None:
        """Return None: there is none."""
