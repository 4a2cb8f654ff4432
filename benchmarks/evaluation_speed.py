"""Full ranking with seen items excluded: ours, the bare matrix products, and the usual way.

    python benchmarks/evaluation_speed.py             # Beauty, SASRec of width 64, 2 threads
    python benchmarks/evaluation_speed.py --coserec CHECKOUT      # and the authors' public code
    python benchmarks/evaluation_speed.py --peers     # and RecTools and RePlay (peers/setup.sh)

"The usual way" is what most published code does: pad every history to 50, encode, bring the
scores to numpy, mask the seen items through a dense matrix, take the best 20 with `argpartition`
and sort those. Two further ways are given our encoder, so that only the ranking differs: the same
with loops over users for the metrics, and one with a sparse mask and `torch.topk`. The "bare
products" are what must be multiplied, into reused buffers, and nothing else: the dense layers of
the encoder, in the last block for the last items alone, and the scores; "score products" are the
latter only.

The public code is CoSeRec's own full ranking, `peers/coserec_public.py`; the peers' is the top-10
of all test users with seen items left out. They run in processes of their own, right before ours,
with a model of the same sizes on the same threads.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from nextup.data.batches import gather
from nextup.data.public import read_public
from nextup.data.sequences import Sequences
from nextup.data.split import Cases, leave_one_out
from nextup.errors import InputError
from nextup.evaluation.metrics import metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.models.base import Recommender
from nextup.models.registry import make_model
from plain_sasrec import PlainSASRec, full_rank
from record import interleaved, record

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from common import DIM
from run import PeerError, run_peer


def beauty() -> tuple[Sequences, int, str]:
    """Return Beauty, or random histories of its size where the file is absent."""
    try:
        log = read_public("beauty", titles=False)
        return log.sequences, log.n_items, "beauty"
    except InputError:
        rng = np.random.default_rng(0)
        lengths = np.minimum(5 + rng.geometric(1 / 4.9, 22_363) - 1, 204)
        rows = [rng.choice(12_101, n, replace=False) + 1 for n in lengths]
        return Sequences.from_lists(rows), 12_101, "random histories of Beauty's size"


def encoded(model: Recommender, cases: Cases, rows: slice) -> torch.Tensor:
    spans = cases.histories.rows(rows)
    items = torch.from_numpy(spans.items)
    batch = gather(items, spans.starts, spans.ends, model.max_length)
    return batch.in_source_order(model.query(batch))


@torch.inference_mode()
def usual_way(model: Recommender, cases: Cases, seen: csr_matrix, batch: int) -> dict[str, float]:
    """Rank as most published code does: dense mask, argpartition, loops over users."""
    vectors = model.item_vectors()[1:]
    best = np.zeros((len(cases), 20), dtype=np.int64)
    for at in range(0, len(cases), batch):
        rows = slice(at, min(at + batch, len(cases)))
        scores = (encoded(model, cases, rows) @ vectors.T).cpu().numpy().copy()
        scores[seen[rows].toarray() > 0] = -np.inf
        some = np.argpartition(scores, -20)[:, -20:]
        order = np.argsort(np.take_along_axis(scores, some, axis=1))[:, ::-1]
        best[rows] = np.take_along_axis(some, order, axis=1)
    return looped_metrics(best + 1, cases.targets)


@torch.inference_mode()
def with_topk(model: Recommender, cases: Cases, seen: csr_matrix, batch: int) -> dict[str, float]:
    """Rank with a sparse mask and `torch.topk`: the better of the public ways."""
    vectors = model.item_vectors()[1:]
    best = np.zeros((len(cases), 20), dtype=np.int64)
    for at in range(0, len(cases), batch):
        rows = slice(at, min(at + batch, len(cases)))
        scores = encoded(model, cases, rows) @ vectors.T
        row, column = seen[rows].nonzero()
        scores[torch.from_numpy(row).long(), torch.from_numpy(column).long()] = -math.inf
        best[rows] = scores.topk(20, dim=1).indices.numpy()
    return looped_metrics(best + 1, cases.targets)


def looped_metrics(best: NDArray[np.int64], targets: NDArray[np.int32]) -> dict[str, float]:
    found: dict[str, float] = {}
    for k in (5, 10, 20):
        hits = gain = 0.0
        for row, target in zip(best.tolist(), targets.tolist(), strict=True):
            if target in row[:k]:
                hits += 1
                gain += 1 / math.log2(row.index(target) + 2)
        found[f"HR@{k}"], found[f"NDCG@{k}"] = hits / len(targets), gain / len(targets)
    return found


def in_children(
    whole: Sequences, cases: Cases, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Time the ranking of the programs asked for, each in its own process."""
    asked: dict[str, tuple[Sequences, Path | None]] = {}
    if options.coserec is not None:
        asked["coserec"] = whole, options.coserec
    for name in ("rectools", "replay") if options.peers else ():
        asked[name] = cases.histories, None
    times: dict[str, dict[str, Any]] = {}
    for name, (histories, checkout) in asked.items():
        try:
            found = run_peer(
                name,
                "bce",
                histories,
                options.threads,
                max_batches=2,
                repeats=options.peer_repeats,
                checkout=checkout,
            )
        except PeerError as error:
            print(error)
            continue
        times[name] = of_spans(found["recommend_spans"]) | {
            key: found[key] for key in ("versions", "note", "hit_10") if key in found
        }
        print(f"{name}: {times[name]['median_s']:.2f} s", flush=True)
    return times


def of_spans(spans: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a child's spans in the form of `interleaved`."""
    seconds = [span["seconds"] for span in spans]
    return {
        "median_s": median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "cpu_s": median(span["seconds"] * span["own_cores"] for span in spans),
        "foreign_cores": round(median(span["foreign_cores"] or 0.0 for span in spans), 2),
    }


def ratio(times: dict[str, dict[str, Any]], above: str, below: str) -> dict[str, float]:
    return {
        kind: round(times[above][key] / times[below][key], 2)
        for kind, key in (("wall", "median_s"), ("cpu", "cpu_s"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--coserec", type=Path, help="checkout of the authors' public code")
    parser.add_argument("--peers", action="store_true", help="RecTools and RePlay as well")
    parser.add_argument("--peer-repeats", type=int, default=2)
    options = parser.parse_args()
    if options.width != DIM and (options.peers or options.coserec):
        parser.error(f"the others run with a width of {DIM}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    whole, n_items, data = beauty()
    cases = leave_one_out(whole).test
    m = len(cases)
    model = make_model("sasrec", n_items, {"width": options.width}).eval()
    with torch.no_grad():  # spread the scores as training would; ties would cost us nothing anyway
        model.item_vectors().mul_(5)
    plain = PlainSASRec(n_items, dim=options.width, ffn_dim=4 * options.width).eval()
    histories = cases.histories
    row = np.repeat(np.arange(m), histories.lengths)
    pairs = (np.ones(len(row), dtype=np.int8), (row, histories.items[histories.positions()] - 1))
    seen = csr_matrix(pairs, shape=(m, n_items))
    with torch.inference_mode():
        queries = torch.cat([encoded(model, cases, slice(a, a + 512)) for a in range(0, m, 512)])
        vectors = model.item_vectors()[1:].contiguous()
    buffer = torch.empty(256, n_items)
    ours: dict[str, float] = {}

    @torch.inference_mode()
    def score_products() -> None:
        for at in range(0, m, 256):
            some = queries[at : at + 256]
            torch.mm(some, vectors.T, out=buffer[: len(some)])

    width, layers = options.width, len(model.blocks)
    read = int(np.minimum(histories.lengths, model.max_length).sum()) // (-(-m // 512))
    token, inner = torch.randn(read, width), torch.randn(read, 4 * width)
    dense = [torch.randn(width, n * width) for n in (3, 1, 4)]
    contract = torch.randn(4 * width, width)
    outs = {n: torch.empty(read, n * width) for n in (1, 2, 3, 4)}

    @torch.inference_mode()
    def bare() -> None:
        for first in range(0, m, 512):
            for layer in range(layers):
                last = layer == layers - 1
                rows = min(512, m - first) if last else read
                for factor in dense:
                    n = factor.shape[1] // width
                    torch.mm(token[:rows], factor, out=outs[n][:rows])
                torch.mm(inner[:rows], contract, out=outs[1][:rows])
                if last:  # all items are looked at by the last ones
                    torch.mm(token, dense[0][:, : 2 * width], out=outs[2])
        score_products()

    @torch.inference_mode()
    def encoding() -> None:
        for at in range(0, m, 512):
            encoded(model, cases, slice(at, at + 512))

    def ranked() -> None:
        ours.update(metrics(rank_cases(model, cases, Protocol())))

    usual = usual_way(model, cases, seen, 256)
    ranked()
    apart = max(abs(usual[name] - ours[name]) for name in usual)
    others = in_children(whole, cases, options)
    times: dict[str, dict[str, Any]] = interleaved(
        {
            "nextup": ranked,
            "bare products": bare,
            "score products": score_products,
            "encoding alone": encoding,
            "usual way": lambda: full_rank(plain, histories, cases.targets),
            "usual, our encoder": lambda: usual_way(model, cases, seen, 256),
            "topk, our encoder": lambda: with_topk(model, cases, seen, 256),
        },
        options.repeats,
    )
    times |= others
    ratios = {
        "nextup / bare products": ratio(times, "nextup", "bare products"),
        "nextup / score products": ratio(times, "nextup", "score products"),
        "usual way / nextup": ratio(times, "usual way", "nextup"),
        "usual, our encoder / nextup": ratio(times, "usual, our encoder", "nextup"),
        "topk, our encoder / nextup": ratio(times, "topk, our encoder", "nextup"),
        **{f"{name} / nextup": ratio(times, name, "nextup") for name in others},
    }
    for name, row_ in times.items():
        print(
            f"{name:20} {row_['median_s']:7.3f} s, processor {row_['cpu_s']:7.3f} s "
            f"(others busy: {row_['foreign_cores']} cores)"
        )
    for name, both in ratios.items():
        print(f"{name:28} {both['wall']:6.2f} wall, {both['cpu']:6.2f} processor time")
    print(f"largest difference of a metric between ours and the usual way: {apart:.1e}")
    payload = {
        "data": data,
        "cases": m,
        "items": n_items,
        "width": options.width,
        "protocol": Protocol().describe(),
        "times": times,
        "ratios": ratios,
        "largest_metric_difference": apart,
    }
    print(record("evaluation_speed", payload))


if __name__ == "__main__":
    main()
