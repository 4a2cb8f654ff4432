"""User vectors, and who answers for a user that has none.

Matrix factorisation, Caser and HGN learn a vector for each user, so by themselves they cannot
answer for anyone who was not there in training. Here a user without a vector gets the one that
their history suggests: once training is over, a ridge regression learns which vector goes with
which kind of history, over all users that have one, and a stranger's is read off it. Where the
regression explains nothing it falls back on the mean of all users.

A saved recommender knows these users again by their raw ids, where it is told whose history it is
asked about (`LoadedRecommender.recommend`, ``users``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from nextup.data.batches import Batch, gather, items_on
from nextup.data.sequences import Sequences
from nextup.models.base import Recommender
from nextup.nn.packing import Packing
from nextup.nn.running import running_sum

_ROWS = 4096


class UserVectors(nn.Module):
    """A vector for each user of training, and a guess for everybody else.

    Parameters
    ----------
    width
        Length of a vector.
    described_by
        Length of what `describe` of `conclude` says of a history.
    std
        Standard deviation of fresh vectors.
    least
        Items a training history must have for its user's vector to be learnt.

    Notes
    -----
    The number of users is known only once there is data: a model calls `make` from its `extend`,
    and `extend({"users": len(train)})` from its `prepare`.
    """

    weight: nn.Parameter
    learnt: Tensor
    slope: Tensor
    centre: Tensor
    mean: Tensor

    def __init__(self, width: int, described_by: int, std: float = 0.02, least: int = 2) -> None:
        super().__init__()
        self.width, self.std, self.least = width, std, least
        self.register_buffer("slope", torch.zeros(described_by, width))
        self.register_buffer("centre", torch.zeros(described_by))
        self.register_buffer("mean", torch.zeros(width))
        self.make(0)

    def __len__(self) -> int:
        return len(self.weight)

    def make(self, users: int) -> None:
        """Make fresh vectors for so many users, none of them learnt from yet."""
        device = self.slope.device
        fresh = torch.randn(users, self.width).to(device) * self.std  # the same on any device
        self.weight = nn.Parameter(fresh, requires_grad=self.width > 0)
        self.register_buffer("learnt", torch.zeros(users, dtype=torch.bool, device=device))

    def prepare(self, train: Sequences) -> None:
        """Note who has a history to learn from; everybody else counts as a stranger."""
        self.learnt.copy_(torch.from_numpy(train.lengths >= self.least))

    def all_known(self, users: np.ndarray) -> bool:
        """Whether each of these users, ``int64[m]``, has a vector that was learnt."""
        if len(users) and not 0 <= users.min() <= users.max() < len(self.weight):
            return False
        return bool(self.learnt.cpu().numpy()[users].all())

    def forward(self, users: Tensor, described: Callable[[Tensor], Tensor]) -> Tensor:
        """``[B, width]``: the vector of each user.

        Parameters
        ----------
        users
            ``int64[B]``; -1, or a number beyond those of training, for a stranger.
        described
            Called with the rows that are strangers, if any; returns ``[b, described_by]``.
        """
        known = (users >= 0) & (users < len(self.weight))
        if len(self.weight):
            known = known & self.learnt[users.clamp(0, len(self.weight) - 1)]
        if bool(known.all()):
            return nn.functional.embedding(users, self.weight)
        rows = (~known).nonzero().squeeze(1)
        vectors = self.weight.new_zeros(len(users), self.width)
        vectors[known] = self.weight[users[known]]
        vectors[rows] = self.mean + (described(rows) - self.centre) @ self.slope
        return vectors

    @torch.no_grad()
    def conclude(
        self,
        train: Sequences,
        max_length: int,
        describe: Callable[[Batch], Tensor],
        ridge: float = 0.1,
    ) -> None:
        """Learn which vector goes with which history.

        Parameters
        ----------
        train
            The histories learnt from, one a user.
        max_length
            The most items of a history that are described.
        describe
            Turns a batch of histories into ``[B, described_by]``, in the batch's row order.
        ridge
            How much the squared slope costs, as a share of the variance described.
        """
        users = np.flatnonzero(train.lengths >= self.least)
        items = items_on(train, self.weight.device)
        described = torch.empty(len(users), len(self.centre), device=self.weight.device)
        for at in range(0, len(users), _ROWS):
            some = users[at : at + _ROWS]
            batch = gather(items, train.starts[some], train.ends[some], max_length, some)
            described[at : at + len(some)] = batch.in_source_order(describe(batch)).float()
        vectors = self.weight[torch.from_numpy(users).to(self.weight.device)]
        self.centre.copy_(described.mean(dim=0))
        self.mean.copy_(vectors.mean(dim=0))
        x, y = (described - self.centre).double(), (vectors - self.mean).double()
        gram = x.T @ x
        cost = ridge * gram.diagonal().mean() + torch.finfo(torch.float32).tiny
        system = gram + cost * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        self.slope.copy_(torch.linalg.solve(system, x.T @ y))


class WithUserVectors(Recommender):
    """A recommender with a vector for each user, and what that asks of it.

    A subclass makes `users` and implements `describe`.
    """

    needs = "users"
    unseen_users = "with a vector that their history suggests"
    users: UserVectors

    def describe(self, batch: Batch) -> Tensor:
        """``[B, described_by]``: what each history says of its user, should they be a stranger."""
        raise NotImplementedError

    def extents(self) -> dict[str, int]:
        """Return how many users have a vector."""
        return {"users": len(self.users)}

    @property
    def knows_users(self) -> bool:
        """Whether there is anything in the vectors."""
        return self.users.width > 0

    def extend(self, extents: dict[str, int]) -> None:
        """Make the users' vectors."""
        self.users.make(extents["users"])

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Give each user a vector."""
        self.extend({"users": len(train)})
        self.users.prepare(train)

    def conclude(self, train: Sequences, device: torch.device) -> None:
        """Learn which user vector goes with which history, for strangers."""
        self.users.conclude(train, self.max_length, self.describe)

    def pause(self, train: Sequences, users: np.ndarray) -> None:
        """As `conclude`, if there is a stranger among the users; else nothing depends on it."""
        if not self.users.all_known(users):
            self.conclude(train, self.users.weight.device)

    def user_vectors(self, batch: Batch) -> Tensor:
        """``[B, width]``: the vector of each row's user."""
        vectors: Tensor = self.users(batch.users, lambda rows: self.describe(batch)[rows])
        return vectors


def mean_vector(table: Tensor, batch: Batch) -> Tensor:
    """``[B, D]``: the mean of the vectors of each row's items, a plain description of a history."""
    rows = torch.from_numpy(np.repeat(np.arange(len(batch)), batch.lengths)).to(batch.device)
    lengths = torch.from_numpy(batch.lengths).to(batch.device)
    total = table.new_zeros(len(batch), table.shape[1])
    total = total.index_add(0, rows, nn.functional.embedding(batch.tokens, table))
    return total / lengths[:, None]


def running_mean(table: Tensor, batch: Batch, packing: Packing) -> Tensor:
    """``[N, D]``: as `mean_vector`, of the items up to and with each token."""
    total = running_sum(nn.functional.embedding(batch.tokens, table), packing)
    return total / (packing.indices() + 1)[:, None]
