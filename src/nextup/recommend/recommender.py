"""A saved recommender, loaded to answer: raw ids in, raw ids and titles out.

Nothing of the training data is needed. Users need not have been seen in training: a history is
all there is to know about them. Of models that learn a vector for each user the raw ids of these
users are kept as well: who is named is answered with their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextup.data.catalog import Catalog
from nextup.data.rawids import RawId, RawIds
from nextup.data.sequences import Sequences
from nextup.devices import device_here
from nextup.errors import ConfigError, InputError, RunError
from nextup.evaluation.catalogue import Catalogue, as_float
from nextup.evaluation.retrieval import top_items, top_k
from nextup.models.base import Recommender
from nextup.models.store import CARD, load_model, load_users
from nextup.recommend.answers import (
    Answers,
    Recommendation,
    check_k,
    checked_histories,
    listed,
    note_of,
)

FOLDER = "recommender"
"""Where in a run's folder the recommender lies."""


class LoadedRecommender:
    """A model with its catalogue, ready to answer; made by `load`.

    Parameters
    ----------
    model
        Any recommender; it is moved to `device`.
    catalog
        Raw ids and titles of its items.
    popularity
        ``int64[I + 1]``: how often each item occurs in training.
    about
        What was saved with it.
    device
        Where it answers.
    users
        Raw ids of the users that the model has vectors of, if it has any.
    """

    def __init__(
        self,
        model: Recommender,
        catalog: Catalog,
        popularity: NDArray[np.int64],
        about: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
        users: RawIds | None = None,
    ) -> None:
        self.users = users
        self.device = device_here(device)
        self.model = model.to(self.device).eval()
        self.catalog, self.popularity, self.about = catalog, popularity, about or {}
        self.raws = catalog.ids.tolist()
        self._raws = np.array(self.raws, dtype=object)
        self._titles = None if catalog.titles is None else np.array(catalog.titles, dtype=object)
        catalog.numbers_of([])  # makes the look-up now, not at the first question
        with torch.inference_mode():
            self.catalogue = Catalogue(model) if model.factors else None

    def __repr__(self) -> str:
        return f"LoadedRecommender({self.model.name}, {self.n_items:,} items, on {self.device})"

    @property
    def n_items(self) -> int:
        """How many items the catalogue holds."""
        return self.model.n_items

    def recommend(
        self,
        histories: Sequence[Sequence[RawId]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Sequence[RawId] | None = None,
        only: Sequence[RawId] | None = None,
        users: Sequence[RawId | None] | None = None,
    ) -> list[Recommendation]:
        """Recommend `k` items for each history.

        Parameters
        ----------
        histories
            Raw ids, oldest first, one list a user. Unknown items are skipped and reported; a
            history without a known item gets the most popular items, and says so.
        k
            How many items, at most the catalogue's size. A list is shorter where fewer are left.
        exclude_seen
            Whether items of the history are left out.
        exclude
            Raw ids left out for everyone; those unknown are no matter.
        only
            Raw ids to choose from.
        users
            The raw id of whose history each is, None for nobody's. A model that learnt a vector
            for them answers with it; for strangers, and by default, with what their history
            suggests. It makes no difference to other models.

        Raises
        ------
        ConfigError
            If `k` is less than 1 or more than the catalogue holds.
        InputError
            If `histories` is no list of lists, `only` names no known item, or there are more or
            fewer `users` than histories.
        """
        histories = checked_histories(histories)
        users = None if users is None else listed(users, "users")
        if users is not None and len(users) != len(histories):
            raise InputError(
                f"recommend: {len(users)} users for {len(histories)} histories; name one for each, "
                "None where nobody is known"
            )
        flat = [raw for history in histories for raw in history]
        numbers = self._numbers(flat)
        lengths = np.fromiter(map(len, histories), np.int64, len(histories))
        known = numbers > 0
        unknown: dict[int, list[Any]] = {}
        if not known.all():
            row = np.repeat(np.arange(len(histories)), lengths)
            for at in np.flatnonzero(~known).tolist():
                unknown.setdefault(int(row[at]), []).append(flat[at])
            lengths = np.bincount(row[known], minlength=len(histories))
            numbers = numbers[known]
        ends = np.cumsum(lengths)
        sequences = Sequences(numbers.astype(np.int32), ends - lengths, ends)
        answers = self.answer(
            sequences, k, exclude_seen=exclude_seen, exclude=exclude, only=only, users=users
        )
        counts, popular = (answers.items > 0).sum(axis=1).tolist(), answers.popular.tolist()
        return [
            Recommendation(
                raws[:count],
                titles[:count],
                scores[:count],
                unknown.get(at, []),
                note_of(popular[at], count, k, bool(len(histories[at]))),
            )
            for at, (count, raws, titles, scores) in enumerate(
                zip(counts, *self._dressed(answers.items, answers.scores), strict=True)
            )
        ]

    def answer(
        self,
        histories: Sequences,
        k: int,
        *,
        exclude_seen: bool = True,
        exclude: Sequence[RawId] | None = None,
        only: Sequence[RawId] | None = None,
        users: Sequence[RawId | None] | None = None,
    ) -> Answers:
        """Recommend for histories of item numbers; the arrays below `recommend`."""
        check_k(k, self.n_items)
        banned = None if exclude is None else self._numbers(listed(exclude, "exclude"))
        banned = None if banned is None else banned[banned > 0]
        wanted = None if only is None else self._numbers(listed(only, "only"))
        wanted = None if wanted is None else wanted[wanted > 0]
        if wanted is not None and len(wanted) == 0:
            raise InputError(
                "recommend: none of the items in `only` is in the catalogue; "
                "give raw ids as they stand in the log"
            )
        empty = histories.lengths == 0
        some = bool(empty.any())
        known = None if users is None else self._rows_of(users)
        items, scores = top_items(
            self.model,
            histories.rows(~empty) if some else histories,
            k,
            exclude_seen=exclude_seen,
            exclude=banned,
            only=wanted,
            device=self.device,
            catalogue=self.catalogue if wanted is None else None,
            users=known if known is None or not some else known[~empty],
        )
        if some:
            best = self._most_popular(k, banned, wanted)
            items, scores = _with_rows(items, ~empty, 0), _with_rows(scores, ~empty, -np.inf)
            items[empty, : len(best)] = best
            scores[empty, : len(best)] = self.popularity[best]
        return Answers(items, scores, empty)

    def similar_items(self, item: RawId, k: int = 10) -> Recommendation:
        """Return the `k` items most like `item`, by the cosine of their vectors.

        Raises
        ------
        InputError
            If the catalogue lacks the item.
        ConfigError
            If `k` is out of range, or the model has no notion of similar items.
        """
        number = int(self._numbers([item])[0])
        if number == 0:
            raise InputError(
                f"similar items: the catalogue has no item {item!r}; "
                "give a raw id as it stands in the log"
            )
        check_k(k, self.n_items)
        with torch.inference_mode():
            if self.model.factors:
                likeness = self._directions @ self._directions[number - 1]
            elif callable(own := getattr(self.model, "similar", None)):
                likeness = as_float(own(number))[1:].clone()
            else:
                raise ConfigError(
                    f"model {self.model.name} has no item vectors, so no similar items; "
                    "fit a model that has them, such as sasrec or gru4rec"
                )
            likeness[number - 1] = -torch.inf
            values, columns = top_k(likeness[None], min(k, self.n_items))
        places = columns[0].cpu().numpy()
        found = places[places >= 0] + 1
        (raws,), (titles,), (scores,) = self._dressed(
            found[None], values[:, : len(found)].cpu().numpy()
        )
        return Recommendation(raws, titles, scores, [], note_of(False, len(found), k, True))

    @cached_property
    def _directions(self) -> torch.Tensor:
        vectors = as_float(self.model.item_vectors()[1 : self.n_items + 1])
        return torch.nn.functional.normalize(vectors, dim=1)

    def _numbers(self, raws: Sequence[Any]) -> NDArray[np.int64]:
        try:
            return self.catalog.numbers_of(raws)
        except TypeError as error:
            raise InputError(
                f"recommend: an item id is neither text nor a whole number ({error}); "
                "give histories as lists of raw ids"
            ) from None

    def _rows_of(self, users: Sequence[RawId | None]) -> NDArray[np.int64] | None:
        """``int64[m]``: the row of each user's vector, -1 for strangers; None if there are none."""
        if self.users is None:
            return None
        named = np.array([user is not None for user in users], dtype=bool)
        rows = np.full(len(users), -1, dtype=np.int64)
        try:
            rows[named] = self.users.numbers_of([user for user in users if user is not None])
        except TypeError as error:
            raise InputError(
                f"recommend: a user is neither text nor a whole number ({error}); "
                "give one raw id for each history"
            ) from None
        return rows

    def _most_popular(
        self, k: int, banned: NDArray[np.int64] | None, wanted: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        allowed = np.full(self.n_items + 1, wanted is None)
        if wanted is not None:
            allowed[wanted] = True
        if banned is not None:
            allowed[banned] = False
        return np.asarray(self._by_popularity[allowed[self._by_popularity]][:k])

    @cached_property
    def _by_popularity(self) -> NDArray[np.int64]:
        return np.argsort(-self.popularity[1:], kind="stable") + 1

    def _dressed(
        self, items: NDArray[np.int64], scores: NDArray[np.floating]
    ) -> tuple[list[list[RawId]], list[list[str | None]], list[list[float]]]:
        """Return raw ids, titles and scores as lists of lists; where there is no item, anything."""
        places = items - 1
        titles = np.full(items.shape, None) if self._titles is None else self._titles[places]
        return self._raws[places].tolist(), titles.tolist(), scores.tolist()


def _with_rows(some: NDArray[Any], where: NDArray[np.bool_], fill: float) -> NDArray[Any]:
    """Return an array whose rows are those of `some` where asked, elsewhere `fill`."""
    whole = np.full((len(where), some.shape[1]), fill, dtype=some.dtype)
    whole[where] = some
    return whole


def load(path: Path | str, device: torch.device | str = "cpu") -> LoadedRecommender:
    """Load a recommender from a run's folder, or from the recommender's own.

    Parameters
    ----------
    path
        A run folder (which holds ``recommender/``), or a folder that `save_model` wrote.
    device
        Where it shall answer: ``"cpu"``, ``"cuda"``, or ``"auto"``, a GPU if there is one.

    Raises
    ------
    ConfigError
        If that device is not here.
    RunError
        If there is none, or it is damaged.
    """
    folder = Path(path)
    if (folder / FOLDER / CARD).is_file():
        folder = folder / FOLDER
    elif folder.is_file():
        raise RunError(
            f"{folder}: is a file; a recommender is a folder of safetensors and JSON "
            "(pickled models are not opened, since opening one can run any code)"
        )
    return LoadedRecommender(*load_model(folder), device=device, users=load_users(folder))
