"""User vectors: their own for those who were there, a guess from the history for strangers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nextup.data.batches import Batch, batch_of_lists
from nextup.data.sequences import Sequences
from nextup.models.registry import make_model
from nextup.models.users import UserVectors, mean_vector, running_mean
from nextup.nn.packing import Packing

TABLE = torch.randn(31, 4, generator=torch.Generator().manual_seed(0))


def describe(batch: Batch) -> torch.Tensor:
    return mean_vector(TABLE, batch)


def never(rows: torch.Tensor) -> torch.Tensor:
    raise AssertionError("nobody here is a stranger")


def histories(users: int = 200) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[], [7], *(rng.integers(1, 31, n).tolist() for n in rng.integers(2, 9, users))]


def taught() -> tuple[UserVectors, Sequences]:
    """Vectors that are a linear function of the history, with one exception."""
    train = Sequences.from_lists(histories())
    users = UserVectors(3, described_by=4)
    users.make(len(train))
    users.prepare(train)
    slope = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    batch = batch_of_lists(histories()[2:], 50)
    with torch.no_grad():
        users.weight[2:] = batch.in_source_order(describe(batch)) @ slope + 0.7
    users.conclude(train, 50, describe, ridge=1e-6)
    return users, train


def test_those_who_were_there_keep_their_own_vector() -> None:
    users, _ = taught()
    found = users(torch.tensor([5, 3, 5]), never)
    assert torch.equal(found, users.weight[[5, 3, 5]])


def test_a_stranger_gets_the_vector_their_history_suggests() -> None:
    users, _ = taught()
    batch = batch_of_lists(histories()[2:], 50)
    strangers = torch.full((len(batch),), -1)
    found = users(strangers, lambda rows: describe(batch)[rows])
    torch.testing.assert_close(batch.in_source_order(found), users.weight[2:], atol=1e-3, rtol=0)


def test_a_user_with_nothing_to_learn_from_counts_as_a_stranger() -> None:
    users, _ = taught()
    batch = batch_of_lists([[7], [7]], 50)
    asked: list[list[int]] = []

    def described(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return describe(batch)[rows]

    found = users(torch.tensor([1, -1]), described)
    assert asked == [[0, 1]] and torch.equal(found[0], found[1])


def test_where_histories_say_nothing_a_stranger_is_the_mean_of_all() -> None:
    users, train = taught()
    with torch.no_grad():
        users.weight.copy_(torch.randn(users.weight.shape))
    users.conclude(train, 50, describe, ridge=1e9)
    batch = batch_of_lists([[4, 5]], 50)
    found = users(torch.tensor([-1]), lambda rows: describe(batch)[rows])
    torch.testing.assert_close(found[0], users.weight[2:].mean(dim=0), atol=1e-4, rtol=0)


def test_only_the_vectors_asked_for_learn() -> None:
    users, _ = taught()
    users(torch.tensor([5, 3]), never).sum().backward()
    gradient = users.weight.grad
    assert gradient is not None
    assert gradient.abs().sum(dim=1).nonzero().squeeze(1).tolist() == [3, 5]


def test_one_item_is_enough_where_the_model_says_so() -> None:
    train = Sequences.from_lists(histories())
    users = UserVectors(3, described_by=4, least=1)
    users.make(len(train))
    users.prepare(train)
    assert users.learnt.tolist() == [False] + [True] * (len(train) - 1)


def test_a_mean_at_every_place_is_that_of_the_items_so_far() -> None:
    batch = batch_of_lists([[3, 4, 5], [7], [1, 1, 9, 30]], 50)
    found = running_mean(TABLE, batch, Packing(batch.lengths, batch.device))
    torch.testing.assert_close(found[batch.last_at], mean_vector(TABLE, batch))
    torch.testing.assert_close(found[2], TABLE[[3, 4]].mean(dim=0))


def test_fresh_vectors_are_the_same_on_any_device() -> None:
    here, there = UserVectors(3, described_by=4), UserVectors(3, described_by=4).to("meta")
    drawn = []
    for users in (here, there):
        torch.manual_seed(0)
        users.make(5)
        drawn.append(torch.rand(1))
    assert torch.equal(*drawn)


def test_amid_training_strangers_are_guessed_at_as_in_the_end() -> None:
    torch.manual_seed(0)
    train = Sequences.from_lists([[1, 2, 3], [4, 5], [2, 4, 1, 5]])
    model = make_model("bpr", 6, {"width": 3})
    model.prepare(train, torch.device("cpu"))
    batch = replace(batch_of_lists([[1, 2]], 5), users=torch.tensor([-1]))
    model.pause(train, np.array([0, 2]))
    assert not model.query(batch).any()  # nobody was a stranger
    model.pause(train, np.array([0, -1]))
    amid = model.query(batch)
    model.conclude(train, torch.device("cpu"))
    assert amid.any() and torch.equal(amid, model.query(batch))


def test_a_number_beyond_those_of_training_is_a_stranger() -> None:
    users, _ = taught()
    batch = batch_of_lists([[4, 5], [4, 5], [4, 5]], 50)
    rows = torch.tensor([-1, len(users), 10**6])
    found = users(rows, lambda some: describe(batch)[some])
    assert torch.equal(found, found[:1].expand(3, 3))
    assert users.all_known(np.array([2, 5])) and not users.all_known(np.array([2, len(users)]))
    nobody = UserVectors(3, described_by=4)
    assert nobody(rows, lambda some: describe(batch)[some]).shape == (3, 3)
    assert not nobody.all_known(np.array([0])) and nobody.all_known(np.zeros(0, dtype=np.int64))
