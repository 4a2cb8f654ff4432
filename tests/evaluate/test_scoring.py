"""Batches of nearly one length, and the catalogue as it is laid out for products."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import Vectors

from nextup.data.batches import batch_of_lists
from nextup.data.sequences import Sequences
from nextup.errors import NextupError
from nextup.evaluation import scoring
from nextup.evaluation.catalogue import Catalogue
from nextup.evaluation.scoring import cut_by_length
from nextup.evaluation.threads import one_thread


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=200), st.integers(1, 70), st.integers(1, 400))
def test_batches_cover_all_histories_within_their_bounds(
    lengths: list[int], rows: int, tokens: int
) -> None:
    ascending = np.sort(np.array(lengths, dtype=np.int64))
    batches = cut_by_length(ascending, rows, tokens)
    covered = [at for batch in batches for at in range(batch.start, batch.stop)]
    assert covered == list(range(len(lengths)))
    for batch in batches:
        count = batch.stop - batch.start
        assert 1 <= count <= rows
        assert count == 1 or count * ascending[batch.stop - 1] <= tokens
        alike = ascending[batch.stop - 1] <= 1.25 * ascending[batch.start]
        assert alike or count <= max(1, rows // 8)


def test_many_histories_of_one_length_are_not_mixed_with_others() -> None:
    lengths = np.repeat([4, 5, 6], [600, 300, 40])
    cut = [(b.start, b.stop) for b in cut_by_length(lengths, rows=256, tokens=10_000)]
    assert cut == [(0, 256), (256, 512), (512, 768), (768, 900), (900, 940)]


@pytest.mark.parametrize("only", [None, [3, 1]])
@pytest.mark.parametrize("biased", [False, True])
def test_the_catalogue_multiplies_to_the_models_scores(
    only: list[int] | None, biased: bool
) -> None:
    rng = np.random.default_rng(0)
    model = Vectors(rng.normal(size=(4, 38)), rng.normal(size=38) if biased else None)
    catalogue = Catalogue(model, None if only is None else torch.tensor(only))
    batch = batch_of_lists([[1, 9], [2, 8, 9], [3], [4, 6, 7, 8]], 10)
    found = catalogue.queries(model, batch) @ catalogue.items
    expected = batch.in_source_order(model.scores(batch))
    torch.testing.assert_close(found, expected[:, 1:] if only is None else expected[:, only])
    assert len(catalogue) == found.shape[1]
    assert catalogue.items.stride() == (-(-len(catalogue) // 16) * 16, 1)


def test_large_queries_are_refused_only_where_a_score_would_overflow() -> None:
    table = np.full((600, 4), 1e18)  # together their norm overflows, one by one it does not
    model = Vectors(table)
    batch = batch_of_lists([[row + 1] for row in range(600)], 10)
    assert torch.isfinite(Catalogue(model).queries(model, batch)).all()
    model.table[5] = 1e20
    with pytest.raises(NextupError, match="not finite"):
        Catalogue(model).queries(model, batch)


@pytest.mark.parametrize("portion", [1, 37 * 50, 1 << 29])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_history_is_scored_once_however_the_work_is_shared(
    portion: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PORTION", portion)
    monkeypatch.setattr(scoring, "CPU_BUFFER", 4 * 37 * 20)
    rng = np.random.default_rng(0)
    model = Vectors(rng.normal(size=(100, 38)))
    rows = [[n + 1, *rng.integers(1, 38, rng.integers(0, 30))] for n in range(100)]
    found, times, told = np.zeros((100, 37)), np.zeros(100), []

    def visit(block: scoring.Block) -> None:
        assert len(block.cases) <= 20
        found[block.cases] = block.scores.numpy()
        times[block.cases] += 1

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scoring.visit_scores(
            model,
            Sequences.from_lists(rows),
            visit,
            batch_size=24,
            progress=lambda done, total: told.append((done, total)),
        )
    finally:
        torch.set_num_threads(before)
    assert (times == 1).all() and told[-1] == (100, 100)
    np.testing.assert_allclose(found, model.table[:, 1:].numpy(), rtol=1e-6)


def test_threads_that_overlap_each_get_their_own_number_back() -> None:
    steps, found = [Event() for _ in range(3)], {}

    def inside(name: str, enters: Event | None, entered: Event, leaves: Event | None) -> None:
        torch.set_num_threads(3 if enters is None else 2)
        if enters is not None:
            enters.wait(10)
        with one_thread:
            found[f"{name} inside"] = torch.get_num_threads()
            entered.set()
            if leaves is not None:
                leaves.wait(10)
            with one_thread:  # within itself it makes no difference
                pass
            found[f"{name} still"] = torch.get_num_threads()
        found[f"{name} after"] = torch.get_num_threads()
        steps[2].set()

    before = torch.get_num_threads()
    try:
        # The first to enter is the first to leave.
        first = Thread(target=inside, args=("first", None, steps[0], steps[1]))
        second = Thread(target=inside, args=("second", steps[0], steps[1], steps[2]))
        for each in (first, second):
            each.start()
        for each in (first, second):
            each.join(10)
    finally:
        torch.set_num_threads(before)
    said = {
        f"{who} {when}": n
        for who, own in (("first", 3), ("second", 2))
        for when, n in (("inside", 1), ("still", 1), ("after", own))
    }
    assert found == said
