#!/usr/bin/env bash
# Minutes from a raw file to a tested recommender, by the command line alone.
#
#   bash benchmarks/time_to_quality.sh [beauty/Beauty.txt.gz] [recipe]
#
# Prepares, fits, and ranks the test items; prints the seconds of each and of all together. Writes
# results/time_to_quality.json. Threads follow OMP_NUM_THREADS, by default 2.
set -euo pipefail
cd "$(dirname "$0")/.."
data="${NEXTUP_DATA:-../shared/data}/${1:-beauty/Beauty.txt.gz}"
recipe="${2:-fast}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
nextup="${NEXTUP:-.venv/bin/nextup}"
python="${PYTHON:-.venv/bin/python}"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
now() { date +%s.%N; }
t0=$(now)
"$nextup" prepare "$data" --out "$out/data"
t1=$(now)
"$nextup" fit "$out/data" --model sasrec --recipe "$recipe" --run "$out/run"
t2=$(now)
"$nextup" evaluate "$out/run"
t3=$(now)
"$python" - "$out/run" "$recipe" "$data" "$t0" "$t1" "$t2" "$t3" <<'PY'
import sys

sys.path.insert(0, "benchmarks")
from pathlib import Path

from record import record

from nextup.train.run import Run

folder, recipe, data, *marks = sys.argv[1:]
t0, t1, t2, t3 = map(float, marks)
run = Run(folder)
found = {
    "data": Path(data).name,
    "recipe": recipe,
    "seconds": {"prepare": t1 - t0, "fit": t2 - t1, "evaluate": t3 - t2, "all": t3 - t0},
    "test": run.metrics["test"],
    "protocol": run.config["protocol"],
    "epochs": len(run.log()),
}
sys.argv = ["benchmarks/time_to_quality.sh", Path(data).name, recipe]
record("time_to_quality", found)
print(f"{t3 - t0:.1f} s in all, test NDCG@10 {run.metrics['test']['NDCG@10']:.4f}")
PY
