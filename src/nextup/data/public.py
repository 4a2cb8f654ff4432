"""The public sets by name: which files they are, and how they are read.

Nothing is downloaded: the sets' terms allow their use, not their being handed on. The files are
looked for in the folder that the environment variable ``NEXTUP_DATA`` names, else in
``../shared/data`` beside the repository or the working directory.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextup.errors import InputError, suggest

if TYPE_CHECKING:
    from nextup.data.dataset import Dataset

VARIABLE = "NEXTUP_DATA"


@dataclass(frozen=True)
class PublicSet:
    """One public set.

    Parameters
    ----------
    log
        Its file, below the data folder.
    items
        Its side file of titles, if it has one.
    attributes
        Its side file of attributes, if it has one.
    settings
        What `nextup.read` must be told besides.
    """

    log: str
    items: str | None = None
    attributes: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


PUBLIC: dict[str, PublicSet] = {
    "beauty": PublicSet("beauty/Beauty.txt.gz", attributes="beauty/Beauty_item2attributes.json.gz"),
    "sports": PublicSet(
        "sports/Sports_and_Outdoors.txt.gz",
        attributes="sports/Sports_and_Outdoors_item2attributes.json.gz",
    ),
    "toys": PublicSet(
        "toys/Toys_and_Games.txt.gz", attributes="toys/Toys_and_Games_item2attributes.json.gz"
    ),
    "yelp": PublicSet(
        "yelp/Yelp.txt.gz", "yelp/Yelp.item.json.gz", "yelp/Yelp_item2attributes.json.gz"
    ),
    "beauty-times": PublicSet("beauty/Beauty_timegaps.txt.gz"),
    "sports-times": PublicSet("sports/Sports_and_Outdoors_timegaps.txt.gz"),
    "toys-times": PublicSet("toys/Toys_and_Games_timegaps.txt.gz"),
    "bert4rec-beauty": PublicSet("bert4rec-beauty/beauty.txt.gz"),
    "ml-1m": PublicSet(
        "ml-1m/ml-1m_ordered_DERIVED.csv.gz",
        "ml-1m/movies.dat.gz",
        settings={"items_encoding": "ISO-8859-1"},
    ),
    "ml-latest-small": PublicSet("ml-latest-small/ratings.csv.gz", "ml-latest-small/movies.csv.gz"),
    "musical-instruments": PublicSet(
        "musical-instruments/5_core_ratings_Musical_Instruments.csv.gz",
        settings={"header": False, "user": 1, "item": 2, "rating": 3, "time": 4},
    ),
    "musical-instruments-json": PublicSet("musical-instruments/Musical_Instruments_5.json.gz"),
    "instruments-2018": PublicSet("musical-instruments/Instruments2018.inter.json.gz"),
}


def public_path(name: str) -> Path:
    """Return the file of the log of a public set.

    Raises
    ------
    InputError
        If the name is unknown, or the file is not there.
    """
    return _file(_known(name).log)


def read_public(
    name: str, titles: bool = True, attributes: bool = False, **settings: Any
) -> Dataset:
    """Read a public set with its titles, named as it is.

    Parameters
    ----------
    name
        A key of `PUBLIC`.
    titles
        Whether to read its titles, if it has a file of them.
    attributes
        Whether to read its attributes as well, if it has a file of them.
    **settings
        Passed on to `nextup.read`; nothing is said of how a set that is known is read.

    Raises
    ------
    InputError
        If the name is unknown, or a file is not there.
    """
    from nextup.data.prepare import read

    public = _known(name)
    log = _file(public.log)
    given: dict[str, Any] = {"name": name, "quiet": "say" not in settings, **public.settings}
    if attributes and public.attributes is not None:
        given["attributes"] = _file(public.attributes)
    if titles and public.items is not None:
        path = _file(public.items)
        given["items"] = _yelp_items(path) if name == "yelp" else path
    else:
        given.pop("items_encoding", None)
    return read(log, **{**given, **settings})


def data_folder() -> Path:
    """Return the folder of the public sets, whether it exists or not."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    beside = [Path(__file__).resolve().parents[3].parent, Path.cwd().parent]
    folders = [base / "shared" / "data" for base in beside]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def _known(name: str) -> PublicSet:
    if name not in PUBLIC:
        raise InputError(f"public set `{name}` is unknown{suggest(name, PUBLIC)}")
    return PUBLIC[name]


def _file(relative: str) -> Path:
    path = data_folder() / relative
    if not path.is_file():
        raise InputError(
            f"{path}: is not there; the public sets are not part of nextup: fetch them from their "
            f"authors and name the folder with the environment variable {VARIABLE}"
        )
    return path


def _yelp_items(path: Path) -> dict[int, dict[str, Any]]:
    """Read Yelp's side file, whose key ``k`` is item ``k + 1`` of the log."""
    from nextup.data.source import all_bytes

    stored = json.loads(all_bytes(path))
    return {
        int(key) + 1: {"title": item["title"], "categories": item["description"].split(", ")}
        for key, item in stored.items()
    }
