"""CoSeRec: views that know which items belong together.

Liu, Chen, Li, Yu, McAuley & Xiong, *Contrastive Self-supervised Sequential Recommendation with
Robust Augmentation*, 2021. To crop, mask and reorder come substitute and insert, which take an
item's most similar one, and short histories meet only operators that leave enough of them.
Similar items come from co-occurrence with inverse user frequency, from the model's own
embeddings, or (``hybrid``) from whichever is surer of itself, from some epoch on.

Departures: similar items and views are drawn from training inputs only; crop and reorder may
start anywhere (the public code never takes the last place); reorder has its own rate (the public
code gives it mask's where there is a threshold; ``reorder_rate=0.7`` does the same); operators see
the last `max_length` items of a history (the code's see it whole, and cut what they made); similar
items are looked for among embeddings one epoch sooner than there; padding is not contrasted.
"""

from __future__ import annotations

from pydantic import Field

from nextup.models.contrastive import ContrastiveConfig, ContrastiveRecommender
from nextup.models.registry import register
from nextup.models.sasrec import SASRec, SASRecConfig


class CoSeRecConfig(ContrastiveConfig, SASRecConfig):
    """Settings of CoSeRec."""

    operators: str = Field(
        "ICMRS", description="operators, by initials: Crop, Mask, Reorder, Substitute, Insert"
    )
    threshold: int | None = Field(
        4, ge=0, description="longest history that counts as short; null: none does"
    )


@register
class CoSeRec(ContrastiveRecommender, SASRec):
    """SASRec with contrast over robust, informed augmentations."""

    name = "coserec"
    paper = "Liu et al., Contrastive Self-supervised Sequential Recommendation, 2021"
    Config = CoSeRecConfig
    config: CoSeRecConfig
