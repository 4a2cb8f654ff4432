"""How long an answer takes: top-10 from raw ids to raw ids, titles and scores.

    python benchmarks/answering_speed.py                    # SASRec of width 64, 12,101 items

One history, and 1,000 at once, with the model warm and in process; beside it the usual way:
pad, encode, score, mask, `torch.topk`, look up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evaluation_speed import beauty
from nextup.data.catalog import Catalog
from nextup.data.rawids import RawId, RawIds
from nextup.models.base import item_counts
from nextup.models.registry import make_model
from nextup.models.store import save_model
from nextup.recommend.recommender import load
from plain_sasrec import PlainSASRec, pad_left
from record import interleaved, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    whole, n_items, data = beauty()
    raws = [f"B{n:09}" for n in range(1, n_items + 1)]
    catalog = Catalog(RawIds.of(raws), [f"Title of item {n}" for n in range(1, n_items + 1)])
    with tempfile.TemporaryDirectory() as folder:
        model = make_model("sasrec", n_items, {"width": options.width})
        save_model(model, Path(folder) / "m", catalog, item_counts(whole, n_items))
        began = time.perf_counter()
        recommender = load(Path(folder) / "m")
        loading = time.perf_counter() - began
    users = np.random.default_rng(0).choice(len(whole), 1200, replace=False)
    asked: list[list[RawId]] = [[raws[n - 1] for n in whole[user]] for user in users]
    many, few = asked[:1000], asked[1000:]
    plain = PlainSASRec(n_items, dim=options.width, ffn_dim=4 * options.width).eval()

    @torch.inference_mode()
    def usual(histories: list[list[RawId]]) -> list[list[tuple[RawId, str | None, float]]]:
        numbers = [catalog.numbers_of(history) for history in histories]
        padded = np.stack([pad_left(row, plain.max_len) for row in numbers])
        scores = plain.scores(torch.from_numpy(padded))
        for row, seen in enumerate(numbers):
            scores[row, torch.from_numpy(seen) - 1] = -torch.inf
        best = scores.topk(10, dim=1)
        return [
            [(catalog.raw_of(n + 1), catalog.title_of(n + 1), s) for n, s in zip(*row, strict=True)]
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def one_by_one() -> None:
        for history in few:
            recommender.recommend([history], 10)

    def usual_one_by_one() -> None:
        for history in few:
            usual([history])

    assert all(len(answer) == 10 for answer in recommender.recommend(many, 10))
    times = interleaved(
        {
            "nextup, one": one_by_one,
            "usual way, one": usual_one_by_one,
            "nextup, 1000": lambda: recommender.recommend(many, 10),
            "usual way, 1000": lambda: usual(many),
        },
        options.repeats,
        warm=2,
    )
    single: list[float] = []
    for history in few * 5:
        began = time.perf_counter()
        recommender.recommend([history], 10)
        single.append(time.perf_counter() - began)
    payload = {
        "data": data,
        "items": n_items,
        "width": options.width,
        "load_s": loading,
        "one_history_ms": {
            "median": float(np.median(single) * 1e3),
            "p95": float(np.quantile(single, 0.95) * 1e3),
            "cpu_mean": times["nextup, one"]["cpu_s"] / len(few) * 1e3,
        },
        "thousand_histories_ms": times["nextup, 1000"]["median_s"] * 1e3,
        "times_of_200_single_and_of_1000": times,
        "ratios": {
            f"usual way / nextup, {what}": round(
                times[f"usual way, {what}"]["median_s"] / times[f"nextup, {what}"]["median_s"], 2
            )
            for what in ("one", "1000")
        },
    }
    for name, row in times.items():
        print(
            f"{name:16} {row['median_s'] * 1e3:8.1f} ms, processor {row['cpu_s'] * 1e3:8.1f} ms "
            f"(others busy: {row['foreign_cores']} cores)"
        )
    print({key: payload[key] for key in ("one_history_ms", "thousand_histories_ms", "ratios")})
    print(record("answering_speed", payload))


if __name__ == "__main__":
    main()
