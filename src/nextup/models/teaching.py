"""A class of teachers: what they say after any part of a training history, said once.

Teachers no longer learn, so what one says after a history never changes. A teacher whose scores
factor says a vector; all of them for all training histories are kept where memory allows, and
otherwise asked again in every step.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextup.data.batches import Batch, gather, items_on
from nextup.data.sequences import Sequences
from nextup.models.base import Recommender
from nextup.nn.imitation import Factors, Spoken, Teacher

_TOKENS = 16384


class Classroom:
    """Teachers, and the histories they are asked about.

    Parameters
    ----------
    teachers
        Models that have learnt all they will.
    train
        The training histories, one a user.
    device
        Where the teachers are.
    keep_bytes
        Memory for what they say; one that needs more is asked in every step.
    """

    def __init__(
        self,
        teachers: list[Recommender],
        train: Sequences,
        device: torch.device,
        keep_bytes: int,
    ) -> None:
        self.teachers, self.train, self.device = teachers, train, device
        self.items = items_on(train, device)
        self.offsets = np.cumsum(train.lengths) - train.lengths
        self.kept: dict[int, Tensor] = {}
        left = keep_bytes
        for number, teacher in enumerate(teachers):
            teacher.train(False)
            if not teacher.factors:
                continue
            size = int(train.lengths.sum()) * teacher.item_vectors().shape[1] * 4
            if size <= left:
                self.kept[number] = self._all_it_says(teacher)
                left -= size

        self.alignment = self._alignment()

    def lengths(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """``int64[B]``: how many items the training history of each user has."""
        lengths: NDArray[np.int64] = self.train.lengths[users]
        return lengths

    def beginnings(
        self, users: NDArray[np.int64], until: NDArray[np.int64], max_length: int
    ) -> Batch:
        """Gather the first ``until[b]`` items of ``users[b]``, cut to the last `max_length`."""
        starts = self.train.starts[users]
        return gather(self.items, starts, starts + until, max_length, users)

    def draw(
        self, batch: Batch, places: int | None, share: float, max_length: int
    ) -> tuple[Batch, NDArray[np.int64]]:
        """Draw beginnings of a step's histories after which to imitate.

        Parameters
        ----------
        batch
            Rows of training histories.
        places
            Up to so many places of each row, drawn; None: where it ends.
        share
            The share of rows, drawn.
        max_length
            How many items the student reads.

        Returns
        -------
        tuple
            The beginnings, and of each how many items it has before it is cut.
        """
        assert batch.until is not None
        users, row = batch.users.cpu().numpy(), np.arange(len(batch))
        back = np.zeros_like(row)  # how many items before its row's end a beginning ends
        if places is not None:
            row = np.repeat(row, places)
            drawn = torch.rand(len(row)).numpy()
            back = np.floor(drawn * batch.lengths[row]).astype(np.int64)
            row, back = np.unique(np.stack([row, back]), axis=1)
        if share < 1:
            drawn = torch.rand(len(row)).numpy() < share
            row, back = row[drawn], back[drawn]
        until, users = batch.until[row] - back, users[row]
        real = (until > 0) & (until < self.lengths(users))
        users, until = users[real], until[real]
        rows = self.beginnings(users, until, max_length)
        return rows, until[rows.rows]

    def say(self, users: NDArray[np.int64], until: NDArray[np.int64]) -> list[Teacher]:
        """Ask every teacher what comes after the first ``until[b]`` items of ``users[b]``.

        Parameters
        ----------
        users
            ``int64[B]``: rows of the training histories.
        until
            ``int64[B]``: how many items of each are read, at least 1.
        """
        if len(until) == 0:  # not every model can read no rows
            nothing = torch.zeros(0, self.teachers[0].n_items + 1, device=self.device)
            return [Spoken(nothing)] * len(self.teachers)
        said: list[Teacher] = []
        for number, teacher in enumerate(self.teachers):
            if not teacher.factors:
                with torch.no_grad():
                    batch = self.beginnings(users, until, teacher.max_length)
                    said.append(Spoken(batch.in_source_order(teacher.logits(batch))))
                continue
            if number in self.kept:
                at = torch.from_numpy(self.offsets[users] + until).to(self.device)
                states = self.kept[number][at]
            else:
                with torch.no_grad():
                    batch = self.beginnings(users, until, teacher.max_length)
                    states = batch.in_source_order(teacher.query(batch))
                    states = states.to(teacher.item_vectors().dtype)
            bias = teacher.item_bias()
            vectors = teacher.item_vectors().detach()
            said.append(Factors(states, vectors, None if bias is None else bias.detach()))
        return said

    def _alignment(self) -> float | None:
        """Mean cosine of an item's vectors over all pairs of teachers of one width; None if none.

        Vectors are taken from their mean, which a shared direction would otherwise hide.
        """
        tables = []
        for teacher in self.teachers:
            if teacher.factors:
                vectors = teacher.item_inputs().detach()[1:]
                tables.append(vectors - vectors.mean(dim=0))
        cosines = [
            float(torch.nn.functional.cosine_similarity(one, other, dim=1).mean())
            for at, one in enumerate(tables)
            for other in tables[at + 1 :]
            if one.shape == other.shape
        ]
        return float(np.mean(cosines)) if cosines else None

    @torch.no_grad()
    def _all_it_says(self, teacher: Recommender) -> Tensor:
        """``[n, D]``: what a teacher says after each beginning of each history.

        Row ``offsets[u] + k`` is what it says after ``k`` items of user ``u``, for ``k`` from 1 to
        one less than there are.
        """
        lengths = self.train.lengths
        users = np.repeat(np.arange(len(lengths)), lengths)
        until = np.arange(len(users)) - np.repeat(self.offsets, lengths)
        asked = np.flatnonzero(until > 0)
        read = np.minimum(until[asked], teacher.max_length)
        asked = asked[np.argsort(read, kind="stable")]
        ends = np.cumsum(np.minimum(until[asked], teacher.max_length))
        said = torch.zeros(len(users), teacher.item_vectors().shape[1], device=self.device)
        first = 0
        while first < len(asked):
            before = ends[first - 1] if first else 0
            end = max(int(np.searchsorted(ends, before + _TOKENS, side="right")), first + 1)
            some = asked[first:end]
            batch = self.beginnings(users[some], until[some], teacher.max_length)
            found = batch.in_source_order(teacher.query(batch)).float()
            said[torch.from_numpy(some).to(self.device)] = found
            first = end
        return said
