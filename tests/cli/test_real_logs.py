"""Real raw logs from the command line: prepared, fitted, and recommended by title."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextup.data.public import data_folder

from .command_line import Cli

QUICK = ("--set", "epochs=1", "--set", "width=16", "--set", "layers=1", "--set", "max_length=20")


def there(*names: str) -> list[Path]:
    paths = [data_folder() / name for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        pytest.skip(f"{missing[0]} is not there; name the data folder with NEXTUP_DATA")
    return paths


@pytest.mark.data
def test_movielens_latest_small_by_title(cli: Cli) -> None:
    log, movies = there("ml-latest-small/ratings.csv.gz", "ml-latest-small/movies.csv.gz")
    found = cli("prepare", log, "--items", movies, "--out", "d")
    assert found.code == 0, found.err
    assert "time = `timestamp`" in found.err  # guessed, and told
    assert cli("fit", "d", "--run", "r", *QUICK, "-q").code == 0
    assert cli("evaluate", "r").code == 0
    found = cli("recommend", "r", "Toy Story", "Alien", "-k", 5)
    assert found.code == 0, found.err
    assert "Toy Story (1995)" in found.out + found.err and "Alien (1979)" in found.out + found.err
    assert cli("similar", "r", "Alien").code == 0


@pytest.mark.data
def test_movielens_1m_by_title(cli: Cli) -> None:
    """Titles in ISO-8859-1, parted by `::`; no times but a position in their order."""
    log, movies = there("ml-1m/ml-1m_ordered_DERIVED.csv.gz", "ml-1m/movies.dat.gz")
    found = cli("prepare", log, "--items", movies, "--items-encoding", "ISO-8859-1", "--out", "d")
    assert found.code == 0, found.err
    assert "1,000,209" in found.out and "6,040" in found.out
    done = cli("fit", "d", "--run", "r", *QUICK, "--set", "loss=bce", "-q")
    assert done.code == 0, done.err
    found = cli("recommend", "r", "Star Wars: Episode IV - A New Hope", "The Matrix", "-k", 5)
    assert found.code == 0, found.err
    assert "Matrix, The (1999)" in found.out + found.err
