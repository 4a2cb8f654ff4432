"""`nextup demo`: from a log to recommendations, on a simulated shop or on a log of your own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nextup.cli.answers import recommendation_table
from nextup.cli.console import command_line, show, table
from nextup.data.dataset import Dataset
from nextup.data.prepare import read
from nextup.data.seed import checked_seed
from nextup.data.shop import Shop
from nextup.data.simulate import simulate
from nextup.errors import ConfigError, InputError
from nextup.evaluation.compare import Row, compare
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import CaseRanks, rank_cases
from nextup.recommend.recommender import LoadedRecommender, load
from nextup.recommend.typed import typed_items
from nextup.train.assess import evaluate
from nextup.train.fit import fit

ORACLE = "best possible"
MARK, OWN = "demo.json", '{"format": "nextup-demo"}'
"""The file by which a demo knows its folder again, and what it holds."""
EXAMPLE = ("two-person tent", "gas stove", "camp lantern")
_BUDGET = 1.5e10  # targets times items, over all epochs: about two minutes on two cores

Ask = Callable[[], str]
say = partial(print, flush=True)


def run_demo(
    data: Path | None = None,
    titles: Path | None = None,
    out: Path = Path("demo"),
    *,
    seed: int = 0,
    n_users: int = 2000,
    n_items: int = 500,
    ask: Ask | None = None,
) -> dict[str, CaseRanks]:
    """Fit three models, compare them, and recommend.

    Parameters
    ----------
    data, titles
        A log and the titles of its items; by default a shop is simulated.
    out
        Where everything is kept: a new or empty folder, or that of an earlier demo, which is
        replaced.
    seed
        Decides everything random.
    n_users, n_items
        Size of the simulated shop.
    ask
        Returns what a person types, an empty line to end; by default the terminal is asked, and
        an example is shown where there is none.

    Returns
    -------
    The test ranks by model; with a simulated shop also those of the best possible ranking.

    Raises
    ------
    ConfigError
        If titles are given without a log, or the seed is out of range.
    InputError
        If the folder holds something else, or the log cannot be used.
    """
    if titles is not None and data is None:
        raise ConfigError("demo: titles belong to a log of your own; name it with --data")
    seed = checked_seed(seed)
    _own(out)
    began = time.monotonic()
    shop = None if data else simulate(n_users, n_items, seed=seed)
    if shop is not None:
        torch.set_num_threads(1)  # steps this small lose more to a second thread than they gain
    dataset = _dataset(shop, data, titles, out)
    folder = dataset.save(out / "dataset", overwrite=True)
    say(f"{dataset!r}, kept in {folder}")
    ranks: dict[str, CaseRanks] = {}
    protocol = Protocol()
    for name in MODELS:
        started = time.monotonic()
        settings = MODELS[name](dataset)
        say(f"\nfitting {name}")
        run = fit(
            folder,
            name,
            run=out / "runs" / name,
            settings=settings,
            protocol=protocol,
            seed=seed,
            overwrite=True,
        )
        evaluate(run, folder)
        ranks[name] = run.ranks("test")
        say(f"{name}: fitted and measured in {time.monotonic() - started:.1f} s")
    cases = dataset.split().test
    ceiling = None
    if shop is not None:
        ranks[ORACLE] = rank_cases(shop.oracle(), cases, protocol)
        ceiling = shop.ceiling(cases)
    _show_comparison(ranks, ceiling)
    recommender = load(out / "runs" / "sasrec")
    _show_users(recommender, dataset, seed)
    _show_typed(recommender, out / "runs" / "sasrec", ask)
    say(f"\nall of it took {time.monotonic() - began:.0f} s; everything is in {out}/")
    names = [out / "runs" / name for name in MODELS]
    say(f"next: {command_line('compare', *names, '--baseline', 'mc1')}")
    if data is None:
        say(f"or with a log of your own: {command_line('demo', '--data')} LOG --titles ITEMS")
    return ranks


def _own(out: Path) -> None:
    """Mark a folder as the demo's; refuse one that holds anything else."""
    mark = out / MARK
    own = mark.is_file() and OWN in mark.read_text(encoding="utf-8", errors="ignore")
    if out.is_dir() and any(out.iterdir()) and not own:
        raise InputError(
            f"{out}: is not empty, and no demo made it, so nothing is written there; choose "
            "another folder with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark.write_text(OWN + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{out}: cannot be made ({reason}); choose another --out") from None


def settings_for(dataset: Dataset) -> dict[str, Any]:
    """Return settings of SASRec that suit a log's size and end within two minutes or so."""
    lengths = dataset.sequences.lengths

    def cost(max_length: int) -> int:
        return int(np.clip(lengths - 3, 1, max_length).sum()) * (dataset.n_items + 2000)

    wanted = int(np.clip(np.quantile(lengths, 0.9), 50, 200))
    max_length = wanted if cost(wanted) * 10 < _BUDGET else 50
    return {
        "loss": "softmax",
        "max_length": max_length,
        "epochs": min(20, max(2, int(_BUDGET / cost(max_length)))),
        "patience": 5,
        "batch_size": min(256, max(8, len(lengths) // 75)),  # small logs need steps, not rows
        "learning_rate": 0.002,
        "dropout": 0.4,
    }


def _as_they_come(dataset: Dataset) -> dict[str, Any]:
    return {}


MODELS = {"pop": _as_they_come, "mc1": _as_they_come, "sasrec": settings_for}
"""What a demo fits, and how the settings follow from the log."""


def _dataset(shop: Shop | None, data: Path | None, titles: Path | None, out: Path) -> Dataset:
    if data is not None:
        return read(data, items=titles, say=say)
    assert shop is not None
    log, items = shop.write(out)
    say(f"a simulated shop: {log} and {items}")
    return shop.dataset


def _show_comparison(ranks: dict[str, CaseRanks], ceiling: dict[str, float] | None) -> None:
    found = compare(ranks, baseline="mc1", metrics=["HR@10", "NDCG@10"])
    rows: dict[str, dict[str, Row]] = {}
    for row in found.rows:
        rows.setdefault(row.run, {})[row.metric] = row
    columns = ["model", "HR@10", "95%", "NDCG@10", "95%", "p against mc1"]
    lines = []
    for name, row_of in rows.items():
        hit, gain = row_of["HR@10"], row_of["NDCG@10"]
        p = "" if gain.p_value is None else f"{gain.p_value:.3f}".replace("0.000", "<0.001")
        line = [name, hit.value.mean, _span(hit), gain.value.mean, _span(gain), p]
        if ceiling:
            line.append(f"{gain.value.mean / ceiling['NDCG@10']:.0%}")
        lines.append(line)
    if ceiling:
        columns.append("of the ceiling")
    show(table(columns, lines), "\nThe items held out for test, found among all items")
    say(f"{found.protocol.describe()}; {found.cases:,} users; split leave-one-out")
    if ceiling:
        say(
            f"the ceiling is HR@10 {ceiling['HR@10']:.4f}, NDCG@10 {ceiling['NDCG@10']:.4f}: what "
            "the best possible ranking expects\n(the row above is what it happened to reach)"
        )


def _span(row: Row) -> str:
    return f"{row.value.low:.3f}-{row.value.high:.3f}"


def _show_users(recommender: LoadedRecommender, dataset: Dataset, seed: int) -> None:
    cases = dataset.split().test
    count = min(3, len(cases))
    chosen = np.sort(np.random.default_rng(seed).choice(len(cases), count, replace=False))
    catalog = dataset.catalog

    def named(number: int) -> str:
        return catalog.title_of(number) or str(catalog.raw_of(number))

    for at in chosen:
        history = [int(item) for item in cases.histories[int(at)]]
        found = recommender.recommend([[catalog.raw_of(item) for item in history]], k=5)[0]
        user = dataset.users[int(cases.users[at])]
        last = "; ".join(named(item) for item in history[-5:])
        more = f"{len(history) - 5} more, then " if len(history) > 5 else ""
        show(recommendation_table(found), f"user {user}: {more}{last}")
        target = int(cases.targets[at])
        place = [catalog.number_of(raw) for raw in found.items]
        where = f"number {place.index(target) + 1} of the list" if target in place else "not listed"
        say(f"what came next: {named(target)} ({where})")


def _show_typed(recommender: LoadedRecommender, run: Path, ask: Ask | None) -> None:
    """Recommend after what is typed, line by line; after an example where nobody can type."""
    if ask is None and sys.stdin.isatty():
        say("\nNow type a history: titles or ids, parted by semicolons (an empty line ends).")
        ask = _from_terminal
    if ask is None:
        example = _example(recommender)
        _answer(recommender, example)
        say(f"next: {command_line('recommend', run, *example)}")
        return
    while line := ask().strip():
        _answer(recommender, line.split(";"))


def _from_terminal() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


def _answer(recommender: LoadedRecommender, texts: list[str]) -> None:
    typed = typed_items(recommender.catalog, texts)
    for each in typed:
        say(f"  {each.raw}  {each.note}" if each.found else f"  {each.note}")
    found = recommender.recommend([[each.raw for each in typed]], k=5)[0]
    show(recommendation_table(found), "after " + "; ".join(text.strip() for text in texts))
    if found.note:
        say(found.note)


def _example(recommender: LoadedRecommender) -> list[str]:
    """Return a history to show: the shop's own example, else three popular items."""
    catalog = recommender.catalog
    if all(catalog.find_title(text) for text in EXAMPLE):
        return list(EXAMPLE)
    popular = recommender.recommend([[]], k=min(3, recommender.n_items))[0]
    names = zip(popular.titles, popular.items, strict=True)
    return [title or str(raw) for title, raw in names]
