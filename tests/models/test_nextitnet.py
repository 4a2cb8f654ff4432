"""NextItNet: how far it sees, and that it is its formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_models import first_batch
from torch import Tensor
from torch.nn.functional import conv1d, layer_norm, pad

from nextup.data.batches import batch_of_lists
from nextup.models.nextitnet import NextItNet
from nextup.models.registry import make_model
from nextup.nn.convolution import DilatedBlock

N_ITEMS = 40


def made(**settings: object) -> NextItNet:
    torch.manual_seed(0)
    model = make_model("nextitnet", N_ITEMS, {"width": 8, "max_length": 60, **settings})
    assert isinstance(model, NextItNet)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("block", "dilations", "field"),
    [("b", [1, 2], 1 + 2 * 3 * 3), ("b", [1, 4], 1 + 2 * 3 * 5), ("a", [1, 2, 4], 1 + 2 * 7)],
)
def test_the_receptive_field_is_what_the_dilations_add_up_to(
    block: str, dilations: list[int], field: int
) -> None:
    """Every item within it, and none before it, has a gradient in the last state."""
    model = made(block=block, dilations=dilations)
    batch = batch_of_lists([[n % N_ITEMS + 1 for n in range(50)]], 60)
    embedded: list[Tensor] = []
    model.items.register_forward_hook(lambda *call: embedded.append(call[2]))
    last = model.encode(batch, last_only=True)
    (gradient,) = torch.autograd.grad((last * torch.randn(last.shape)).sum(), embedded)
    seen = gradient.abs().sum(dim=1) > 0
    assert not seen[: 50 - field].any() and seen[50 - field :].all()


def test_a_state_is_that_of_plain_convolutions_over_a_padded_row() -> None:
    model = made(dilations=[1, 2])
    row = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    x = model.items.weight[row]
    for block in model.blocks:
        assert isinstance(block, DilatedBlock)
        y = x
        for layer, norm in ((block.first, block.first_norm), (block.second, block.second_norm)):
            apart = layer.distances[1]
            padded = pad(y.T[None], (2 * apart, 0))
            y = conv1d(padded, layer.weight.permute(2, 1, 0), layer.bias, dilation=apart)[0].T
            y = torch.relu(layer_norm(y, (8,), norm.weight, norm.bias, eps=1e-8))
        x = x + y
    torch.testing.assert_close(model.encode(batch_of_lists([row], 60), False), torch.relu(x))


def test_what_is_scored_with_is_an_own_table_or_the_input_one() -> None:
    assert made().item_vectors() is not made().items.weight
    tied = made(tied=True, bias=False)
    assert tied.item_vectors() is tied.items.weight
    assert tied.item_bias() is None and tied.outputs is None


def test_the_penalty_is_the_mean_half_square_of_the_weights() -> None:
    free, held = made(), made(l2=0.1)
    batch = first_batch(free)
    expected = 0.1 * sum(float(p.detach().square().sum()) / 2 for p in free.parameters())
    expected /= len(list(free.parameters()))
    difference = float(held.loss(batch).total.detach() - free.loss(batch).total.detach())
    assert difference == pytest.approx(expected, rel=1e-4)


def test_of_several_processes_each_adds_its_share_of_the_penalty() -> None:
    model = made(l2=0.1)
    batch = first_batch(model)
    alone = model.loss(batch).parts["l2"]
    half = model.loss(replace(batch, target_total=2 * batch.target_total)).parts["l2"]
    torch.testing.assert_close(2 * half, alone)


@pytest.mark.parametrize("block", ["a", "b"])
def test_dropout_reaches_every_block(block: str) -> None:
    assert [each.drop.rate for each in made(block=block, dropout=0.3).blocks] == [0.3] * 6
