"""Two hundred damaged files: each is a dataset or an `InputError`, never anything else."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import polars as pl
import pytest

from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.errors import InputError

PER_FORMAT = 25


def originals() -> dict[str, bytes]:
    draw = random.Random(1)
    rows = [(draw.randrange(40), draw.randrange(60), 1_500_000_000 + n) for n in range(300)]
    csv = "user,item,time,title\n" + "".join(f'{u},{i},{t},"A, ""b"""\n' for u, i, t in rows)
    tsv = "user\titem\ttime\n" + "".join(f"{u}\tb{i}\t{t}\n" for u, i, t in rows)
    lines = "".join(f'{{"user": "u{u}", "item": {i}, "time": {t}}}\n' for u, i, t in rows)
    sequences = "".join(
        f"{n} {' '.join(str(draw.randrange(1, 60)) for _ in range(8))}\n" for n in range(1, 40)
    )
    pairs = "".join(f"{u} {i}\n" for u, i, _ in rows)
    return {
        "log.csv": csv.encode(),
        "log.tsv": tsv.encode(),
        "log.jsonl": lines.encode(),
        "sequences.txt": sequences.encode(),
        "pairs.txt": pairs.encode(),
        "log.csv.gz": gzip.compress(csv.encode(), mtime=0),
        "sequences.txt.gz": gzip.compress(sequences.encode(), mtime=0),
    }


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Damage some bytes in one of seven ways."""
    data = bytearray(content)
    way = draw.randrange(7)
    at = draw.randrange(len(data))
    if way == 0:
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif way == 1:
        del data[at:]
    elif way == 2:
        data[at:at] = draw.randbytes(draw.choice((1, 10, 500)))
    elif way == 3:
        del data[at : at + draw.choice((1, 7, 200))]
    elif way == 4:
        lines = bytes(data).split(b"\n")
        draw.shuffle(lines)
        data = bytearray(b"\n".join(lines[: draw.randrange(1, len(lines) + 1)]))
    elif way == 5:
        odd = (
            b'"',
            b"\0",
            b"\r",
            b"\n\n",
            b",,",
            b"\t",
            b"\xff\xfe",
            b"-1",
            b"nan",
            b"1e400",
            b"{",
        )
        for _ in range(draw.choice((1, 4))):
            at = draw.randrange(len(data))
            data[at:at] = draw.choice(odd)
    else:
        data[at : at + 20] = data[:20]
    return bytes(data)


def check(path: Path, folder: Path, draw: random.Random) -> str:
    """Read and save; return how it ended."""
    try:
        dataset = read(
            path,
            skip_bad_rows=draw.random() < 0.5,
            drop_duplicates=draw.random() < 0.3,
            min_user=draw.choice((0, 0, 3)),
        )
        dataset.save(folder / "out")
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        assert [each for each in folder.iterdir() if each != path] == []
        return "refused"
    again = Dataset.load(folder / "out")
    assert again.n_interactions == dataset.n_interactions > 0
    assert again.card["rows"]["used"] == again.n_interactions
    counted = sum(again.card["rows"]["left_out"].values()) + again.card["rows"]["filtered"]
    assert again.card["rows"]["read"] == counted + again.n_interactions
    assert sorted(each.name for each in folder.iterdir()) == sorted([path.name, "out"])
    return "read"


def run(name: str, content: bytes, tmp_path: Path) -> None:
    ends = []
    for seed in range(PER_FORMAT):
        draw = random.Random(f"{name} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = folder / name
        path.write_bytes(mutate(content, draw))
        ends.append(check(path, folder, draw))
    assert "refused" in ends


@pytest.mark.parametrize("name", originals())
def test_texts(name: str, tmp_path: Path) -> None:
    run(name, originals()[name], tmp_path)


def test_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": [n % 40 for n in range(300)], "item": [f"i{n % 7}" for n in range(300)]}
    )
    frame.write_parquet(tmp_path / "whole.parquet")
    run("log.parquet", (tmp_path / "whole.parquet").read_bytes(), tmp_path)
