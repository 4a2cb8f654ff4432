"""The teachers' tasks: what is read, with which labels, and the losses against plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import N_ITEMS, dataset_of, shop, stream_of
from torch.nn.functional import binary_cross_entropy, cross_entropy

from nextup.augment import Packed
from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.models.consistency import Consistency
from nextup.models.registry import make_model
from nextup.nn.contrast import matching_losses
from nextup.nn.packing import Packing

MASK, INT = N_ITEMS + 1, N_ITEMS + 2
CPU = torch.device("cpu")


def made(train: Sequences, **settings: Any) -> Consistency:
    torch.manual_seed(0)
    small = {"width": 8, "max_length": 10, "heads": 2, "dropout": 0.0}
    model = make_model("consistency", N_ITEMS, {**small, **settings})
    assert isinstance(model, Consistency)
    model.prepare(train, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.train()


def batch_of(model: Consistency, train: Sequences) -> Batch:
    stream = stream_of(model, train, batch_size=10**6)
    return stream.batch(stream.order(0), 0, 0)


def read_by(model: Consistency, batch: Batch) -> list[list[int]]:
    """Run a step and return the rows that the encoder was given."""
    seen: list[list[list[int]]] = []
    encode = model.encode

    def spying(tokens: torch.Tensor, packing: Packing, asked: Any = None) -> torch.Tensor:
        seen.append(Packed.of(tokens, packing.lengths).as_lists())
        return encode(tokens, packing, asked)

    model.encode = spying  # type: ignore[method-assign]
    model.loss(batch)
    model.encode = encode  # type: ignore[method-assign]
    assert len(seen) == 1  # all that a step reads is one packed batch
    return seen[0]


TASKS: list[dict[str, Any]] = [
    {"task": "temporal"},
    {"task": "temporal", "shuffle_mode": "swap2"},
    {"task": "persona"},
    {"task": "persona", "replace_with": "items"},
]


@pytest.mark.parametrize("settings", TASKS, ids=str)
def test_labels_are_balanced_and_right(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(N_ITEMS)[: rng.integers(2, 10)] + 1 for _ in range(8000)]
    train = Sequences.from_lists([*rows, [7]])
    model = made(train, **settings)
    batch = batch_of(model, train)
    task = model.task_of(batch)
    assert abs(task.intact.mean() - 0.5) < 0.02
    assert not task.asked[batch.lengths == 1].any()
    assert task.asked[batch.lengths > 1].mean() > 0.99
    before = Packed.of(batch.tokens, batch.lengths).as_lists()
    owners = batch.users.tolist()
    for user, row, now, intact, asked in zip(
        owners, before, task.rows.as_lists(), task.intact, task.asked, strict=True
    ):
        assert (row == now) == bool(intact or not asked)
        if settings["task"] == "temporal":
            assert sorted(row) == sorted(now)
        else:
            new = [b for a, b in zip(row, now, strict=True) if a != b]
            assert not set(new) & set(train[user].tolist()) and len(new) <= len(row) // 2


def test_a_history_longer_than_is_read_is_checked_as_a_whole() -> None:
    """What replaces an item may not be one the user had before the part that is read."""
    train = Sequences.from_lists([list(range(1, 31)), list(range(25, 41))] * 40)
    model = made(train, task="persona")
    batch = batch_of(model, train)
    task = model.task_of(batch)
    changed = task.hidden != batch.cut(9).tokens
    owners = np.repeat(batch.users.numpy(), task.rows.lengths)[changed.numpy()]
    assert len(owners) > 20
    for user, item in zip(owners, task.hidden[changed].tolist(), strict=True):
        assert item not in train[user]


@pytest.mark.parametrize("task", ["temporal", "persona", "global"])
@pytest.mark.parametrize("one_pass", [False, True])
def test_a_step_reads_cloze_rows_task_rows_and_ngrams(task: str, one_pass: bool) -> None:
    train = shop(20)
    model = made(train, task=task, one_pass=one_pass, mask_share=0.4)
    batch = batch_of(model, train)
    rows = read_by(model, batch)
    size, originals = len(batch), Packed.of(batch.tokens, batch.lengths).as_lists()
    assert len(rows) == size * (1 + (not one_pass) + (task == "global"))
    cloze, rest = rows[:size], rows[0 if one_pass else size :]
    for row, original in zip(cloze, originals, strict=True):
        assert MASK in row
        if not one_pass:
            assert all(a in (MASK, b) for a, b in zip(row, original, strict=True))
    for row, original in zip(rest, originals, strict=False):
        assert row[-1] == INT and INT not in row[:-1]
        assert len(row) == min(len(original), 9) + 1
        assert task == "global" or one_pass or MASK not in row
    if task == "global":
        for row, ngram, original in zip(rest, rest[size:], originals, strict=False):
            cut = ngram[:-1]
            assert ngram[-1] == INT and 1 <= len(cut) <= max(1, min(5, len(original) // 2))
            starts = [
                at
                for at in range(len(row) - len(cut))
                if original[-len(row) + 1 :][at : at + len(cut)] == cut
            ]
            assert any(row[at : at + len(cut)] == [MASK] * len(cut) for at in starts)


def plain_state(model: Consistency, row: list[int]) -> torch.Tensor:
    return model.encode(torch.tensor(row), Packing(np.array([len(row)]), CPU))[-1]


@pytest.mark.parametrize("settings", [*TASKS, {"task": "temporal", "one_pass": True}], ids=str)
def test_the_task_is_the_cross_entropy_of_a_classifier_at_int(settings: dict[str, Any]) -> None:
    train = shop(30)
    model = made(train, **settings)
    batch = batch_of(model, train)
    torch.manual_seed(4)
    task = model.task_of(batch)
    torch.manual_seed(4)
    rows = read_by(model, batch)
    rows = rows if settings.get("one_pass") else rows[len(batch) :]
    losses = []
    for row, intact, asked in zip(rows, task.intact, task.asked, strict=True):
        if asked:
            h = torch.sigmoid(model.classifier(plain_state(model, row)))
            losses.append(binary_cross_entropy(h, torch.tensor([float(intact)])))
    torch.manual_seed(4)
    found = model.loss(batch)
    name = settings["task"]
    torch.testing.assert_close(found.parts[name], torch.stack(losses).mean().detach())
    total = found.parts["cloze"] + found.parts[name]
    torch.testing.assert_close(found.total.detach(), total)
    assert 0 <= float(found.parts["accuracy"]) <= 1


@pytest.mark.parametrize("one_pass", [False, True])
def test_the_cloze_is_the_cross_entropy_of_what_stood_in_the_gaps(one_pass: bool) -> None:
    train = shop(30)
    model = made(train, task="temporal", one_pass=one_pass)
    batch = batch_of(model, train)
    torch.manual_seed(4)
    task = model.task_of(batch)
    torch.manual_seed(4)
    rows = read_by(model, batch)[: len(batch)]
    originals = Packed.of(batch.tokens, batch.lengths).as_lists()
    originals = (
        Packed(task.hidden, task.rows.lengths, task.rows.ago).as_lists()
        if one_pass
        else (originals)
    )
    losses = []
    for row, original in zip(rows, originals, strict=True):
        states = model.encode(torch.tensor(row), Packing(np.array([len(row)]), CPU))
        logits = model.predictions(states) @ model.item_vectors().T + model.item_bias()
        for place, item in enumerate(original):
            if row[place] == MASK:
                losses.append(cross_entropy(logits[place, 1:], torch.tensor(item - 1)))
    torch.manual_seed(4)
    found = model.loss(batch).parts["cloze"]
    torch.testing.assert_close(found, torch.stack(losses).mean().detach(), atol=1e-5, rtol=1e-5)


def test_the_global_task_is_infonce_without_false_negatives() -> None:
    # Many histories of few items: the same n-gram is cut out of several.
    train = Sequences.from_lists([[1 + n % 3, 4, 5 + n % 2] for n in range(12)])
    model = made(train, task="global", temperature=2.0)
    batch = replace(batch_of(model, train), users=torch.tensor([0, 0, *range(2, 12)]))
    torch.manual_seed(4)
    rows = read_by(model, batch)[len(batch) :]
    whole, ngrams = rows[: len(batch)], rows[len(batch) :]
    losses = []
    for i, row in enumerate(whole):
        others = [
            j
            for j, other in enumerate(ngrams)
            if j != i and other != ngrams[i] and {i, j} != {0, 1}
        ]
        g = plain_state(model, row)
        products = [g @ plain_state(model, ngrams[j]) / 2.0 for j in [i, *others]]
        losses.append(torch.logsumexp(torch.stack(products), dim=0) - products[0])
    assert len({tuple(n) for n in ngrams}) < len(ngrams)
    torch.manual_seed(4)
    found = model.loss(batch).parts["global"]
    torch.testing.assert_close(found, torch.stack(losses).mean().detach(), atol=1e-5, rtol=1e-5)


def test_infonce_has_the_gradients_of_its_formula() -> None:
    torch.manual_seed(0)
    alike = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    out = torch.rand(5, 5) < 0.4
    assert torch.autograd.gradcheck(lambda a: matching_losses(a, out), alike)
    assert torch.autograd.gradcheck(matching_losses, alike)


def test_the_global_loss_of_a_batch_of_one_is_nothing() -> None:
    train = Sequences.from_lists([[3, 1, 4, 1]])
    model = made(train, task="global")
    assert float(model.loss(batch_of(model, train)).parts["global"]) == 0.0


def test_without_a_task_it_is_bert4rec() -> None:
    train = shop(20)
    model = made(train, task="none")
    plain = make_model(
        "bert4rec", N_ITEMS, {"width": 8, "max_length": 10, "heads": 2, "dropout": 0.0}
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["items.weight"] = state["items.weight"][:-1]
    plain.load_state_dict(state)
    batch = batch_of(model, train)
    totals = []
    for each in (model, plain.train()):
        torch.manual_seed(4)
        totals.append(float(each.loss(batch).total.detach()))
    assert totals[0] == totals[1]


@pytest.mark.parametrize("task", ["temporal", "persona", "global"])
def test_teachers_of_one_seed_start_from_the_same_weights(task: str) -> None:
    found = []
    for each in (task, "none"):
        torch.manual_seed(3)
        found.append(make_model("consistency", N_ITEMS, {"task": each}).state_dict())
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


@pytest.mark.parametrize("task", ["temporal", "persona", "global"])
def test_no_validation_or_test_item_ever_reaches_a_teacher(task: str) -> None:
    """Held-out items are numbers that occur nowhere else; a step of any kind may not hold one."""
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(1, 31, rng.integers(2, 9)), 31 + n % 5, 36 + n % 5] for n in range(200)]
    split = dataset_of(Sequences.from_lists(rows)).split("leave-one-out")
    model = made(split.train, task=task)
    stream = stream_of(model, split.train, batch_size=64)
    for epoch in range(3):
        for step in range(len(stream)):
            read = read_by(model, stream.batch(stream.order(epoch), epoch, step))
            assert {item for row in read for item in row} <= {*range(1, 31), MASK, INT}


@pytest.mark.parametrize("task", ["temporal", "persona", "global"])
@pytest.mark.parametrize("one_pass", [False, True])
def test_every_weight_learns(task: str, one_pass: bool) -> None:
    train = shop(40)
    model = made(train, task=task, one_pass=one_pass)
    model.loss(batch_of(model, train)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    rows = model.items.weight.grad
    assert rows is not None and rows[MASK].abs().sum() > 0 and rows[INT].abs().sum() > 0


def sessions_of_clusters(users: int = 64) -> Sequences:
    """Sessions whose items come in ascending order, all from one of four shelves of ten."""
    rng = np.random.default_rng(0)
    shelves = rng.integers(0, 4, users) * 10
    return Sequences.from_lists(
        [np.sort(rng.permutation(10)[: rng.integers(4, 8)]) + 1 + s for s in shelves]
    )


@pytest.mark.parametrize("task", ["temporal", "persona", "global"])
def test_a_task_that_can_be_learnt_is_learnt(task: str) -> None:
    train = sessions_of_clusters()
    torch.manual_seed(0)
    settings = {"task": task, "width": 16, "max_length": 10, "layers": 1, "dropout": 0.0}
    model = make_model("consistency", N_ITEMS, {**settings, "temperature": 4.0})
    model.prepare(train, CPU)
    stream = stream_of(model, train, batch_size=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first, last = [], []
    for step in range(200):
        losses = model.train().loss(stream.batch(stream.order(step), step, 0))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        known = losses.parts["accuracy"] if task != "global" else -losses.parts["global"]
        (first if step < 10 else last).append(float(known))
    if task == "global":
        assert np.mean(last[-20:]) > np.mean(first) + 1.0
    else:
        assert np.mean(first) < 0.6 and np.mean(last[-20:]) > 0.85
