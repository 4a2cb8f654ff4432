"""Whole files: every format in and out, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from shelf import N_ITEMS, histories, saved

import nextup.recommend.files as files
from nextup.errors import ConfigError, InputError
from nextup.recommend.files import recommend_file
from nextup.recommend.recommender import LoadedRecommender


@pytest.fixture
def recommender(tmp_path: Path) -> LoadedRecommender:
    return saved("mc1", tmp_path)


def asked() -> dict[str, list[str]]:
    return {f"u{at:02}": [f"item-{n}" for n in row] for at, row in enumerate(histories(m=23))}


def log() -> pl.DataFrame:
    rows = [(user, item, time) for user, row in asked().items() for time, item in enumerate(row)]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def write_source(folder: Path, kind: str) -> Path:
    path = folder / f"source.{kind}"
    if kind == "csv":
        log().sample(fraction=1, shuffle=True, seed=1).write_csv(path)
    elif kind == "parquet":
        log().write_parquet(path)
    elif kind == "log.jsonl":
        log().write_ndjson(path)
    else:
        lines = [json.dumps({"user": user, "history": row}) for user, row in asked().items()]
        path.write_text("\n".join(lines) + "\n")
    return path


def read_back(path: Path) -> dict[str, list[tuple[str, str | None, float]]]:
    found: dict[str, list[tuple[str, str | None, float]]] = {}
    if path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            found[entry["user"]] = [(i["item"], i["title"], i["score"]) for i in entry["items"]]
        return found
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
    else:
        table = pl.read_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    assert table.columns == ["user", "rank", "item", "title", "score", "note"]
    for user, rank, item, title, score, _ in table.iter_rows():
        found.setdefault(user, []).append((item, title, score))
        assert rank == len(found[user])
    return found


@pytest.mark.parametrize("kind", ["csv", "parquet", "log.jsonl", "jsonl"])
@pytest.mark.parametrize("result", ["csv", "tsv", "parquet", "jsonl"])
def test_all_formats_give_the_same_answers(
    kind: str, result: str, recommender: LoadedRecommender, tmp_path: Path
) -> None:
    source, output = write_source(tmp_path, kind), tmp_path / "new" / f"lists.{result}"
    summary = recommend_file(recommender, source, output, 7)
    expected = {
        user: list(zip(answer.items, answer.titles, answer.scores, strict=True))
        for user, answer in zip(
            asked(), recommender.recommend(list(asked().values()), 7), strict=True
        )
    }
    found = read_back(output)
    assert found.keys() == expected.keys()
    for user, rows in found.items():
        assert [row[:2] for row in rows] == [row[:2] for row in expected[user]]
        assert [row[2] for row in rows] == pytest.approx([row[2] for row in expected[user]])
    assert (summary.users, summary.recommendations) == (23, 161)
    assert summary.describe() == "161 recommendations for 23 users"
    assert [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize("result", ["csv", "parquet", "jsonl"])
def test_what_is_unusual_is_counted(
    result: str,
    recommender: LoadedRecommender,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "AT_ONCE", 2)
    source, output = tmp_path / "h.jsonl", tmp_path / f"o.{result}"
    everything = [f"item-{n}" for n in range(1, N_ITEMS)]
    lines = [
        {"user": 1, "history": ["item-3", "new"]},
        {"user": 2, "history": []},
        {"user": "c", "history": ["new", "newer"]},
        {"user": 4, "history": everything},
        {"history": ["item-1"]},
    ]
    source.write_text("\n\n".join(map(json.dumps, lines)))
    summary = recommend_file(recommender, source, output, 3)
    assert (summary.users, summary.recommendations) == (5, 13)
    assert (summary.unknown, summary.popular, summary.short) == (3, 2, 1)
    assert "3 interactions with unknown items skipped" in summary.describe()
    assert list(read_back(output)) == ["1", "2", "c", "4", "9"]
    if result == "jsonl":
        entries = [json.loads(line) for line in output.read_text().splitlines()]
        assert [entry["unknown"] for entry in entries] == [["new"], [], ["new", "newer"], [], []]
        assert entries[1]["note"] == "the history is empty: these are the most popular items"
        assert "only 1 of 3" in entries[3]["note"]
        return
    table = pl.read_parquet(output) if result == "parquet" else pl.read_csv(output)
    notes: dict[str, str | None] = dict(zip(table["user"], table["note"], strict=True))
    assert notes["1"] == "unknown items skipped: new" and notes["9"] is None
    assert notes["2"] == "the history is empty: these are the most popular items"
    assert notes["c"] == (
        "no item of the history is known: these are the most popular items; "
        "unknown items skipped: new, newer"
    )
    assert notes["4"] == "only 1 of 3 wanted: no other items are left"


def test_a_note_does_not_name_a_thousand_items(
    recommender: LoadedRecommender, tmp_path: Path
) -> None:
    history = ["item-1", *(f"new-{n}" for n in range(1000))]
    (tmp_path / "h.jsonl").write_text(json.dumps({"user": "a", "history": history}))
    recommend_file(recommender, tmp_path / "h.jsonl", tmp_path / "o.csv", 1)
    (note,) = pl.read_csv(tmp_path / "o.csv")["note"]
    assert note.endswith("skipped: new-0, new-1, new-2, new-3, new-4 and 995 more")


def test_a_log_is_read_as_it_is_said_to_be(recommender: LoadedRecommender, tmp_path: Path) -> None:
    source, output = tmp_path / "log.csv", tmp_path / "o.csv"
    rows = ["7;item-3;x", "7;item-4;y", "Zoë;item-5;z", "8;;z"]
    source.write_text("\n".join(rows) + "\n", encoding="latin-1")
    said: list[str] = []
    layout = {"delimiter": ";", "header": False, "encoding": "latin-1", "time": "none"}
    with pytest.raises(InputError, match="line 4: absent item id"):
        recommend_file(recommender, source, output, 3, **layout)  # type: ignore[arg-type]
    recommend_file(
        recommender,
        source,
        output,
        3,
        skip_bad_rows=True,
        text_ids=True,
        say=said.append,
        **layout,  # type: ignore[arg-type]
    )
    assert list(read_back(output)) == ["7", "Zoë"]
    assert any("1 of 4 rows left out" in line for line in said)
    assert not any("--min-user" in line or "fewer than 3 items" in line for line in said)


def test_what_is_guessed_is_said_unless_told_not_to(
    recommender: LoadedRecommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path, "csv")
    recommend_file(recommender, source, tmp_path / "one.csv")
    assert "columns guessed: user = `user`" in capsys.readouterr().err
    recommend_file(recommender, source, tmp_path / "two.csv", quiet=True)
    assert capsys.readouterr().err == ""


def test_an_existing_output_is_kept_unless_told(
    recommender: LoadedRecommender, tmp_path: Path
) -> None:
    source, output = write_source(tmp_path, "jsonl"), tmp_path / "o.csv"
    output.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        recommend_file(recommender, source, output)
    assert output.read_text() == "precious"
    recommend_file(recommender, source, output, overwrite=True)
    assert len(read_back(output)) == 23


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"user": 1, "history": ["a"]}\nnonsense', "line 2: is not JSON"),
        ('{"user": 1, "history": ["a"]}\n[1]', "line 2: has no list"),
        ('{"user": 1, "history": "a"}', "line 1: has no list"),
        ('{"user": 1, "history": [["a"]]}', "line 1: has no list"),
        ('{"user": [1], "history": ["a"]}', "line 1: the user is"),
        ('{"user": 1, "history": ["a", null]}', "line 1: an item is None, neither text"),
        ('{"user": 1, "history": [true]}', "line 1: an item is True"),
        ('{"user": 1, "history": [1.5]}', "line 1: an item is 1.5"),
        ('{"user": 1, "history": ["a"]}\n{"user": 2}', "line 2: has no list"),
        ("[" * 50_000, "line 1: is not JSON"),
        ("", "empty"),
        ("\n\n", "holds no history"),
    ],
)
def test_bad_histories(
    content: str, message: str, recommender: LoadedRecommender, tmp_path: Path
) -> None:
    (tmp_path / "h.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        recommend_file(recommender, tmp_path / "h.jsonl", tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_bad_requests(
    recommender: LoadedRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, "jsonl")
    with pytest.raises(InputError, match="did you mean `parquet`"):
        recommend_file(recommender, source, tmp_path / "o.parqet")
    with pytest.raises(InputError, match="no such file"):
        recommend_file(recommender, tmp_path / "none.csv", tmp_path / "o.csv")
    with pytest.raises(ConfigError, match="catalogue holds 60"):
        recommend_file(recommender, source, tmp_path / "o.csv", 61)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files._Writer, "write", full)
    with pytest.raises(InputError, match="No space left"):
        recommend_file(recommender, source, tmp_path / "o.csv")
    assert not list(tmp_path.glob("*o.csv*"))


@pytest.mark.parametrize("result", ["csv", "parquet", "jsonl"])
def test_a_portion_of_users_may_have_no_list_at_all(
    result: str, recommender: LoadedRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "AT_ONCE", 2)
    everything = [f"item-{n}" for n in range(1, N_ITEMS + 1)]
    histories = [["item-1"], ["item-2"], everything, everything, ["item-3"]]
    lines = [{"user": at, "history": row} for at, row in enumerate(histories)]
    source, output = tmp_path / "h.jsonl", tmp_path / f"o.{result}"
    source.write_text("\n".join(map(json.dumps, lines)))
    summary = recommend_file(recommender, source, output, 3)
    assert (summary.recommendations, summary.short) == (9, 2)
    found = read_back(output)
    assert sorted(filter(None, map(len, found.values()))) == [3, 3, 3]
    if result == "parquet":
        assert pl.read_parquet(output).schema["item"] == pl.String


@pytest.mark.parametrize("result", ["csv", "parquet", "jsonl"])
def test_half_a_character_is_an_unknown_item_like_others(
    result: str, recommender: LoadedRecommender, tmp_path: Path
) -> None:
    source, output = tmp_path / "h.jsonl", tmp_path / f"o.{result}"
    source.write_text('{"user": "\\ud83d", "history": ["item-1", "\\ud83d"]}\n')
    summary = recommend_file(recommender, source, output, 3)
    assert (summary.users, summary.unknown, summary.recommendations) == (1, 1, 3)
    assert list(read_back(output)) == ["\ufffd"]


def test_whole_numbers_may_be_written_with_a_point(tmp_path: Path) -> None:
    from nextup.recommend.histories import history_lines

    source = tmp_path / "h.jsonl"
    source.write_text('{"user": 7.0, "history": [12.0, "13"]}\n')
    found = history_lines(source, saved("pop", tmp_path), None)
    assert found is not None and found.users == [7] and found.raws == [12, "13"]
