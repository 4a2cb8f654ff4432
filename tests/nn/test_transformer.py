"""The two published blocks against padded implementations that share their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain import close, from_left_padded, left_padded, original_block, post_norm_block
from torch import Tensor, nn

from nextup.nn.packing import Packing, Slots
from nextup.nn.transformer import OriginalBlock, PostNormBlock, begin_blocks, finish_blocks

CPU = torch.device("cpu")
LENGTHS = np.array([1, 1, 2, 3, 5, 8, 8, 20, 31])
WIDTH, HEADS = 12, 3


def block_of(kind: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    if kind != "original":
        causal = kind == "s3"
        block: nn.Module = PostNormBlock(WIDTH, HEADS, 4 * WIDTH, dropout, dropout, causal)
    else:
        block = OriginalBlock(WIDTH, HEADS, dropout)
    for parameter in block.parameters():  # norms and biases too, so that none is idle
        nn.init.normal_(parameter, std=0.4)
    return block.double()


def packed_input(seed: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(int(LENGTHS.sum()), WIDTH, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["s3", "original"])
@pytest.mark.parametrize("window", [31, 50])
def test_a_block_is_its_published_padded_form(kind: str, window: int) -> None:
    block, x = block_of(kind), packed_input().requires_grad_()
    real = torch.from_numpy(np.arange(window)[None, :] >= window - LENGTHS[:, None])
    plain = post_norm_block if kind == "s3" else original_block
    expected = from_left_padded(plain(block, left_padded(x, LENGTHS, window), real, HEADS), LENGTHS)
    found = block(x, Packing(LENGTHS, CPU))
    close(found, expected, 1e-10)
    upstream = torch.randn_like(found)
    leaves = [x, *block.parameters()]
    for one, other in zip(
        torch.autograd.grad(found, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        close(one, other, 1e-9)


@pytest.mark.parametrize("kind", ["s3", "original"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_the_last_tokens_alone_are_those_of_the_full_output(kind: str, layers: int) -> None:
    blocks = nn.ModuleList([block_of(kind) for _ in range(layers)])
    x, packing = packed_input().requires_grad_(), Packing(LENGTHS, CPU)
    last_at = torch.from_numpy(np.cumsum(LENGTHS) - 1)
    few = finish_blocks(blocks, begin_blocks(blocks, x, packing, last_at))
    full = finish_blocks(blocks, begin_blocks(blocks, x, packing))[last_at]
    assert few.shape == (len(LENGTHS), WIDTH)
    close(few, full, 1e-12)
    upstream = torch.randn_like(few)
    leaves = [x, *blocks.parameters()]
    for one, other in zip(
        torch.autograd.grad(few, leaves, upstream),
        torch.autograd.grad(full, leaves, upstream),
        strict=True,
    ):
        close(one, other, 1e-12)


@pytest.mark.parametrize("kind", ["s3", "bidirectional", "original"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_any_slots_alone_are_those_of_the_full_output(kind: str, layers: int) -> None:
    blocks = nn.ModuleList([block_of(kind) for _ in range(layers)])
    x, packing = packed_input().requires_grad_(), Packing(LENGTHS, CPU)
    counts = np.array([0, 1, 1, 0, 2, 0, 0, 3, 31])
    ends = np.cumsum(LENGTHS)
    at = np.concatenate([np.arange(e - c, e) for e, c in zip(ends, counts, strict=True)])
    slots = Slots(packing, torch.from_numpy(at), counts)
    few = finish_blocks(blocks, begin_blocks(blocks, x, packing, slots))
    full = finish_blocks(blocks, begin_blocks(blocks, x, packing))[slots.at]
    close(few, full, 1e-12)
    with torch.no_grad():
        close(finish_blocks(blocks, begin_blocks(blocks, x, packing, slots)), full, 1e-12)


@pytest.mark.parametrize("kind", ["s3", "original"])
def test_a_token_never_reaches_those_before_it(kind: str) -> None:
    block, x, packing = block_of(kind), packed_input(), Packing(LENGTHS, CPU)
    before = block(x, packing)
    changed = x.clone()
    changed[-10] += 1.0
    after = block(changed, packing)
    assert torch.equal(before[:-10], after[:-10])
    assert ((before[-10:] - after[-10:]).abs().amax(dim=1) > 1e-9).all()


def test_a_bidirectional_block_lets_a_token_reach_those_before_it() -> None:
    torch.manual_seed(1)
    block = PostNormBlock(WIDTH, HEADS, WIDTH, 0.0, 0.0, causal=False).double()
    x, packing = packed_input(), Packing(LENGTHS, CPU)
    before = block(x, packing)
    changed = x.clone()
    changed[-1] += 1.0
    moved = (before - block(changed, packing)).abs().amax(dim=1) > 1e-9
    assert moved[-31:].all() and not moved[:-31].any()


@pytest.mark.parametrize("kind", ["s3", "original"])
def test_dropout_acts_in_training_only(kind: str) -> None:
    block, x, packing = block_of(kind, dropout=0.5), packed_input(), Packing(LENGTHS, CPU)
    block.eval()
    calm = block(x, packing)
    assert torch.equal(calm, block(x, packing))
    close(calm, block_of(kind)(x, packing), 1e-12)
    block.train()
    assert not torch.equal(block(x, packing), block(x, packing))
