"""The published POP numbers on the real data, to the last digit."""

from __future__ import annotations

import csv

import pytest

from nextup.data.public import data_folder, read_public
from nextup.errors import InputError
from nextup.evaluation.metrics import feasible, metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.models.base import make_model


def published(dataset: str, method: str) -> dict[str, float]:
    file = data_folder().parent / "published" / "calibration_anchors.csv"
    if not file.is_file():
        pytest.skip(f"{file} is not on this machine")
    with file.open() as lines:
        return {
            f"{row['metric']}@{row['k']}": float(row["value"])
            for row in csv.DictReader(lines)
            if (row["dataset"], row["method"]) == (dataset, method)
        }


@pytest.mark.data
@pytest.mark.parametrize("dataset", ["Sports", "Toys", "Yelp"])
def test_pop_is_as_published(dataset: str) -> None:
    try:
        log = read_public(dataset.lower(), titles=False)
    except InputError as absent:
        pytest.skip(str(absent))
    expected = published(dataset, "POP_train+val")
    assert len(expected) == 6
    split = log.split("leave-one-out")
    model = make_model("pop", log.n_items)
    model.count(split.train_and_valid)
    found = metrics(rank_cases(model, split.test, Protocol(ties="low_id")))
    assert {name: round(found[name], 4) for name in expected} == expected
    assert feasible(found) == []
