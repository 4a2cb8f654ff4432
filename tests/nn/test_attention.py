"""Packed attention against plain attention, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import attention, close, finite_differences, rows_of
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nextup.nn.attention import packed_attention
from nextup.nn.packing import Packing, Slots

CPU = torch.device("cpu")
SHAPES = [[1], [5], [1, 1, 1], [2, 3, 3, 7], [1] * 70, [8] * 16, [3, 50, 64, 65], [90, 2]]


def make(lengths: list[int], width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, np.ndarray]:
    g = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    queries = torch.randn(n, width, generator=g, dtype=torch.float64, requires_grad=True)
    keys_values = torch.randn(n, 2 * width, generator=g, dtype=torch.float64, requires_grad=True)
    return queries, keys_values, np.array(lengths)


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_it_computes_plain_attention_and_its_gradients(
    lengths: list[int], causal: bool, heads: int
) -> None:
    queries, keys_values, ns = make(lengths)
    found = packed_attention(queries, keys_values, Packing(ns, CPU), heads=heads, causal=causal)
    expected = attention(queries, keys_values, ns, heads, causal)
    close(found, expected, 1e-12)
    upstream = torch.randn_like(expected)
    ours = torch.autograd.grad(found, [queries, keys_values], upstream)
    plain = torch.autograd.grad(expected, [queries, keys_values], upstream)
    for one, other in zip(ours, plain, strict=True):
        close(one, other, 1e-11)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=25), st.booleans(), st.booleans())
def test_any_lengths_in_any_order_give_plain_attention(
    lengths: list[int], causal: bool, last: bool
) -> None:
    queries, keys_values, ns = make(lengths, width=4)
    last_at = torch.from_numpy(np.cumsum(ns) - 1)
    expected = attention(queries, keys_values, ns, 2, causal)
    expected = expected[last_at] if last else expected
    found = packed_attention(
        queries[last_at] if last else queries,
        keys_values,
        Packing(ns, CPU),
        heads=2,
        causal=causal,
        last_only=last,
    )
    close(found, expected, 1e-11)


@pytest.mark.parametrize("causal", [True, False])
def test_it_agrees_with_pytorchs_own_attention(causal: bool) -> None:
    queries, keys_values, ns = make([4, 9, 30, 60])
    found = packed_attention(queries, keys_values, Packing(ns, CPU), heads=2, causal=causal)
    keys, values = keys_values.split(8, dim=1)
    parts = []
    for q, k, v in zip(rows_of(queries, ns), rows_of(keys, ns), rows_of(values, ns), strict=True):
        cut = (x.view(len(x), 2, 4).transpose(0, 1) for x in (q, k, v))
        mixed = scaled_dot_product_attention(*cut, is_causal=causal)
        parts.append(mixed.transpose(0, 1).flatten(1))
    close(found, torch.cat(parts), 1e-12)


def test_asking_for_the_last_tokens_gives_their_rows_and_the_same_gradients() -> None:
    queries, keys_values, ns = make([1, 4, 9, 30])
    last_at = torch.from_numpy(np.cumsum(ns) - 1)
    packing = Packing(ns, CPU)
    few = packed_attention(queries[last_at], keys_values, packing, heads=2, last_only=True)
    full = packed_attention(queries, keys_values, packing, heads=2)[last_at]
    close(few, full, 1e-12)
    upstream = torch.randn_like(few)
    for one, other in zip(
        torch.autograd.grad(few, [queries, keys_values], upstream),
        torch.autograd.grad(full, [queries, keys_values], upstream),
        strict=True,
    ):
        close(one, other, 1e-12)


def some_slots(ns: np.ndarray, share: float, seed: int = 0) -> Slots:
    """A random choice of tokens; some rows and windows may have none."""
    chosen = np.random.default_rng(seed).random(int(ns.sum())) < share
    chosen[np.random.default_rng(seed + 1).integers(len(chosen))] = True
    rows = np.repeat(np.arange(len(ns)), ns)
    counts = np.bincount(rows[chosen], minlength=len(ns))
    return Slots(Packing(ns, CPU), torch.from_numpy(np.flatnonzero(chosen)), counts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 80), min_size=1, max_size=25),
    st.booleans(),
    st.sampled_from([0.02, 0.3, 1.0]),
)
def test_any_slots_are_those_of_the_full_output_and_have_its_gradients(
    lengths: list[int], causal: bool, share: float
) -> None:
    queries, keys_values, ns = make(lengths, width=4)
    slots = some_slots(ns, share)
    few = packed_attention(
        queries[slots.at], keys_values, slots.packing, heads=2, causal=causal, slots=slots
    )
    full = packed_attention(queries, keys_values, slots.packing, heads=2, causal=causal)[slots.at]
    close(few, full, 1e-12)
    upstream = torch.randn_like(few)
    for one, other in zip(
        torch.autograd.grad(few, [queries, keys_values], upstream),
        torch.autograd.grad(full, [queries, keys_values], upstream),
        strict=True,
    ):
        close(one, other, 1e-12)


def test_with_dropout_slots_use_the_same_mask_forward_and_backward() -> None:
    queries, keys_values, ns = make([2, 3, 4], width=4)
    slots = some_slots(ns, 0.5)
    asked = queries.detach()[slots.at].requires_grad_()

    def total(q: Tensor, kv: Tensor) -> Tensor:
        torch.manual_seed(5)
        mixed = packed_attention(
            q, kv, slots.packing, heads=2, slots=slots, dropout_rate=0.5, training=True
        )
        return mixed.square().sum()

    ours = torch.autograd.grad(total(asked, keys_values), [asked, keys_values])
    q, kv = asked.detach(), keys_values.detach()
    close(ours[0], finite_differences(lambda x: total(x, kv), q), 1e-6)
    close(ours[1], finite_differences(lambda x: total(q, x), kv), 1e-6)


def test_gradients_agree_with_finite_differences() -> None:
    queries, keys_values, ns = make([2, 3], width=4)
    packing = Packing(ns, CPU)
    weight = torch.randn(5, 4, dtype=torch.float64)

    def of_queries(q: Tensor) -> Tensor:
        return (packed_attention(q, keys_values.detach(), packing, heads=2) * weight).sum()

    def of_keys_values(kv: Tensor) -> Tensor:
        return (packed_attention(queries.detach(), kv, packing, heads=2) * weight).sum()

    close(
        torch.autograd.grad(of_queries(queries), queries)[0],
        finite_differences(of_queries, queries.detach()),
        1e-6,
    )
    close(
        torch.autograd.grad(of_keys_values(keys_values), keys_values)[0],
        finite_differences(of_keys_values, keys_values.detach()),
        1e-6,
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_with_dropout_forward_and_backward_use_the_same_mask(rate: float, last: bool) -> None:
    queries, keys_values, ns = make([2, 3, 4], width=4)
    last_at = torch.from_numpy(np.cumsum(ns) - 1) if last else None
    queries = queries.detach()[last_at].clone().requires_grad_() if last else queries
    packing = Packing(ns, CPU)
    weight = torch.randn(len(queries), 4, dtype=torch.float64)

    def total(q: Tensor, kv: Tensor) -> Tensor:
        torch.manual_seed(5)
        mixed = packed_attention(
            q, kv, packing, heads=2, last_only=last, dropout_rate=rate, training=True
        )
        return (mixed * weight).sum()

    ours = torch.autograd.grad(total(queries, keys_values), [queries, keys_values])
    q, kv = queries.detach(), keys_values.detach()
    close(ours[0], finite_differences(lambda x: total(x, kv), q), 1e-6)
    close(ours[1], finite_differences(lambda x: total(q, x), kv), 1e-6)


def test_dropout_leaves_the_mean_and_is_off_when_answering() -> None:
    queries, keys_values, ns = make([6] * 4)
    packing = Packing(ns, CPU)
    exact = packed_attention(queries, keys_values, packing, heads=2)
    off = packed_attention(queries, keys_values, packing, heads=2, dropout_rate=0.5)
    assert torch.equal(off, exact)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack(
            [
                packed_attention(
                    queries, keys_values, packing, heads=2, dropout_rate=0.3, training=True
                )
                for _ in range(2000)
            ]
        )
    error = (draws.mean(dim=0) - exact.detach()).abs()
    assert (error < 5 * draws.std(dim=0) / 2000**0.5 + 1e-9).all()
    assert draws.std(dim=0).mean() > 0.05


def test_what_stands_in_one_row_never_reaches_another() -> None:
    queries, keys_values, ns = make([3, 4, 5])
    packing = Packing(ns, CPU)
    before = packed_attention(queries, keys_values, packing, heads=2, causal=False)
    changed = keys_values.detach().clone()
    changed[3:7] = 1e3
    after = packed_attention(queries.detach(), changed, packing, heads=2, causal=False)
    assert torch.equal(before[:3], after[:3]) and torch.equal(before[7:], after[7:])
    assert not torch.equal(before[3:7], after[3:7])


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_autocast_that_widens_the_softmax_changes_nothing(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU autocast runs it in single precision; the products then meet two types."""
    softmax = torch.softmax

    def as_on_a_gpu(x: Tensor, dim: int) -> Tensor:
        return softmax(x.float() if torch.is_autocast_enabled("cpu") else x, dim)

    monkeypatch.setattr(torch, "softmax", as_on_a_gpu)
    queries, keys_values, ns = make([2, 3, 3, 7])
    narrow = [x.detach().bfloat16().requires_grad_() for x in (queries, keys_values)]
    with torch.autocast("cpu", torch.bfloat16):
        found = packed_attention(
            *narrow, Packing(ns, CPU), heads=2, causal=True, dropout_rate=rate, training=True
        )
        assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 for x in narrow)
