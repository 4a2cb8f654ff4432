"""BERT4Rec: it looks both ways, learns at its gaps alone, and answers at an appended [MASK]."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import first_batch, shop
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding, gelu, layer_norm, linear, softmax

from nextup.augment import Packed, cloze_places
from nextup.data.batches import batch_of_lists
from nextup.models.bert4rec import BERT4Rec
from nextup.models.registry import make_model
from nextup.nn.packing import Packing, Slots

N_ITEMS, MASK = 40, 41
ROWS = [[5, 3], [7, 8, 9, 2], [3, 1, 4, 1, 5, 9, 2, 6]]


def made(**settings: Any) -> BERT4Rec:
    torch.manual_seed(0)
    small = {"width": 8, "max_length": 10, "layers": 2, "heads": 2}
    model = make_model("bert4rec", N_ITEMS, {**small, **settings})
    assert isinstance(model, BERT4Rec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


def states_of(model: BERT4Rec, rows: list[list[int]]) -> Tensor:
    batch = batch_of_lists(rows, 10)
    return model.encode(batch.tokens, Packing(batch.lengths, batch.device))


def plain_states(model: BERT4Rec, row: list[int], slots: int) -> Tensor:
    """The states of one row, padded on the left with other rows' rubbish to `slots`."""
    w = dict(model.named_parameters())
    padded = torch.tensor([17] * (slots - len(row)) + row)
    real = torch.arange(slots) >= slots - len(row)
    first = model.config.max_length - slots
    x = embedding(padded, w["items.weight"]) + w["positions.weight"][first:]
    x = layer_norm(x, (8,), w["input_norm.weight"], w["input_norm.bias"], eps=1e-12)
    for b in range(model.config.layers):

        def of(name: str, b: int = b) -> tuple[Tensor, Tensor]:
            return w[f"blocks.{b}.{name}.weight"], w[f"blocks.{b}.{name}.bias"]

        heads = []
        q, k, v = linear(x, *of("query_key_value")).split(8, dim=1)
        for h in (slice(0, 4), slice(4, 8)):
            scores = q[:, h] @ k[:, h].T / 2.0
            scores = scores.masked_fill(~real, -10000.0)
            heads.append(softmax(scores, dim=1) @ v[:, h])
        mixed = linear(torch.cat(heads, dim=1), *of("output"))
        x = layer_norm(x + mixed, (8,), *of("attention_norm"), eps=1e-12)
        inner = linear(gelu(linear(x, *of("expand"))), *of("contract"))
        x = layer_norm(x + inner, (8,), *of("output_norm"), eps=1e-12)
    return x[real]


@pytest.mark.parametrize("slots", [8, 10])
def test_states_are_those_of_the_plain_padded_network_whatever_it_is_padded_with(
    slots: int,
) -> None:
    model = made()
    plain = torch.cat([plain_states(model, row, slots) for row in ROWS])
    torch.testing.assert_close(states_of(model, ROWS), plain, atol=1e-5, rtol=1e-5)


def test_scores_are_the_heads_product_with_the_item_table_and_a_bias() -> None:
    model = made()
    row = [*ROWS[2], MASK]
    w = dict(model.named_parameters())
    last = gelu(linear(plain_states(model, row, 10)[-1], w["head.weight"], w["head.bias"]))
    last = layer_norm(last, (8,), w["head_norm.weight"], w["head_norm.bias"], eps=1e-12)
    expected = w["items.weight"][:MASK] @ last + w["bias"]
    found = model.scores(batch_of_lists([ROWS[2]], 10))
    assert found.shape == (1, MASK)  # no column of [MASK]: it can never be recommended
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_a_later_item_changes_what_is_made_of_an_earlier_one() -> None:
    model = made()
    before, changed = states_of(model, ROWS), [*ROWS[:2], [3, 1, 4, 33, 5, 9, 2, 6]]
    moved = (before - states_of(model, changed)).abs().amax(dim=1) > 1e-6
    assert moved[6:].all() and not moved[:6].any()


def test_the_appended_mask_takes_the_oldest_items_place_where_a_history_is_full() -> None:
    model = made()
    row = list(range(1, 11))
    full = model.query(batch_of_lists([row], 10))
    torch.testing.assert_close(full, model.query(batch_of_lists([row[1:]], 10)))
    changed = model.query(batch_of_lists([[1, 22, *row[2:]]], 10))
    assert (full - changed).abs().max() > 1e-4


def test_a_gap_at_the_end_is_read_in_training_as_it_is_in_answering() -> None:
    model = made()
    batch = batch_of_lists(ROWS, 10)
    tokens = batch.tokens.index_fill(0, batch.last_at, MASK)
    packing = Packing(batch.lengths, batch.device)
    slots = Slots(packing, batch.last_at, np.ones(len(batch), dtype=np.int64))
    in_training = model.predictions(model.encode(tokens, packing, slots))
    answered = model.query(batch_of_lists([row[:-1] for row in ROWS], 10))
    torch.testing.assert_close(in_training, answered)


def test_the_loss_is_the_mean_cross_entropy_of_full_logits_at_the_gaps() -> None:
    model = made(dropout=0.0, mask_share=0.5, last_only=0.0)
    batch = first_batch(model, shop(12))
    torch.manual_seed(3)
    found = model.loss(batch).total
    torch.manual_seed(3)
    at, _ = cloze_places(Packed.of(batch.tokens, batch.lengths), 0.5)
    states = model.encode(
        batch.tokens.index_fill(0, at, MASK), Packing(batch.lengths, batch.device)
    )
    logits = model.predictions(states[at]) @ model.item_vectors().T + model.item_bias()
    expected = cross_entropy(logits[:, 1:], batch.tokens[at] - 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    leaves = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_row_read_for_its_last_item_has_no_other_gap() -> None:
    model = made(dropout=0.0, mask_share=0.5, last_only=1.0)
    batch = first_batch(model, shop(12))
    found = model.loss(batch).total
    masked = batch.tokens.index_fill(0, batch.last_at, MASK)
    states = model.encode(masked, Packing(batch.lengths, batch.device))[batch.last_at]
    logits = model.predictions(states) @ model.item_vectors().T + model.item_bias()
    expected = cross_entropy(logits[:, 1:], batch.tokens[batch.last_at] - 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_states_that_are_no_gaps_have_no_gradient() -> None:
    model = made(layers=0)  # without blocks a state is its token's own, and nobody else's
    batch = batch_of_lists(ROWS, 10)
    tokens = batch.tokens.index_fill(0, batch.last_at, MASK)
    seen: list[Tensor] = []
    model.input_norm.register_forward_hook(lambda *call: seen.append(call[2]))
    ones = np.ones(len(batch), dtype=np.int64)
    packing = Packing(batch.lengths, batch.device)
    states = model.encode(tokens, packing, Slots(packing, batch.last_at, ones))
    (gradient,) = torch.autograd.grad(model.predictions(states).square().sum(), seen)
    learns = gradient.abs().sum(dim=1) > 0
    assert learns.nonzero().squeeze(1).tolist() == batch.last_at.tolist()


def test_with_gaps_alone_nothing_but_the_places_matters() -> None:
    model = made()
    batch = batch_of_lists([[1, 2, 3], [7, 8, 9], [4, 5, 6, 7]], 10)
    packing = Packing(batch.lengths, batch.device)
    x = model.encode(torch.full_like(batch.tokens, MASK), packing)
    torch.testing.assert_close(x[:3], x[3:6])
    assert (x[0] - x[1]).abs().max() > 1e-4


def test_a_fresh_model_knows_nothing() -> None:
    torch.manual_seed(0)
    model = make_model("bert4rec", 40, {"width": 16, "max_length": 8, "heads": 2}).eval()
    loss = model.loss(first_batch(model)).total
    assert float(loss.detach()) == pytest.approx(np.log(40), rel=0.05)


def test_weight_decay_spares_norms_and_biases_and_nothing_is_left_out() -> None:
    model = made()
    decays, spared = model.parameter_groups()
    names = {id(p): name for name, p in model.named_parameters()}
    assert decays.decays and not spared.decays
    assert all("norm" not in names[id(p)] for p in decays.parameters)
    assert all(names[id(p)].endswith(("weight",)) for p in decays.parameters)
    assert len(decays.parameters) + len(spared.parameters) == len(names)


@pytest.mark.parametrize("rows", ["history", "prefix"])
def test_a_step_reads_whole_histories_or_every_prefix(rows: str) -> None:
    train = shop(6)
    stream = made(rows=rows).training_stream(
        train, batch_size=10**6, seed=0, device=torch.device("cpu")
    )
    lengths = sorted(np.minimum(train.lengths, 10).tolist())
    if rows == "prefix":
        lengths = sorted(min(n, 10) for most in train.lengths for n in range(1, most + 1))
    assert stream.batch(stream.order(0), 0, 0).lengths.tolist() == lengths
