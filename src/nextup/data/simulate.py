"""The simulated shop: titled items, customers whose intents drift, and a known law.

`simulate` draws the law and lets the customers buy; `nextup.data.shop` says what the law is and
what the best possible ranking under it would be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextup.data.catalog import Catalog
from nextup.data.dataset import Dataset
from nextup.data.rawids import RawIds
from nextup.data.seed import checked_seed
from nextup.data.sequences import Sequences
from nextup.data.shop import GOES_WITH, Floats, Ints, Shop
from nextup.data.shop_words import CATEGORIES, INTENTS, MAKERS
from nextup.data.times import UNIT_NAMES
from nextup.errors import ConfigError


def simulate(
    n_users: int = 2000,
    n_items: int = 500,
    *,
    seed: int = 0,
    mean_length: float = 15.0,
    stickiness: float = 0.95,
    follow: float = 0.05,
    repeats: bool = False,
) -> Shop:
    """Open a shop with titled items, and let its customers buy.

    Parameters
    ----------
    n_users, n_items
        How many of each.
    seed
        Decides everything; the same seed gives the same shop.
    mean_length
        Purchases of a customer on average, were there no end to them: each makes at least 5, and
        at most 100 or ``n_items // 2``.
    stickiness
        Probability that the intent stays from one purchase to the next.
    follow
        Probability that an item is one of those that go with the last.
    repeats
        Whether an item may be bought again.

    Returns
    -------
    The shop, which knows its own law, and in ``dataset`` what was bought.

    Raises
    ------
    ConfigError
        If a number is out of range.

    Examples
    --------
    >>> shop = simulate(n_users=50, n_items=40, seed=3)
    >>> shop.dataset.n_users, shop.best_scores([[1, 2], []]).shape
    (50, (2, 41))
    """
    if n_users < 1 or n_items < 10:
        raise ConfigError(
            f"simulate: {n_users} users and {n_items} items; it needs at least 1 user, 10 items"
        )
    if not (0 <= stickiness <= 1 and 0 <= follow <= 1 and mean_length >= 5):
        raise ConfigError(
            "simulate: stickiness and follow are probabilities, mean_length is at least 5; given "
            f"{stickiness}, {follow}, {mean_length}"
        )
    rng = np.random.default_rng(checked_seed(seed))
    drift, taste, goes_with, category = _law(n_items, stickiness, rng)
    start = np.full(len(INTENTS), 1.0 / len(INTENTS))
    extra = rng.geometric(1.0 / (mean_length - 4.0), n_users) - 1
    lengths = np.minimum(5 + extra, max(5, min(100, n_items // 2)))
    ends = np.cumsum(lengths)
    items = np.zeros(int(ends[-1]), dtype=np.int32)
    for at in range(0, n_users, 4096):
        chunk = slice(at, at + 4096)
        bought = _buy(lengths[chunk], start, drift, taste, goes_with, follow, repeats, rng)
        items[ends[chunk][0] - lengths[chunk][0] : ends[chunk][-1]] = bought
    gaps = 1 + rng.exponential(6 * 86_400.0, len(items)).astype(np.int64)
    first = rng.integers(0, 250 * 86_400, n_users)
    since = np.cumsum(gaps)
    times = 1_672_531_200 + np.repeat(first - since[ends - lengths], lengths) + since
    unit = {"unit": "s", "guessed": False, "means": UNIT_NAMES["s"]}
    data = Dataset(
        Sequences(items, ends - lengths, ends),
        _catalog(category),
        RawIds.of([f"u{number:0{len(str(n_users))}d}" for number in range(1, n_users + 1)]),
        times,
        {"name": "simulated-shop", "time": unit, "seed": seed},
    )
    return Shop(start, drift, taste, goes_with, follow, repeats, data)


def _law(
    n_items: int, stickiness: float, rng: np.random.Generator
) -> tuple[Floats, Floats, Ints, Ints]:
    """Draw the shop's law; returns drift, taste, goes_with and the category of each item."""
    names = list(CATEGORIES)
    wants = np.zeros((len(INTENTS), len(names)))
    for row, categories in enumerate(INTENTS.values()):
        wants[row, [names.index(name) for name in categories]] = (0.3, 0.25, 0.25, 0.2)
    related = wants @ wants.T
    np.fill_diagonal(related, 0.0)
    related = 0.8 * related / related.sum(1, keepdims=True) + 0.2 / len(INTENTS)
    drift = stickiness * np.eye(len(INTENTS)) + (1.0 - stickiness) * related
    category = np.concatenate(([-1], np.arange(n_items) % len(names)))
    popularity = np.zeros(n_items + 1)
    popularity[1:] = rng.permutation(1.0 / (1.0 + np.arange(n_items) // len(names)) ** 0.8)
    in_category = popularity * (category == np.arange(len(names))[:, None])
    in_category /= np.maximum(in_category.sum(1, keepdims=True), 1e-12)
    taste = wants @ in_category
    taste = 0.95 * taste / taste.sum(1, keepdims=True) + 0.05 * popularity / popularity.sum()
    goes_with = np.zeros((n_items + 1, len(GOES_WITH)), dtype=np.int64)
    for item in range(1, n_items + 1):
        share = wants[:, category[item]]
        chance = (share / share.sum()) @ taste
        chance[item] = 0.0
        goes_with[item] = rng.choice(n_items + 1, len(GOES_WITH), False, chance / chance.sum())
    return drift, taste, goes_with, category


def _buy(
    lengths: Ints,
    start: Floats,
    drift: Floats,
    taste: Floats,
    goes_with: Ints,
    follow: float,
    repeats: bool,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Let customers buy, all of them one step at a time; their items, customer after customer."""
    bought = np.zeros((len(lengths), taste.shape[1]), dtype=bool)
    basket = np.zeros((len(lengths), int(lengths.max())), dtype=np.int32)
    intent = _draw(np.tile(start, (len(lengths), 1)), rng)
    for step in range(basket.shape[1]):
        rows = np.flatnonzero(lengths > step)
        intent[rows] = intent[rows] if step == 0 else _draw(drift[intent[rows]], rng)
        while len(rows):  # what was bought before is drawn again, under the same intent
            item = _draw(taste[intent[rows]], rng)
            if step:
                partner = rng.choice(len(GOES_WITH), len(rows), p=GOES_WITH)
                go = rng.random(len(rows)) < follow
                item = np.where(go, goes_with[basket[rows, step - 1], partner], item)
            fine = np.ones(len(rows), dtype=bool) if repeats else ~bought[rows, item]
            basket[rows[fine], step] = item[fine]
            bought[rows[fine], item[fine]] = True
            rows = rows[~fine]
    return basket[np.arange(basket.shape[1]) < lengths[:, None]]


def _draw(chances: Floats, rng: np.random.Generator) -> Ints:
    """``int64[B]``: one column of each row of ``chances[B, n]``, by its probability."""
    points = rng.random(len(chances))[:, None] * chances.sum(1, keepdims=True)
    drawn: Ints = np.minimum((np.cumsum(chances, 1) <= points).sum(1), chances.shape[1] - 1)
    return drawn


def _catalog(category: Ints) -> Catalog:
    names = list(CATEGORIES)
    ids: list[str] = []
    titles: list[str | None] = []
    groups: list[str] = []
    for item, number in enumerate(category[1:]):
        name, nth = names[number], item // len(names)
        nouns = CATEGORIES[name]
        maker = MAKERS[(nth // len(nouns) + number + nth) % len(MAKERS)]
        model = nth // (len(nouns) * len(MAKERS))
        ids.append(f"{name.replace(' ', '')}-{nth + 1}")
        titles.append(f"{maker} {nouns[nth % len(nouns)]}{f' mk {model + 1}' if model else ''}")
        groups.append(name)
    return Catalog(RawIds.of_text(ids), titles, {"category": groups})
