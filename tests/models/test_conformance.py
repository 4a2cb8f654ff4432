"""What every recommender must be: run over all registered models, in every form of them.

How it answers; what learning must be is in `test_conformance_of_learning`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import numpy as np
import pytest
import torch
from small_models import (
    MAX_LENGTH,
    N_ITEMS,
    Form,
    dataset_of,
    forms,
    scores_of,
    shop,
    trainable,
)

from nextup.data.batches import batch_of_lists
from nextup.data.sequences import Sequences
from nextup.data.split import Cases
from nextup.errors import ConfigError
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.evaluation.retrieval import top_items
from nextup.models.base import Recommender, item_counts
from nextup.models.next_item import NextItemRecommender
from nextup.models.registry import make_model
from nextup.models.store import load_model, save_model
from nextup.models.users import UserVectors

every_form = pytest.mark.parametrize("form", forms(), ids=str)
every_trainable_form = pytest.mark.parametrize("form", trainable(), ids=str)


def histories(count: int = 50, seed: int = 3) -> list[list[int]]:
    """Histories of 1 item to three times what a model reads, in no order."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(1, N_ITEMS + 1, n).tolist() for n in rng.integers(1, 3 * MAX_LENGTH, count)
    ]


def says_a_state_everywhere(model: Recommender) -> TypeGuard[NextItemRecommender]:
    return getattr(model, "reads_out", "last") == "every"


@every_form
def test_shapes(form: Form) -> None:
    model = form.lively()
    batch = batch_of_lists(histories(7), model.max_length)
    with torch.no_grad():
        assert model.scores(batch).shape == (7, N_ITEMS + 1)
        if model.factors:
            vectors = model.item_vectors()
            assert len(vectors) == N_ITEMS + 1
            assert model.query(batch).shape == (7, vectors.shape[1])
            bias = model.item_bias()
            assert bias is None or bias.shape == (N_ITEMS + 1,)
        if says_a_state_everywhere(model):
            assert len(model.encode(batch, last_only=False)) == len(batch.tokens)
            assert len(model.encode(batch, last_only=True)) == 7


@every_form
def test_item_inputs_are_the_table_that_histories_are_read_with(form: Form) -> None:
    model = form.lively()
    if not model.factors:
        pytest.skip("has no item vectors")
    first, other = (
        replace(batch_of_lists(rows, model.max_length), users=torch.tensor([5, 6]))
        for rows in ([[4], [3, 1, 4]], [[2], [3, 1, 2]])  # of users who were there
    )
    with torch.no_grad():
        assert len(model.item_inputs()) == N_ITEMS + 1
        before = model.query(first)
        if torch.equal(before, model.query(other)):
            pytest.skip("reads no history")
        model.item_inputs()[4] += 1.0
        assert not torch.equal(before, model.query(first))


@every_form
def test_a_model_says_what_it_is(form: Form) -> None:
    model = form.fresh()
    assert model.name == form.model and len(model.paper) > 10
    assert model.learns_by in ("gradient", "counting")
    assert (type(model).__doc__ or "").strip()


@every_form
def test_what_comes_later_never_changes_what_was_said_before(form: Form) -> None:
    model = form.lively()
    if not says_a_state_everywhere(model):
        pytest.skip("reads out one state a history")
    rows = [[3, 1, 4, 1, 5, 9, 2, 6], [7, 8], [5, 3, 5, 8, 9, 7, 9]]
    before = model.encode(batch_of_lists(rows, MAX_LENGTH), last_only=False)
    ends = np.cumsum(batch_of_lists(rows, MAX_LENGTH).lengths)
    for place in (3, 7):  # of the longest row, which the batch puts last
        rows[0][place] = 33
        after = model.encode(batch_of_lists(rows, MAX_LENGTH), last_only=False)
        at = int(ends[1]) + place
        assert torch.equal(before[:at], after[:at])
        assert (before[at] - after[at]).abs().max() > 1e-4
        rows[0][place] = [3, 1, 4, 1, 5, 9, 2, 6][place]


@every_form
def test_the_state_after_the_last_item_is_that_of_the_full_output(form: Form) -> None:
    model = form.lively()
    if not says_a_state_everywhere(model):
        pytest.skip("reads out one state a history")
    batch = batch_of_lists(histories(), MAX_LENGTH)
    full = model.encode(batch, last_only=False)[batch.last_at]
    torch.testing.assert_close(model.encode(batch, last_only=True), full, atol=1e-5, rtol=1e-5)


@every_form
def test_scores_do_not_depend_on_what_else_is_in_the_batch(form: Form) -> None:
    model, rows = form.lively(), histories()
    limit = model.max_length
    together = scores_of(model, batch_of_lists(rows, limit))
    alone = torch.cat([scores_of(model, batch_of_lists([row], limit)) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = scores_of(model, batch_of_lists([rows[r] for r in order], limit))
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-5)


@every_form
def test_users_may_be_numbered_in_any_order(form: Form) -> None:
    model = form.lively()
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, UserVectors) and not name.startswith("others.")  # SSI's teachers
    ]
    if not tables or tables[0].weight.shape[1] == 0:  # (Fossil with weights for no step)
        pytest.skip("has no vectors of users")
    users = len(tables[0])
    batch = batch_of_lists(histories(users), model.max_length)
    own, moved = torch.arange(users), torch.randperm(users)

    def of_users(numbers: torch.Tensor) -> torch.Tensor:
        return scores_of(model, replace(batch, users=numbers[torch.as_tensor(batch.rows)]))

    before = of_users(own)
    assert not torch.allclose(before, of_users(moved), atol=1e-3), "says nothing of users"
    with torch.no_grad():
        for table in tables:
            table.weight[moved] = table.weight.clone()
            table.learnt[moved] = table.learnt.clone()
    torch.testing.assert_close(of_users(moved), before, atol=1e-5, rtol=1e-5)


@every_form
def test_only_the_latest_items_are_read(form: Form) -> None:
    model = form.lively()
    limit = model.max_length
    long = [row * 3 for row in histories(20) if len(row) >= limit]
    rows = [[*[11] * 500, *row] for row in long]
    found = scores_of(model, batch_of_lists(rows, limit))
    cut = scores_of(model, batch_of_lists([row[-limit:] for row in rows], limit))
    torch.testing.assert_close(found, cut, atol=1e-5, rtol=1e-5)


@every_form
def test_users_and_lengths_never_met_get_scores(form: Form) -> None:
    model = form.lively()
    if not form.counts:
        model.train(False)
    rows = [[n] for n in range(1, N_ITEMS + 1)] + [[5] * n for n in range(1, 3 * MAX_LENGTH)]
    found = scores_of(model, batch_of_lists(rows, model.max_length))
    assert torch.isfinite(found).all()


@every_form
def test_what_nobody_could_know_is_ranked_as_by_chance(form: Form) -> None:
    model, rows = form.lively(), histories(1000)
    rng = np.random.default_rng(1)
    unseen = [sorted(set(range(1, N_ITEMS + 1)) - set(row)) for row in rows]
    targets = np.array([rng.choice(items) for items in unseen], dtype=np.int32)
    users = np.arange(len(rows)) % len(shop())
    cases = Cases(Sequences.from_lists(rows), targets, users)
    hit = rank_cases(model, cases, Protocol()).ranks < 10
    chance = np.array([min(1.0, 10 / len(items)) for items in unseen])
    deviation = np.sqrt((chance * (1 - chance)).sum())
    assert abs(hit.sum() - chance.sum()) < 4 * deviation


@every_form
def test_neither_padding_nor_a_seen_item_is_ever_recommended(form: Form) -> None:
    model = form.lively()
    rows = Sequences.from_lists(histories())
    targets = np.random.default_rng(1).integers(1, N_ITEMS + 1, len(rows)).astype(np.int32)
    cases = Cases(rows, targets, np.arange(len(rows)))
    ranks = rank_cases(model, cases, Protocol()).ranks
    items, _ = top_items(model, rows, N_ITEMS)
    for row, recommended in zip(rows, items, strict=True):
        shown = recommended[recommended > 0]
        assert sorted(shown) == sorted(set(range(1, N_ITEMS + 1)) - set(row.tolist()))
        assert (recommended[len(shown) :] == 0).all()
    seen = np.array([t in row for t, row in zip(targets, rows, strict=True)])
    assert (np.isinf(ranks) == seen).all()
    # However attractive padding may be made, nothing changes.
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.dim() and len(tensor) == N_ITEMS + 1 and tensor.is_floating_point():
                tensor[0] = 1e3
    np.testing.assert_array_equal(rank_cases(model, cases, Protocol()).ranks, ranks)
    np.testing.assert_array_equal(top_items(model, rows, N_ITEMS)[0], items)


@every_form
def test_a_saved_model_gives_identical_scores(form: Form, tmp_path: Path) -> None:
    model, data = form.lively(), dataset_of(shop())
    batch = batch_of_lists(histories(), model.max_length)
    save_model(model, tmp_path / "kept", data.catalog, item_counts(shop(), N_ITEMS))
    loaded = load_model(tmp_path / "kept")[0]
    assert type(loaded) is type(model) and loaded.config == model.config
    assert torch.equal(scores_of(loaded, batch), scores_of(model, batch))
    assert not loaded.training


@every_form
def test_an_unknown_setting_is_refused_with_the_nearest_known(form: Form) -> None:
    with pytest.raises(ConfigError, match="unknown key `max_lenght`; did you mean `max_length`"):
        make_model(form.model, N_ITEMS, {"max_lenght": 3})


@every_form
def test_answering_leaves_no_trace_in_the_model(form: Form) -> None:
    model = form.lively()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = batch_of_lists(histories(), model.max_length)
    first, second = scores_of(model, batch), scores_of(model, batch)
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@every_trainable_form
def test_items_by_other_numbers_get_the_same_scores(form: Form) -> None:
    model = form.lively().eval()
    rows = histories(12)
    other = np.concatenate([[0], 1 + np.random.default_rng(5).permutation(N_ITEMS)])
    before = scores_of(model, batch_of_lists(rows, model.max_length))
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.dim() and N_ITEMS < len(value) < N_ITEMS + 4:  # special tokens stay last
                value[other] = value[: N_ITEMS + 1].clone()
    renamed = [other[row].tolist() for row in rows]
    after = scores_of(model, batch_of_lists(renamed, model.max_length))
    torch.testing.assert_close(after[:, other[1:] - 1], before, rtol=1e-4, atol=1e-5)
    assert not torch.equal(after, before)
