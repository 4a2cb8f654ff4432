"""Items as a person types them: a raw id, or a piece of the title."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from nextup.data.catalog import Catalog
from nextup.data.rawids import RawId


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
    others = 0
    if number is None and (numbers := catalog.find_title(text)):
        number, others = numbers[0], len(numbers) - 1
    if number is None:
        return Typed(text, f"`{text}` is no item here{_near(catalog, text)}", found=False)
    more = f" (and {others:,} more titles hold `{text}`)" if others else ""
    return Typed(catalog.raw_of(number), f"{catalog.title_of(number) or text}{more}")


def _near(catalog: Catalog, text: str) -> str:
    titles = {title.casefold(): title for title in catalog.titles or () if title}
    near = difflib.get_close_matches(text.casefold(), titles, n=1, cutoff=0.6)
    return f"; did you mean `{titles[near[0]]}`?" if near else ""
