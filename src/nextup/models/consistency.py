"""The consistency teachers of SSI: BERT4Rec that also tells sessions from corrupted ones.

Yuan, Chen, Song, Zhao & Ding, *Improving Sequential Recommendation Consistency with Self-Supervised
Imitation*, IJCAI 2021, sections 2.2 and 2.3. One task beside the cloze, with a token [INT] after
the items whose last hidden state ``x`` is read (eq. 4: cloze + task_weight * task):

``task="temporal"``
    Eq. 1: is the session in its order, or have n-grams of it been exchanged?
``task="persona"``
    Eq. 2: is it all one user's, or have n-grams been replaced by another user's?
``task="global"``
    Eq. 3: which of the batch's n-grams was cut out of this session? InfoNCE between [INT] after
    the session with the n-gram masked and [INT] after the n-gram alone.
``task="none"``
    BERT4Rec with the same loss and one token more.

The first two are binary cross-entropies of ``h(x) = sigmoid(w GELU(W x + b) + c)``; a half of the
sessions are as they were (label 1).

What the paper leaves open, and how it is read here: the cloze reads the session in its true order,
in rows of its own (``one_pass=True`` puts gaps into what the task reads, and so teaches to predict
items in contexts made wrong on purpose); losses are means, not sums; sizes and chances of n-grams
are those of `nextup.augment.ngrams`. Eq. 3 counts the masked session among the n-grams to choose
from, which must mean the n-gram itself; it has no temperature, ours is a setting. N-grams of other
sessions that are the very same, or of the same user, are no negatives. A session whose order cannot
be made wrong (one item; one item repeated) is left out of the temporal task. Nothing but training
histories is ever read.

Answers, also for a user never met, are BERT4Rec's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from nextup.augment.ngrams import ShuffleMode, cut_ngram, host_generator, shuffle_ngrams
from nextup.augment.packed import Packed, to_device
from nextup.augment.places import cloze_places
from nextup.augment.strangers import Strangers, splice_strangers
from nextup.data.batches import Batch
from nextup.data.sequences import Sequences
from nextup.models.base import Losses, ModelConfig
from nextup.models.bert4rec import BERT4Rec, BERT4RecConfig, appended
from nextup.models.registry import register
from nextup.nn.contrast import all_products, matching_losses
from nextup.nn.packing import Packing, Slots


class ConsistencyConfig(BERT4RecConfig):
    """Settings of a consistency teacher."""

    task: Literal["temporal", "persona", "global", "none"] = Field(
        "temporal", description="what is learnt beside the cloze"
    )
    task_weight: float = Field(1.0, ge=0, description="weight of the task's loss (lambda)")
    one_pass: bool = Field(False, description="the cloze reads the rows that the task reads")
    shuffle_mode: ShuffleMode = Field(
        "blocks", description="temporal: exchange n-grams, the items inside some, or two n-grams"
    )
    replace_with: Literal["user", "items"] = Field(
        "user", description="persona: what replaces n-grams, those of another user or any items"
    )
    longest_ngram: int = Field(5, ge=1, description="global: the most items that are cut out")
    temperature: float = Field(1.0, gt=0, description="global: what products are divided by")


@dataclass(frozen=True)
class Task:
    """What the task reads of a step, without [INT]."""

    rows: Packed
    """One a history."""
    hidden: Tensor
    """``int64[N]``: the items of `rows`, those too that are masked in it."""
    intact: np.ndarray
    """``bool[B]`` on the host: which rows are as they were (the label)."""
    asked: np.ndarray
    """``bool[B]`` on the host: which rows take part."""
    ngrams: Packed | None = None
    """What was cut out of each."""


@register
class Consistency(BERT4Rec):
    """BERT4Rec with a task of consistency beside the cloze: a teacher of SSI."""

    name = "consistency"
    paper = "Yuan et al., Improving Sequential Recommendation Consistency (teachers), IJCAI 2021"
    Config: ClassVar[type[ModelConfig]] = ConsistencyConfig
    config: ConsistencyConfig
    special_tokens = 2
    strangers: Strangers

    def __init__(self, config: ConsistencyConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        if config.task in ("temporal", "persona"):
            width = config.width
            self.classifier = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
            self.initialise(self.classifier)

    @property
    def int_token(self) -> int:
        """The number of [INT]."""
        return self.n_items + 2

    def prepare(self, train: Sequences, device: torch.device) -> None:
        """Remember the training histories, where others' n-grams come from."""
        if self.config.task == "persona":
            self.strangers = Strangers(train, self.n_items, self.config.replace_with)

    def task_of(self, batch: Batch) -> Task:
        """Draw what the task reads of a step; histories make room for [INT]."""
        batch = batch.cut(self.config.max_length - 1)
        rows, rng = Packed.of(batch.tokens, batch.lengths), host_generator()
        every = np.ones(len(batch), dtype=np.bool_)
        if self.config.task == "global":
            longest = self.config.longest_ngram
            left, ngrams, _ = cut_ngram(rows, self.mask_token, longest, rng)
            return Task(left, rows.tokens, every, every, ngrams)
        if self.config.task == "temporal":
            other, changed = shuffle_ngrams(rows, self.config.shuffle_mode, rng)
        else:
            users = batch.users.cpu().numpy()
            other, changed = splice_strangers(rows, users, self.strangers, rng)
        intact = rng.random(len(batch)) < 0.5
        kept = to_device(np.repeat(intact, batch.lengths), rows.device)
        tokens = torch.where(kept, rows.tokens, other.tokens)
        return Task(Packed(tokens, rows.lengths, rows.ago), tokens, intact, changed)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the gaps of the step, plus the weighted mean of the task over its rows."""
        if self.config.task == "none":
            return super().loss(batch)
        task = self.task_of(batch)
        rows = task.rows if self.config.one_pass else Packed.of(batch.tokens, batch.lengths)
        items = task.hidden if self.config.one_pass else batch.tokens
        gaps, counts = cloze_places(rows, self.config.mask_share, self.config.last_only)
        hidden = items[gaps]
        tokens = rows.tokens.index_fill(0, gaps, self.mask_token)
        if self.config.one_pass:
            gaps = gaps + to_device(np.repeat(np.arange(len(rows)), counts), gaps.device)
            parts = [appended(tokens, rows.lengths, self.int_token)]
        else:
            ended = appended(task.rows.tokens, task.rows.lengths, self.int_token)
            parts = [(tokens, rows.lengths), ended]
        if task.ngrams is not None:
            parts.append(appended(task.ngrams.tokens, task.ngrams.lengths, self.int_token))
        x = self._states(parts, gaps, counts)
        cloze = self.cloze_loss(x[: len(gaps)], hidden, batch)
        said = {"cloze": cloze.detach()}
        if task.ngrams is None:
            own, said["accuracy"] = self._told_apart(x[len(gaps) :], task)
        else:
            whole, local = x[len(gaps) :].chunk(2)
            own = self._matched(whole, local, task.ngrams, batch.users)
        own = own * (len(batch) / batch.row_total)
        said[self.config.task] = own.detach()
        return Losses(cloze + self.config.task_weight * own, said)

    def _states(
        self, parts: list[tuple[Tensor, np.ndarray]], gaps: Tensor, counts: np.ndarray
    ) -> Tensor:
        """States of the `gaps`, then of every [INT], of all `parts` in one batch."""
        lengths = np.concatenate([each[1] for each in parts])
        first = 0 if self.config.one_pass else len(counts)  # the first row that ends in [INT]
        asked = np.pad(counts, (0, len(lengths) - len(counts)))
        asked[first:] += 1
        lasts = to_device(np.cumsum(lengths)[first:] - 1, gaps.device)
        at, order = torch.cat([gaps, lasts]).sort()
        packing = Packing(lengths, gaps.device)
        tokens = torch.cat([each[0] for each in parts])
        return self.encode(tokens, packing, Slots(packing, at, asked))[order.argsort()]

    def _told_apart(self, x: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the rows that take part, and how many are told rightly."""
        logits = self.classifier(x).squeeze(1)
        both = to_device(np.stack([task.intact, task.asked]), x.device).to(logits.dtype)
        labels, weights = both[0], both[1] / max(int(task.asked.sum()), 1)
        losses = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        right = (logits.detach() > 0) == (labels > 0)
        return (losses * weights).sum(), (right * weights).sum()

    def _matched(self, whole: Tensor, local: Tensor, ngrams: Packed, users: Tensor) -> Tensor:
        """Mean loss of finding each session's n-gram among those of the batch."""
        row = to_device(np.repeat(np.arange(len(ngrams)), ngrams.lengths), whole.device)
        padded = ngrams.tokens.new_zeros(len(ngrams), self.config.longest_ngram)
        padded[row, ngrams.ago] = ngrams.tokens
        _, same = torch.unique(padded, dim=0, return_inverse=True)
        left_out = (same[:, None] == same) | ((users[:, None] == users) & (users >= 0))
        alike = all_products(whole, local) / self.config.temperature
        return matching_losses(alike, left_out).mean()
