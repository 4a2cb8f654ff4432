"""Bad input: one line that names the file, the place and the remedy, and nothing left behind."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import polars as pl
import pytest

from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.errors import InputError

HEAD = "user,item,time\n"
GOOD = HEAD + "1,10,100\n1,11,101\n2,10,102\n"


def refusal(source: object, **settings: object) -> str:
    with pytest.raises(InputError) as error:
        read(source, **settings)  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message
    return message


# content, settings, what the message must say
TABLES: dict[str, tuple[str | bytes, dict, list[str]]] = {
    "missing column": (GOOD, {"item": "itm"}, ["no column `itm`", "did you mean `item`"]),
    "no such number": (GOOD, {"item": 7}, ["no column `7`", "user"]),
    "unguessable column": ("a,b\nx,y\n", {}, ["which column is the user", "--user", "`a`, `b`"]),
    "one column for two": (GOOD, {"user": "item", "item": "item"}, ["two roles"]),
    "missing rating": (GOOD, {"min_rating": 3}, ["column is the rating", "--rating"]),
    "wrong delimiter": (
        GOOD,
        {"delimiter": ";"},
        ["line 1", "`;` does not part this line", "looks like `,`", "--delimiter"],
    ),
    "impossible delimiter": (GOOD, {"delimiter": "abc"}, ["delimiter `abc`"]),
    "delimiter changes": (GOOD + "2;11;103\n", {}, ["line 5", "1 fields where 3", "delimiter"]),
    "too many fields": (GOOD + "2,11,103,9\n", {}, ["line 5", "4 fields where 3 are expected"]),
    "broken quote": (GOOD + '2,"11,103\n', {}, ["line 5", "quotes are broken"]),
    "unparseable time": (GOOD + "2,11,soon\n", {}, ["line 5", "unparseable time", "`soon`"]),
    "date among numbers": (GOOD + "2,11,2020-01-01\n", {}, ["line 5", "unparseable time"]),
    "number among dates": (
        HEAD + "1,1,2020-01-01\n1,2,2020-01-02\n1,3,77\n",
        {},
        ["line 4", "unparseable time", "ISO date"],
    ),
    "absent time": (GOOD + "2,11,\n", {}, ["line 5", "unparseable time"]),
    "no time": (HEAD + "1,1,x\n", {}, ["line 2", "unparseable time", "`x`"]),
    "endless time": (GOOD + "2,11,inf\n", {}, ["line 5", "unparseable time"]),
    "negative item": (GOOD + "2,-11,103\n", {}, ["line 5", "negative item id", "-11"]),
    "negative user": (GOOD + "-2,11,103\n", {}, ["line 5", "negative user id", "-2"]),
    "absent item": (GOOD + "2,,103\n", {}, ["line 5", "absent item id"]),
    "absent user": (GOOD + "nan,11,103\n", {}, ["line 5", "absent user id", "holds `nan`"]),
    "empty user": (GOOD + ",11,103\n", {}, ["line 5", "absent user id", "the field is empty"]),
    "mixed types": (
        GOOD + "3,12,1\n3,x,1\n",
        {},
        ["line 6", "mixed types", "`x`", "--text-ids"],
    ),
    "rating": ("user,item,rating\n1,2,5\n1,3,good\n", {"min_rating": 1}, ["line 3", "rating"]),
    "empty": ("", {}, ["is empty"]),
    "blank": ("\n\n  \n", {}, ["is empty"]),
    "header alone": (HEAD, {}, ["empty but for its header"]),
    "not UTF-8": (
        "user,item\n1,L\xe9on\n".encode("latin1"),
        {},
        ["line 2", "utf-8", "--encoding ISO-8859-1"],
    ),
    "unknown encoding": (GOOD, {"encoding": "utf-9"}, ["encoding `utf-9` is unknown"]),
    "UTF-16": (GOOD.encode("utf-16"), {}, ["UTF-16", "--encoding utf-16"]),
    "binary": (bytes(range(256)) * 20, {}, ["binary"]),
    "random": (random.Random(0).randbytes(4096), {}, ["is binary, not a text table"]),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", {}, ["is a PNG picture, not a text table"]),
    "JPEG": (b"\xff\xd8\xff\xe0JFIF", {}, ["is a JPEG picture, not a text table"]),
    "zero byte": (GOOD.encode() + b"1,1\x002,7\n", {}, ["line 5", "zero byte"]),
    "ZIP": (b"PK\x03\x04rest", {}, ["ZIP archive"]),
    "Parquet by another name": (b"PAR1restPAR1", {}, ["Parquet", "--format parquet"]),
    "unknown format": (GOOD, {"format": "csvv"}, ["format `csvv`", "did you mean `csv`"]),
    "threshold of text": (GOOD, {"min_rating": "3"}, ["min-rating is '3'", "must be a number"]),
    "window without times": ("user,item\n1,2\n", {"since": 5}, ["since needs times", "--time"]),
}


@pytest.mark.parametrize("what", TABLES)
def test_tables(what: str, tmp_path: Path) -> None:
    content, settings, parts = TABLES[what]
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    message = refusal(path, **settings)
    for part in parts:
        assert part in message, message
    about_the_call = (
        *("impossible delimiter", "unknown encoding", "unknown format"),
        "threshold of text",
    )
    assert "log.csv" in message or what in about_the_call
    assert [each.name for each in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("what", [k for k, v in TABLES.items() if "line 5" in v[2] or k == "mixed"])
def test_bad_rows_can_be_skipped_and_are_counted(what: str, tmp_path: Path) -> None:
    content, settings, _ = TABLES[what]
    if what == "zero byte":
        pytest.skip("not a bad row but a damaged file")
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert "--skip-bad-rows" in refusal(path, **settings)
    said: list[str] = []
    dataset = read(path, skip_bad_rows=True, say=said.append, **settings)
    assert dataset.n_interactions == 3
    rows = dataset.card["rows"]
    assert rows["read"] == 4 and rows["used"] == 3 and sum(rows["left_out"].values()) == 1
    assert any("1 of 4 rows left out" in message for message in said)


def test_mixed_types_can_be_skipped_or_taken_as_text(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(GOOD + "3,12,1\n3,x,1\n")
    assert read(path, skip_bad_rows=True).card["rows"]["left_out"] == {"mixed types": 1}
    assert "x" in read(path, text_ids=True).catalog.ids.tolist()


def test_nothing_left_after_skipping(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD + "1,-1,1\n,2,2\n")
    message = refusal(path, skip_bad_rows=True)
    assert "none of the 2 rows" in message and "1 negative item id" in message


JSON_LINES = '{"user": 1, "item": 10, "time": 5}\n{"user": 1, "item": 11, "time": 6}\n'


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"user": 1, "item"', ["line 3", "no JSON"]),
        ("[1, 2]", ["line 3", "no JSON object"]),
        ('{"user": 1, "item": "eleven", "time": 6}', ["line 3", "mixed types", "eleven"]),
        ('{"user": 1, "item": [3], "time": 6}', ["line 3", "mixed types", "list"]),
        ('{"user": 1, "item": true, "time": 6}', ["line 3", "mixed types", "bool"]),
        ('{"user": 1, "item": 1.5, "time": 6}', ["line 3", "fractional item id"]),
        ('{"user": 1, "item": -4, "time": 6}', ["line 3", "negative item id"]),
        ('{"user": null, "item": 4, "time": 6}', ["line 3", "absent user id"]),
        ('{"item": 4, "time": 6}', ["line 3", "absent user id"]),
        ('{"user": 1, "item": 4, "time": "x"}', ["line 3", "unparseable time"]),
    ],
)
def test_json_lines(line: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(JSON_LINES + line + "\n")
    message = refusal(path)
    for part in ("log.jsonl", "--skip-bad-rows", *parts):
        assert part in message, message
    assert sum(read(path, skip_bad_rows=True).card["rows"]["left_out"].values()) == 1


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("1 2 3\n2\n", ["line 2", "user `2` has no items"]),
        ("1 2 3\n2 4 -5\n", ["line 2", "negative item id"]),
        ("1 2 3 4 5\n2 4 five 6\n", ["line 2", "mixed types", "`five`"]),
        ("1 2 3\t0 1\n2 4 5\t0\n", ["line 2", "1 time gaps for 2 items"]),
        ('{"1": [2, 3], "2": []}', ["user 2", "has no items"]),
        ('{"1": [2, 3], "2": [[4]]}', ["user 2", "mixed types"]),
        ('{"1": [2, 3]', ["no JSON"]),
        ('{"1": 5}', ["which column is the user"]),
        ("[1, 2]", ["no dictionary"]),
    ],
)
def test_sequence_text_and_dictionaries(content: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(content)
    kind = "gaps" if "\t" in content else None
    message = refusal(path, format=kind)
    for part in ("log.txt", *parts):
        assert part in message, message


def test_users_too_short_to_test_are_said(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(GOOD)
    said: list[str] = []
    dataset = read(path, say=said.append)
    assert any("2 users have fewer than 3 items" in message for message in said)
    with pytest.raises(InputError, match="no user has the 3 items"):
        dataset.split("leave-one-out")
    assert "lower min-user to 2" in refusal(path, min_user=3)


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    whole = gzip.compress(("".join(f"{n},{n * n},{n}\n" for n in range(5000))).encode())
    for cut in (5, 15, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "gzip data is" in refusal(path, header=False)
    path.write_bytes(whole[:200] + b"\xff" * 50 + whole[250:])
    assert "damaged" in refusal(path, header=False)
    path.write_bytes(gzip.compress(b""))
    assert "is empty" in refusal(path)
    path.write_bytes(gzip.compress(b"user,item\n1,2\n") + gzip.compress(b"1,3\n") + b"\0" * 100)
    assert read(path).n_interactions == 2  # several members, padded, as some tools write


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1, 2], "item": [[1], [2]]}).write_parquet(path)
    assert "column `item` for the item holds List" in refusal(path)
    pl.DataFrame({"user": [1, 2, 3], "item": [1, None, 2]}).write_parquet(path)
    assert "row 1: absent item id" in refusal(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "truncated" in refusal(path)
    path.write_bytes(b"user,item\n")
    assert "no Parquet file" in refusal(path)


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    good = {"user": [1, 1, 2], "item": [5, 6, 7]}
    assert "polars frame: row 1: fractional item id" in refusal(
        pl.DataFrame({**good, "item": [5.0, 6.5, 7.0]})
    )
    assert "pandas frame: row 2: mixed types" in refusal(
        pandas.DataFrame({**good, "item": pandas.Series([5, 6, "x"], dtype=object)})
    )
    assert "row 1: absent user id" in refusal(pandas.DataFrame({**good, "user": [1, None, 2]}))
    assert "no column `film`" in refusal(pandas.DataFrame(good), item="film")
    assert "a list cannot be read" in refusal([1, 2])
    assert read(pandas.DataFrame({**good, "user": [1, None, 2]}), skip_bad_rows=True).n_users == 2


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    message = refusal(tmp_path / "ratings.csv")
    assert "no such file" in message and "did you mean" in message and "ratings.csv.gz" in message
    assert "is a directory" in refusal(tmp_path)
    read(tmp_path / "ratings.csv.gz").save(tmp_path / "prepared")
    assert "prepared dataset already" in refusal(tmp_path / "prepared")
    assert "no such file" in refusal("x\0y")


def test_side_files(tmp_path: Path) -> None:
    log, side = tmp_path / "log.csv", tmp_path / "side.csv"
    log.write_text(GOOD)
    for content, parts in (
        ("movieId,title\n77,A\n", ["none of its 1 ids", "--item-id"]),
        ("what,title\n10,A\n", ["which column is the item_id", "--item-id"]),
        ("id,title\n10,A,B\n", ["line 2", "3 fields where 2"]),
        ("", ["is empty"]),
        ("id,title\n10,L\xe9on\n", ["line 2", "--items-encoding ISO-8859-1"]),
    ):
        side.write_bytes(content.encode("latin1"))
        message = refusal(log, items=side)
        for part in ("side.csv", *parts):
            assert part in message, message
    assert "no such file" in refusal(log, items=tmp_path / "none.csv")


def test_halves_of_characters(tmp_path: Path) -> None:
    """JSON can escape half of a character, which no UTF-8 file can hold."""
    path, side = tmp_path / "log.jsonl", tmp_path / "side.json"
    path.write_text('{"user": "a", "item": "b"}\n{"user": "a", "item": "\\ud83d"}\n')
    assert "line 2: malformed text" in refusal(path)
    side.write_text('{"b": "half \\ud83d"}')
    dataset = read(path, items=side, skip_bad_rows=True)
    assert Dataset.load(dataset.save(tmp_path / "d")).catalog.titles == ["half \ufffd"]


@pytest.mark.parametrize("name", ["log", "log.txt", "log.dat", "log.csv", "log.jsonl"])
@pytest.mark.parametrize("content", [" ", "\n\n  \n", "\t\n"])
def test_blank_files_are_called_empty_whatever_their_name(
    name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    assert f"{name}: is empty; give a file with at least" in refusal(tmp_path / name)


def test_a_header_parted_by_spaces_is_no_user_with_items(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("user item rating time\n1 10 5 100\n1 11 4 90\n2 10 3 102\n")
    said: list[str] = []
    dataset = read(path, say=said.append)
    assert dataset.n_users == 2 and dataset.catalog.ids.tolist() == [10, 11]
    assert dataset.sequences[0].tolist() == [2, 1]
    assert any("user = `user`, item = `item`, time = `time`" in line for line in said)
    path.write_text("1 10 5 100\n2 11 4 90\n")
    assert read(path).n_interactions == 6  # without names it is S3-Rec text, as before


def test_times_with_fractions_are_windowed_in_their_own_unit(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD + "1,1,10.5\n1,2,11\n1,3,11.5\n1,4,12\n")
    dataset = read(path, since=11, until="11.75")
    assert dataset.catalog.ids.tolist() == [2, 3]
    assert dataset.card["time"]["scaled_by"] == 1_000_000


def test_times_can_be_left_unread(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,date\n1,7,2 Jan\n1,5,1 Jan\n")
    assert "line 2: unparseable time: `2 Jan`" in refusal(path)
    assert "--time none" in refusal(path)
    dataset = read(path, time="none")
    assert dataset.times is None and dataset.sequences[0].tolist() == [2, 1]


def test_settings_that_need_a_side_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(GOOD)
    assert "--items" in refusal(path, title="name")
    assert "hex" in refusal(path, encoding="hex")
    assert "cannot be collected" in refusal(
        pl.LazyFrame({"user": [1], "item": ["a"]}).with_columns(pl.col("item").cast(pl.Int8))
    )


def test_a_gap_that_is_no_number_spoils_its_own_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("1 2 3 4\t0 nan 5\n2 3 4 5\t0 inf 5\n3 4 5 6\t0 1 5\n")
    data = read(file, format="gaps", skip_bad_rows=True, quiet=True)
    assert data.times is not None
    row = data.users.tolist().index(3)
    span = slice(data.sequences.starts[row], data.sequences.ends[row])
    assert (
        len(data.sequences.row(row) if hasattr(data.sequences, "row") else data.sequences[row]) == 3
    )
    assert (data.times[span] - data.times[span][0]).tolist() == [0, 1, 6]
