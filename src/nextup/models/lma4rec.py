"""LMA4Rec: learnable model augmentation for contrastive sequential recommendation.

Hao, Zhao, Xian, Liu, Wang, Zhao, Liu & Sheng, *Learnable Model Augmentation Self-Supervised
Learning for Sequential Recommendation*, 2022. CoSeRec's data augmentation, views that also differ
by learnable Bernoulli dropout on the output of every block's feed-forward layer (eq. 3), and the
joint loss ``L_rec + lambda L_ssl`` (eq. 7-9). The mechanism is in `nextup.models.learnable`.

What the paper leaves open, and what is done here:

* eq. 2 is ARM, whose first mask is ``[u > sigmoid(-phi)]``: ``estimator="arm"``. ``disarm`` has the
  same mean and less variance.
* One logit a unit, one mask a row: eq. 3 speaks of each neuron, and the position-wise feed-forward
  layer is a convolution of width 1, whose channels Boluki et al. mask for all places together.
* The mask multiplies as it is (eq. 3); answers use its expectation. There is no regulariser.
* The base is CoSeRec's post-norm block, since "w/o LMA" equals CoSeRec in all 12 cells of table 3.
* Learnable dropout works in the recommendation pass as well ("w/o SSL" is called learnable
  dropout SASRec), and its logits learn from the joint loss.
* The loss of eq. 7 is BCE with one negative, as in the code that the paper builds on.
* Two readings cannot be run: layer norm before the feed-forward layer (the formula of eq. 3), and
  masks on that layer's inner units.

"w/o SSL" is ``contrast_weight=0``, "w/o DA" is ``augment=false``, and "w/o LMA" is `coserec`.

`LMA4GRU` is the same on a recurrent encoder: learnable dropout on the states.
"""

from __future__ import annotations

from pydantic import Field

from nextup.models.coserec import CoSeRecConfig
from nextup.models.gru4rec import GRU4Rec, GRU4RecConfig
from nextup.models.learnable import LearnableAugmentation, LearnableConfig
from nextup.models.registry import register
from nextup.models.sasrec import SASRec


class LMA4RecConfig(CoSeRecConfig, LearnableConfig):
    """Settings of LMA4Rec."""


@register
class LMA4Rec(LearnableAugmentation, SASRec):
    """SASRec with CoSeRec's views and learnable dropout in every block."""

    name = "lma4rec"
    paper = "Hao et al., Learnable Model Augmentation Self-Supervised Learning, 2022"
    Config = LMA4RecConfig
    config: LMA4RecConfig


class LMA4GRUConfig(LearnableConfig, GRU4RecConfig):
    """Settings of learnable augmentation on GRU4Rec."""

    operators: str = Field("ICMRS", description="operators, by initials")
    threshold: int | None = Field(
        4, ge=0, description="longest history that counts as short; null: none does"
    )


@register
class LMA4GRU(LearnableAugmentation, GRU4Rec):
    """GRU4Rec with CoSeRec's views and learnable dropout on its states."""

    name = "lma4gru"
    paper = "Hao et al., Learnable Model Augmentation, 2022, on Hidasi et al., GRU4Rec"
    Config = LMA4GRUConfig
    config: LMA4GRUConfig
