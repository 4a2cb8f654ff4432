"""Attributes of items, from any file: every item has as many as it has."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

from nextup.cli import app
from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.data.public import public_path, read_public
from nextup.errors import InputError

LOG = "user,item,time\n1,10,100\n1,11,101\n2,12,102\n"
WANTED = [["red", "small"], ["red"], None]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


FILES = {
    "dictionary.json": '{"10": ["red", "small"], "11": ["red", "red"], "99": ["blue"]}',
    "pairs.csv": "item,attribute\n10,red\n10,small\n11,red\n99,blue\n",
    "lists.csv": "item,attributes\n10,red|small\n11,red\n",
    "titles.csv": "item,title,tags\n10,A,red|small\n11,B,red\n12,C,\n",
    "pairs.jsonl": '{"item": 10, "attribute": "red"}\n{"item": 10, "attribute": "small"}\n'
    '{"item": 11, "attribute": "red"}\n',
    "lists.jsonl": '{"item": "10", "attributes": ["red", "small"]}\n'
    '{"item": "11", "attributes": ["red"]}\n{"item": "12", "attributes": []}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_file_says_the_same(name: str, log: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    made = read(log, attributes=tmp_path / name, quiet=True)
    assert made.catalog.attributes == {"attributes": WANTED}
    assert made.card["attributes_source"]["attributes"] == 2
    assert made.card["attributes_source"]["items_without"] == 1
    again = Dataset.load(made.save(tmp_path / "kept"))
    assert again.catalog.attributes == made.catalog.attributes


def test_frames_and_dictionaries_do_too(log: Path) -> None:
    pairs = {"item": [10, 10, 11], "attribute": ["red", "small", "red"]}
    for given in (pl.DataFrame(pairs), pd.DataFrame(pairs), {10: ["red", "small"], 11: ["red"]}):
        made = read(log, attributes=given, quiet=True)
        assert made.catalog.attributes == {"attributes": WANTED}
    with pytest.raises(InputError, match="has a column of items and no other"):
        read(log, attributes=pl.DataFrame({"item": [10]}), quiet=True)


def test_several_columns_are_kept_apart(log: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item,brand,maker\n10,Acme,Acme\n11,,Zen\n")
    made = read(log, attributes=tmp_path / "a.csv", quiet=True)
    assert made.catalog.attributes == {
        "attributes": [["brand: Acme", "maker: Acme"], ["maker: Zen"], None]
    }


def test_titles_and_attributes_come_from_files_of_their_own(log: Path, tmp_path: Path) -> None:
    (tmp_path / "titles.csv").write_text("item,title,price\n10,A,1\n11,B,2\n12,C,3\n")
    (tmp_path / "a.json").write_text(FILES["dictionary.json"])
    said: list[str] = []
    made = read(log, items=tmp_path / "titles.csv", attributes=tmp_path / "a.json", say=said.append)
    assert made.catalog.titles == ["A", "B", "C"]
    assert made.catalog.attributes == {"price": ["1", "2", "3"], "attributes": WANTED}
    assert any("2 attributes; 1 items without any" in line for line in said)
    assert any("1 items that are not in the log" in line for line in said)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"77": ["red"]}', "has no attribute for any item of the log"),
        ("a.json", '{"10": [{"x": 1}]}', "an attribute is a text or a number"),
        ("a.json", "[1, 2]", "no JSON dictionary .*attribute"),
        ("a.json", '{"10": ["red"], "11": "B"}', "a title for '11' and a list for '10'"),
        ("a.json", '{"10": 1, "11": "B", "12": ["red"]}', "a list for '12' and a title for '10'"),
        ("a.csv", "item\n10\n11\n", "no delimiter"),
        ("a.csv", "thing,attribute\n10,red\n", "item"),
        ("none.json", None, "none.json"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    name: str, content: str | None, message: str, log: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read(log, attributes=tmp_path / name, quiet=True)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_line_reads_them(log: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        json.dump({"10": [1, 2], "11": [1]}, file)
    arguments = ["prepare", str(log), "--attributes", str(tmp_path / "a.json.gz")]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "d")])
    assert result.exit_code == 0, result.output
    assert Dataset.load(tmp_path / "d").catalog.attributes == {"attributes": [[1, 2], [1], None]}


@pytest.mark.parametrize(
    ("name", "kinds"), [("beauty", 637), ("sports", 2277), ("toys", 1027), ("yelp", 1001)]
)
def test_the_public_sets_have_as_many_as_their_authors_say(name: str, kinds: int) -> None:
    try:
        public_path(name)
    except InputError as absent:
        pytest.skip(str(absent))
    made = read_public(name, titles=False, attributes=True)
    found: dict[str, list[Any]] = made.catalog.attributes or {}
    assert len({each for item in found["attributes"] for each in item or []}) == kinds
