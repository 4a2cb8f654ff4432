"""Fresh weights have the spread that each model's authors gave them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nextup.data.sequences import Sequences
from nextup.models.base import Recommender
from nextup.models.registry import make_model

N_ITEMS, N_USERS, WIDTH = 400, 300, 32
TRAIN = Sequences.from_lists([[user % N_ITEMS + 1, 3, 5, 7] for user in range(N_USERS)])
CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
"""What is left of the standard deviation of a normal that is cut off at two of them."""


def fresh(name: str, **settings: object) -> Recommender:
    torch.manual_seed(0)
    model = make_model(name, N_ITEMS, {"width": WIDTH, **settings})
    model.prepare(TRAIN, torch.device("cpu"))
    return model


@pytest.mark.parametrize(
    ("name", "settings", "weights", "std"),
    [
        ("bpr", {}, "items.weight", 0.02),
        ("bpr", {"initial_std": 0.1}, "items.weight", 0.1),
        ("bpr", {}, "users.weight", 0.02),
        ("fpmc", {}, "users.weight", 0.01),
        ("fossil", {}, "items.weight", 0.01),
        ("fossil", {}, "outputs.weight", 0.01),
        ("fossil", {"order": 9}, "users.weight", 0.01),
        ("caser", {}, "items.weight", 1 / WIDTH),
        ("caser", {}, "outputs.weight", 1 / (2 * WIDTH)),
        ("caser", {}, "users.weight", 1 / WIDTH),
        ("hgn", {}, "items.weight", 1 / WIDTH),
        ("hgn", {}, "outputs.weight", 1 / WIDTH),
        ("hgn", {}, "users.weight", 1 / WIDTH),
        ("nextitnet", {}, "items.weight", 0.02 * CUT),
        ("nextitnet", {}, "outputs.weight", 0.02 * CUT),
        ("nextitnet", {}, "blocks.0.first.weight", 0.02 * CUT),
        ("grec", {}, "encoder_items.weight", 0.02 * CUT),
        ("grec", {}, "decoder_items.weight", 0.02 * CUT),
        ("grec", {}, "outputs.weight", 0.02 * CUT),
        ("grec", {}, "widen.weight", 0.02 * CUT),
        ("grec", {}, "narrow.weight", 0.02 * CUT),
    ],
)
def test_the_spread_is_the_stated_one(
    name: str, settings: dict[str, object], weights: str, std: float
) -> None:
    found = dict(fresh(name, **settings).named_parameters())[weights].detach()
    real = found if weights.startswith("users") else found[1:]  # row 0 is padding
    assert float(real.std()) == pytest.approx(std, rel=0.08)
    assert abs(float(real.mean())) < std / 10


@pytest.mark.parametrize("name", ["fpmc"])
def test_all_tables_of_fpmc_start_alike(name: str) -> None:
    model = fresh(name)
    tables = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    assert len(tables) >= 2
    for table in tables:
        assert float(table.weight[1:].detach().std()) == pytest.approx(0.01, rel=0.08)
        assert not table.weight[0].any()


@pytest.mark.parametrize("name", ["bpr", "fossil", "caser", "hgn", "nextitnet", "grec"])
def test_biases_of_items_start_at_zero(name: str) -> None:
    bias = fresh(name).item_bias()
    assert bias is not None and not bias.any()


@pytest.mark.parametrize(
    ("name", "weights", "bound"),
    [
        ("hgn", "place_by_item", math.sqrt(6 / (WIDTH + 1))),
        ("hgn", "place_by_user", math.sqrt(6 / (WIDTH + 5))),
    ],
)
def test_what_is_uniform_lies_between_the_stated_bounds(
    name: str, weights: str, bound: float
) -> None:
    found = dict(fresh(name).named_parameters())[weights].detach()
    assert 0.7 * bound < float(found.abs().max()) <= bound
    assert float(found.std()) == pytest.approx(bound / math.sqrt(3), rel=0.25)


def test_what_all_users_of_fossil_share_starts_at_zero() -> None:
    assert not dict(fresh("fossil").named_parameters())["steps"].any()
