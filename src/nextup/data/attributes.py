"""Attributes of items: any number for each, from a file or frame beside the log."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from nextup.data.columns import ColumnName, Say
from nextup.data.rawids import RawIds
from nextup.data.sideitems import part_lists, read_side
from nextup.errors import ConfigError, InputError

COLUMN = "attributes"
"""What the catalogue calls them."""

if TYPE_CHECKING:
    from torch import Tensor

    from nextup.data.catalog import Catalog

Attributes = list[list[Any] | None]


def read_attributes(
    source: Any,
    ids: RawIds,
    item_id: ColumnName | None,
    encoding: str | None,
    skip_bad_rows: bool,
    say: Say,
) -> tuple[Attributes, dict[str, Any]]:
    """Read which attributes each item has.

    Parameters
    ----------
    source
        A JSON dictionary ``{item: [attribute, ...]}`` (S3-Rec's ``item2attributes``), or a table,
        JSON lines or frame with a column of items. An item may stand in several rows, and a value
        may be a list, or text parted by ``|`` in a column of lists (genres, categories, tags,
        attributes). Of several columns each gives attributes of its own: ``brand: Acme``; a
        column of titles beside them gives none.
    ids
        The raw ids of the log's items.
    item_id
        The column of items, None to guess.
    encoding
        Of a text file; UTF-8 where None.
    skip_bad_rows
        Whether malformed rows are left out and counted.
    say
        Told every guess, and how many items have no attribute.

    Returns
    -------
    For each item its attributes (None without any), and the card's entry on the source.

    Raises
    ------
    InputError
        If the source cannot be used, or has no attribute for any item of the log.
    """
    side = read_side(COLUMN, source, item_id, None, encoding, skip_bad_rows, say)
    columns = side.columns
    if len(columns) > 1:
        columns = {name: values for name, values in columns.items() if name != side.title}
    if not columns:
        raise InputError(
            f"{side.where}: has a column of items and no other; give one of attributes beside it"
        )
    at = ids.numbers_of(side.keys).tolist()
    found: list[dict[Any, None]] = [{} for _ in range(len(ids))]  # each attribute once, in order
    several = len(columns) > 1
    for name, values in columns.items():
        for number, value in zip(at, part_lists(name, values), strict=True):
            if number < 0:
                continue
            for each in value if isinstance(value, list) else [value]:
                if each is None or each == "":
                    continue
                if not isinstance(each, (str, int, float)):
                    raise InputError(
                        f"{side.where}: `{name}` of item {ids[number]} holds {each!r}; an "
                        "attribute is a text or a number"
                    )
                found[number][f"{name}: {each}" if several else each] = None
    none = sum(not each for each in found)
    if none == len(found):
        raise InputError(
            f"{side.where}: has no attribute for any item of the log (its first item: "
            f"`{side.keys[0] if side.keys else ''}`; the log has `{ids[0]}`); name its id column "
            "with --item-id"
        )
    unknown = len({key for key, number in zip(side.keys, at, strict=True) if number < 0})
    kinds = len(set().union(*found))
    counts = {"attributes": kinds, "items_without": none, "unknown_items": unknown}
    say(f"{side.where}: {kinds:,} attributes; {none:,} items without any")
    if unknown:
        say(f"{side.where}: {unknown:,} items that are not in the log")
    if side.malformed:
        say(f"{side.where}: {side.malformed:,} malformed rows")
    card = {**side.card, **counts, "malformed_rows": side.malformed}
    return [list(each) or None for each in found], card


def attribute_matrix(column: list[Any]) -> Tensor:
    """Return which items have which attributes: sparse ``float[I + 1, A]`` of ones.

    Parameters
    ----------
    column
        For each item ``1..I`` a list of attributes, or a single one; None where it has none.
        Attributes are numbered as they first appear.

    Examples
    --------
    >>> attribute_matrix([["red", "small"], None, "red"]).to_dense().tolist()
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    """
    import torch

    number: dict[Any, int] = {}
    at: list[tuple[int, int]] = []
    for item, found in enumerate(column, start=1):
        for each in dict.fromkeys(found if isinstance(found, list) else [found]):
            if each is not None:
                at.append((item, number.setdefault(each, len(number))))
    places = torch.tensor(at, dtype=torch.int64).reshape(-1, 2).T
    size = (len(column) + 1, len(number))
    ones = torch.ones(len(at))
    return torch.sparse_coo_tensor(places, ones, size, check_invariants=False).coalesce()


def wanted_attributes(catalog: Catalog, name: str, wanted_by: str, instead: str) -> Tensor:
    """Return the `attribute_matrix` of a column of the catalogue.

    Parameters
    ----------
    catalog
        What is known of the items.
    name
        The column.
    wanted_by, instead
        The settings that need it, and what else can be done, for the error.

    Raises
    ------
    ConfigError
        If there is no such column, or nothing in it.
    """
    column = (catalog.attributes or {}).get(name)
    if column is None:
        known = ", ".join(f"`{each}`" for each in catalog.attributes or {}) or "none"
        raise ConfigError(
            f"{wanted_by} need a column `{name}` of items' attributes, and the catalogue has "
            f"{known}; give them with `nextup prepare --attributes FILE`, name the column "
            f"(attributes), or {instead}"
        )
    matrix = attribute_matrix(column)
    if matrix.shape[1] == 0:
        model = wanted_by.partition(":")[0]
        raise ConfigError(f"{model}: no item has a value in the column `{name}`")
    return matrix


def mark_of(matrix: Tensor) -> str:
    """Return which items have which attributes as one short text (a checksum)."""
    pairs = matrix.coalesce().indices().cpu().numpy().astype("<i8")
    digest = hashlib.blake2b(f"{tuple(matrix.shape)}".encode(), digest_size=16)
    digest.update(pairs.tobytes())
    return digest.hexdigest()
