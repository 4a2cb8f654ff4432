"""Full-catalogue softmax cross-entropy that never keeps a matrix of logits.

Stock autograd materialises the logits three times (and the probabilities again); here the
forward pass walks over the targets in chunks, and computes each chunk's gradient while its
exponentials are still in the cache. Logits are laid out ``[items, targets]``: with inner
dimension 64 that product runs about twice as fast on a CPU as its transpose. The normalisation
is folded into the small matrices, so the large one is written once and read three times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

SAFE_EXPONENT = 60.0
"""exp(60) times ten million items still fits a float32; below it no maximum is subtracted."""


def chunk_rows(device: torch.device, n_items: int) -> int:
    """How many targets to take at a time: few on a CPU (cache), many on a GPU (launches)."""
    if device.type == "cpu":
        return 128 if n_items > 4096 else 256
    return max(256, min(8192, 2**28 // max(n_items, 1)))


def _column_sums(values: Tensor, wide: torch.dtype) -> Tensor:
    """Sum each column in `wide`; of narrow numbers no wide copy of the matrix is made.

    128 narrow numbers at a time are summed in float32 and rounded once, which errs less than the
    numbers themselves do; such a block's sum is then a summand like they are.
    """
    if values.dtype == wide:
        return values.sum(dim=0)
    whole = len(values) - len(values) % 128
    blocks = values[:whole].view(-1, 128, values.shape[1]).sum(dim=1)
    return blocks.sum(dim=0, dtype=wide) + values[whole:].sum(dim=0, dtype=wide)


def _sweep(
    states: Tensor,
    table: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Return per-target losses and, given `weights`, the gradients of their weighted sum."""
    n_items, count = table.shape[0], len(targets)
    chunk = min(chunk_rows(states.device, n_items), count)
    work_table = table.to(dtype)
    shift_needed = True
    if states.device.type == "cpu":  # (elsewhere asking costs more than it saves)
        bound = states.norm(dim=1).max() * table.norm(dim=1).max()
        if bias is not None:
            bound = bound + bias.abs().max()
        shift_needed = not float(bound) < SAFE_EXPONENT
    wide = torch.promote_types(states.dtype, torch.float32)  # what sums and losses are kept in
    losses = torch.empty(count, dtype=wide, device=states.device)
    target_logits = (states * table[targets]).sum(dim=1).to(wide)
    if bias is not None:
        target_logits = target_logits + bias[targets]
    learn = weights is not None
    grad_states = torch.empty_like(states) if learn else None
    grad_table = torch.zeros_like(table) if learn else None
    grad_bias = torch.zeros_like(bias) if learn and bias is not None else None
    buffer = torch.empty(n_items * chunk, dtype=dtype, device=states.device)
    product = torch.empty_like(work_table) if learn and dtype != table.dtype else None
    for first in range(0, count, chunk):
        end = min(first + chunk, count)
        some = states[first:end].to(dtype)
        logits = buffer[: n_items * (end - first)].view(n_items, end - first)
        torch.mm(work_table, some.T, out=logits)
        if bias is not None:
            logits.add_(bias.to(dtype)[:, None])
        shift: Tensor | float = 0.0
        if shift_needed:
            shift = logits.amax(dim=0)
            logits.sub_(shift)
        sums = _column_sums(logits.exp_(), wide)
        losses[first:end] = sums.log() + shift - target_logits[first:end]
        if weights is None or grad_states is None or grad_table is None:
            continue
        factor = (weights[first:end] / sums)[:, None]
        grad_states[first:end] = torch.mm(work_table.T, logits).T.to(states.dtype) * factor
        weighted = (states[first:end] * factor).to(dtype)
        if dtype == table.dtype:
            grad_table.addmm_(logits, weighted)
        else:
            grad_table.add_(torch.mm(logits, weighted, out=product))
        if grad_bias is not None:
            grad_bias.add_(torch.mv(logits, factor.squeeze(1).to(dtype)))
    if weights is not None and grad_states is not None and grad_table is not None:
        column = weights[:, None]
        grad_states.sub_(table[targets] * column)
        grad_table.index_add_(0, targets, (states * column).to(grad_table.dtype), alpha=-1)
        if grad_bias is not None:
            grad_bias.index_add_(0, targets, weights.to(grad_bias.dtype), alpha=-1)
    return losses, grad_states, grad_table, grad_bias


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states: Tensor,
        table: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        items = table[1:]
        item_bias = None if bias is None else bias[1:]
        losses, *gradients = _sweep(states, items, item_bias, targets - 1, weights, dtype)
        ctx.save_for_backward(*gradients)  # type: ignore[arg-type]
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states, table, bias = ctx.saved_tensors  # type: ignore[attr-defined]
        padded = torch.nn.functional.pad(table, (0, 0, 1, 0)).mul_(upstream)
        padded_bias = None
        if bias is not None:
            padded_bias = torch.nn.functional.pad(bias, (1, 0)).mul_(upstream)
        return states * upstream, padded, padded_bias, None, None, None


def linear_cross_entropy(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy of ``states @ table.T + bias`` over items ``1..I``.

    Parameters
    ----------
    states
        ``[M, d]``: one state for each target.
    table
        ``[I + 1, d]``: item vectors; row 0 is padding and takes no part.
    targets
        ``int64[M]`` in ``1..I``.
    weights
        ``[M]``: the weight of each target's loss in the sum (constants).
    bias
        ``[I + 1]`` or None.
    dtype
        What the large products are computed in: ``torch.bfloat16`` halves their cost where the
        processor has instructions for it; by default the wider dtype of `states` and `table`.

    Returns
    -------
    tuple
        The weighted sum, which carries the gradient, and the ``[M]`` losses, which do not.

    Examples
    --------
    >>> table = torch.zeros(5, 2)
    >>> total, each = linear_cross_entropy(
    ...     torch.ones(1, 2), table, torch.tensor([3]), torch.ones(1))
    >>> round(float(each), 4)  # four items with equal scores: ln 4
    1.3863
    """
    dtype = torch.promote_types(states.dtype, table.dtype) if dtype is None else dtype
    if len(states) == 0:
        nothing = weights.new_zeros(0)
        return nothing.sum() + 0 * (states.sum() + table.sum()), nothing
    learns = any(each is not None and each.requires_grad for each in (states, table, bias))
    with torch.autocast(states.device.type, enabled=False):  # `dtype` says what is computed in
        if learns and torch.is_grad_enabled():
            total, losses = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
                states, table, bias, targets, weights, dtype
            )
            return total, losses
        item_bias = None if bias is None else bias[1:]
        losses = _sweep(states, table[1:], item_bias, targets - 1, None, dtype)[0]
        return (losses * weights).sum(), losses
