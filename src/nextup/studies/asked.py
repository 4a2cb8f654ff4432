"""What is measured on a fit besides its own protocol: it decides no training, so it makes no cell.

The paper of one study ranks among sampled candidates, that of another among all items; a fit that
both need is made once, and each measurement that was not asked for then is added later, without
fitting again as long as the run's folder is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nextup.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Asked:
    """Measurements beside the ranks by a run's own protocol.

    Parameters
    ----------
    protocols
        By which the test items are ranked as well.
    consistency
        Whether the recommendations' consistency is measured.
    """

    protocols: tuple[Protocol, ...] = ()
    consistency: bool = False

    def __bool__(self) -> bool:
        return bool(self.protocols) or self.consistency

    def __or__(self, other: Asked) -> Asked:
        """Both; of protocols that rank alike, the cutoffs of all."""
        found = list(self.protocols)
        for protocol in other.protocols:
            for at, known in enumerate(found):
                if known.ranks_like(protocol):
                    cutoffs = tuple(sorted({*known.cutoffs, *protocol.cutoffs}))
                    found[at] = known.model_copy(update={"cutoffs": cutoffs})
                    break
            else:
                found.append(protocol)
        return Asked(tuple(found), self.consistency or other.consistency)

    def beside(self, own: Protocol) -> Asked:
        """Return the same less what ranks as a run's own protocol does."""
        return Asked(tuple(p for p in self.protocols if not p.ranks_like(own)), self.consistency)

    def describe(self) -> str:
        """Return it in words."""
        words = [each.describe() for each in self.protocols]
        return "; ".join([*words, "consistency"] if self.consistency else words)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "protocols": [each.model_dump(mode="json") for each in self.protocols],
            "consistency": self.consistency,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Asked:
        """Read what `to_json` returned."""
        protocols = tuple(Protocol(**each) for each in stored.get("protocols", ()))
        return cls(protocols, bool(stored.get("consistency")))
