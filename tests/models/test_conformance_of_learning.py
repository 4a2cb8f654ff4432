"""What the learning of every recommender must be: its loss, its gradients, its first step."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from small_models import (
    N_ITEMS,
    Form,
    batches,
    first_batch,
    in_both_precisions,
    shop,
    trainable,
)

every_trainable_form = pytest.mark.parametrize("form", trainable(), ids=str)


@every_trainable_form
def test_a_loss_is_a_mean_over_the_targets_of_the_step(form: Form) -> None:
    model = form.lively(dropout=0.0, attention_dropout=0.0, entropy_weight=0.0, l2=0.0)
    batch = first_batch(model)
    torch.manual_seed(0)
    losses = model.loss(batch)
    assert losses.total.shape == () and torch.isfinite(losses.total)
    assert losses.parts and all(not part.requires_grad for part in losses.parts.values())
    torch.manual_seed(0)
    more = {"target_total": 2 * batch.target_total, "row_total": 2 * batch.row_total}
    twice = model.loss(replace(batch, **more))
    torch.testing.assert_close(2 * twice.total, losses.total)


@every_trainable_form
def test_every_weight_learns_and_padding_does_not(form: Form) -> None:
    model = form.lively().train()
    for step, batch in islice(batches(model, shop()), 10):
        torch.manual_seed(step)  # layers may be left out of a step at random
        model.loss(batch).total.backward()
    learns = {id(p) for group in model.parameter_groups() for p in group.parameters}
    trained = [p for p in model.named_parameters() if id(p[1]) in learns]
    assert trained
    for name, parameter in trained:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
        if len(parameter) == N_ITEMS + 1:
            assert (parameter.grad[0] == 0).all(), f"{name}: padding has a gradient"


@every_trainable_form
def test_a_fresh_model_starts_near_the_loss_of_knowing_nothing(form: Form) -> None:
    model = form.fresh().eval()
    kind = getattr(model.config, "loss", None)
    expected = {"softmax": np.log(N_ITEMS), "bpr": np.log(2), "bce": None}.get(kind)
    if kind == "bce":
        expected = (1 + getattr(model.config, "negatives", 1)) * np.log(2)
    if expected is None:
        pytest.skip("no closed form")
    if getattr(model.config, "block", "") == "original":
        pytest.skip("Glorot's weights and the last LayerNorm do not start near zero scores")
    assert float(model.loss(first_batch(model)).parts[kind]) == pytest.approx(expected, rel=0.05)


@every_trainable_form
def test_a_step_in_bf16_is_the_same_step_less_precisely(form: Form) -> None:
    model = form.lively(dropout=0.0, attention_dropout=0.0)
    (loss, gradient), (narrow, narrow_gradient) = in_both_precisions(model)
    assert narrow == pytest.approx(loss, rel=0.03)
    assert torch.nn.functional.cosine_similarity(gradient, narrow_gradient, dim=0) > 0.95


NO_PLAIN_GRADIENT = {
    "gru4rec_official": "a step goes on from the states of the step before",
    "ssi": "what teachers said is kept in single precision",
}
"""Models whose gradients are checked in tests of their own."""


@every_trainable_form
def test_gradients_are_those_of_the_loss(form: Form) -> None:
    """Along a random direction through all weights at once, tied tables by both their paths."""
    if form.model in NO_PLAIN_GRADIENT:
        pytest.skip(NO_PLAIN_GRADIENT[form.model])
    model = form.lively().double().train()
    batch, groups = first_batch(model), model.parameter_groups()
    if getattr(model.config, "estimator", None):  # keep logits are estimated, not derived
        groups = [group for group in groups if group.decays]
    weights = [weight for group in groups for weight in group.parameters]

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return model.loss(batch).total

    loss().backward()  # type: ignore[no-untyped-call]
    torch.manual_seed(1)
    ways = [torch.randn_like(weight) for weight in weights]
    for way in ways:
        if len(way) == N_ITEMS + 1:
            way[0] = 0  # padding does not learn, even where it is read
    slopes = [
        (w.grad * way).sum() for w, way in zip(weights, ways, strict=True) if w.grad is not None
    ]
    found = []
    for size in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, way in zip(weights, ways, strict=True):
                weight.add_(way, alpha=size)
            found.append(float(loss()))
    slope = float(torch.stack(slopes).sum())
    assert (found[0] - found[1]) / 2e-6 == pytest.approx(slope, rel=1e-4, abs=1e-6)
