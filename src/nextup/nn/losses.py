"""Losses as pure functions: scores in, one loss a target out.

All take ``M`` targets at once and return ``[M]``; the caller decides how to average. The full
softmax has a file of its own, `nextup.nn.linear_cross_entropy`.
"""

from __future__ import annotations

import torch
from torch import Tensor
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
    the log of the expected number of times its item is drawn, which makes the gradient that of
    the full softmax in the limit.

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


__all__ = ["bce_loss", "bpr_loss", "gbce_beta", "sampled_softmax_loss", "softmax_loss"]
