"""The protocol: how a number was made, which is part of the number.

The same model can gain 40 % of NDCG@10 when items already seen are no candidates, and several
times as much when it is asked to beat 99 random items instead of the whole catalogue. So ranks
carry their protocol, every table prints it, and ranks of different protocols are never compared.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Candidates = Literal["full", "sampled", "popular"]
Seen = Literal["excluded", "included"]
Ties = Literal["mean", "low_id", "pessimistic"]


class Protocol(BaseModel):
    """How a held-out item is ranked.

    Parameters
    ----------
    candidates
        ``"full"``: the target among all items of the catalogue. ``"sampled"``: among `n_negatives`
        items drawn uniformly, without replacement, from those the user never interacted with. The
        draw depends on `seed` and the user alone, so that all models meet the same items. Sampled
        metrics need not order models as full ones do (Krichene & Rendle, KDD 2020). ``"popular"``:
        among as many drawn by how often an item was met, as in BERT4Rec's paper; one draw after the
        other, so that none comes twice. What that would be over all draws is not worked out.
    n_negatives, seed
        Of the sampled candidates.
    seen
        Whether items of the history are candidates. When they are excluded, a target that stands
        in its own history cannot be found by any model.
    ties
        What items with exactly the target's score do: ``"mean"`` counts half of them as ranked
        above the target, ``"low_id"`` those with a lower item number, ``"pessimistic"`` all.
    cutoffs
        The ``k`` of the metrics, in any order.

    Examples
    --------
    >>> print(Protocol().describe())
    full ranking, seen items excluded, ties mean
    >>> print(Protocol(candidates="sampled", seed=7).describe())
    99 sampled negatives (seed 7), seen items excluded, ties mean
    >>> print(Protocol(candidates="popular").describe())
    99 negatives sampled by popularity (seed 0), seen items excluded, ties mean
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: Candidates = "full"
    n_negatives: int = Field(default=99, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    seen: Seen = "excluded"
    ties: Ties = "mean"
    cutoffs: tuple[int, ...] = (5, 10, 20)

    @field_validator("cutoffs")
    @classmethod
    def _positive(cls, cutoffs: tuple[int, ...]) -> tuple[int, ...]:
        if not cutoffs or min(cutoffs) < 1:
            raise ValueError("cutoffs must be one or more whole numbers of at least 1")
        return tuple(sorted(set(cutoffs)))

    def describe(self) -> str:
        """Return the line that is printed with every table."""
        if self.candidates == "full":
            among = "full ranking"
        elif self.candidates == "popular":
            among = f"{self.n_negatives} negatives sampled by popularity (seed {self.seed})"
        else:
            among = f"{self.n_negatives} sampled negatives (seed {self.seed})"
        return f"{among}, seen items {self.seen}, ties {self.ties}"

    def ranks_like(self, other: Protocol) -> bool:
        """Whether two protocols give the same ranks (the cutoffs only say which are shown)."""
        return self.describe() == other.describe()
