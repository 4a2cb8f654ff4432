"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import csv
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import nextup
from nextup.data.simulate import simulate

from .command_line import Cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"<!-- run -->\n```(\w+)\n(.*?)```", README, re.DOTALL))
FILMS = {1: "Toy Story (1995)", 1214: "Alien (1979)", 50: "Usual Suspects, The", 260: "Star Wars"}
QUICK = {"width": 8, "layers": 1, "epochs": 1}


@pytest.fixture
def films(cli: Cli) -> None:
    """Write ratings.csv and movies.csv, of the shape that MovieLens has."""
    sequences = simulate(n_users=80, n_items=40, seed=2).dataset.sequences
    ids = [*FILMS, *range(2000, 2036)]
    with Path("movies.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(raw, FILMS.get(raw, f"Film {raw}"), "Drama") for raw in ids]
        csv.writer(file).writerows([("movieId", "title", "genres"), *rows])
    with Path("ratings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("userId", "movieId", "rating", "timestamp"))
        for user, history in enumerate(sequences, 1):
            for step, item in enumerate(history.tolist()):
                writer.writerow((user, ids[item - 1], 4.0, 1_100_000_000 + step))


@pytest.mark.usefixtures("films")
def test_the_tour_of_the_command_line(cli: Cli) -> None:
    for line in SNIPPETS["sh"].splitlines():
        program, *arguments = shlex.split(line)
        assert program == "nextup"
        if "sasrec" in arguments and arguments[0] == "fit":
            arguments += [word for key, value in QUICK.items() for word in ("-s", f"{key}={value}")]
        found = cli(*arguments)
        assert found.code == 0, f"{line}\n{found.err}"
    assert "Toy Story (1995)" in cli("recommend", "runs/sasrec", "Toy Story").err


@pytest.mark.usefixtures("films")
def test_the_five_lines_of_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = SNIPPETS["python"].replace('"sasrec", run=', f'"sasrec", settings={QUICK}, run=')
    assert repr(QUICK) in code
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "NDCG@10" in printed and "Film" in printed


def test_the_files_it_points_to_are_there() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    later = {"docs/architecture.md", "results", "benchmarks"}
    assert {link for link in links if not (ROOT / link).exists()} <= later


def test_the_public_names_are_what_they_seem() -> None:
    for room in ("nextup.evaluation.protocol", "nextup.models.base"):
        import_module(room)  # must not hide the function of the same name
    for name in nextup.__all__:
        assert getattr(nextup, name) is not None
    assert "sasrec" in nextup.available_models() and callable(nextup.evaluate)
    assert set(nextup.__all__) <= set(dir(nextup))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        nextup.fitt  # noqa: B018
