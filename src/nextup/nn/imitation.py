"""Imitation: how far a student's distribution over the catalogue is from its teachers'.

The KL divergence from each teacher to the student, over all items (Yuan et al., *Improving
Sequential Recommendation Consistency with Self-Supervised Imitation*, IJCAI 2021, eq. 5), with a
learnable weight for each teacher (eq. 8). As in
`nextup.nn.linear_cross_entropy`, no matrix of logits outlives its chunk: the gradient with
respect to the student's logits is ``sum_i w_i (p_student - p_i)``, so the teachers' probabilities
are summed into one buffer and all of them together cost the student one product each way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nextup.nn.linear_cross_entropy import SAFE_EXPONENT, chunk_rows


@dataclass(frozen=True)
class Factors:
    """What a model says of the next item, as a product.

    Parameters
    ----------
    states
        ``[M, d]``: a state for each answer.
    table
        ``[I + 1, d]``: item vectors; row 0 is padding and takes no part.
    bias
        ``[I + 1]`` or None.
    """

    states: Tensor
    table: Tensor
    bias: Tensor | None = None

    def logits(self, first: int, end: int) -> Tensor:
        """``[I, end - first]``: the logits of some answers, one column each."""
        logits = torch.mm(self.table[1:], self.states[first:end].T)
        return logits if self.bias is None else logits.add_(self.bias[1:, None])

    def softened(self, temperature: float) -> Factors:
        """The same with its logits divided by a temperature."""
        bias = None if self.bias is None else self.bias / temperature
        return Factors(self.states / temperature, self.table, bias)

    def over(self, items: Tensor) -> Factors:
        """What it says over some items alone; the first of them is padding."""
        return Factors(
            self.states,
            torch.nn.functional.embedding(items, self.table),
            None if self.bias is None else self.bias[items],
        )


@dataclass(frozen=True)
class Spoken:
    """What a model says of the next item, written out.

    Parameters
    ----------
    scores
        ``[M, I + 1]``: logits; column 0 is padding and takes no part.
    """

    scores: Tensor

    def logits(self, first: int, end: int) -> Tensor:
        """``[I, end - first]``: the logits of some answers, one column each."""
        return self.scores[first:end, 1:].T.clone(memory_format=torch.contiguous_format)

    def softened(self, temperature: float) -> Spoken:
        """The same with its logits divided by a temperature."""
        return Spoken(self.scores / temperature)

    def over(self, items: Tensor) -> Spoken:
        """What it says over some items alone; the first of them is padding."""
        return Spoken(self.scores[:, items])


Teacher = Factors | Spoken


def _safe(who: Teacher) -> bool:
    """Whether exponentials of its logits can be summed as they are, without a maximum taken off."""
    if isinstance(who, Spoken) or who.states.device.type != "cpu":
        return False
    bound = who.states.norm(dim=1).max() * who.table.norm(dim=1).max()
    bound = bound if who.bias is None else bound + who.bias.abs().max()
    return bool(bound < SAFE_EXPONENT)


def _exponentials(logits: Tensor, safe: bool) -> tuple[Tensor, Tensor]:
    """Turn logits into exponentials in place; return their column sums and log-sums."""
    if safe:
        sums = logits.exp_().sum(dim=0)
        return sums, sums.log()
    shift = logits.amax(dim=0)
    sums = logits.sub_(shift).exp_().sum(dim=0)
    return sums, sums.log() + shift


def _sweep(
    student: Factors, teachers: list[Teacher], weights: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the mean divergence of each teacher, and the gradients of their weighted sum."""
    states, table = student.states, student.table
    count, n_items = len(states), len(table) - 1
    chunk = min(chunk_rows(states.device, n_items), count)
    divergence = torch.zeros(len(teachers), dtype=torch.float64, device=states.device)
    grad_states = torch.zeros_like(states)
    grad_table = torch.zeros_like(table)
    grad_bias = torch.zeros_like(student.bias) if student.bias is not None else None
    total = weights.sum()
    safe = [_safe(teacher) for teacher in teachers]
    own_safe = _safe(student)
    room = states.new_empty(2, n_items * chunk)
    for first in range(0, count, chunk):
        end = min(first + chunk, count)
        gap, mixed = (buffer[: n_items * (end - first)].view(n_items, -1) for buffer in room)
        own = student.logits(first, end)
        mixed.zero_()
        for number, teacher in enumerate(teachers):
            said = teacher.logits(first, end).to(own.dtype)
            torch.sub(said, own, out=gap)
            sums, log_sums = _exponentials(said, safe[number])
            if isinstance(teacher, Spoken):  # what is ruled out has share 0 and counts for nothing
                torch.nan_to_num_(gap, neginf=0.0)
            met = gap.mul_(said).sum(dim=0) / sums  # sum_j p_j (l_j - s_j), log-sums apart
            divergence[number] += (met - log_sums).sum(dtype=torch.float64)
            mixed.addcmul_(said, weights[number] / sums)
        sums, log_sums = _exponentials(own, own_safe)
        divergence += log_sums.sum(dtype=torch.float64)
        if not learn:
            continue
        own.mul_(total / sums).sub_(mixed)
        grad_states[first:end] = torch.mm(own.T, table[1:])
        grad_table[1:].addmm_(own, states[first:end])
        if grad_bias is not None:
            grad_bias[1:].add_(own.sum(dim=1))
    for gradient in (grad_states, grad_table, grad_bias):
        if gradient is not None:
            gradient.div_(count)
    return (divergence / count).to(states.dtype), grad_states, grad_table, grad_bias


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states: Tensor,
        table: Tensor,
        bias: Tensor | None,
        weights: Tensor,
        teachers: list[Teacher],
    ) -> tuple[Tensor, Tensor]:
        student = Factors(states, table, bias)
        divergence, *gradients = _sweep(student, teachers, weights, learn=True)
        ctx.save_for_backward(divergence, *gradients)  # type: ignore[arg-type]
        ctx.mark_non_differentiable(divergence)
        return (weights * divergence).sum(), divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        divergence, states, table, bias = ctx.saved_tensors  # type: ignore[attr-defined]
        bias = None if bias is None else bias * upstream
        return states * upstream, table * upstream, bias, divergence * upstream, None


def divergence_from(
    student: Factors, teachers: list[Teacher], weights: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the mean KL divergences from each teacher to the student.

    Parameters
    ----------
    student
        States, table and bias that learn.
    teachers
        What each teacher says after the same histories; no gradient reaches them.
    weights
        ``[n]``: the weight of each teacher; they may learn, their gradient is the divergence.
    temperature
        What all logits are divided by before they are compared. The divergence is multiplied by
        its square, so that the gradient keeps its size (Hinton, Vinyals & Dean, *Distilling the
        Knowledge in a Neural Network*, 2015). At 1 it is the paper's.

    Returns
    -------
    tuple
        ``sum_i w_i KL_i``, which carries the gradient, and the ``[n]`` divergences, which do not.

    Examples
    --------
    >>> same = Factors(torch.ones(2, 3), torch.rand(5, 3))
    >>> total, each = divergence_from(same, [same, same], torch.ones(2))
    >>> bool(each.abs().max() < 1e-6)
    True
    """
    if len(student.states) == 0:
        nothing = weights.new_zeros(len(teachers))
        return (weights * nothing).sum() + 0 * student.states.sum(), nothing
    if temperature != 1:
        softer = [each.softened(temperature) for each in teachers]
        found = divergence_from(student.softened(temperature), softer, weights)
        return found[0] * temperature**2, found[1] * temperature**2
    # The divergence is a small difference of large sums: single precision, whatever the model's.
    with torch.autocast(student.states.device.type, enabled=False):
        if torch.is_grad_enabled():
            total, divergence = _Divergence.apply(  # type: ignore[no-untyped-call]
                student.states, student.table, student.bias, weights, teachers
            )
            return total, divergence
        divergence = _sweep(student, teachers, weights, learn=False)[0]
    return (weights * divergence).sum(), divergence


def weight_cost(weights: Tensor) -> Tensor:
    """What keeps learnable teacher weights from vanishing: ``S + S^2`` with ``S = sum_i 1 / w_i``.

    SSI, eq. 8. Against constant losses ``l_i`` the optimum is ``w_i = sqrt((1 + 2 S) / l_i)``.
    """
    inverse = weights.reciprocal().sum()
    return inverse + inverse.square()
