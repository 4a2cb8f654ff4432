"""What is guessed, left out or surprising about a log is said, unless it is to be silent."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from nextup.data.prepare import read

GOOD = "user,item,time\n1,10,100\n1,11,101\n2,10,102\n"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_that_are_partly_numbers_are_said_to_be_text(kind: str, tmp_path: Path) -> None:
    path, said = tmp_path / f"log.{kind}", list[str]()
    frame = pl.DataFrame({"user": [1, 1, 1, 2], "item": ["1", "2", "A", "B"]})
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    assert read(path, say=said.append).catalog.ids.tolist() == ["1", "2", "A", "B"]
    assert f"{path}: item ids are taken as text: 2 of 4 are no whole numbers (first: `A`)" in said
    said.clear()
    read(path, text_ids=True, say=said.append)
    assert not any("taken as text" in line for line in said)


def test_a_decimal_point_makes_no_other_user(tmp_path: Path) -> None:
    path, said = tmp_path / "log.csv", list[str]()
    path.write_text("user,item\n1,5\n1,6\n1.0,7\n2,5\n2.0,6\n3,5\n3,6\n4,1\n")
    dataset = read(path, say=said.append)
    assert dataset.users.tolist() == [1, 2, 3, 4] and dataset.sequences[0].tolist() == [2, 3, 4]
    assert any("2 user ids are written like `1.0`; they are taken as whole" in s for s in said)
    assert read(path, text_ids=True).users.tolist() == ["1", "1.0", "2", "2.0", "3", "4"]
    path.write_text("user,item\n1.0,5\n2.5,6\n")  # no whole numbers at all
    assert read(path).users.tolist() == ["1.0", "2.5"]


def test_guesses_are_said_on_standard_error_unless_silenced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(GOOD + ",11,103\n")
    read(path, skip_bad_rows=True)
    said = capsys.readouterr()
    assert "columns guessed: user = `user`" in said.err and "1 of 4 rows left out" in said.err
    assert said.out == ""
    read(path, skip_bad_rows=True, quiet=True)
    told: list[str] = []
    read(path, skip_bad_rows=True, say=told.append)
    assert told and capsys.readouterr().err == ""
