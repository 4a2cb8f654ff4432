"""Learnable augmentation on whole models: credit without bias, twins, groups, what is logged."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import N_ITEMS, Form, first_batch, scores_of
from torch import Tensor

from nextup.data.batches import Batch, batch_of_lists
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError
from nextup.models.learnable import LearnableAugmentation, _twice
from nextup.nn import learnable_dropout
from nextup.nn.learnable_dropout import LearnableDropout

ENCODERS = pytest.mark.parametrize("name", ["lma4rec", "lma4gru"])
QUIET = {"dropout": 0.0, "attention_dropout": 0.0, "initial_keep": 0.6}


def learner(name: str = "lma4rec", **settings: Any) -> LearnableAugmentation:
    """A lively model in training, with enough contrast to matter."""
    form = Form(name, {"loss": "bce", "contrast_weight": 0.3, **settings})
    model = form.lively(seed=2)
    assert isinstance(model, LearnableAugmentation)
    return model.train()


def gradients(model: LearnableAugmentation, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    model.loss(batch).total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def two_rows() -> Batch:
    histories = Sequences.from_lists([[3, 9, 4, 30, 11], [8, 2, 17]])
    model = learner(layers=1)
    batch = first_batch(model, histories)
    assert len(batch) == 2
    return batch


@ENCODERS
@pytest.mark.parametrize("estimator", ["arm", "disarm"])
@pytest.mark.parametrize("targets", ["every", "last"])
def test_the_two_ways_to_run_both_passes_agree(name: str, estimator: str, targets: str) -> None:
    found = []
    for passes in ("replayed", "doubled"):
        model = learner(name, passes=passes, estimator=estimator, targets=targets)
        found.append(gradients(model, first_batch(model)))
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key], atol=2e-4, rtol=2e-3)
    assert any(float(g.abs().max()) > 0 for n, g in found[0].items() if n.endswith("logits"))


@ENCODERS
def test_learning_from_both_passes_is_the_mean_of_learning_from_each(name: str) -> None:
    both = learner(name, weights_from="both", passes="replayed")
    batch = first_batch(both)
    mean = gradients(both, batch)
    doubled = gradients(learner(name, weights_from="both", passes="doubled"), batch)
    first = gradients(learner(name, passes="replayed"), batch)
    moved = 0.0
    for key in mean:
        torch.testing.assert_close(mean[key], doubled[key], atol=2e-4, rtol=2e-3)
        moved += float((mean[key] - first[key]).abs().sum())
    assert moved > 0.01


@ENCODERS
@pytest.mark.parametrize("passes", ["replayed", "doubled"])
@pytest.mark.parametrize("share", ["sequence", "token"])
def test_equal_masks_differ_by_exactly_nothing(
    name: str, passes: str, share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is random (dropout, views, negatives) must be the same in both passes."""
    true = learnable_dropout.antithetic_masks

    def equal(u: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        return (true(u, logits)[0],) * 2

    model = learner(name, passes=passes, keep_share=share, keep_loss="recommendation")
    batch = first_batch(model)
    found = gradients(model, batch)
    assert any(float(g.abs().max()) > 0 for key, g in found.items() if key.endswith("logits"))
    monkeypatch.setattr(learnable_dropout, "antithetic_masks", equal)
    for key, gradient in gradients(model, batch).items():
        if key.endswith("logits"):
            limit = 0.0 if passes == "replayed" else 1e-7  # other shapes may round otherwise
            assert gradient.abs().max() <= limit
    model = learner(name, passes=passes, keep_share=share, keep_loss="contrast")
    for key, gradient in gradients(model, batch).items():
        if key.endswith("logits"):
            assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("share", "credit", "estimator"),
    [("sequence", "swap", "disarm"), ("sequence", "global", "disarm"), ("sequence", "swap", "arm")],
)
def test_the_logits_gradient_is_that_of_the_expected_loss(
    share: str, credit: str, estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all masks of a tiny model: 6 rows (2 histories, 4 views) with 2 units each.

    (Without a norm after the mask, which of 2 units would leave nothing but signs.)
    """
    settings = {"width": 2, "hidden": 2, "layers": 1, "augment": False, "loss": "bce"}
    options = {"keep_share": share, "credit": credit, "estimator": estimator}
    model = learner("lma4gru", **settings, **options, dropout=0.0, initial_keep=0.6)  # type: ignore[arg-type]
    batch = two_rows()
    (layer,) = model.drops
    rows, units = 6, 2
    p = layer.keep.detach().double()
    # The loss as a function of the masks, by forcing both masks of every pass.
    forced: list[Tensor] = []
    monkeypatch.setattr(
        learnable_dropout, "antithetic_masks", lambda u, logits: (forced[0], forced[0])
    )
    exact = torch.zeros(units).double()
    with torch.no_grad():
        for bits in itertools.product([0.0, 1.0], repeat=rows * units):
            z = torch.tensor(bits).view(rows, units)
            forced[:] = [z]
            parts = model.loss(batch).parts
            value = float(parts["bce"]) + 0.3 * float(parts["contrast"])
            chance = torch.where(z > 0, p, 1 - p).prod()
            exact += chance * value * (z.double() - p).sum(dim=0)
    monkeypatch.undo()
    found = []
    torch.manual_seed(5)
    for _ in range(800):
        model.zero_grad()
        total = model.loss(batch).total
        (gradient,) = torch.autograd.grad(total, layer.logits)
        found.append(gradient.double())
    each = torch.stack(found)
    error = each.std(dim=0) / math.sqrt(len(each))
    assert ((each.mean(dim=0) - exact).abs() < 4 * error).all(), (each.mean(dim=0), exact, error)
    assert (exact.abs() > 4 * error).any()  # or the test could not fail


def test_a_share_of_the_views_is_credited_with_what_it_costs() -> None:
    """The two kinds of credit have one mean, that of the loss; the views are half of those."""
    settings = {"width": 4, "heads": 1, "layers": 1, "augment": False, "contrast_share": 0.5}
    means = []
    for credit in ("swap", "global"):
        options = {"estimator": "disarm", "keep_loss": "contrast", "credit": credit}
        model = learner(**settings, **QUIET, **options)  # type: ignore[arg-type]
        batch = first_batch(model)
        torch.manual_seed(3)
        sums = []
        for _ in range(1500):
            total = model.loss(batch).total
            sums.append(float(torch.autograd.grad(total, model.drops[0].logits)[0].sum()))
        each = torch.tensor(sums).double()
        means.append((float(each.mean()), float(each.var()) / len(each)))
    (swap, noise), (whole, more) = means
    assert abs(swap - whole) < 4 * math.sqrt(noise + more)
    assert abs(swap / 2 - whole) > 4 * math.sqrt(noise / 4 + more)  # or the test could not fail


def test_token_credit_is_without_bias_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against credit of whole rows, which enumeration has shown to be right."""
    settings = {"width": 4, "heads": 1, "layers": 2, "augment": False, "keep_share": "token"}
    model = learner(**settings, **QUIET, estimator="disarm")  # type: ignore[arg-type]
    batch = two_rows()
    means = []
    for coarse in (False, True):
        if coarse:  # every token is credited with all that its row lost or gained

            def whole_row(values: Tensor, lengths: Any) -> Tensor:
                ends = torch.from_numpy(lengths).cumsum(0)
                sums = torch.stack([part.sum() for part in values.tensor_split(ends[:-1])])
                return sums.repeat_interleave(torch.from_numpy(lengths))

            monkeypatch.setattr("nextup.models.credit._sums_to_the_end", whole_row)
        torch.manual_seed(7 + coarse)
        each = torch.stack(
            [
                torch.cat(
                    torch.autograd.grad(model.loss(batch).total, [d.logits for d in model.drops])
                )
                for _ in range(800)
            ]
        ).double()
        means.append((each.mean(dim=0), each.var(dim=0) / len(each)))
    apart = (means[0][0] - means[1][0]).abs()
    assert (apart < 4.5 * (means[0][1] + means[1][1]).sqrt()).all()
    assert means[0][1][:4].sum() < means[1][1][:4].sum()  # finer credit, less variance


@ENCODERS
def test_the_value_of_the_loss_is_that_of_the_first_pass(name: str) -> None:
    """The estimate adds a gradient and no value."""
    model = learner(name)
    torch.manual_seed(1)
    losses = model.loss(first_batch(model))
    expected = losses.parts["bce"] + 0.3 * losses.parts["contrast"]
    torch.testing.assert_close(losses.total.detach(), expected)


@ENCODERS
def test_keep_logits_have_an_optimiser_group_of_their_own(name: str) -> None:
    model = learner(name, keep_rate=5.0)
    weights, logits = model.parameter_groups()
    assert {id(p) for p in logits.parameters} == {id(d.logits) for d in model.drops}
    assert logits.rate == 5.0 and not logits.decays and weights.decays
    everything = {id(p) for p in model.parameters()}
    assert {id(p) for g in (weights, logits) for p in g.parameters} == everything
    assert len(learner(name, estimator="frozen").parameter_groups()) == 1


def test_without_contrast_there_are_no_views_and_without_data_augmentation_no_lost_items() -> None:
    model = learner(contrast_weight=0.0)
    batch = first_batch(model)
    assert not model.streams(batch).has_views
    assert set(model.loss(batch).parts) == {"bce"}
    model = learner(augment=False)
    streams = model.streams(batch)
    assert len(streams.batch) == 3 * len(batch)
    assert len(streams.batch.tokens) == 3 * len(batch.tokens)


def test_two_views_of_a_row_meet_different_masks() -> None:
    model = learner(augment=False, **QUIET)
    batch = first_batch(model)
    streams = model.streams(batch)
    states = model.encode(streams.batch, last_only=False)
    at, layout = streams.views
    row = layout.row
    half = len(at) // 2
    by_row = states[at][torch.argsort(row, stable=True)]
    assert not torch.allclose(by_row[:half], by_row[half:])
    model.eval()
    states = model.encode(streams.batch, last_only=False)
    by_row = states[at][torch.argsort(row, stable=True)]
    torch.testing.assert_close(by_row[:half], by_row[half:])


def test_every_layer_starts_at_the_encoders_own_rate() -> None:
    model = learner(dropout=0.2)
    layers = [m for m in model.modules() if isinstance(m, LearnableDropout)]
    fresh = Form("lma4rec", {"dropout": 0.2}).fresh()
    assert len(layers) == len(model.drops) == 2
    for layer in fresh.drops:  # type: ignore[union-attr]
        torch.testing.assert_close(layer.keep, torch.full_like(layer.keep, 0.8))


def test_the_log_tells_what_the_logits_do() -> None:
    model = learner()
    batch = first_batch(model)
    for _ in range(3):
        model.loss(batch)
    found = model.diagnostics()
    for layer in ("1", "2"):
        least, mean, most = (found[f"keep.{layer}.{w}"] for w in ("least", "mean", "most"))
        assert 0 < least <= mean <= most < 1
        assert found[f"keep.{layer}.signal"] > 0 and 0 <= found[f"keep.{layer}.settled"] <= 1
    assert "keep.1.signal" not in model.diagnostics()  # counted anew
    frozen = Form("lma4rec", {"estimator": "frozen", "dropout": 0.4}).fresh()
    assert frozen.diagnostics()["keep.1.rate"] == pytest.approx(0.4)


def test_sampled_answers_differ_from_expected_ones_and_repeat() -> None:
    batch = batch_of_lists([[1, 2, 3], [4], [5, 6]], 8)
    expected = learner(initial_keep=0.5).eval()
    sampled = learner(initial_keep=0.5, answering="sampled", answer_samples=3).eval()
    one = scores_of(sampled, batch)
    assert torch.equal(one, scores_of(sampled, batch))
    assert not torch.allclose(one, scores_of(expected, batch))
    many = learner(initial_keep=0.5, answering="sampled", answer_samples=200).eval()
    assert one.shape == (3, N_ITEMS)
    closer = (scores_of(many, batch) - one).abs().mean()
    assert closer > 0


def test_a_step_of_one_history_has_a_credit() -> None:
    model = learner(credit="swap")
    stream = model.training_stream(
        Sequences.from_lists([[3, 9, 4, 30, 11]]), batch_size=4, seed=0, device=torch.device("cpu")
    )
    batch = stream.batch(stream.order(0), 0, 0)
    assert len(batch) == 1
    assert all(torch.isfinite(each).all() for each in gradients(model, batch).values())


def test_of_several_processes_each_adds_its_share_of_the_entropy() -> None:
    found = []
    for rows in (1, 2):  # as many rows as there are here, and twice as many
        for weight in (0.0, 0.5):
            model = learner(entropy_weight=weight, estimator="frozen")
            batch = first_batch(model)
            torch.manual_seed(0)
            whole = replace(batch, row_total=rows * len(batch))
            found.append(float(model.loss(whole).total.detach()))
    assert found[1] - found[0] == pytest.approx(2 * (found[3] - found[2]), rel=1e-3)
    assert abs(found[1] - found[0]) > 0.1


@pytest.mark.parametrize("more", [{"estimator": "concrete"}, {"keep_scale": "inverse"}])
def test_a_gradient_through_the_masks_is_of_the_total_loss(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gradients through the masks are of the total loss"):
        learner(keep_loss="recommendation", **more)


def test_rows_twice_over_are_of_the_same_users() -> None:
    batch = first_batch(learner())
    assert _twice(batch).users.tolist() == [*batch.users.tolist()] * 2
