"""Imitation against plain softmaxes and autograd, and the weights against their closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nextup.nn.imitation import Factors, Spoken, Teacher, divergence_from, weight_cost


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def parts(rows: int, items: int) -> tuple[Factors, list[Teacher]]:
    student = Factors(*(t.requires_grad_() for t in (rand(rows, 4), rand(items + 1, 4, seed=1))))
    student = Factors(student.states, student.table, rand(items + 1, seed=2).requires_grad_())
    wide = Factors(rand(rows, 7, seed=3), rand(items + 1, 7, seed=4), rand(items + 1, seed=5))
    return student, [
        wide,
        Factors(rand(rows, 4, seed=6), rand(items + 1, 4, seed=7)),
        Spoken(rand(rows, items + 1, seed=8)),
    ]


def plain(
    student: Factors, teachers: list[Teacher], weights: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    def log_p(who: Teacher) -> Tensor:
        if isinstance(who, Spoken):
            return (who.scores[:, 1:] / temperature).log_softmax(dim=1)
        scores = who.states @ who.table.T + (0 if who.bias is None else who.bias)
        return (scores[:, 1:] / temperature).log_softmax(dim=1)

    own = log_p(student)
    each = torch.stack([(log_p(t).exp() * (log_p(t) - own)).sum(dim=1).mean() for t in teachers])
    each = each * temperature**2
    return (weights * each).sum(), each


@pytest.mark.parametrize(
    ("rows", "items", "temperature"),
    [(1, 3, 1), (9, 20, 1), (9, 20, 2), (600, 11, 1), (300, 5000, 1), (300, 5000, 4)],
)
def test_value_and_gradients_are_those_of_plain_softmaxes(
    rows: int, items: int, temperature: float
) -> None:
    student, teachers = parts(rows, items)
    weights = torch.tensor([0.7, 2.0, 1.3], dtype=torch.float64, requires_grad=True)
    assert student.bias is not None
    leaves = [student.states, student.table, student.bias, weights]
    found: list[Tensor] = []
    expected: list[Tensor] = []
    for how, into in ((divergence_from, found), (plain, expected)):
        total, each = how(student, teachers, weights, temperature)
        into += [total.detach(), each.detach(), *torch.autograd.grad(3 * total, leaves)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        total, each = divergence_from(student, teachers, weights, temperature)
    torch.testing.assert_close(total, found[0])
    torch.testing.assert_close(each, found[1])


def test_nothing_to_learn_from_a_teacher_that_says_the_same() -> None:
    student, _ = parts(8, 30)
    assert student.bias is not None
    same = Factors(student.states.detach(), student.table.detach(), student.bias.detach() + 3.0)
    total, each = divergence_from(student, [same], torch.ones(1, dtype=torch.float64))
    assert float(each.abs().max()) < 1e-12
    gradients = torch.autograd.grad(total, [student.states, student.table, student.bias])
    assert all(float(g.abs().max()) < 1e-12 for g in gradients)


def test_a_divergence_is_never_negative_and_padding_takes_no_part() -> None:
    student, teachers = parts(50, 40)
    _, each = divergence_from(student, teachers, torch.ones(3, dtype=torch.float64))
    assert (each > 0).all()
    loud = student.table.detach().clone()
    loud[0] = 1e6
    again = divergence_from(
        Factors(student.states, loud, student.bias), teachers, torch.ones(3, dtype=torch.float64)
    )[1]
    assert torch.equal(again, each)


def test_an_item_a_teacher_rules_out_costs_nothing_by_itself() -> None:
    student, _ = parts(1, 3)
    said = torch.tensor([[0.0, 0.0, 0.0, -math.inf]], dtype=torch.float64)
    _, each = divergence_from(student, [Spoken(said)], torch.ones(1, dtype=torch.float64))
    assert student.bias is not None
    own = (student.states @ student.table.T + student.bias).detach()[0, 1:].log_softmax(dim=0)
    assert float(each) == pytest.approx(float((math.log(0.5) - own[:2]).mean()))


def test_no_rows_is_no_loss() -> None:
    student, teachers = parts(1, 3)
    empty = Factors(student.states[:0], student.table, student.bias)
    total, each = divergence_from(empty, teachers, torch.ones(3, dtype=torch.float64))
    assert float(total.detach()) == 0 and each.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((2, 2, 2), (1.5576, 1.5576, 1.5576)),
        ((1, 1, 1), (2, 2, 2)),
        ((0.5, 1, 2), (2.859, 2.022, 1.430)),
    ],
)
def test_weights_settle_where_the_closed_form_says(
    losses: tuple[float, ...], best: tuple[float, ...]
) -> None:
    constant = torch.tensor(losses, dtype=torch.float64)
    logs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logs], lr=0.01)
    for _ in range(3000):
        optimizer.zero_grad()
        (torch.dot(logs.exp(), constant) + weight_cost(logs.exp())).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights = logs.exp().detach()
    assert weights.tolist() == pytest.approx(best, rel=1e-3)
    total = (1 / weights).sum()
    assert weights.tolist() == pytest.approx(((1 + 2 * total) / constant).sqrt().tolist(), rel=1e-6)
