"""Ranks against a sorting reference, and everything a protocol promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import Table, Vectors

from nextup.data.sequences import Sequences
from nextup.data.split import Cases, leave_one_out
from nextup.errors import DivergedError, InputError, NextupError, RunError
from nextup.evaluation.metrics import metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks, rank_cases
from nextup.models.registry import make_model

TIES = ("mean", "low_id", "pessimistic")


def make_cases(histories: list[list[int]], targets: list[int]) -> Cases:
    return Cases(
        Sequences.from_lists(histories),
        np.array(targets, dtype=np.int32),
        np.arange(len(targets), dtype=np.int64),
    )


def reference(scores: np.ndarray, history: np.ndarray, target: int, seen: str, ties: str) -> float:
    """Sort the candidates and look where the target stands: O(I log I) for each case."""
    candidates = np.arange(1, len(scores))
    if seen == "excluded":
        if target in history:
            return np.inf
        candidates = np.setdiff1d(candidates, history)
    best_first = candidates[np.lexsort((candidates, -scores[candidates]))]
    level = np.flatnonzero(scores[best_first] == scores[target])
    if ties == "low_id":
        return float(np.flatnonzero(best_first == target)[0])
    return float(level[-1]) if ties == "pessimistic" else (level[0] + level[-1]) / 2


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], list[int]]:
    n_items = draw(st.integers(2, 40))
    m = draw(st.integers(1, min(n_items, 12)))
    levels = draw(st.integers(1, 6))  # few levels plant many ties
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    table = rng.integers(-levels, levels + 1, size=(m, n_items + 1)).astype(np.float64)
    table[:, 0] = 100.0  # padding would beat everything if it were a candidate
    histories = [
        [u + 1, *rng.integers(1, n_items + 1, size=rng.integers(0, 8)).tolist()] for u in range(m)
    ]
    return table, histories, rng.integers(1, n_items + 1, size=m).tolist()


@pytest.mark.parametrize("model_class", [Table, Vectors])
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seen", ["excluded", "included"])
@settings(max_examples=40, deadline=None)
@given(problem=problems(), batch_size=st.integers(1, 7))
def test_ranks_equal_the_sorting_reference(
    model_class: type,
    ties: str,
    seen: str,
    problem: tuple[np.ndarray, list[list[int]], list[int]],
    batch_size: int,
) -> None:
    table, histories, targets = problem
    protocol = Protocol(seen=seen, ties=ties)
    cases = make_cases(histories, targets)
    found = rank_cases(model_class(table), cases, protocol, batch_size=batch_size)
    expected = [
        reference(table[u], np.array(histories[u]), targets[u], seen, ties)
        for u in range(len(targets))
    ]
    assert found.ranks.tolist() == expected
    assert found.users.tolist() == list(range(len(targets)))


def test_a_bias_is_added() -> None:
    table, bias = np.zeros((1, 5)), np.array([9.0, 0.0, 3.0, 2.0, 1.0])
    ranks = rank_cases(Vectors(table, bias), make_cases([[1]], [4]), Protocol()).ranks
    assert ranks.tolist() == [2.0]


def test_the_whole_history_is_excluded_not_only_what_the_model_reads() -> None:
    n_items = 30
    table = np.tile(np.arange(n_items + 1.0), (n_items, 1))
    history = [1, *range(30, 20, -1), 2]
    cases = make_cases([history], [20])
    assert rank_cases(Table(table), cases, Protocol()).ranks.tolist() == [0.0]
    model = Table(np.tile(table[0], (40, 1)), max_length=1)
    assert rank_cases(model, cases, Protocol()).ranks.tolist() == [0.0]
    included = rank_cases(Table(table), cases, Protocol(seen="included"))
    assert included.ranks.tolist() == [10.0]


def test_a_target_in_its_own_history_cannot_be_found() -> None:
    cases = make_cases([[1, 3, 2], [2, 3]], [3, 4])
    table = np.tile(np.array([0.0, 1, 2, 9, 4]), (2, 1))
    ranks = rank_cases(Table(table), cases, Protocol())
    assert ranks.ranks.tolist() == [np.inf, 0.0]
    assert metrics(ranks)["HR@5"] == 0.5
    assert metrics(ranks)["MRR"] == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("model_class", [Table, Vectors])
def test_scores_that_are_not_finite_are_an_error(model_class: type, bad: float) -> None:
    table = np.zeros((2, 6))
    table[1, 4] = bad
    with pytest.raises(DivergedError, match=r"model (table|vectors): scores are not finite"):
        rank_cases(model_class(table), make_cases([[1], [2]], [3, 3]), Protocol())


def test_scores_that_overflow_are_an_error() -> None:
    table = np.full((1, 6), 1e30)

    class Long(Vectors):
        def item_vectors(self) -> torch.Tensor:
            return torch.full((6, 6), 1e30)

    with pytest.raises(NextupError, match="not finite"):
        rank_cases(Long(table), make_cases([[1]], [3]), Protocol())


def test_padding_is_no_candidate_even_when_its_score_is_broken() -> None:
    table = np.zeros((1, 6))
    table[0, 0] = np.nan
    ranks = rank_cases(Table(table), make_cases([[1]], [2]), Protocol(ties="low_id"))
    assert ranks.ranks.tolist() == [0.0]


def test_a_constant_scorer_is_at_chance_under_mean() -> None:
    n_items, m = 101, 50
    rng = np.random.default_rng(0)
    cases = make_cases([[u + 1] for u in range(m)], rng.integers(51, 102, m).tolist())
    table = np.zeros((m, n_items + 1))
    found = {t: rank_cases(Table(table), cases, Protocol(ties=t)).ranks for t in TIES}
    assert set(found["mean"].tolist()) == {49.5}
    assert set(found["pessimistic"].tolist()) == {99.0}
    assert found["low_id"].tolist() == [t - 2.0 for t in cases.targets]


def test_random_scores_hit_as_often_as_chance_says() -> None:
    n_items, m, length = 200, 4000, 5
    rng = np.random.default_rng(1)
    items = np.stack([rng.permutation(n_items)[: length + 1] + 1 for _ in range(m)])
    model = make_model("sasrec", n_items, {"width": 8, "layers": 0, "heads": 1})
    with torch.no_grad():  # every history its own direction, independent of the target
        model.items.weight.normal_(generator=torch.Generator().manual_seed(0))
    cases = make_cases(items[:, :length].tolist(), items[:, length].tolist())
    found = metrics(rank_cases(model, cases, Protocol()))
    chance = 10 / (n_items - length)
    assert abs(found["HR@10"] - chance) < 4 * np.sqrt(chance * (1 - chance) / m)


def test_results_do_not_depend_on_batches_threads_or_training_mode() -> None:
    rng = np.random.default_rng(2)
    n_items, m = 300, 700
    histories = [rng.integers(1, n_items + 1, rng.integers(1, 60)).tolist() for _ in range(m)]
    cases = make_cases(histories, rng.integers(1, n_items + 1, m).tolist())
    model = make_model("gru4rec", n_items).train()
    seen: list[tuple[int, int]] = []
    first = rank_cases(model, cases, Protocol(), progress=lambda a, b: seen.append((a, b)))
    assert model.training and torch.get_num_threads() >= 1
    assert seen[-1] == (m, m)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    second = rank_cases(model, cases, Protocol(), batch_size=37)
    torch.set_num_threads(threads)
    near = np.isfinite(first.ranks)
    assert (near == np.isfinite(second.ranks)).all()
    # Other batches may round a query differently, which can swap near neighbours.
    assert np.abs(first.ranks[near] - second.ranks[near]).max() <= 1
    assert (first.ranks != second.ranks).mean() < 0.02


def test_an_error_in_a_worker_reaches_the_caller_and_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    table = np.zeros((40, 6))
    table[33, 2] = np.nan
    wide = np.pad(table, ((0, 0), (0, 40)))
    cases = make_cases([[u + 1] for u in range(40)], [45] * 40)
    with pytest.raises(NextupError, match="not finite"):
        rank_cases(Table(wide), cases, Protocol(), batch_size=2)
    assert torch.get_num_threads() == before


def test_no_cases_give_no_ranks_and_no_metrics() -> None:
    none = rank_cases(Table(np.zeros((1, 4))), make_cases([], []), Protocol())
    assert len(none) == 0
    with pytest.raises(InputError, match="no held-out items"):
        metrics(none)


def test_a_target_outside_the_catalogue_is_an_error() -> None:
    with pytest.raises(InputError, match="not one of the model's 3 items"):
        rank_cases(Table(np.zeros((1, 4))), make_cases([[1]], [9]), Protocol())


def test_relabelling_items_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    whole = Sequences.from_lists([rng.integers(1, 31, 6).tolist() for _ in range(50)])
    relabel = np.concatenate(([0], rng.permutation(30) + 1))
    other = Sequences(relabel[whole.items].astype(np.int32), whole.starts, whole.ends)
    found = []
    for data in (whole, other):
        split = leave_one_out(data)
        model = make_model("pop", 30)
        model.count(split.train)
        found.append(rank_cases(model, split.test, Protocol()).ranks)
    assert found[0].tolist() == found[1].tolist()


def test_ranks_survive_a_file(tmp_path) -> None:
    ranks = rank_cases(
        Table(np.zeros((1, 9))),
        make_cases([[1, 2]], [3]),
        Protocol(candidates="sampled", n_negatives=4, cutoffs=(1, 3)),
        whole=Sequences.from_lists([[1, 2, 3]]),
    )
    ranks.save(tmp_path / "ranks.npz")
    back = CaseRanks.load(tmp_path / "ranks.npz")
    assert back.protocol == ranks.protocol
    assert metrics(back) == metrics(ranks)
    with pytest.raises(RunError, match="no such file"):
        CaseRanks.load(tmp_path / "other.npz")
    for damage in (b"", b"PK\x03\x04 no zip", b"\x80\x04K\x01."):
        (tmp_path / "bad.npz").write_bytes(damage)
        with pytest.raises(RunError, match="not a readable file of ranks"):
            CaseRanks.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "pickled.npz", users=np.array([{}], dtype=object))
    with pytest.raises(RunError, match="not a readable file of ranks"):
        CaseRanks.load(tmp_path / "pickled.npz")


def test_a_protocol_refuses_what_it_does_not_know() -> None:
    for wrong in ({"ties": "best"}, {"cutoffs": ()}, {"cutoffs": (0,)}, {"tie": "mean"}):
        with pytest.raises(ValueError, match=r"ties|cutoffs|tie"):
            Protocol(**wrong)
    assert Protocol(cutoffs=(10, 5, 5)).cutoffs == (5, 10)
