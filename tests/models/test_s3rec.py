"""S3-Rec: its objectives by brute force, its two stages, and SASRec without the first."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    MAX_LENGTH,
    N_ITEMS,
    Form,
    dataset_of,
    first_batch,
    in_both_precisions,
    shop,
)
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from nextup.augment.packed import Packed
from nextup.augment.segments import items_not_in_row, random_segments
from nextup.data.attributes import attribute_matrix
from nextup.data.catalog import Catalog
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError, InputError
from nextup.models.gaps import View
from nextup.models.registry import make_model
from nextup.models.s3rec import S3Rec
from nextup.models.store import load_model
from nextup.nn.agreement import told_apart
from nextup.train.fit import fit

ALL = {"mip_weight": 1.0, "map_weight": 1.0, "aap_weight": 0.2, "sp_weight": 0.5}
QUICK: dict[str, Any] = {
    "width": 16,
    "max_length": MAX_LENGTH,
    "loss": "bce",
    "epochs": 2,
    "batch_size": 16,
    "pretrain_batch_size": 64,
}


def pretraining(lively: float = 0.3, **settings: Any) -> S3Rec:
    """A model in its first stage, without dropout."""
    form = Form("s3rec", {**ALL, **settings})
    model = form.fresh(dropout=0.0)
    assert isinstance(model, S3Rec)
    model.begin_stage("pre-train", resumed=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * lively)
        model.items.weight[0].zero_()
    return model


def test_without_pretraining_it_is_sasrec_to_the_bit(tmp_path: Path) -> None:
    data = dataset_of(shop(40))
    plain = {k: v for k, v in QUICK.items() if not k.startswith("pretrain")}
    fit(data, "sasrec", run=tmp_path / "a", settings=plain, seed=3, device="cpu", progress=False)
    zero = {**QUICK, **ALL, "pretrain_epochs": 0}
    fit(data, "s3rec", run=tmp_path / "b", settings=zero, seed=3, device="cpu", progress=False)
    one, two = (load_model(tmp_path / run / "recommender")[0].state_dict() for run in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_fit_has_two_stages_and_saves_what_sasrec_has(tmp_path: Path) -> None:
    data = dataset_of(shop(40))
    settings = {**QUICK, **ALL, "pretrain_epochs": 3}
    fit(data, "s3rec", run=tmp_path / "r", settings=settings, device="cpu", progress=False)
    log = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["epoch"]) for e in log] == [
        *[("pre-train", n) for n in (1, 2, 3)],
        *[("fine-tune", n) for n in (1, 2)],
    ]
    assert {"mip", "map", "aap", "sp"} <= log[0].keys() and "bce" in log[-1]
    assert log[2]["loss"] < log[0]["loss"]
    saved = load_model(tmp_path / "r" / "recommender")[0].state_dict()
    sasrec = make_model("sasrec", N_ITEMS, {"width": 16, "max_length": MAX_LENGTH}).state_dict()
    assert {k: v.shape for k, v in saved.items()} == {k: v.shape for k, v in sasrec.items()}


@pytest.mark.parametrize(("stage", "step"), [("pre-train", 5), ("fine-tune", 1), ("fine-tune", 5)])
def test_a_fit_that_dies_in_either_stage_goes_on_as_if_it_had_not(
    stage: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset_of(shop(40))
    settings = {**QUICK, **ALL, "pretrain_epochs": 2, "checkpoint_seconds": 0.0}
    settings["pretrain_batch_size"] = 32

    def run(name: str, **more: Any) -> dict[str, Tensor]:
        where = tmp_path / name
        fit(data, "s3rec", run=where, settings=settings, device="cpu", progress=False, **more)
        return load_model(where / "recommender")[0].state_dict()

    expected = run("whole")
    original, calls = S3Rec.loss, []

    def dying(self: S3Rec, batch: Any) -> Any:
        calls.append("fine-tune" if self.heads is None else "pre-train")
        if calls[-1] == stage and calls.count(stage) == step:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(S3Rec, "loss", dying)
    with pytest.raises(KeyboardInterrupt):
        run("dead")
    monkeypatch.setattr(S3Rec, "loss", original)
    found = run("dead", resume=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_fresh_model_tells_nothing_apart() -> None:
    model = pretraining(lively=0.0)
    batch = first_batch(model)
    torch.manual_seed(0)
    hidden = torch.rand(len(batch.tokens)) < 0.2
    hidden[batch.last_at] = True
    torch.manual_seed(0)
    parts = model.loss(batch).parts
    gaps, n_kinds, n_long = int(hidden.sum()), 8, int((batch.lengths > 1).sum())
    rows = len(batch)
    assert float(parts["mip"]) == pytest.approx(math.log(2) * gaps / rows, rel=0.02)
    assert float(parts["sp"]) == pytest.approx(math.log(2) * n_long / rows, rel=0.02)
    assert float(parts["map"]) == pytest.approx(math.log(2) * gaps * n_kinds / rows, rel=0.02)
    kept = len(hidden) - gaps
    assert float(parts["aap"]) == pytest.approx(math.log(2) * kept * n_kinds / rows, rel=0.02)


def test_two_sigmoids_bound_what_a_comparison_costs() -> None:
    far = torch.tensor([100.0])
    assert float(told_apart(far, -far)) == pytest.approx(0.3133, abs=1e-4)
    assert float(told_apart(-far, far)) == pytest.approx(1.3133, abs=1e-4)
    assert float(told_apart(far, far)) == pytest.approx(math.log(2))


def alone(model: S3Rec, tokens: Tensor, hidden: Tensor) -> Tensor:
    """States of one row."""
    rows = Packed.of(tokens, np.array([len(tokens)]))
    (states,), _ = model.read(
        [View(rows, hidden, torch.ones_like(hidden))], model.heads.gap, tokens[:0]
    )
    return states


@torch.no_grad()
def test_the_objectives_by_brute_force_row_by_row() -> None:
    model = pretraining()
    batch = first_batch(model)
    torch.manual_seed(5)
    losses = model.loss(batch)
    # The same draws, in the same order.
    torch.manual_seed(5)
    packed = Packed.of(batch.tokens, batch.lengths)
    hidden = torch.rand(len(batch.tokens)) < model.config.mask_share
    hidden[batch.last_at] = True
    gaps = torch.nonzero(hidden).squeeze(1)
    others = torch.zeros_like(batch.tokens)
    others[gaps] = items_not_in_row(packed, gaps, N_ITEMS)
    long = packed.between(int((batch.lengths < 2).sum()), len(batch))
    drawn = random_segments(long, model._corpus)
    has = attribute_matrix(dataset_of(shop()).catalog.attributes["attributes"]).to_dense()  # type: ignore[index]
    heads, table = model.heads, model.items.weight
    expected = dict.fromkeys(("mip", "map", "aap", "sp"), 0.0)
    lengths = batch.lengths.tolist()
    for tokens, gap, other in zip(
        *(torch.split(x, lengths) for x in (batch.tokens, hidden, others)), strict=True
    ):
        states = alone(model, tokens, gap)
        for state, item, is_gap, stranger in zip(states, tokens, gap, other, strict=True):
            name = "map" if is_gap else "aap"
            told = (getattr(heads, name)(state) @ heads.attributes.T).sigmoid()
            expected[name] += float(binary_cross_entropy(told, has[item], reduction="sum"))
            if is_gap:
                right, wrong = ((heads.mip(state) @ table[i]).sigmoid() for i in (item, stranger))
                expected["mip"] -= float((right - wrong).sigmoid().log())
    lengths = long.lengths.tolist()
    for tokens, inside, stranger in zip(
        *(torch.split(x, lengths) for x in (long.tokens, drawn.inside, drawn.strangers)),
        strict=True,
    ):
        context = heads.sp(alone(model, tokens, inside)[-1])
        right = (context @ alone(model, tokens, ~inside)[-1]).sigmoid()
        wrong = (context @ alone(model, stranger, ~inside)[-1]).sigmoid()
        expected["sp"] -= float((right - wrong).sigmoid().log())
    for name, value in expected.items():
        assert float(losses.parts[name]) == pytest.approx(value / len(batch), rel=1e-4), name
    weighted = sum(ALL[f"{name}_weight"] * value for name, value in expected.items())
    assert float(losses.total) == pytest.approx(weighted / len(batch), rel=1e-4)


@torch.no_grad()
def test_pretraining_reads_in_both_directions_and_never_what_is_hidden() -> None:
    model = pretraining().eval()
    row, hidden = torch.tensor([3, 1, 4, 1, 5]), torch.tensor([False, False, True, False, False])
    before = alone(model, row, hidden)
    later, secret = row.clone(), row.clone()
    later[4], secret[2] = 33, 33
    assert (before[0] - alone(model, later, hidden)[0]).abs().max() > 1e-4
    assert torch.equal(before, alone(model, secret, hidden))
    # Afterwards nothing looks ahead any more.
    assert all(block.causal for block in model.blocks)


def test_each_objective_trains_alone_and_only_what_it_needs() -> None:
    for name in ("mip", "sp", "map", "aap"):
        weights = {**dict.fromkeys(ALL, 0.0), f"{name}_weight": 2.0}
        model = pretraining(**weights)
        losses = model.loss(first_batch(model))
        assert losses.parts.keys() == {name}
        torch.testing.assert_close(losses.total.detach(), 2 * losses.parts[name])
        losses.total.backward()  # type: ignore[no-untyped-call]
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


def test_every_prefix_of_a_training_history_is_a_row() -> None:
    model = pretraining()
    train = Sequences.from_lists([[1, 2, 3], [4]])
    stream = model.training_stream(train, batch_size=10, seed=0, device=torch.device("cpu"))
    batch = stream.batch(stream.order(0), 0, 0)
    found = [row.tolist() for row in torch.split(batch.tokens, batch.lengths.tolist())]
    assert sorted(found) == [[1], [1, 2], [1, 2, 3], [4]]


def test_a_batch_of_single_items_has_no_segments() -> None:
    model = pretraining()
    train = Sequences.from_lists([[1], [4]])
    stream = model.training_stream(train, batch_size=10, seed=0, device=torch.device("cpu"))
    parts = model.loss(stream.batch(stream.order(0), 0, 0)).parts
    assert float(parts["sp"]) == 0.0 and float(parts["mip"]) > 0


def test_objectives_that_need_attributes_say_so() -> None:
    ids = dataset_of(shop()).catalog.ids
    for weight in ("map_weight", "aap_weight"):
        model = make_model("s3rec", N_ITEMS, {weight: 1.0})
        with pytest.raises(ConfigError, match="nextup prepare --attributes FILE"):
            model.meet(Catalog(ids))
        with pytest.raises(ConfigError, match="the catalogue has `genres`"):
            model.meet(Catalog(ids, attributes={"genres": [["a"]] * N_ITEMS}))
        with pytest.raises(ConfigError, match="no item has a value"):
            model.meet(Catalog(ids, attributes={"attributes": [None] * N_ITEMS}))
    make_model("s3rec", N_ITEMS, {"map_weight": 1.0, "pretrain_epochs": 0}).meet(Catalog(ids))
    make_model("s3rec", N_ITEMS).meet(Catalog(ids))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": "original"}, "both directions"),
        ({"mip_weight": 0.0, "sp_weight": 0.0}, "set pretrain_epochs to 0"),
        ({"mip_weight": -1.0}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_model("s3rec", N_ITEMS, settings)


def test_a_step_of_pretraining_in_bf16_is_the_same_less_precisely() -> None:
    model = pretraining()
    (loss, gradient), (narrow, narrow_gradient) = in_both_precisions(model)
    assert narrow == pytest.approx(loss, rel=0.03)
    assert torch.nn.functional.cosine_similarity(gradient, narrow_gradient, dim=0) > 0.95


def test_the_gradient_is_that_of_finite_differences() -> None:
    model = pretraining(lively=0.1).double()
    batch = first_batch(model)

    def loss() -> Tensor:
        torch.manual_seed(0)
        return model.loss(batch).total

    loss().backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        if name == "items.weight":
            direction[0] = 0.0
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        with torch.no_grad():
            ends = []
            for sign in (1, -2):
                parameter.add_(direction, alpha=sign * step)
                ends.append(float(loss()))
            parameter.add_(direction, alpha=step)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("more", [{"mip_weight": 0.0}, {"max_length": 3}])
def test_who_has_met_every_item_is_no_obstacle_where_a_row_leaves_some(
    more: dict[str, Any],
) -> None:
    train = Sequences.from_lists([[1, 2, 3, 4], [4, 1]])
    form = {"width": 4, "max_length": 4, "loss": "softmax"}
    make_model("s3rec", 4, {**form, **more}).prepare(train, torch.device("cpu"))
    with pytest.raises(InputError, match="has met all 4 items"):
        make_model("s3rec", 4, form).prepare(train, torch.device("cpu"))
