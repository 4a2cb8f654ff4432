"""Whatever a side file or frame holds becomes plain JSON, and what does not is one line."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.errors import InputError

GOOD = "user,item,time\n1,10,100\n1,11,101\n2,10,102\n"


class Odd:
    """Anything that JSON has no word for."""

    def __str__(self) -> str:
        return "odd"


def test_whatever_a_side_file_holds_is_made_plain(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(GOOD)
    side = tmp_path / "side.json"
    side.write_text('{"10": {"title": "A", "price": NaN, "span": [Infinity, 1]}, "11": {}}')
    rows = {
        "id": [10, 11],
        "title": ["A", None],
        "price": [float("nan"), float("inf")],
        "seen": [[date(2020, 1, 2)], []],
    }
    frame = pl.DataFrame(rows)
    for items in (side, frame, {10: {"title": "A", "x": {"y": Odd(), "z": (1, -float("inf"))}}}):
        made = Dataset.load(read(log, items=items).save(tmp_path / "d", overwrite=True))
        assert made.catalog.titles == ["A", None]
        json.dumps(made.catalog.to_json(), allow_nan=False)
    assert made.catalog.attributes == {"x": [{"y": "odd", "z": [1, None]}, None]}
    frame_made = read(log, items=frame).catalog.attributes
    assert frame_made == {"price": [None, None], "seen": [["2020-01-02"], []]}


def test_what_json_cannot_hold_is_said_when_a_dataset_is_saved(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    made = read(tmp_path / "log.csv")
    catalog = dataclasses.replace(made.catalog, attributes={"price": [float("nan"), 1.0]})
    with pytest.raises(InputError, match="holds what JSON cannot"):
        dataclasses.replace(made, catalog=catalog).save(tmp_path / "d")
    assert [each.name for each in tmp_path.iterdir()] == ["log.csv"]
