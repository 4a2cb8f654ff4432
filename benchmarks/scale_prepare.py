"""How long, and in how much memory, a large CSV is prepared.

    python benchmarks/scale_prepare.py                # 1, 5 and 20 million rows
    python benchmarks/scale_prepare.py --millions 1 2 # fewer

Each size is generated (integer users and items, Unix seconds, in no order of user) and prepared
in a process of its own, whose highest resident memory the kernel reports. Figures go to
``results/scale_prepare.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PIECE = 1_000_000


def generate(path: Path, rows: int, seed: int = 0) -> None:
    """Write `rows` interactions: 10 a user on average, a long tail of rows // 200 items."""
    import polars as pl

    draw = np.random.default_rng(seed)
    n_users, n_items = rows // 10, rows // 200
    with path.open("wb") as file:
        file.write(b"user,item,time\n")
        for start in range(0, rows, PIECE):
            n = min(PIECE, rows - start)
            table = {
                "user": 1 + (n_users * draw.random(n)).astype(np.int64),
                "item": 1 + (n_items * draw.random(n) ** 3).astype(np.int64),
                "time": draw.integers(1_400_000_000, 1_700_000_000, n),
            }
            pl.DataFrame(table).write_csv(file, include_header=False)


def prepare(path: Path, folder: Path) -> None:
    """Prepare the log, and print seconds, counts and peak memory of this process as JSON."""
    from nextup.data.prepare import read

    start = time.perf_counter()
    dataset = read(path)
    read_seconds = time.perf_counter() - start
    dataset.save(folder)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    counts = dataset.card["counts"]
    measured = {
        "seconds": seconds,
        "read_seconds": read_seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_kib": used.ru_maxrss,  # KiB on Linux
    }
    print(json.dumps({**measured, **counts}))


def child(*arguments: str) -> str:
    """Run this file again with `arguments`, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout


def measure(millions: float, scratch: Path) -> dict[str, float]:
    """Generate, prepare and remove one log."""
    rows = int(millions * 1_000_000)
    path, folder = scratch / f"{rows}.csv", scratch / f"{rows}"
    child("--generate", str(path), str(rows))
    size = path.stat().st_size
    found = json.loads(child("--prepare", str(path), str(folder)))
    written = sum(file.stat().st_size for file in folder.iterdir())
    path.unlink()
    return {
        "rows": rows,
        "csv_mb": round(size / 1e6, 1),
        "dataset_mb": round(written / 1e6, 1),
        "seconds": round(found["seconds"], 2),
        "seconds_reading": round(found["read_seconds"], 2),
        "cpu_seconds": round(found["cpu_seconds"], 2),
        "peak_mb": round(found["peak_kib"] * 1024 / 1e6, 1),
        "users": found["users"],
        "items": found["items"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--generate", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.generate:
        generate(Path(given.generate[0]), int(given.generate[1]))
        return
    if given.prepare:
        prepare(Path(given.prepare[0]), Path(given.prepare[1]))
        return
    from record import record  # imports torch, which the measured children must not

    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        for millions in given.millions:
            rows.append(measure(millions, Path(scratch)))
            print(rows[-1], flush=True)
    record("scale_prepare", {"load_average": round(os.getloadavg()[0], 1), "runs": rows})


if __name__ == "__main__":
    main()
