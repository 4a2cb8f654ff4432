"""Run a peer's SASRec, or a model of RecBole, in its own environment; return what it measured.

``setup.sh`` makes the environments. From Python::

    from peers.run import run_peer
    run_peer("rectools", "bce", sequences, threads=2, max_batches=12)

From the command line, on a file of lines ``user item item ...`` whose last two items are left out::

    python benchmarks/peers/run.py Beauty.txt.gz --peer replay --loss softmax --max-batches 5
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ("rectools", "replay")
"""Packages whose SASRec runs in an environment of their own."""
SCRIPTS = {
    **{name: f"{name}_sasrec.py" for name in PEERS},
    "recbole": "recbole_models.py",
    "coserec": "coserec_public.py",
}
"""All there is to run: beside the packages, the models of RecBole and CoSeRec's public code."""
MAX_FOREIGN_CORES = 0.1

if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from common import read_text, save_npz  # noqa: E402


class PeerError(RuntimeError):
    """A peer's environment is missing, or its child process failed."""


def environment(threads: int) -> dict[str, str]:
    """Return the environment for every child.

    The caller's own, so that allocator settings such as ``MALLOC_MMAP_THRESHOLD_`` hold for
    everybody or for nobody, with the same number of threads and without accelerators.
    """
    names = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "POLARS_MAX_THREADS",
        "ARROW_NUM_THREADS",
    )
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return variables | dict.fromkeys(names, str(threads)) | {"CUDA_VISIBLE_DEVICES": ""}


def interpreter(name: str) -> Path:
    """Return the Python of a peer's environment."""
    if name not in SCRIPTS:
        raise PeerError(f"unknown peer {name!r}; there are {', '.join(SCRIPTS)}")
    python = ROOT / ".peers" / name / "bin" / "python"
    if not python.exists():
        raise PeerError(f"no environment for {name}: run `bash benchmarks/peers/setup.sh {name}`")
    return python


def noisiest(found: dict[str, Any]) -> float | None:
    """Return the highest ``foreign_cores`` of training, None where not known."""
    cores = [span["foreign_cores"] for span in found["training"]["spans"]]
    return max((c for c in cores if c is not None), default=None)


def run_peer(
    name: str,
    loss: str,
    sequences: Any,
    threads: int,
    max_batches: int | None,
    *,
    epochs: int = 1,
    repeats: int = 1,
    ffn_dim: int | None = None,
    timeout: float | None = None,
    checkout: Path | str | None = None,
    views: bool = False,
    model: str | None = None,
    as_shipped: bool = False,
) -> dict[str, Any]:
    """Train and time one peer in a child process.

    Parameters
    ----------
    name
        ``"rectools"``, ``"replay"``, ``"recbole"``, or ``"coserec"``: the authors' public code.
    loss
        ``"bce"`` (one negative per position) or ``"softmax"`` (over all items); RecBole's models
        have the loss of their own settings.
    sequences
        Training histories: anything with ``items`` (from 1), ``starts`` and ``ends``; for
        ``"coserec"`` and ``"recbole"`` whole ones, whose last two items they leave out themselves.
    threads
        Threads of the child.
    max_batches
        Batches per timed span, the first of which is the warm-up; None for whole epochs.
    epochs, repeats
        How many training spans, and how many passes of answering all users (there may be none).
    ffn_dim
        Inner size of the feed-forward layers, where the package lets one choose (RePlay).
    timeout
        Seconds after which the child is ended.
    checkout, views
        For ``"coserec"``: where its repository lies, and whether it trains with views.
    model, as_shipped
        For ``"recbole"``: which of its models, and whether autograd's anomaly mode stays on.

    Returns
    -------
    dict
        The child's JSON, with ``foreign_cores`` (highest of the training spans) and ``noisy``.
    """
    public = name == "coserec"
    if public and checkout is None:
        raise PeerError("coserec: name a checkout of its repository")
    if name == "recbole" and model is None:
        raise PeerError("recbole: name one of its models, such as GRU4Rec")
    python = Path(sys.executable) if public else interpreter(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sequences.npz")
        save_npz(path, sequences)
        command = [str(python), str(HERE / SCRIPTS[name]), str(path), "--loss", loss]
        command += ["--threads", str(threads), "--epochs", str(epochs), "--repeats", str(repeats)]
        if max_batches is not None:
            command += ["--max-batches", str(max_batches)]
        if ffn_dim is not None:
            command += ["--ffn-dim", str(ffn_dim)]
        if public:
            command += ["--checkout", str(Path(str(checkout)).resolve())]
            command += ["--views"] if views else []
        if name == "recbole":
            command += ["--model", str(model)] + ["--as-shipped"] * as_shipped
        done = subprocess.run(
            command,
            env=environment(threads),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"peer"')]
    if done.returncode or not lines:
        tail = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise PeerError(f"{name} ended with status {done.returncode}:\n{tail}")
    found: dict[str, Any] = json.loads(lines[-1])
    foreign = noisiest(found)
    noisy = foreign is not None and foreign > MAX_FOREIGN_CORES
    return found | {"foreign_cores": foreign, "noisy": noisy}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="lines `user item item ...`, gzipped or not")
    parser.add_argument("--peer", choices=PEERS, action="append", help="default: all")
    parser.add_argument("--loss", choices=["bce", "softmax"], action="append", help="default: both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--max-batches", type=int)
    parser.add_argument("--ffn-dim", type=int)
    args = parser.parse_args()
    sequences = read_text(args.data).without_last(2)
    for name in args.peer or PEERS:
        for loss in args.loss or ("bce", "softmax"):
            found = run_peer(
                name,
                loss,
                sequences,
                args.threads,
                args.max_batches,
                epochs=args.epochs,
                repeats=args.repeats,
                ffn_dim=args.ffn_dim,
            )
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
