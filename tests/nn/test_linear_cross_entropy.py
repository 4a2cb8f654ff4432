"""The chunked softmax against the stock one: values, gradients, precision, chunks."""

from __future__ import annotations

import pytest
import torch
from plain import close, finite_differences
from torch import Tensor
from torch.nn.functional import cross_entropy

from nextup.nn import linear_cross_entropy as chunked
from nextup.nn.linear_cross_entropy import linear_cross_entropy


def problem(
    m: int = 37, n: int = 50, d: int = 8, dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "states": (torch.randn(m, d, generator=g, dtype=torch.float64) * scale).to(dtype),
        "table": torch.randn(n + 1, d, generator=g, dtype=torch.float64).to(dtype),
        "bias": torch.randn(n + 1, generator=g, dtype=torch.float64).to(dtype),
        "weights": torch.rand(m, generator=g, dtype=torch.float64).to(dtype),
        "targets": torch.randint(1, n + 1, (m,), generator=g),
    }


def stock(p: dict[str, Tensor], with_bias: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Total, per-target losses and gradients by PyTorch alone, in double precision."""
    states, table, bias = (p[k].double().requires_grad_() for k in ("states", "table", "bias"))
    scores = states @ table.T + (bias if with_bias else 0.0)
    each = cross_entropy(scores[:, 1:], p["targets"] - 1, reduction="none")
    total = (each * p["weights"].double()).sum()
    leaves = [states, table, bias] if with_bias else [states, table]
    return total.detach(), each.detach(), list(torch.autograd.grad(total, leaves))


def ours(
    p: dict[str, Tensor], with_bias: bool, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    states, table, bias = (p[k].clone().requires_grad_() for k in ("states", "table", "bias"))
    total, each = linear_cross_entropy(
        states, table, p["targets"], p["weights"], bias if with_bias else None, dtype
    )
    leaves = [states, table, bias] if with_bias else [states, table]
    return total.detach(), each, list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 1000])
def test_values_and_gradients_are_those_of_the_stock_softmax_for_every_size_of_chunk(
    monkeypatch: pytest.MonkeyPatch, chunk: int, with_bias: bool
) -> None:
    monkeypatch.setattr(chunked, "chunk_rows", lambda device, n_items: chunk)
    p = problem()
    total, each, gradients = ours(p, with_bias)
    expected_total, expected_each, expected_gradients = stock(p, with_bias)
    close(total.double(), expected_total, 1e-9)
    close(each.double(), expected_each, 1e-9)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        close(found, expected, 1e-9)


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_agree_with_finite_differences(with_bias: bool) -> None:
    p = problem(m=5, n=6, d=3)
    _, _, gradients = ours(p, with_bias)
    names = ["states", "table", "bias"] if with_bias else ["states", "table"]
    for name, gradient in zip(names, gradients, strict=True):

        def total(value: Tensor, name: str = name) -> Tensor:
            q = {**p, name: value}
            bias = q["bias"] if with_bias else None
            return linear_cross_entropy(q["states"], q["table"], q["targets"], q["weights"], bias)[
                0
            ]

        close(gradient, finite_differences(total, p[name]), 1e-6)


@pytest.mark.parametrize("scale", [1.0, 3.0, 100.0, 1000.0])
def test_large_logits_neither_overflow_nor_lose_the_loss(scale: float) -> None:
    p = problem(dtype=torch.float32, scale=scale)
    total, each, gradients = ours(p, True)
    expected_total, expected_each, expected_gradients = stock(p, True)
    assert torch.isfinite(each).all()
    close(total.double(), expected_total, 1e-5)
    torch.testing.assert_close(each.double(), expected_each, rtol=1e-5, atol=2e-6 * scale + 1e-5)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        # The logits themselves are rounded to 6e-8 of some thousands.
        assert (found.double() - expected).norm() < 1e-3 * expected.norm()


def test_a_state_just_below_the_safe_exponent_is_exact_without_a_shift() -> None:
    # 59 at best: exponentials are taken as they are and must not overflow over many items.
    table = torch.zeros(20_001, 2)
    table[1:, 0] = 1.0
    table[7, 0] = -1.0
    states = torch.tensor([[59.0, 0.0], [-59.0, 0.0]])
    p = {
        "states": states,
        "table": table,
        "targets": torch.tensor([7, 7]),
        "weights": torch.ones(2),
        "bias": torch.zeros(20_001),
    }
    _, each, _ = ours(p, False)
    _, expected, _ = stock(p, False)
    close(each.double(), expected, 1e-5)


@pytest.mark.parametrize("score", [61.0, 89.0, 95.0, 200.0])
def test_exponentials_that_would_overflow_are_shifted(score: float) -> None:
    table = torch.zeros(4, 1)
    table[1:, 0] = torch.tensor([1.0, 0.9, -1.0])
    p = {"states": torch.tensor([[score]]), "table": table, "targets": torch.tensor([2])}
    p |= {"weights": torch.ones(1), "bias": torch.zeros(4)}
    _, each, gradients = ours(p, False)
    close(each, torch.tensor([0.1 * score]), 1e-2)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_bf16_products_stay_within_their_precision() -> None:
    p = problem(m=200, n=300, d=16, dtype=torch.float32)
    total, each, gradients = ours(p, True, torch.bfloat16)
    expected_total, expected_each, expected_gradients = stock(p, True)
    assert each.dtype == torch.float32
    assert abs(total.double() / expected_total - 1) < 5e-3
    assert (each.double() - expected_each).abs().max() < 0.25  # logits of 30 are rounded to 1/8
    assert (each.double() - expected_each).abs().mean() < 0.03
    for found, expected in zip(gradients, expected_gradients, strict=True):
        cosine = torch.nn.functional.cosine_similarity(
            found.double().reshape(1, -1), expected.reshape(1, -1)
        )
        assert cosine > 0.999
        assert found.dtype == torch.float32


def test_the_padding_row_gets_no_gradient_and_has_no_say() -> None:
    p = problem()
    total, _, gradients = ours(p, True)
    assert (gradients[1][0] == 0).all() and gradients[2][0] == 0
    p["table"][0] = 1e6
    p["bias"][0] = 1e6
    assert ours(p, True)[0] == total


def test_a_loss_without_gradient_is_the_same_number() -> None:
    p = problem()
    total, each, _ = ours(p, True)
    args = (p["states"], p["table"], p["targets"], p["weights"], p["bias"])
    for plain_total, plain_each in (linear_cross_entropy(*args), _without_grad(p)):
        assert not plain_total.requires_grad
        close(plain_total, total, 1e-12)
        close(plain_each, each, 1e-12)


def _without_grad(p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return linear_cross_entropy(
            p["states"].clone().requires_grad_(), p["table"], p["targets"], p["weights"], p["bias"]
        )


def test_the_gradient_follows_what_comes_after_the_loss() -> None:
    p = problem()
    states = p["states"].clone().requires_grad_()
    total, each = linear_cross_entropy(states, p["table"], p["targets"], p["weights"])
    assert total.requires_grad and not each.requires_grad
    (three,) = torch.autograd.grad(3.0 * total, states)
    close(three, 3.0 * stock(p, False)[2][0], 1e-9)


@pytest.mark.parametrize("frozen", ["states", "table"])
def test_one_side_may_be_frozen(frozen: str) -> None:
    p = problem()
    other = "table" if frozen == "states" else "states"
    p[other].requires_grad_()
    total, _ = linear_cross_entropy(p["states"], p["table"], p["targets"], p["weights"])
    (gradient,) = torch.autograd.grad(total, p[other])
    close(gradient, stock({k: v.detach() for k, v in p.items()}, False)[2][other == "table"], 1e-9)


def test_a_bias_may_learn_alone() -> None:
    p = problem()
    bias = torch.zeros(len(p["table"]), dtype=p["table"].dtype, requires_grad=True)
    total, _ = linear_cross_entropy(p["states"], p["table"], p["targets"], p["weights"], bias)
    (gradient,) = torch.autograd.grad(total, bias)
    assert gradient.abs().sum() > 0 and gradient[0] == 0


def test_no_targets_cost_nothing_and_can_be_learnt_from() -> None:
    states, table = torch.randn(0, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    total, each = linear_cross_entropy(states, table, none, torch.zeros(0))
    assert total.item() == 0 and each.shape == (0,)
    assert all((grad == 0).all() for grad in torch.autograd.grad(total, [states, table]))


def test_narrow_states_are_compared_with_a_wide_table_in_its_precision() -> None:
    torch.manual_seed(0)
    states, table = torch.randn(6, 8).bfloat16(), torch.randn(50, 8)
    targets, weights = torch.arange(1, 7), torch.ones(6)
    found = linear_cross_entropy(states, table, targets, weights)[1]
    close(found, linear_cross_entropy(states.float(), table, targets, weights)[1], 1e-5)


def test_the_weights_are_the_weights_of_a_sum() -> None:
    p = problem(dtype=torch.float32)
    p["weights"] = torch.zeros_like(p["weights"])
    p["weights"][3] = 2.0
    total, each, gradients = ours(p, False)
    close(total, 2.0 * each[3], 1e-6)
    assert (gradients[0][:3] == 0).all() and (gradients[0][4:] == 0).all()


def test_equal_scores_cost_the_log_of_the_number_of_items() -> None:
    _, each = linear_cross_entropy(
        torch.randn(4, 3), torch.zeros(12_102, 3), torch.tensor([1, 2, 3, 12_101]), torch.ones(4)
    )
    close(each, torch.full((4,), 12_101.0).log(), 1e-5)


def test_what_it_computes_in_is_what_was_asked_for_whatever_autocast_says() -> None:
    p = problem()
    single = {k: v.detach().float() if v.is_floating_point() else v for k, v in p.items()}
    found = []
    for cast in (False, True):
        states = single["states"].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            total, _ = linear_cross_entropy(
                states, single["table"], single["targets"], single["weights"], single["bias"]
            )
        found.append(torch.autograd.grad(total, states)[0])
    assert torch.equal(*found)
