"""Losses: closed forms, finite differences, and what the corrections promise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from plain import close, finite_differences
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from nextup.nn.losses import (
    bce_loss,
    bpr_loss,
    bpr_max_loss,
    gbce_beta,
    sampled_softmax_loss,
    softmax_loss,
    top1_max_loss,
)

F64 = torch.float64


def test_equal_scores_give_the_textbook_numbers() -> None:
    zero = torch.zeros(3, dtype=F64)
    five = torch.zeros(3, 5, dtype=F64)
    close(
        softmax_loss(torch.zeros(3, 8, dtype=F64), torch.tensor([1, 4, 7])),
        zero + math.log(7),
        1e-12,
    )
    close(sampled_softmax_loss(zero, five), zero + math.log(6), 1e-12)
    close(bce_loss(zero, five[:, :1]), zero + 2 * math.log(2), 1e-12)
    close(bce_loss(zero, five), zero + 6 * math.log(2), 1e-12)
    close(bpr_loss(zero, five), zero + math.log(2), 1e-12)


def test_bce_is_stock_binary_cross_entropy() -> None:
    target, negative = torch.randn(6, dtype=F64), torch.randn(6, 4, dtype=F64)
    plain = binary_cross_entropy_with_logits(
        target, torch.ones_like(target), reduction="none"
    ) + binary_cross_entropy_with_logits(
        negative, torch.zeros_like(negative), reduction="none"
    ).sum(dim=1)
    close(bce_loss(target, negative), plain, 1e-12)


def test_no_loss_overflows_where_scores_are_far_apart() -> None:
    target, negative = torch.tensor([1e4, -1e4]), torch.tensor([[-1e4], [1e4]])
    for found in (bce_loss(target, negative), bpr_loss(target, negative)):
        close(found, torch.tensor([0.0, 2e4]), 1e-6)
        assert found[0] == 0
    close(sampled_softmax_loss(target, negative), torch.tensor([0.0, 2e4]), 1e-6)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.75, 1.0])
def test_gbce_with_beta_is_calibrated_as_its_paper_says(t: float) -> None:
    n, items = 256, 12_101
    alpha = n / (items - 1)
    beta = gbce_beta(n, items, t)
    assert beta == pytest.approx(alpha * (t * (1 - 1 / alpha) + 1 / alpha), rel=1e-12)
    assert gbce_beta(n, items, 0.0) == pytest.approx(1.0)
    assert gbce_beta(n, items, 1.0) == pytest.approx(alpha)
    # Where an item is the target with probability p and drawn with alpha (1 - p), the best
    # probability that the loss can ask for solves beta p (1 - s) = alpha (1 - p) s; at t = 1 it
    # is p itself.
    p = 0.03
    score = torch.zeros(1, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([score], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        positive = bce_loss(score, score.new_zeros(1, 0), beta)
        negative = torch.nn.functional.softplus(score)
        loss = (p * positive + alpha * (1 - p) * negative).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    best = torch.sigmoid(score).item()
    assert best == pytest.approx(beta * p / (beta * p + alpha * (1 - p)), rel=1e-4)
    if t == 1.0:
        assert best == pytest.approx(p, rel=1e-4)


def test_with_one_negative_for_each_a_beta_scales_the_target_alone() -> None:
    target, negative = torch.randn(4, dtype=F64), torch.randn(4, 2, dtype=F64)
    difference = bce_loss(target, negative, 0.3) - bce_loss(target, negative, 1.0)
    close(difference, 0.7 * torch.nn.functional.logsigmoid(target), 1e-12)


def test_sampled_softmax_over_all_other_items_is_the_full_softmax() -> None:
    scores = torch.randn(5, 21, dtype=F64)
    targets = torch.tensor([1, 7, 20, 3, 3])
    everything = torch.arange(1, 21)
    row = torch.arange(5)
    found = sampled_softmax_loss(
        scores[row, targets], scores[:, 1:], targets=targets, negatives=everything
    )
    close(found, softmax_loss(scores, targets), 1e-12)


def test_a_negative_that_is_the_target_takes_no_part() -> None:
    target, negative = torch.randn(2, dtype=F64), torch.randn(2, 3, dtype=F64)
    targets, drawn = torch.tensor([4, 5]), torch.tensor([[4, 1, 2], [4, 5, 5]])
    found = sampled_softmax_loss(target, negative, targets=targets, negatives=drawn)
    close(found[:1], sampled_softmax_loss(target[:1], negative[:1, 1:]), 1e-12)
    close(found[1:], sampled_softmax_loss(target[1:], negative[1:, :1]), 1e-12)
    shared = sampled_softmax_loss(target, negative, targets=targets, negatives=drawn[0])
    close(shared[:1], found[:1], 1e-12)
    only_hits = sampled_softmax_loss(
        target[:1], negative[:1, :1], targets=targets[:1], negatives=drawn[:1, :1]
    )
    close(only_hits, torch.zeros(1, dtype=F64), 1e-12)


def test_logq_makes_the_sampled_partition_sum_unbiased() -> None:
    torch.manual_seed(0)
    items, n, draws = 30, 8, 40_000
    scores = torch.randn(items, dtype=F64)
    q = torch.rand(items, dtype=F64) ** 2 + 0.02
    q /= q.sum()
    drawn = torch.multinomial(q, n * draws, replacement=True).view(draws, n)
    expected_times = (n * q).log()
    corrected = (scores[drawn] - expected_times[drawn]).logsumexp(dim=1).exp()
    full = scores.exp().sum()
    assert abs(corrected.mean() - full) < 4 * corrected.std() / draws**0.5
    # The loss uses exactly this sum beside the corrected target.
    target = torch.tensor([3])
    found = sampled_softmax_loss(
        scores[target],
        scores[drawn[:1]],
        target_log_q=expected_times[target],
        negative_log_q=expected_times[drawn[:1]],
    )
    own = (scores[target] - expected_times[target]).exp()
    close(found, ((own + corrected[:1]) / own).log(), 1e-9)


def test_only_with_the_correction_the_loss_knows_the_sum_where_draws_are_uneven() -> None:
    torch.manual_seed(0)
    scores, n = torch.arange(10, dtype=F64) / 3, 4
    log_q = torch.log_softmax(scores, dim=0) + math.log(n)
    drawn = torch.multinomial(log_q.exp(), 40_000, replacement=True).view(-1, n)
    target = scores.new_zeros(len(drawn))  # of no item, and never drawn
    full = scores.exp().sum()

    def sums(**corrected: Tensor) -> Tensor:
        losses = sampled_softmax_loss(target, scores[drawn], **corrected)
        return losses.exp() - 1  # exp(target) is 1

    right = sums(target_log_q=torch.zeros_like(target), negative_log_q=log_q[drawn])
    assert float(right.mean()) == pytest.approx(float(full), rel=1e-6)
    assert float(sums().mean() * 10 / n) > 1.2 * float(full)


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "bce": bce_loss,
    "gbce": lambda t, n: bce_loss(t, n, 0.4),
    "bpr": bpr_loss,
    "sampled softmax": sampled_softmax_loss,
    "sampled softmax, logQ": lambda t, n: sampled_softmax_loss(
        t,
        n,
        targets=torch.tensor([1, 2, 3]),
        negatives=torch.tensor([[4, 5], [2, 6], [7, 8]]),
        target_log_q=torch.tensor([-1.0, -2.0, -3.0], dtype=F64),
        negative_log_q=torch.tensor([[-1.0, -0.5], [-2.0, -3.0], [-0.1, -0.2]], dtype=F64),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    torch.manual_seed(1)
    loss = LOSSES[name]
    target = torch.randn(3, dtype=F64, requires_grad=True)
    negative = torch.randn(3, 2, dtype=F64, requires_grad=True)
    assert loss(target, negative).shape == (3,)
    ours = torch.autograd.grad(loss(target, negative).sum(), [target, negative])
    t, n = target.detach(), negative.detach()
    close(ours[0], finite_differences(lambda x: loss(x, n).sum(), t), 1e-6)
    close(ours[1], finite_differences(lambda x: loss(t, x).sum(), n), 1e-6)


def test_the_plain_softmax_ignores_the_padding_column() -> None:
    scores = torch.randn(3, 9, dtype=F64)
    targets = torch.tensor([1, 2, 8])
    before = softmax_loss(scores, targets)
    scores[:, 0] = 1e6
    close(softmax_loss(scores, targets), before, 0.0)


PENALTY = 1.7


def scored(rows: int = 5, columns: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of targets and of columns, and which of the columns are the targets' own."""
    torch.manual_seed(0)
    target, columns_ = torch.randn(rows, dtype=F64), 2 * torch.randn(rows, columns, dtype=F64)
    return target, columns_, torch.eye(rows, columns, dtype=torch.bool)


def test_bpr_max_and_top1_max_are_their_papers_sums() -> None:
    target, negative, own = scored()
    bpr_max, top1_max = [], []
    for m in range(len(target)):
        n = negative[m][~own[m]]
        s = torch.exp(n) / torch.exp(n).sum()
        ahead = 1 / (1 + torch.exp(n - target[m]))
        bpr_max.append(-torch.log((s * ahead).sum()) + PENALTY * (s * n**2).sum())
        top1_max.append((s * ((1 - ahead) + 1 / (1 + torch.exp(-(n**2))))).sum())
    close(bpr_max_loss(target, negative, PENALTY, own), torch.stack(bpr_max), 1e-12)
    close(top1_max_loss(target, negative, own), torch.stack(top1_max), 1e-12)


def test_bpr_max_with_one_negative_is_bpr_and_the_penalty() -> None:
    target, negative, _ = scored(columns=1)
    expected = -torch.log(torch.sigmoid(target - negative[:, 0])) + PENALTY * negative[:, 0] ** 2
    close(bpr_max_loss(target, negative, PENALTY), expected, 1e-12)
    close(bpr_max_loss(target, negative), bpr_loss(target, negative), 1e-12)


def test_a_column_left_out_has_no_say_and_no_gradient() -> None:
    target, negative, own = scored()
    for loss in (lambda *of: bpr_max_loss(*of[:2], PENALTY, of[2]), top1_max_loss):
        found = []
        for value in (0.0, 50.0, -torch.inf, torch.inf):
            scores = negative.masked_fill(own, value).requires_grad_()
            losses = loss(target, scores, own)
            losses.sum().backward()
            assert scores.grad is not None and torch.isfinite(scores.grad).all()
            assert (scores.grad[own] == 0).all()
            found.append(losses.detach())
        assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_target_without_any_negative_has_no_loss() -> None:
    target, everything = torch.randn(2), torch.ones(2, 1, dtype=torch.bool)
    for losses in (
        bpr_max_loss(target, torch.randn(2, 1), PENALTY, everything),
        top1_max_loss(target, torch.randn(2, 1), everything),
    ):
        assert (losses == 0).all()


def test_bpr_max_is_the_mean_of_logarithms_not_the_logarithm_of_a_mean() -> None:
    target, negative, own = scored()
    together = bpr_max_loss(target, negative, PENALTY, own)
    alone = [
        bpr_max_loss(target[m : m + 1], negative[m : m + 1], PENALTY, own[m : m + 1])
        for m in range(len(target))
    ]
    close(together, torch.cat(alone), 1e-12)


def test_a_target_far_behind_still_has_a_gradient() -> None:
    target = torch.tensor([-300.0], requires_grad=True)
    loss = bpr_max_loss(target, torch.tensor([[0.0, 1.0]]))
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(300, rel=0.01)
    assert target.grad is not None and float(target.grad) == pytest.approx(-1.0, rel=1e-4)


@pytest.mark.parametrize("shape", [(3, 1), (4, 6)])
def test_gradients_of_the_max_losses(shape: tuple[int, int]) -> None:
    target, negative, own = scored(*shape)
    target.requires_grad_()
    negative.requires_grad_()
    for left_out in (None, own):
        assert torch.autograd.gradcheck(
            lambda t, n, out=left_out: bpr_max_loss(t, n, PENALTY, out), (target, negative)
        )
        assert torch.autograd.gradcheck(
            lambda t, n, out=left_out: top1_max_loss(t, n, out), (target, negative)
        )
