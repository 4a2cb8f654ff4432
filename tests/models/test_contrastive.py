"""The contrastive family: views beside histories, padding that is not there, a joint loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import N_ITEMS, Form, first_batch, shop
from torch import Tensor
from torch.nn.functional import layer_norm

from nextup.augment import Packed
from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError
from nextup.models.contrastive import ContrastiveRecommender
from nextup.models.registry import make_model
from nextup.models.sasrec import SASRec
from nextup.models.srma import SRMA
from nextup.models.streams import Streams
from nextup.nn.packing import Packing

WINDOW = 8


def contrastive(name: str = "coserec", **settings: Any) -> ContrastiveRecommender:
    model = Form(name, {"loss": "bce", **settings}).lively(seed=1, dropout=0.0)
    assert isinstance(model, ContrastiveRecommender)
    return model


def padded_states(model: Any, rows: list[list[int]], keep: bool = False) -> Tensor:
    """``[B, 8, d]`` of rows padded on the left with 0, which also stands for a masked item.

    With `keep` padding slots have states as in public code, where the mask is a constant: they see
    every slot alike, items to come and padding among them.
    """
    padded = torch.zeros(len(rows), WINDOW, dtype=torch.int64)
    for at, row in enumerate(rows):
        padded[at, WINDOW - len(row) :] = torch.tensor(row)
    width, real = model.config.width, padded > 0
    x = model.items.weight[padded] + model.positions.weight
    norm = model.input_norm
    x = layer_norm(x, (width,), norm.weight, norm.bias, eps=1e-12)
    for block in model.blocks:
        q, k, v = block.query_key_value(x).chunk(3, dim=2)
        shape = (len(rows), WINDOW, block.heads, -1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in (q, k, v))
        sees = real[:, None, None, :] & torch.ones(WINDOW, WINDOW, dtype=torch.bool).tril()
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        scores = scores + torch.where(sees, 0.0, -1e9 if not keep else 0.0)
        if keep:
            scores = scores.masked_fill(~sees & real[:, None, :, None], -torch.inf)
        mixed = (scores.softmax(dim=3) @ v).transpose(1, 2).reshape(x.shape)
        x = block.attention_norm(x + block.output(mixed))
        inner = torch.nn.functional.gelu(block.expand(x))
        x = block.output_norm(x + block.contract(inner))
    return x if keep else x * real[:, :, None]


def rows_with_gaps() -> tuple[list[list[int]], Packed]:
    """Rows in which 0 is a masked item, and the same without it but with gaps."""
    rows = [[5, 0, 7, 9], [0, 0, 3], [4], [8, 2, 0], [1, 0, 0, 6, 2, 0, 11, 30]]
    kept = [[(item, len(row) - 1 - at) for at, item in enumerate(row) if item] for row in rows]
    tokens, ago = (torch.tensor([pair[n] for row in kept for pair in row]) for n in (0, 1))
    return rows, Packed(tokens, np.array([len(row) for row in kept]), ago)


def test_a_masked_item_is_a_padding_item_that_nobody_sees() -> None:
    model = contrastive("cl4srec")
    rows, packed = rows_with_gaps()
    order = np.argsort(packed.lengths, kind="stable")
    packed = packed.rows(order)
    batch = Batch(packed.tokens, packed.lengths, order, torch.from_numpy(order), ago=packed.ago)
    states = model.encode(batch, last_only=False)
    expected = padded_states(model, [rows[r] for r in order])
    at = 0
    for row, length in enumerate(packed.lengths):
        for token in range(at, at + length):
            slot = WINDOW - 1 - int(packed.ago[token])
            torch.testing.assert_close(states[token], expected[row, slot], atol=1e-5, rtol=1e-4)
        at += length


@pytest.mark.parametrize("representation", ["slots", "mean", "last"])
@pytest.mark.parametrize(("agreement", "share"), [("dot", 1.0), ("cosine", 1.0), ("dot", 0.6)])
def test_the_joint_loss_is_that_of_padded_views_in_a_loop(
    representation: str, agreement: str, share: float
) -> None:
    """Every view encoded by itself and padded; agreement and cross-entropy written out."""
    temperature = 0.7 if agreement == "cosine" else 3.0
    model = contrastive(
        "coserec",
        representation=representation,
        agreement=agreement,
        temperature=temperature,
        threshold=3,
        contrast_weight=0.25,
        contrast_share=share,
    )
    batch = first_batch(model)
    torch.manual_seed(4)
    losses = model.loss(batch)
    torch.manual_seed(4)
    streams = model.streams(batch)
    views = views_of(streams)
    assert len(views) == 2 * round(share * len(batch))
    vectors = []
    for row in views:
        states = padded_states(model, [row])[0]
        real = states[[WINDOW - len(row) + at for at, item in enumerate(row) if item]]
        vector = {"slots": states.flatten(), "mean": real.mean(dim=0), "last": real[-1]}
        vectors.append(vector[representation])
    stacked = torch.stack(vectors)
    if agreement == "cosine":
        stacked = stacked / stacked.norm(dim=1, keepdim=True)
    alike = stacked @ stacked.T / temperature
    half = len(views) // 2
    total = 0.0
    for m in range(len(views)):
        others = [n for n in range(len(views)) if n != m]
        own = alike[m, (m + half) % len(views)]
        total += float((torch.logsumexp(alike[m, others], dim=0) - own).detach())
    contrast = total / len(views)
    assert float(losses.parts["contrast"]) == pytest.approx(contrast, rel=1e-4, abs=1e-5)
    joint = float(losses.parts["bce"]) + 0.25 * contrast
    assert float(losses.total.detach()) == pytest.approx(joint, rel=1e-5)


@pytest.mark.parametrize("representation", ["slots", "last"])
def test_a_share_of_the_rows_is_contrasted_as_if_they_were_all(representation: str) -> None:
    model = contrastive(augment=False, contrast_share=0.5, representation=representation)
    batch = first_batch(model)
    histories = Packed.of(batch.tokens, batch.lengths).as_lists()
    met = set()
    for seed in range(20):
        torch.manual_seed(seed)
        views = views_of(model.streams(batch))
        count = len(views) // 2
        assert views[:count] == views[count:] and count == round(0.5 * len(batch))
        chosen = [histories.index(view) for view in views[:count]]
        met |= set(chosen)
        rest = [histories[at] for at in range(len(histories)) if at not in chosen]
        assert len(rest) == len(histories) - count  # none twice
    assert met == set(range(len(histories)))
    whole = contrastive(augment=False, representation=representation)
    alone = model.streams(batch)
    states = model.encode(alone.batch, last_only=model.last_only)
    found = model.contrast_of_streams(states, alone, batch)
    both = Packed.from_lists(views_of(alone)[: alone.n_pairs])
    few = Batch(
        both.tokens,
        both.lengths,
        np.arange(len(both)),
        batch.users[: len(both)],
        target_at=torch.arange(len(both.tokens)),
        row_total=len(both),
    )
    again = whole.streams(few)
    states = whole.encode(again.batch, last_only=whole.last_only)
    torch.testing.assert_close(found, whole.contrast_of_streams(states, again, few))


def views_of(streams: Streams) -> list[list[int]]:
    """The views of a step as lists, first and second of all rows, 0 where an item is hidden."""
    batch, found = streams.batch, {}
    assert batch.ago is not None
    at = 0
    for row, length in zip(streams.order, batch.lengths, strict=True):
        ago = batch.ago[at : at + length].tolist()
        view = [0] * (ago[0] + 1)
        for item, before in zip(batch.tokens[at : at + length].tolist(), ago, strict=True):
            view[len(view) - 1 - before] = item
        found[int(row)] = view
        at += length
    return [found[row] for row in range(streams.n_rows, len(streams.order))]


def test_padding_that_is_kept_is_contrasted_as_public_code_does() -> None:
    model = contrastive("coserec", contrast_padding=True, temperature=9.0, threshold=3)
    batch = first_batch(model, shop(7))
    torch.manual_seed(4)
    found = float(model.loss(batch).parts["contrast"])
    torch.manual_seed(4)
    views = views_of(model.streams(batch))
    assert all(len(view) == WINDOW for view in views)
    flat = padded_states(model, views, keep=True).flatten(1)
    alike = (flat @ flat.T / 9.0).fill_diagonal_(-torch.inf)
    half = len(views) // 2
    partner = torch.arange(2 * half).roll(half)
    expected = float(torch.nn.functional.cross_entropy(alike, partner).detach())
    assert found == pytest.approx(expected, rel=1e-4)


def test_places_of_hidden_items_between_others_stay_empty_from_either_end() -> None:
    packing = Packing(np.array([1, 2, 3]), torch.device("cpu"))
    ago = torch.tensor([0, 2, 0, 5, 4, 1])  # one item; one of three hidden; three of six
    for positions, places in {"start": [0, 0, 2, 0, 1, 4], "recency": [7, 5, 7, 2, 3, 6]}.items():
        model = make_model("sasrec", N_ITEMS, {"positions": positions, "max_length": 8})
        assert isinstance(model, SASRec)
        assert model._places(packing, ago).tolist() == places


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("targets", ["every", "prefix", "last"])
def test_histories_among_views_give_the_loss_they_give_alone(targets: str, padding: bool) -> None:
    model = contrastive("coserec", targets=targets, threshold=3, contrast_padding=padding)
    batch = first_batch(model)
    streams = model.streams(batch)
    owners = streams.batch.users[torch.from_numpy(np.argsort(streams.order))].tolist()
    assert owners == batch.users.tolist() + [-1] * (len(streams.order) - len(batch))
    states = model.encode(streams.batch, last_only=model.last_only)
    among = model.losses_of(states[streams.targets_at], batch)[1]
    alone = model.target_losses(batch)[1]
    torch.testing.assert_close(among, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", ["every", "prefix"])
@pytest.mark.parametrize("padding", [False, True])
def test_without_weight_it_is_plain_sasrec(targets: str, padding: bool) -> None:
    more = {"targets": targets, "contrast_padding": padding}
    model = contrastive("coserec", contrast_weight=0.0, **more)
    plain = Form("sasrec", {"loss": "bce", "targets": targets}).fresh(dropout=0.0)
    plain.load_state_dict(model.state_dict())
    batch = first_batch(plain)
    torch.testing.assert_close(model.loss(batch).total, plain.loss(batch).total)


@pytest.mark.parametrize("neighbours", ["co_occurrence", "embedding", "hybrid"])
def test_views_hold_training_items_only(neighbours: str) -> None:
    """Inputs of training are what similar items are found among, whatever embeddings say."""
    train = Sequences.from_lists([[1, 2, 3, 4], [2, 3, 5], [7, 1, 9, 2], [3, 2, 8]])
    inputs = {1, 2, 3, 7, 9}  # each history less its last item
    settings = {"neighbours": neighbours, "hybrid_from": 0, "insert_rate": 0.9}
    model = contrastive("coserec", **settings, operators="SI", threshold=None)
    model.prepare(train, torch.device("cpu"))
    with torch.no_grad():  # an item never met that is like all others
        model.item_vectors()[20] = model.item_vectors()[1:].mean(dim=0) * 50  # type: ignore[index]
    model.begin_epoch(0)
    for seed in range(20):
        torch.manual_seed(seed)
        seen = {
            item for view in views_of(model.streams(first_batch(model, train))) for item in view
        }
        assert seen <= inputs


def test_hybrid_looks_at_embeddings_from_its_epoch_on() -> None:
    model: Any = contrastive("coserec", neighbours="hybrid", hybrid_from=2)
    model.near_item.zero_()
    model.begin_epoch(1)
    assert not model.near_item.any()
    model.begin_epoch(2)
    assert model.near_item[1:].any()


def test_a_mask_token_is_read_and_never_recommended() -> None:
    model: Any = contrastive("cl4srec", mask_with="token", operators="M", mask_rate=0.9)
    assert model.items.weight.shape[0] == N_ITEMS + 2
    assert model.item_vectors().shape[0] == N_ITEMS + 1
    streams = model.streams(first_batch(model))
    assert (streams.batch.tokens == N_ITEMS + 1).any()


def test_a_complement_needs_views_of_every_history() -> None:
    with pytest.raises(ConfigError, match="complement_weight to 0"):
        make_model("srma", N_ITEMS, {"contrast_share": 0.5})
    make_model("srma", N_ITEMS, {"contrast_share": 0.5, "complement_weight": 0.0})


def test_further_layers_are_left_out_at_random_and_all_answer() -> None:
    model: Any = Form("srma", {"further_layers": 3, "dropped_layers": 2}).lively(dropout=0.0)
    assert isinstance(model, SRMA)
    batch = first_batch(model)
    called: list[int] = []
    for number, layer in enumerate(model.further):
        layer.register_forward_hook(lambda *_, number=number: called.append(number))
    model.encode(batch, last_only=True)
    assert called == [0, 1, 2]
    seen = set()
    for seed in range(40):
        called.clear()
        torch.manual_seed(seed)
        model.train().encode(batch, last_only=True)
        assert len(called) == 1
        seen.add(called[0])
    assert seen == {0, 1, 2}


def test_the_complement_is_trained_first_and_then_frozen() -> None:
    model: Any = Form("srma", {"loss": "bce"}).lively(dropout=0.0)
    names = [stage.name for stage in model.stages()]
    assert names == ["complement", "train"]
    model.train().begin_stage("complement", resumed=False)
    (group,) = model.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in model.complement.parameters()}
    batch = first_batch(model)
    model.loss(batch).total.backward()
    assert model.complement.items.weight.grad.abs().sum() > 0
    assert model.items.weight.grad is None
    assert torch.equal(model.item_vectors(), model.complement.item_vectors())
    model.zero_grad()
    model.begin_stage("train", resumed=False)
    model.loss(batch).total.backward()
    assert model.complement.items.weight.grad is None
    assert model.items.weight.grad.abs().sum() > 0


def test_the_complement_is_one_more_view_of_each_row() -> None:
    """Contrast with the complement by brute force, on rows laid out padded."""
    settings = {"loss": "bce", "complement_weight": 0.5, "contrast_weight": 1.0, "augment": False}
    model: Any = Form("srma", settings).lively(dropout=0.0)
    batch = first_batch(model, shop(6))
    streams = model.streams(batch)
    states = model.encode(streams.batch, last_only=False)
    found = float(model.contrast_of_streams(states, streams, batch).detach())
    rows = [r.tolist() for r in torch.split(batch.tokens, batch.lengths.tolist())]

    def flat(encoder: Any) -> Tensor:
        laid = []
        for row in rows:
            one = Batch(
                torch.tensor(row), np.array([len(row)]), np.zeros(1, dtype=int), batch.users
            )
            state = encoder.encode(one, last_only=False)
            laid.append(torch.nn.functional.pad(state, (0, 0, WINDOW - len(row), 0)).flatten())
        return torch.stack(laid)

    def loss(a: Tensor, b: Tensor) -> float:
        both = torch.cat([a, b])
        alike = (both @ both.T).fill_diagonal_(-torch.inf)
        n = len(a)
        partner = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
        return float(torch.nn.functional.cross_entropy(alike, partner))

    with torch.no_grad():
        mine, frozen = flat(model), flat(model.complement)
        expected = loss(mine, mine) + 0.5 * 2 * loss(mine, frozen)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_last_state_of_padding_is_no_view() -> None:
    with pytest.raises(ConfigError, match="a view's last state is none of padding"):
        contrastive("coserec", contrast_padding=True, representation="last")
