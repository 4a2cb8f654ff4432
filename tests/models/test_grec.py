"""GRec: gaps are drawn as they should be, and nothing hidden is ever seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import Thrice, first_batch
from torch import Tensor
from torch.nn.functional import conv1d, gelu, layer_norm, pad

from nextup.data.batches import Batch, batch_of_lists
from nextup.errors import ConfigError
from nextup.models.grec import GRec, draw_gaps
from nextup.models.registry import make_model
from nextup.nn.convolution import DilatedBlock
from nextup.nn.losses import softmax_loss

N_ITEMS = 40
GAP = N_ITEMS + 1
ROW = [3, 1, 4, 1, 5, 9, 2, 6, 5, 30]


def made(**settings: object) -> GRec:
    torch.manual_seed(0)
    model = make_model("grec", N_ITEMS, {"width": 16, "max_length": 20, **settings})
    assert isinstance(model, GRec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


def states(model: GRec, row: list[int], gaps: list[int]) -> Tensor:
    """The states with the items at some places hidden from the encoder."""
    batch = batch_of_lists([row], 20)
    with torch.no_grad():
        return model.states(
            batch, batch.tokens.index_fill(0, torch.tensor(gaps, dtype=torch.int64), GAP)
        )


def plain_block(block: DilatedBlock, x: Tensor, dilation: int, causal: bool) -> Tensor:
    """Two convolutions over a padded row, the second twice as wide, and what came in."""
    y = x
    for layer, norm, apart in (
        (block.first, block.first_norm, dilation),
        (block.second, block.second_norm, 2 * dilation),
    ):
        padded = pad(y.T[None], (2 * apart, 0) if causal else (apart, apart))
        y = conv1d(padded, layer.weight.permute(2, 1, 0), layer.bias, dilation=apart)[0].T
        y = torch.relu(layer_norm(y, y.shape[1:], norm.weight, norm.bias, eps=1e-8))
    return x + y


@pytest.mark.parametrize("gaps", [[], [2, 5]])
def test_a_state_is_that_of_plain_convolutions_and_a_projector(gaps: list[int]) -> None:
    dilations = {"encoder_dilations": [1, 2], "decoder_dilations": [1, 3]}
    model = made(**dilations, projector=5)
    seen = [GAP if place in gaps else item for place, item in enumerate(ROW)]
    with torch.no_grad():
        x = model.encoder_items.weight[seen]
        for block, apart in zip(model.encoder, (1, 2), strict=True):
            x = plain_block(block, x, apart, causal=False)  # type: ignore[arg-type]
        x = x + model.decoder_items.weight[ROW]
        x = x + gelu(x @ model.widen.weight.T + model.widen.bias) @ model.narrow.weight.T
        x = x + model.narrow.bias
        for block, apart in zip(model.decoder, (1, 3), strict=True):
            x = plain_block(block, x, apart, causal=True)  # type: ignore[arg-type]
    torch.testing.assert_close(states(model, ROW, gaps), torch.relu(x), rtol=1e-4, atol=1e-5)


def changed(row: list[int], place: int) -> list[int]:
    return [*row[:place], 33, *row[place + 1 :]]


@pytest.mark.parametrize("gap", [1, 4, 9])
def test_a_hidden_item_is_unknown_where_it_is_to_be_found(gap: int) -> None:
    model = made()
    before = states(model, ROW, [gap])
    after = states(model, changed(ROW, gap), [gap])
    assert torch.equal(before[:gap], after[:gap])
    assert not torch.equal(before[gap:], after[gap:])  # the decoder knows it from there on


def test_what_follows_a_gap_is_seen() -> None:
    model = made()
    before = states(model, ROW, [4])
    after = states(model, changed(ROW, 5), [4])
    assert (before[3] - after[3]).abs().max() > 1e-4


def test_other_gaps_to_the_left_are_known_to_the_decoder() -> None:
    model = made()
    before = states(model, ROW, [2, 4])
    after = states(model, changed(ROW, 2), [2, 4])
    assert (before[3] - after[3]).abs().max() > 1e-4
    assert torch.equal(before[:2], after[:2])


def test_without_the_encoder_the_decoder_is_causal() -> None:
    model = made(encoder_dilations=[])
    with torch.no_grad():
        model.encoder_items.weight.zero_()
    before = states(model, ROW, [])
    for place in range(1, 10):
        after = states(model, changed(ROW, place), [])
        assert torch.equal(before[:place], after[:place])
        assert not torch.equal(before[place], after[place])


def test_an_answer_is_the_last_state_with_nothing_hidden() -> None:
    model = made()
    batch = batch_of_lists([ROW], 20)
    with torch.no_grad():
        assert torch.equal(model.query(batch)[0], states(model, ROW, [])[-1])


@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 1.0])
def test_as_many_gaps_are_drawn_as_asked_and_never_the_first(share: float) -> None:
    lengths = [1, 2, 3, 8, 20]
    batch = batch_of_lists([[5] * n for n in lengths], 50)
    ends = np.cumsum(lengths)
    for _ in range(20):
        gaps = draw_gaps(batch, share).numpy()
        assert len(np.unique(gaps)) == len(gaps) and (np.diff(gaps) > 0).all()
        for end, length in zip(ends, lengths, strict=True):
            here = gaps[(gaps >= end - length) & (gaps < end)]
            wanted = 0 if length == 1 else max(1, round(share * (length - 1)))
            assert len(here) == wanted
            assert end - length not in here


def test_every_item_but_the_first_is_hidden_equally_often() -> None:
    torch.manual_seed(0)
    batch = batch_of_lists([[5] * 6, [6] * 6], 50)
    hidden = torch.zeros(12)
    for _ in range(3000):
        hidden[draw_gaps(batch, 0.4)] += 1
    expected = torch.tensor(([0.0] + [2 / 5] * 5) * 2)
    torch.testing.assert_close(hidden / 3000, expected, atol=0.04, rtol=0)


def test_the_loss_is_the_mean_cross_entropy_of_the_gaps() -> None:
    model = made(l2=0.1)
    batch = first_batch(model)
    torch.manual_seed(7)
    losses = model.loss(batch)
    torch.manual_seed(7)
    gaps = draw_gaps(batch, 0.5)
    with torch.no_grad():
        found = model.states(batch, batch.tokens.index_fill(0, gaps, GAP))[gaps - 1]
        scores = found @ model.item_vectors().T + model.item_bias()
    expected = softmax_loss(scores, batch.tokens[gaps]).mean()
    torch.testing.assert_close(losses.parts["softmax"], expected)
    squares = [p.detach().square().sum() / 2 for p in model.parameters()]
    penalty = 0.1 * torch.stack(squares).mean()
    torch.testing.assert_close(losses.total.detach(), expected + penalty)


def test_histories_of_one_item_have_nothing_to_find() -> None:
    model = made()
    batch = batch_of_lists([[5], [6]], 20)
    whole = Batch(batch.tokens, batch.lengths, batch.rows, batch.users, row_total=2)
    losses = model.loss(whole)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert float(losses.total.detach()) == 0.0


def test_the_gradient_is_that_of_finite_differences() -> None:
    model = made(l2=0.1, width=6).double()
    batch = first_batch(model)

    def loss() -> Tensor:
        torch.manual_seed(0)
        return model.loss(batch).total

    loss().backward()  # type: ignore[no-untyped-call]
    step = 1e-7
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        if name.endswith("items.weight") or name == "outputs.weight":
            direction[0] = 0.0
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        with torch.no_grad():
            ends = []
            for sign in (1, -2):
                parameter.add_(direction, alpha=sign * step)
                ends.append(float(loss()))
            parameter.add_(direction, alpha=step)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6), name


def test_dropout_is_on_what_the_projector_and_the_blocks_add() -> None:
    model = made(dropout=0.3)
    assert [each.drop.rate for each in (*model.encoder, *model.decoder, model)] == [0.3] * 9
    model.drop = Thrice()
    thrice = states(model, ROW, [2])
    model.drop = torch.nn.Identity()
    with torch.no_grad():
        model.narrow.weight.mul_(3)
        model.narrow.bias.mul_(3)
    torch.testing.assert_close(thrice, states(model, ROW, [2]))


def test_of_several_processes_each_adds_its_share_of_the_penalty() -> None:
    model = made(l2=0.1)
    batch = first_batch(model)
    alone = model.loss(batch).parts["l2"]
    half = model.loss(replace(batch, row_total=2 * len(batch))).parts["l2"]
    torch.testing.assert_close(2 * half, alone)


def test_a_convolution_that_looks_both_ways_has_a_middle() -> None:
    with pytest.raises(ConfigError, match="must be odd"):
        make_model("grec", N_ITEMS, {"kernel": 4})
