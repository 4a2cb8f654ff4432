"""Sequential recommendation: from the order of what people did, what each will want next.

Examples
--------
>>> import nextup
>>> shop = nextup.simulate(n_users=60, n_items=40, seed=1)
>>> run = nextup.fit(shop.dataset, "pop", run="runs/pop")          # doctest: +SKIP
>>> nextup.evaluate(run, shop.dataset)                             # doctest: +SKIP
>>> nextup.load("runs/pop").recommend([["tents-1", "boots-2"]])    # doctest: +SKIP
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextup.data.dataset import Dataset
    from nextup.data.prepare import read
    from nextup.data.simulate import simulate
    from nextup.evaluate.compare import compare
    from nextup.evaluate.protocol import Protocol
    from nextup.models.base import models
    from nextup.recommend.recommender import load
    from nextup.train.assess import evaluate
    from nextup.train.fit import fit

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Protocol",
    "__version__",
    "compare",
    "evaluate",
    "fit",
    "load",
    "models",
    "read",
    "simulate",
]

# Where each public name lives; it is imported when first asked for, so `import nextup` is fast.
_HOMES = {
    "Dataset": "nextup.data.dataset",
    "Protocol": "nextup.evaluate.protocol",
    "compare": "nextup.evaluate.compare",
    "evaluate": "nextup.train.assess",
    "fit": "nextup.train.fit",
    "load": "nextup.recommend.recommender",
    "models": "nextup.models.base",
    "read": "nextup.data.prepare",
    "simulate": "nextup.data.simulate",
}
_ROOMS = ("evaluate", "models")  # public functions that share their name with a package


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"nextup.{name}")
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    raise AttributeError(f"module 'nextup' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """A package that can also be called, as the public function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(_HOMES[name]), name)(*args, **kwargs)


class _House(ModuleType):
    """Importing `nextup.evaluate.ranks` must not hide the function `nextup.evaluate`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ROOMS and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _House
