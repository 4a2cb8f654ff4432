"""Which device a word means, and whether it is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextup.errors import ConfigError

if TYPE_CHECKING:
    import torch


def device_here(name: torch.device | str) -> torch.device:
    """Return the device that a name means.

    Parameters
    ----------
    name
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, or what PyTorch calls a device.

    Raises
    ------
    ConfigError
        For another word, or a device this machine does not have.

    Examples
    --------
    >>> device_here("cpu").type
    'cpu'
    """
    import torch

    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: `{name}` is not one of auto, cpu, cuda") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device: PyTorch finds no device {name} here; use --device cpu")
    return found
