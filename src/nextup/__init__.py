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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextup.data.dataset import Dataset
    from nextup.data.prepare import read
    from nextup.data.simulate import simulate
    from nextup.evaluation.compare import compare
    from nextup.evaluation.protocol import Protocol
    from nextup.models.registry import available_models
    from nextup.recommend.recommender import load
    from nextup.train.assess import evaluate
    from nextup.train.consistency import consistency
    from nextup.train.fit import fit

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Protocol",
    "__version__",
    "available_models",
    "compare",
    "consistency",
    "evaluate",
    "fit",
    "load",
    "read",
    "simulate",
]

# Where each public name lives; it is imported when first asked for, so `import nextup` is fast.
_HOMES = {
    "available_models": "nextup.models.registry",
    "Dataset": "nextup.data.dataset",
    "Protocol": "nextup.evaluation.protocol",
    "compare": "nextup.evaluation.compare",
    "consistency": "nextup.train.consistency",
    "evaluate": "nextup.train.assess",
    "fit": "nextup.train.fit",
    "load": "nextup.recommend.recommender",
    "read": "nextup.data.prepare",
    "simulate": "nextup.data.simulate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nextup' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
