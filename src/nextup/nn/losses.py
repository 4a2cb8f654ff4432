"""Losses as pure functions: scores in, one loss a target out.

All take ``M`` targets at once and return ``[M]``; the caller decides how to average. The full
softmax has a file of its own, `nextup.nn.linear_cross_entropy`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import logsigmoid, softplus


def softmax_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over given scores, the plain way.

    Parameters
    ----------
    scores
        ``[M, I + 1]``; column 0 is padding and takes no part.
    targets
        ``int64[M]`` in ``1..I``.

    Examples
    --------
    >>> softmax_loss(torch.zeros(1, 4), torch.tensor([2]))  # ln 3
    tensor([1.0986])
    """
    return torch.nn.functional.cross_entropy(scores[:, 1:], targets - 1, reduction="none")


def sampled_softmax_loss(
    target_scores: Tensor,
    negative_scores: Tensor,
    *,
    targets: Tensor | None = None,
    negatives: Tensor | None = None,
    target_log_q: Tensor | None = None,
    negative_log_q: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the target against sampled items, optionally corrected for the sampling.

    With the logQ correction (Bengio & Senecal 2003; Yi et al., RecSys 2019) every score loses
    the log of the expected number of times its item is drawn, so that the sum over what is drawn
    estimates that over the catalogue. Where ids are given, draws of the target itself are left
    out, while the target's own term, always there, is corrected like any other: as is usual, and
    not the full softmax in the limit, since with many draws the target weighs less than its share.

    Parameters
    ----------
    target_scores
        ``[M]``.
    negative_scores
        ``[M, n]``.
    targets, negatives
        ``int64[M]``, and ``int64[M, n]`` or ``int64[n]``: a negative equal to its target takes no
        part. Leave both out to keep all.
    target_log_q, negative_log_q
        Log-probabilities, shaped like `targets` and `negatives`; leave both out for none.
    """
    if target_log_q is not None and negative_log_q is not None:
        target_scores = target_scores - target_log_q
        negative_scores = negative_scores - negative_log_q
    if targets is not None and negatives is not None:
        same = negatives == targets[:, None]
        negative_scores = negative_scores.masked_fill(same, -torch.inf)
    everything = torch.cat([target_scores[:, None], negative_scores], dim=1)
    return torch.logsumexp(everything, dim=1) - target_scores


def bce_loss(target_scores: Tensor, negative_scores: Tensor, beta: float = 1.0) -> Tensor:
    """Binary cross-entropy with `n` negatives: ``-beta log s(t) - sum log(1 - s(n))``.

    With one negative and ``beta=1`` it is the BCE-1 of SASRec (Kang & McAuley 2018, eq. 7);
    with `gbce_beta` it is gBCE (Petrov & Macdonald, gSASRec, RecSys 2023, eq. 10).

    Parameters
    ----------
    target_scores
        ``[M]``.
    negative_scores
        ``[M, n]``.
    beta
        Power on the target's probability.

    Examples
    --------
    >>> bce_loss(torch.zeros(1), torch.zeros(1, 1))  # 2 ln 2
    tensor([1.3863])
    """
    return -beta * logsigmoid(target_scores) + softplus(negative_scores).sum(dim=1)


def gbce_beta(n_negatives: int, n_items: int, calibration: float) -> float:
    """Return the power of gBCE for a calibration ``t`` in ``[0, 1]`` (0 is plain BCE).

    ``beta = a (t (1 - 1/a) + 1/a)`` with the sampling rate ``a = n / (I - 1)``.

    Examples
    --------
    >>> gbce_beta(n_negatives=10, n_items=101, calibration=0.0)
    1.0
    >>> round(gbce_beta(n_negatives=10, n_items=101, calibration=1.0), 6)
    0.1
    """
    rate = n_negatives / max(n_items - 1, 1)
    return rate * (calibration * (1.0 - 1.0 / rate) + 1.0 / rate)


def bpr_loss(target_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean of ``-log s(t - n)``.

    Parameters
    ----------
    target_scores
        ``[M]``.
    negative_scores
        ``[M, n]``.

    Examples
    --------
    >>> bpr_loss(torch.zeros(1), torch.zeros(1, 3))  # ln 2
    tensor([0.6931])
    """
    return softplus(negative_scores - target_scores[:, None]).mean(dim=1)


def bpr_max_loss(
    target_scores: Tensor,
    negative_scores: Tensor,
    penalty: float = 0.0,
    left_out: Tensor | None = None,
) -> Tensor:
    """BPR-max: the chance that the target beats the best negative, and a penalty on scores.

    ``-log sum_j s_j sigma(t - n_j) + penalty * sum_j s_j n_j^2`` with ``s`` the softmax over the
    negatives (Hidasi & Karatzoglou, CIKM 2018). Worked out from logarithms, so nothing need
    be added inside the logarithm.

    Parameters
    ----------
    target_scores
        ``[M]``.
    negative_scores
        ``[M, n]``.
    penalty
        How much the negatives' squared scores cost.
    left_out
        ``bool[M, n]``: which are no negatives (the target's own column). A target without any has
        no loss.

    Examples
    --------
    >>> bpr_max_loss(torch.zeros(1), torch.zeros(1, 3))  # ln 2
    tensor([0.6931])
    """
    result: Tensor = _BPRMax.apply(target_scores, negative_scores, penalty, left_out)  # type: ignore[no-untyped-call]
    return result


class _BPRMax(torch.autograd.Function):
    """The loss and its gradient in one go, which takes less than half of what autograd would."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, target: Tensor, negative: Tensor, penalty: float, left_out: Tensor | None
    ) -> Tensor:
        wide = torch.promote_types(negative.dtype, torch.float32)
        scores = _without(negative.to(wide), left_out)
        lag = scores - target.to(wide)[:, None]
        logits = scores - softplus(lag)  # of the negatives that the target is ahead of
        total = torch.logsumexp(logits, dim=1)
        share = torch.softmax(scores, dim=1)
        loss = torch.logsumexp(scores, dim=1) - total
        beaten = logits.sub_(total[:, None]).exp_()
        slope = lag.sigmoid_().mul_(beaten)
        to_target = -slope.sum(dim=1)
        slope.add_(share).sub_(beaten)
        if penalty > 0:
            scores = _without(scores, left_out, 0.0)
            squares = scores.square()
            cost = (share * squares).sum(dim=1)
            loss += penalty * cost
            slope.add_(share * (squares - cost[:, None] + 2 * scores), alpha=penalty)
        ctx.save_for_backward(to_target, _without(slope, left_out, 0.0))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_target, slope = ctx.saved_tensors
        return gradient * to_target, gradient[:, None] * slope, None, None


def top1_max_loss(
    target_scores: Tensor, negative_scores: Tensor, left_out: Tensor | None = None
) -> Tensor:
    """TOP1-max: ``sum_j s_j [sigma(n_j - t) + sigma(n_j^2)]``, ``s`` as in `bpr_max_loss`.

    Hidasi & Karatzoglou, CIKM 2018; parameters as in `bpr_max_loss`. A target without any
    negative has no loss.

    Examples
    --------
    >>> top1_max_loss(torch.zeros(1), torch.zeros(1, 3))  # 1/2 + 1/2
    tensor([1.])
    """
    logits = _without(negative_scores, left_out)
    worse = torch.sigmoid(logits - target_scores[:, None])
    large = torch.sigmoid(_without(negative_scores, left_out, 0.0).square())
    share = _without(torch.softmax(logits, dim=1), left_out, 0.0)  # all left out: not 1/n each
    return (share * (worse + large)).sum(dim=1)


def own_column_losses(
    scores: Tensor,
    loss: Literal["cross_entropy", "bpr_max", "top1_max"],
    penalty: float = 0.0,
    log_q: Tensor | None = None,
) -> Tensor:
    """Losses of targets that are each other's negatives: the target of row ``m`` is column ``m``.

    Parameters
    ----------
    scores
        ``[M, C]``, at least `M` columns; those behind are negatives of all.
    loss
        Cross-entropy over all columns; `bpr_max_loss` or `top1_max_loss` against all but the own.
    penalty
        As in `bpr_max_loss`.
    log_q
        ``[C]``: taken off the scores of cross-entropy (logQ correction).

    Examples
    --------
    >>> own_column_losses(torch.zeros(2, 2), "cross_entropy")  # ln 2
    tensor([0.6931, 0.6931])
    """
    if loss == "cross_entropy":
        scores = scores if log_q is None else scores - log_q
        own_at = torch.arange(len(scores), device=scores.device)
        return torch.nn.functional.cross_entropy(scores, own_at, reduction="none")
    own = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    if loss == "bpr_max":
        return bpr_max_loss(scores.diagonal(), scores, penalty, own)
    return top1_max_loss(scores.diagonal(), scores, own)


def _without(scores: Tensor, left_out: Tensor | None, value: float = -1e30) -> Tensor:
    """Scores with `value` for what is left out; finite, so that a row of nothing else has a sum."""
    return scores if left_out is None else scores.masked_fill(left_out, value)


__all__ = [
    "bce_loss",
    "bpr_loss",
    "bpr_max_loss",
    "gbce_beta",
    "own_column_losses",
    "sampled_softmax_loss",
    "softmax_loss",
    "top1_max_loss",
]
