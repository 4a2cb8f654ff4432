"""Recurrent cells over packed rows: a whole history from nothing, or a stretch from a state.

Rows are laid out step by step, longest first, so that no step computes on padding and the state of
a row does not depend on what it is batched with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def initialise_gates(recurrence: nn.GRU) -> None:
    """Draw each gate's weights as Glorot does, each gate by its own size; biases start at zero."""
    for name, parameter in recurrence.named_parameters():
        if name.startswith("weight"):
            for gate in parameter.chunk(3):
                nn.init.xavier_uniform_(gate)
        else:
            nn.init.zeros_(parameter)


def packed_states(recurrence: nn.GRU, x: Tensor, lengths: np.ndarray) -> Tensor:
    """``[N, hidden]``: the state after every token, each row from the zero state.

    Parameters
    ----------
    recurrence
        What runs over the rows.
    x
        ``[N, width]``: the embedded tokens, row after row.
    lengths
        ``int64[B]`` on the host: tokens of each row.
    """
    order, sizes = time_major(lengths)
    index = torch.from_numpy(order).to(x.device)
    on_gpu = x.device.type == "cuda"
    # There autocast to bf16 gives recurrent networks float16 instead, whose range is too small.
    with torch.autocast("cuda", enabled=False) if on_gpu else nullcontext():
        x = x.to(next(recurrence.parameters()).dtype) if on_gpu else x
        output, _ = recurrence(PackedSequence(x[index], torch.from_numpy(sizes)))
    return torch.empty_like(output.data).index_copy(0, index, output.data)


def stepped_states(
    recurrence: nn.GRU,
    x: Tensor,
    lengths: np.ndarray,
    state: Tensor,
    drop: Callable[[Tensor], Tensor],
) -> Tensor:
    """``[N, hidden]``: the dropped state after every token; what was dropped is what is carried on.

    Parameters
    ----------
    recurrence
        One layer; its cell is used.
    x
        ``[N, width]``: the embedded tokens, row after row.
    lengths
        ``int64[B]`` on the host: tokens of each row, ascending.
    state
        ``[B, hidden]``: where each row starts.
    drop
        What is done to the state after each token.
    """
    cell = list(recurrence.parameters())
    if len(x) == len(lengths):
        return drop(torch.gru_cell(x, state, *cell))
    order, sizes = time_major(lengths)
    index = torch.from_numpy(order).to(x.device)
    state, found = state.flip(0), []  # longest first
    for step in torch.split(x[index], sizes.tolist()):
        state = drop(torch.gru_cell(step, state[: len(step)], *cell))
        found.append(state)
    states = torch.cat(found)
    return torch.empty_like(states).index_copy(0, index, states)


def time_major(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order packed rows step by step, longest row first.

    Returns
    -------
    tuple
        ``int64[N]``, which packed token comes at each place, and ``int64[T]``, how many rows
        are still running at each step: what `PackedSequence` needs.

    Examples
    --------
    >>> order, sizes = time_major(np.array([1, 2]))
    >>> order.tolist(), sizes.tolist()  # rows [0], [1, 2]
    ([1, 0, 2], [2, 1])
    """
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
    return np.lexsort((-row, -lengths[row], step)), np.bincount(step)
