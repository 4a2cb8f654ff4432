"""Every format, every way round: what is written is what is read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.errors import InputError

Row = tuple[object, object, int]
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LETTERS = st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=1, max_size=6)
TEXTS = (
    st.tuples(LETTERS, st.integers(0, 30))
    .map(lambda pair: f"{pair[0]}_{pair[1]}")
    .filter(lambda text: text.strip().lower() not in ("nan", "null"))
)
INTEGERS = st.integers(0, 10**12)
TIMES = st.integers(0, 20)


def logs(ids: st.SearchStrategy) -> st.SearchStrategy:
    pool = st.lists(ids, min_size=1, max_size=6, unique=True)
    return st.tuples(pool, pool).flatmap(
        lambda pools: st.lists(
            st.tuples(st.sampled_from(pools[0]), st.sampled_from(pools[1]), TIMES),
            min_size=1,
            max_size=30,
        )
    )


ANY_LOG = st.one_of(logs(TEXTS), logs(INTEGERS))


def expected(rows: list[Row]) -> dict[str, list[tuple[str, int]]]:
    """What each user did in order of time, rows of equal time in the order of the log."""
    histories: dict[str, list[tuple[str, int]]] = {}
    for user, item, time in rows:
        histories.setdefault(str(user), []).append((str(item), time))
    return {user: sorted(done, key=lambda each: each[1]) for user, done in histories.items()}


def found(dataset: Dataset) -> dict[str, list[tuple[str, int]]]:
    assert dataset.times is not None
    sequences = dataset.sequences
    return {
        str(user): [
            (str(dataset.catalog.raw_of(int(n))), int(t))
            for n, t in zip(
                sequences[row],
                dataset.times[sequences.starts[row] : sequences.ends[row]],
                strict=True,
            )
        ]
        for row, user in enumerate(dataset.users)
    }


def quote(value: object) -> str:
    return '"' + str(value).replace('"', '""') + '"'


def write(rows: list[Row], folder: Path, kind: str) -> Path:
    path = folder / f"log.{kind}"
    base = kind.removesuffix(".gz")
    if base == "parquet":
        columns = list(zip(*rows, strict=True))
        frame = pl.DataFrame(dict(zip(("user", "item", "time"), columns, strict=True)))
        frame.write_parquet(folder / "log.tmp")
        content = (folder / "log.tmp").read_bytes()
    elif base == "jsonl":
        lines = [json.dumps({"user": u, "item": i, "time": t}) for u, i, t in rows]
        content = "\n".join(lines).encode()
    elif base == "quoted.csv":
        lines = [",".join(map(quote, row)) for row in rows]
        content = ("user,item,time\r\n" + "\r\n".join(lines) + "\r\n").encode()
    else:
        mark = {"csv": ",", "tsv": "\t"}[base]
        lines = [mark.join(map(str, row)) for row in rows]
        content = ("\n".join([mark.join(("user", "item", "time")), *lines]) + "\n").encode()
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path


KINDS = [
    "csv",
    "tsv",
    "quoted.csv",
    "jsonl",
    "parquet",
    "csv.gz",
    "tsv.gz",
    "jsonl.gz",
    "parquet.gz",
]


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(rows=ANY_LOG)
def test_round_trip(kind: str, rows: list[Row], tmp_path: Path) -> None:
    dataset = read(write(rows, tmp_path, kind))
    assert found(dataset) == expected(rows)
    assert dataset.card["rows"] == {
        "read": len(rows), "left_out": {}, "filtered": 0, "used": len(rows)
    }  # fmt: skip
    assert int(dataset.sequences.items.min()) == 1
    assert int(dataset.sequences.items.max()) == dataset.n_items
    assert dataset.users.are_integers == isinstance(rows[0][0], int)


@pytest.mark.parametrize("library", ["polars", "pandas"])
@QUICK
@given(rows=ANY_LOG)
def test_frames(library: str, rows: list[Row]) -> None:
    columns = dict(zip(("user", "item", "time"), zip(*rows, strict=True), strict=True))
    if library == "polars":
        frame = pl.DataFrame(columns)
    else:
        frame = pytest.importorskip("pandas").DataFrame({k: list(v) for k, v in columns.items()})
    assert found(read(frame)) == expected(rows)


@QUICK
@given(rows=ANY_LOG)
def test_slow_way_reads_what_the_fast_way_reads(rows: list[Row], tmp_path: Path) -> None:
    """A broken row sends its block the slow way; the good rows come out the same."""
    path = write(rows, tmp_path, "csv")
    fast = read(path)
    path.write_text(path.read_text() + "1,2,3,4,5\n")
    slow = read(path, skip_bad_rows=True)
    assert found(slow) == found(fast)
    assert slow.card["rows"]["left_out"] == {"wrong number of fields": 1}


@QUICK
@given(rows=logs(INTEGERS))
def test_sequence_and_pair_text(rows: list[Row], tmp_path: Path) -> None:
    ordered = {u: [i for i, _ in done] for u, done in expected(rows).items()}
    sequence, pairs = tmp_path / "s.txt", tmp_path / "p.txt"
    sequence.write_text("".join(f"{u} {' '.join(done)}\n" for u, done in ordered.items()))
    pairs.write_text("".join(f"{u} {i}\n" for u, done in ordered.items() for i in done))
    for path, kind in ((sequence, "s3rec"), (pairs, "pairs")):
        dataset = read(path, format=kind)
        histories = {
            str(user): [str(dataset.catalog.raw_of(int(n))) for n in dataset.sequences[row]]
            for row, user in enumerate(dataset.users)
        }
        assert histories == ordered
        assert dataset.times is None
    assert [str(u) for u in read(sequence, format="s3rec").users] == list(ordered)


def test_formats_are_told_from_content(tmp_path: Path) -> None:
    said: list[str] = []
    for content, kind in (
        ("1 2 3\n2 3 4 5\n", "s3rec"),
        ("1 2\n1 3\n2 2\n", "pairs"),
        ("1 2 3\t0 5\n2 3\t0\n", "gaps"),
        ('{"user": 1, "item": 2}\n', "jsonl"),
        ('{"7": [1, 2], "8": [2]}', "json"),
        ("user;item\n1;2\n", "csv"),
        ("user\titem\n1\t2\n", "tsv"),
        ("1::2::5::978300760\n", "csv"),
    ):
        path = tmp_path / "log.txt"
        path.write_text(content)
        assert read(path, say=said.append).card["source"]["format"] == kind
        assert any("read as" in message for message in said)
        said.clear()


def test_column_guesses_are_said_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("rating,Movie_ID,userId,timestamp\n4,10,7,964982703\n5,11,7,964982700\n")
    said: list[str] = []
    dataset = read(path, say=said.append)
    assert "user = `userId`, item = `Movie_ID`, time = `timestamp`" in said[0]
    assert dataset.card["columns"]["item"] == {"column": "Movie_ID", "guessed": True}
    assert dataset.card["time"]["unit"] == "s"
    assert dataset.catalog.ids.tolist() == [10, 11]
    assert dataset.sequences[0].tolist() == [2, 1]
    named = read(path, user="userId", item=2, time="timestamp")
    assert named.card["columns"]["item"] == {"column": "Movie_ID", "guessed": False}


def test_headerless_columns_by_number_and_by_place(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("A2X,B01,5.0,1393545600\nA2X,C02,4.0,1363392000\n")
    for dataset in (read(path), read(path, header=False, user=1, item=2, time=4)):
        assert dataset.users.tolist() == ["A2X"]
        assert [dataset.catalog.raw_of(int(n)) for n in dataset.sequences[0]] == ["C02", "B01"]
    assert read(path, min_rating=5).n_interactions == 1


def test_ties_keep_the_order_of_the_log(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    rows = [(int(u), int(i), int(t)) for u, i, t in draw.integers(0, 5, (500, 3))]
    path = write(rows, tmp_path, "csv")
    assert found(read(path)) == expected(rows)
    assert "keep the order of the log" in read(path).card["order"]


def test_small_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nextup.data import read as module
    from nextup.data import source

    rows = [(f"u{n % 7}", f"i,{n % 11}\n{n % 3}", n % 13) for n in range(300)]
    path = write(rows, tmp_path, "quoted.csv")
    whole = found(read(path))

    def small(*args: object, **kwargs: object) -> object:
        return source.blocks(*args, **{**kwargs, "size": 64})  # type: ignore[arg-type]

    monkeypatch.setattr(module, "blocks", small)
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert found(read(path)) == whole == expected(rows)


@pytest.mark.parametrize(
    ("times", "stored", "unit"),
    [
        (["1", "2", "10"], [1, 2, 10], "own"),
        (["1.5", "2", "10"], [1_500_000, 2_000_000, 10_000_000], "own"),
        (["1970-01-02", "1970-01-03", "1970-01-04"], [86400e6, 2 * 86400e6, 3 * 86400e6], "us"),
        (["1970-01-01T00:00:01Z", "1970-01-01 00:00:02", "1970-01-01T01:00:03+01:00"],
         [1e6, 2e6, 3e6], "us"),
        (["1970-01-01 00:00:01", "1970-01-01 00:00:02", "1970-01-01 00:00:03"],
         [1e6, 2e6, 3e6], "us"),
        (["1500000000000", "1500000000001", "1500000000002"],
         [1500000000000, 1500000000001, 1500000000002], "ms"),
    ],
)  # fmt: skip
def test_kinds_of_times(times: list[str], stored: list[int], unit: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"1,{n},{t}\n" for n, t in enumerate(times)))
    dataset = read(path)
    assert dataset.times is not None
    assert dataset.times.tolist() == stored
    assert dataset.card["time"]["unit"] == unit


def test_datetime_columns_of_frames() -> None:
    pandas = pytest.importorskip("pandas")
    moments = ["2020-01-02", "2020-01-01", "2020-01-03"]
    frame = pandas.DataFrame({"user": [1.0, 1.0, 1.0], "item": ["a", "b", "c"]})
    frame["time"] = pandas.to_datetime(moments)
    polars = pl.DataFrame({"user": [1, 1, 1], "item": ["a", "b", "c"], "time": moments})
    polars = polars.with_columns(pl.col("time").str.to_date(), pl.col("item").cast(pl.Categorical))
    frame["item"] = frame["item"].astype("category")
    for each in (frame, polars, polars.lazy()):
        dataset = read(each)
        assert dataset.users.tolist() == [1]
        assert [dataset.catalog.raw_of(int(n)) for n in dataset.sequences[0]] == ["b", "a", "c"]
        split = dataset.split("time:2020-01-02,2020-01-03")
        assert len(split.test) == 1


def test_side_file_gives_titles_and_attributes(tmp_path: Path) -> None:
    log, movies = tmp_path / "log.csv", tmp_path / "movies.dat"
    log.write_text("user,item\n1,10\n1,11\n2,12\n")
    movies.write_bytes(
        "10::Léon, the Cat::Drama|Crime\n12::Heat::Action\n99::No::Drama\n".encode("latin1")
    )
    said: list[str] = []
    dataset = read(log, items=movies, items_encoding="ISO-8859-1", say=said.append)
    assert dataset.catalog.titles == ["Léon, the Cat", None, "Heat"]
    assert dataset.catalog.attributes == {"genres": [["Drama", "Crime"], None, ["Action"]]}
    assert any("1 items without row" in message for message in said)
    with pytest.raises(InputError, match=r"line 1: .*utf-8.*--items-encoding ISO-8859-1"):
        read(log, items=movies)


@pytest.mark.parametrize(
    "items",
    [
        {"10": "A", 12: "C"},
        {"10": {"title": "A"}, "12": {"title": "C"}},
        pl.DataFrame({"id": [10, 12], "title": ["A", "C"]}),
        'id,title\n10,A\n12,"C"\n',
        '{"10": "A", "12": "C"}',
        '{"item": 10, "title": "A"}\n{"item": 12, "title": "C"}\n',
    ],
)
def test_kinds_of_side_files(items: object, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item\n1,10\n1,11\n2,12\n")
    if isinstance(items, str):
        side = tmp_path / "side.txt"
        side.write_text(items)
        items = side
    assert read(log, items=items).catalog.titles == ["A", None, "C"]  # type: ignore[arg-type]


def test_numbers_given_as_text(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1,007\n1,7\n")
    dataset = read(path)
    assert dataset.catalog.ids.tolist() == ["007", "7"]
    path.write_text("user,item\n1,8\n1,7\n")
    assert read(path, text_ids=True).catalog.ids.tolist() == ["8", "7"]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("u1 i1 4\nu1 i2 5\n", {"user": 0, "item": 1}, "has no columns to choose"),
        ("u1 i1 4\nu1 i2 5\n", {"format": "s3rec", "user": 0}, "has no columns to choose"),
        ("u1 i1 4\nu1 i2 5\n", {"format": "pairs", "time": 2}, "has no column of times"),
    ],
)
def test_columns_that_a_format_has_not_are_refused(
    text: str, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read(path, **options)
