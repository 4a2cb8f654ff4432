"""Metrics in closed form, and the check that published rows can be true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextup.errors import ConfigError, InputError
from nextup.evaluation.metrics import case_values, feasible, list_metrics, metrics, parse_metric
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks


def ranks_of(values: list[float], **protocol: object) -> CaseRanks:
    return CaseRanks(
        np.arange(len(values)), np.array(values, dtype=np.float64), Protocol(**protocol)
    )


def test_closed_forms() -> None:
    ranks = ranks_of([0, 4, 5, 9, 10])
    assert case_values(ranks, "NDCG@10").round(4).tolist() == [1.0, 0.3869, 0.3562, 0.2891, 0.0]
    assert case_values(ranks, "HR@5").tolist() == [1, 1, 0, 0, 0]
    assert case_values(ranks, "recall@10").tolist() == [1, 1, 1, 1, 0]
    found = metrics(ranks)
    assert found["MRR"] == pytest.approx((1 + 1 / 5 + 1 / 6 + 1 / 10 + 1 / 11) / 5)
    assert found["MRR@5"] == pytest.approx((1 + 1 / 5) / 5)
    assert found["HR@20"] == 1.0


def test_what_cannot_be_found_counts_as_a_miss() -> None:
    assert metrics(ranks_of([np.inf, 0.0]))["NDCG@20"] == 0.5


def test_metric_names() -> None:
    assert parse_metric("Recall@7") == ("HR", 7)
    for wrong in ("HR", "NDGC@10", "HR@0", "HR@x", "expected HR@5", "precision@5"):
        with pytest.raises(ConfigError, match="unknown metric"):
            parse_metric(wrong)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.booleans())
def test_every_row_that_ranks_give_is_feasible(whole: list[int], halves: bool) -> None:
    ranks = ranks_of([rank / 2 if halves else rank for rank in whole], cutoffs=(1, 5, 10, 15, 20))
    assert feasible(metrics(ranks), half_ranks=halves) == []


def test_impossible_rows_are_found() -> None:
    row = {"HR@5": 0.05, "NDCG@5": 0.03, "HR@10": 0.08, "NDCG@10": 0.05}
    assert len(feasible(row)) == 1
    assert feasible({"HR@10": 0.1, "HR@5": 0.2, "NDCG@5": 0.1, "NDCG@10": 0.1})
    assert feasible({"Recall@5": 0.1, "NDCG@5": 0.2})


def test_lists() -> None:
    lists = np.array([[1, 2, 3], [1, 3, 0]])
    found = list_metrics(lists, np.array([0, 10, 4, 2, 9]), (1, 3))
    assert found["coverage@1"] == 0.25
    assert found["coverage@3"] == 0.75
    assert found["popularity@1"] == 10.0
    assert found["popularity@3"] == pytest.approx((10 + 4 + 2 + 10 + 2) / 5)
    with pytest.raises(InputError, match="cutoff 4"):
        list_metrics(lists, np.zeros(5), (4,))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=400))
def test_a_table_of_four_decimals_is_never_called_impossible(whole: list[int]) -> None:
    ranks = CaseRanks(np.arange(len(whole)), np.array(whole, dtype=np.float64), Protocol())
    rounded = {name: round(value, 4) for name, value in metrics(ranks).items()}
    assert feasible(rounded, tolerance=1e-4) == []


def test_hits_that_were_rounded_as_well_allow_a_little_more() -> None:
    row = {"HR@5": 0.1001, "NDCG@5": 0.0500, "HR@10": 0.1020, "NDCG@10": 0.0508}
    assert feasible(row, tolerance=1e-4) == [] and feasible(row, tolerance=0.5e-4)
