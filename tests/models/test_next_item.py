"""The neural models against plain implementations: whole SASRec, and every loss by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_models import N_ITEMS, SMALL, first_batch, shop, stream_of
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, logsigmoid

from nextup.data.batches import Batch, batch_of_lists
from nextup.models.next_item import NextItemRecommender
from nextup.models.registry import make_model

WINDOW = 12


def sasrec(block: str, **more: object) -> NextItemRecommender:
    torch.manual_seed(3)
    settings = {"block": block, "max_length": WINDOW, "width": 16, "heads": 2, "layers": 2}
    model = make_model("sasrec", N_ITEMS, {**settings, "dropout": 0.0, **more})
    assert isinstance(model, NextItemRecommender)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def padded_input(model: NextItemRecommender, batch: Batch, scale: float) -> tuple[Tensor, Tensor]:
    """Items and slots, padded on the left to the full window: ``[B, T, d]``, and what is real."""
    ids = torch.zeros(len(batch), WINDOW, dtype=torch.int64)
    for row, tokens in enumerate(batch.tokens.split(batch.lengths.tolist())):
        ids[row, WINDOW - len(tokens) :] = tokens
    weights = model.state_dict()
    x = embedding(ids, weights["items.weight"]) * scale + weights["positions.weight"]
    return x, ids > 0


def s3_scores(model: NextItemRecommender, batch: Batch) -> Tensor:
    """Scores by PyTorch's own post-norm encoder layer, padding masked away."""
    w = model.state_dict()
    x, real = padded_input(model, batch, 1.0)
    x = layer_norm(x, (16,), w["input_norm.weight"], w["input_norm.bias"], eps=1e-12)
    future = torch.ones(WINDOW, WINDOW, dtype=torch.bool).triu(1)
    # A padded slot would see nothing at all, and NaN: let it see itself.
    hidden = (future | ~real[:, None, :]) & ~torch.eye(WINDOW, dtype=torch.bool)
    for number in range(2):
        layer = nn.TransformerEncoderLayer(
            16, 2, 64, 0.0, nn.functional.gelu, 1e-12, batch_first=True, dtype=torch.float64
        ).eval()
        names = {
            "self_attn.in_proj_weight": "query_key_value.weight",
            "self_attn.in_proj_bias": "query_key_value.bias",
            "self_attn.out_proj.weight": "output.weight",
            "self_attn.out_proj.bias": "output.bias",
            "linear1.weight": "expand.weight",
            "linear1.bias": "expand.bias",
            "linear2.weight": "contract.weight",
            "linear2.bias": "contract.bias",
            "norm1.weight": "attention_norm.weight",
            "norm1.bias": "attention_norm.bias",
            "norm2.weight": "output_norm.weight",
            "norm2.bias": "output_norm.bias",
        }
        layer.load_state_dict({k: w[f"blocks.{number}.{v}"] for k, v in names.items()})
        x = layer(x, src_mask=hidden.repeat_interleave(2, dim=0))
    return x[:, -1] @ w["items.weight"].T


def original_scores(model: NextItemRecommender, batch: Batch) -> Tensor:
    """Scores as the authors' code makes them, head by head over padded rows."""
    w = model.state_dict()
    x, real = padded_input(model, batch, math.sqrt(16))
    x = x * real[:, :, None]
    seen = torch.ones(WINDOW, WINDOW, dtype=torch.bool).tril() & real[:, None, :]
    for number in range(2):
        p = {k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"blocks.{number}.")}
        normed = layer_norm(x, (16,), p["query_norm.weight"], p["query_norm.bias"], eps=1e-8)
        maps = list(p["query_key_value.weight"].split(16))
        shifts = list(p["query_key_value.bias"].split(16))
        q = normed @ maps[0].T + shifts[0]
        k, v = x @ maps[1].T + shifts[1], x @ maps[2].T + shifts[2]
        mixed = []
        for head in (slice(0, 8), slice(8, 16)):
            scores = q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(8)
            weights = torch.softmax(scores.masked_fill(~seen, -(2.0**32)), dim=2)
            mixed.append(weights @ v[..., head])
        y = normed + torch.cat(mixed, dim=2)
        y = layer_norm(y, (16,), p["inner_norm.weight"], p["inner_norm.bias"], eps=1e-8)
        inner = (y @ p["expand.weight"].T + p["expand.bias"]).relu()
        x = (y + inner @ p["contract.weight"].T + p["contract.bias"]) * real[:, :, None]
    last = layer_norm(x[:, -1], (16,), w["output_norm.weight"], w["output_norm.bias"], eps=1e-8)
    return last @ w["items.weight"].T


@pytest.mark.parametrize(
    ("block", "plain"), [("s3", s3_scores), ("original", original_scores)], ids=["s3", "original"]
)
@pytest.mark.parametrize(
    "lengths",
    [(1, 1, 2, 5, 12, 12, 7, 30, 3), (6,) * 9, (5, 6, 6, 7), (9,), (40,)],
    ids=["mixed", "equal", "nearly equal", "one", "one, cut"],
)
def test_sasrec_is_its_published_padded_form(
    block: str, plain: Callable[[NextItemRecommender, Batch], Tensor], lengths: tuple[int, ...]
) -> None:
    model = sasrec(block)
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, N_ITEMS + 1, n).tolist() for n in lengths]
    batch = batch_of_lists(rows, WINDOW)
    with torch.no_grad():
        found, expected = model.scores(batch)[:, 1:], plain(model, batch)[:, 1:]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("positions", ["recency", "start", "none"])
def test_the_company_of_a_history_changes_nothing(positions: str) -> None:
    model = sasrec("s3", positions=positions)
    rows = np.random.default_rng(1).integers(1, N_ITEMS + 1, (4, 6)).tolist()
    with torch.no_grad():
        even = model.query(batch_of_lists(rows, WINDOW))
        mixed = model.query(batch_of_lists([*rows, rows[0] * 3], WINDOW))[:4]
        alone = torch.cat([model.query(batch_of_lists([row], WINDOW)) for row in rows])
    torch.testing.assert_close(even, mixed, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(even, alone, atol=1e-9, rtol=1e-9)


def test_one_weight_scales_every_input_of_the_original_by_the_root_of_the_width() -> None:
    model = sasrec("original", layers=0)
    batch = batch_of_lists([[3]], WINDOW)
    w = model.state_dict()
    x = 4 * w["items.weight"][3] + w["positions.weight"][-1]
    expected = layer_norm(x, (16,), w["output_norm.weight"], w["output_norm.bias"], eps=1e-8)
    torch.testing.assert_close(model.query(batch)[0], expected)


def by_hand(model: NextItemRecommender, batch: Batch, kind: str) -> list[float]:
    """The loss of each target, one at a time, from the scores of all items."""
    assert batch.targets is not None and batch.target_at is not None
    states = model.encode(batch, last_only=False)[batch.target_at]
    bias = model.item_bias()
    scores = states @ model.item_vectors().T + (0.0 if bias is None else bias)
    found = []
    for m, target in enumerate(batch.targets.tolist()):
        s = scores[m]
        if kind == "softmax":
            found.append(torch.logsumexp(s[1:], 0) - s[target])
            continue
        assert batch.negatives is not None
        drawn = batch.negatives if batch.negatives.dim() == 1 else batch.negatives[m]
        if kind in ("bce", "gbce"):
            beta, n = 1.0, len(drawn)
            if kind == "gbce":
                alpha = n / (N_ITEMS - 1)
                beta = alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
            found.append(-beta * logsigmoid(s[target]) - logsigmoid(-s[drawn]).sum())
        elif kind == "bpr":
            found.append(-logsigmoid(s[target] - s[drawn]).mean())
        else:
            q = torch.zeros(len(drawn), dtype=s.dtype)
            own = torch.zeros((), dtype=s.dtype)
            if kind == "logq":
                assert batch.negative_log_q is not None and batch.target_log_q is not None
                q, own = batch.negative_log_q.to(s.dtype), batch.target_log_q[m].to(s.dtype)
            others = (s[drawn] - q)[drawn != target]
            top = s[target] - own
            found.append(torch.logsumexp(torch.cat([top[None], others]), 0) - top)
    return [float(value.detach()) for value in found]


LOSSES = {
    "softmax": {"loss": "softmax"},
    "bce": {"loss": "bce", "negatives": 1},
    "bce, four negatives": {"loss": "bce", "negatives": 4},
    "gbce": {"loss": "gbce", "negatives": 5},
    "bpr": {"loss": "bpr", "negatives": 3},
    "logq": {"loss": "sampled_softmax", "negatives": 15, "negative_power": 0.7},
    "logq, in batch": {"loss": "sampled_softmax", "negatives": 5, "in_batch": True},
    "sampled softmax": {"loss": "sampled_softmax", "negatives": 15, "logq": False},
}


@pytest.mark.parametrize("targets", ["every", "prefix", "last"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["sasrec", "gru4rec"])
def test_every_loss_is_what_it_is_by_hand(kind: str, name: str, targets: str) -> None:
    torch.manual_seed(0)
    settings = {"max_length": 8, "width": 16, "dropout": 0.0, "targets": targets, **LOSSES[name]}
    model = make_model(kind, N_ITEMS, settings)
    assert isinstance(model, NextItemRecommender)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model = model.double().eval()
    batch = first_batch(model, shop(12))
    total, each = model.target_losses(batch)
    expected = by_hand(model, batch, name.split(",")[0])
    np.testing.assert_allclose(each.numpy(), expected, rtol=2e-6)
    assert float(total.detach()) == pytest.approx(sum(expected) / len(expected), rel=2e-6)


@pytest.mark.parametrize("exclude", [True, False])
def test_later_items_are_kept_from_being_negatives_only_if_asked(exclude: bool) -> None:
    whole = shop(30)
    train = whole.without_last(2)
    settings = {k: SMALL[k] for k in ("max_length", "width")}
    settings |= {"loss": "bce", "negatives": 200, "exclude_future": exclude}
    model = make_model("sasrec", N_ITEMS, settings)
    sampler = model.negative_sampler(train, torch.device("cpu"), whole)
    assert sampler is not None
    users = torch.arange(1, 30)
    drawn = sampler.draw(users, torch.ones(29), torch.Generator().manual_seed(0)).items
    met_later = False
    for user, items in zip(users.tolist(), drawn, strict=True):
        assert not set(items.tolist()) & set(train[user].tolist())
        met_later |= bool(set(items.tolist()) & set(whole[user].tolist()))
    assert met_later is not exclude


def test_in_bf16_the_softmax_over_the_catalogue_is_nearly_the_same() -> None:
    found = []
    for precision in ("32", "bf16"):
        torch.manual_seed(0)
        settings = {"max_length": 8, "width": 16, "dropout": 0.0, "output_precision": precision}
        model = make_model("sasrec", N_ITEMS, settings)
        batch = stream_of(model, shop()).batch(np.arange(59), 0, 0)
        found.append(float(model.loss(batch).total.detach()))
    assert found[1] == pytest.approx(found[0], rel=1e-3) and found[0] != found[1]


def test_the_original_block_draws_each_matrix_by_its_own_size() -> None:
    """Queries, keys and values lie in one matrix; Glorot's bound is that of each, as published."""
    width = 32
    torch.manual_seed(0)
    model = make_model("sasrec", N_ITEMS, {"block": "original", "width": width, "heads": 1})
    bound = math.sqrt(6 / (2 * width))
    fused = [w for name, w in model.named_parameters() if "query_key_value.weight" in name]
    assert len(fused) == 2
    for weight in fused:
        for piece in weight.chunk(3):
            assert 0.95 * bound < float(piece.detach().abs().max()) <= bound
