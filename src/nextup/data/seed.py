"""Seeds: whole numbers that every generator in use takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextup.errors import ConfigError

HIGHEST = 2**63 - 1


def checked_seed(seed: Any) -> int:
    """Return a seed as a plain whole number.

    Raises
    ------
    ConfigError
        If it is none, or out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ConfigError(f"seed: {seed!r} is no whole number")
    if not 0 <= seed <= HIGHEST:
        raise ConfigError(f"seed: {seed} is out of range; choose one from 0 to {HIGHEST}")
    return int(seed)
