"""CL4SRec: contrastive learning for sequential recommendation.

Xie, Sun, Liu, Wu, Gao, Zhang, Ding & Cui, *Contrastive Learning for Sequential Recommendation*,
ICDE 2022. Two views of every history, each by one of crop, mask and reorder, join SASRec's loss.

Two readings, by recipe. ``paper`` is the baseline of the CoSeRec and LMA4Rec tables: CoSeRec's
code with these three operators, states of all slots compared by their product. ``own`` is the
authors' paper: the last state, a [mask] token, two different operators, rates .6 / .3 / .6.
"""

from __future__ import annotations

from nextup.models.contrastive import ContrastiveConfig, ContrastiveRecommender
from nextup.models.registry import register
from nextup.models.sasrec import SASRec, SASRecConfig


class CL4SRecConfig(ContrastiveConfig, SASRecConfig):
    """Settings of CL4SRec."""


@register
class CL4SRec(ContrastiveRecommender, SASRec):
    """SASRec that agrees with itself on cropped, masked and reordered histories."""

    name = "cl4srec"
    paper = "Xie et al., Contrastive Learning for Sequential Recommendation, ICDE 2022"
    Config = CL4SRecConfig
    config: CL4SRecConfig
