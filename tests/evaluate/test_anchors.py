"""The published POP numbers on the real data, to the last digit."""

from __future__ import annotations

import pytest

from nextup.data.dataset import Dataset
from nextup.data.public import read_public
from nextup.errors import InputError
from nextup.evaluation.metrics import feasible, metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.models.registry import make_model
from nextup.studies.published import published

METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20")
PUBLISHED = {  # POP, counted on the training and the validation items
    "Sports": (0.0057, 0.0041, 0.0091, 0.0052, 0.0175, 0.0073),
    "Toys": (0.0065, 0.0044, 0.0090, 0.0052, 0.0143, 0.0065),
    "Yelp": (0.0056, 0.0036, 0.0096, 0.0049, 0.0158, 0.0065),
}


def read(dataset: str) -> Dataset:
    try:
        return read_public(dataset, titles=False)
    except InputError as absent:
        pytest.skip(str(absent))


@pytest.mark.data
@pytest.mark.parametrize("dataset", PUBLISHED)
def test_pop_is_as_published(dataset: str) -> None:
    log = read(dataset.lower())
    expected = dict(zip(METRICS, PUBLISHED[dataset], strict=True))
    assert feasible(expected, tolerance=1e-4) == []
    split = log.split("leave-one-out")
    model = make_model("pop", log.n_items)
    model.count(split.train_and_valid)
    found = metrics(rank_cases(model, split.test, Protocol(ties="low_id")))
    assert {name: round(found[name], 4) for name in expected} == expected
    assert feasible(found) == []


@pytest.mark.data
@pytest.mark.parametrize("dataset", ["beauty", "sports", "toys", "yelp"])
def test_the_pop_that_s3rec_reports_has_counted_the_test_items(dataset: str) -> None:
    """All its figures, but for one last digit: data, split and ranking are ours."""
    log = read(dataset)
    split = log.split("leave-one-out")
    reported = published("levels").rows[dataset, "POP"].values
    found = {}
    for name, counted in (("theirs", split.whole), ("fair", split.train_and_valid)):
        model = make_model("pop", log.n_items)
        model.count(counted)
        ranked = metrics(rank_cases(model, split.test, Protocol()))
        found[name] = {metric: round(ranked[metric], 4) for metric in reported}
    assert found["theirs"] == pytest.approx(reported, abs=1.01e-4)
    assert sum(found["theirs"][metric] != value for metric, value in reported.items()) <= 1
    assert found["fair"] != pytest.approx(reported, abs=1.01e-4)
