"""Values of any kind as JSON holds them: text, finite numbers, lists, dictionaries."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """Return a value as plain JSON, whatever it holds inside.

    What is no finite number becomes None, halves of characters the replacement character, and
    anything of another kind (a date, a decimal) its text.

    Examples
    --------
    >>> from datetime import date
    >>> plain({"seen": [date(2020, 1, 2)], "score": float("nan"), 3: ("a", True)})
    {'seen': ['2020-01-02'], 'score': None, '3': ['a', True]}
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {whole_text(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if callable(listed := getattr(value, "tolist", None)):  # of NumPy
        return plain(listed())
    if callable(listed := getattr(value, "to_list", None)):  # of Polars
        return plain(listed())
    return whole_text(str(value))


def whole_text(text: str) -> str:
    """Return a text that can be written; JSON can escape halves of characters, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
