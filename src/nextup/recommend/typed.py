"""Items as a person types them: a raw id, or a piece of the title."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from nextup.data.catalog import Catalog
from nextup.data.rawids import RawId

SHOWN = 3
"""How many titles that fit as well are named."""


@dataclass(frozen=True)
class Typed:
    """What a text was taken for.

    Parameters
    ----------
    raw
        The raw id; the text itself where nothing was found.
    note
        What to tell about it: which item a piece of a title was taken for, or what is near.
    found
        Whether the catalogue has it.
    """

    raw: RawId
    note: str
    found: bool = True


def typed_items(catalog: Catalog, texts: Iterable[str]) -> list[Typed]:
    """Find what each text stands for: a raw id if there is one, else the best matching title.

    Examples
    --------
    >>> from nextup.data.rawids import RawIds
    >>> catalog = Catalog(RawIds.of([7, 9]), ["Alien (1979)", "Toy Story (1995)"])
    >>> [(each.raw, each.note) for each in typed_items(catalog, ["9", "alien"])]
    [(9, 'Toy Story (1995)'), (7, 'Alien (1979)')]
    >>> typed_items(catalog, ["Aliem (1979)"])[0].note
    '`Aliem (1979)` is no item here; did you mean `Alien (1979)`?'
    """
    return [_find(catalog, text.strip()) for text in texts]


def _find(catalog: Catalog, text: str) -> Typed:
    number = catalog.number_of(text)
    if number is not None:
        return Typed(catalog.raw_of(number), catalog.title_of(number) or text)
    matches = catalog.title_matches(text)
    if not matches:
        return Typed(text, f"`{text}` is no item here{_near(catalog, text)}", found=False)
    number, nearest = matches[0]
    equal = [other for other, near in matches[1:] if near == nearest]
    farther = len(matches) - 1 - len(equal)
    notes = []
    if equal:
        named = ", ".join(f"`{catalog.title_of(other)}`" for other in equal[:SHOWN])
        more = f" and {len(equal) - SHOWN:,} more" if len(equal) > SHOWN else ""
        notes.append(f"the first of {len(equal) + 1:,} that fit as well: {named}{more}")
    if farther:
        notes.append(f"{farther:,} more titles hold `{text}`")
    tail = f" ({'; '.join(notes)})" if notes else ""
    return Typed(catalog.raw_of(number), f"{catalog.title_of(number)}{tail}")


def _near(catalog: Catalog, text: str) -> str:
    titles = {title.casefold(): title for title in catalog.titles or () if title}
    near = difflib.get_close_matches(text.casefold(), titles, n=1, cutoff=0.6)
    return f"; did you mean `{titles[near[0]]}`?" if near else ""
