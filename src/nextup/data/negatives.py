"""Negatives: items a target is compared with, drawn on the batch's device.

A sampler of a whole step also says what the logQ correction of a sampled softmax takes off the
scores: the log of how often it expects to draw each item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nextup.data.sequences import Sequences
from nextup.errors import ConfigError, InputError


@dataclass(frozen=True)
class Drawn:
    """Negatives of one step: ``items[M, n]`` or ``items[n]``, and what logQ takes off scores."""

    items: Tensor
    log_q: Tensor | None = None
    target_log_q: Tensor | None = None


class NegativeSampler(Protocol):
    """What a batch stream asks of a sampler."""

    def draw(self, users: Tensor, targets: Tensor, generator: torch.Generator) -> Drawn:
        """Draw negatives for the targets of a step.

        Parameters
        ----------
        users, targets
            ``int64[M]``: the items to be found, and whose history each is of.
        generator
            Decides which are drawn; on the device of the targets.
        """
        ...


class UniformNegatives:
    """`n` items for each target, uniform over those the user has not met in training.

    Parameters
    ----------
    n_items
        Items of the catalogue; negatives are drawn from ``1..n_items``.
    n
        Negatives for each target.
    seen
        Training histories by user; their items are never drawn for them. None draws from all.
    device
        Where to keep the table of seen pairs.

    Raises
    ------
    InputError
        If a user has met every item, so that nothing is left to draw.

    Notes
    -----
    The public S3-Rec code also excludes the user's validation and test items (which tells the
    model what not to push down); pass whole histories as `seen` to do the same.
    """

    def __init__(
        self,
        n_items: int,
        n: int = 1,
        seen: Sequences | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_items, self.n = n_items, n
        self.keys: Tensor | None = None
        if seen is not None:
            users = np.repeat(np.arange(len(seen)), seen.lengths)
            pairs = np.unique(users * (n_items + 1) + seen.items[seen.positions()])
            met = np.bincount(pairs // (n_items + 1), minlength=1)
            if met.max() >= n_items:
                raise InputError(
                    f"negatives: user number {int(met.argmax())} has met all {n_items} items; "
                    "use a loss without negatives (softmax) or leave this user out"
                )
            self.keys = torch.from_numpy(pairs).to(device)

    def draw(self, users: Tensor, targets: Tensor, generator: torch.Generator) -> Drawn:
        """Draw ``[M, n]`` items; a draw the user has met is drawn again until it is not."""
        shape = (len(targets), self.n)
        device = targets.device
        items = torch.randint(1, self.n_items + 1, shape, generator=generator, device=device)
        if self.keys is None:
            return Drawn(items)
        base = (users * (self.n_items + 1))[:, None].expand(shape)
        again = self._met(base + items)
        while bool(again.any()):
            count = int(again.sum())
            fresh = torch.randint(1, self.n_items + 1, (count,), generator=generator, device=device)
            items[again] = fresh
            still = self._met(base[again] + fresh)
            again[again.clone()] = still
        return Drawn(items)

    def _met(self, keys: Tensor) -> Tensor:
        assert self.keys is not None
        at = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return self.keys[at] == keys


class PopularityNegatives:
    """`n` items shared by a whole step, drawn with probability proportional to ``count^power``.

    ``power=0`` is uniform. An item never met in training counts as 1e-12: it is as good as never
    drawn, but for a power near 0. With `in_batch`, the step's own targets are negatives of each
    other too; an item's probability is then that of being drawn either way (as expected counts; how
    often it is a target is taken from how often it occurs, first items of histories included).

    Parameters
    ----------
    counts
        ``[I]``: how often each of the items ``1..I`` occurs in training.
    n
        Items drawn for each step.
    power
        Exponent on the counts, in ``[0, 1]``.
    in_batch
        Whether the step's targets join the drawn items.
    device
        Where to keep the table.
    """

    def __init__(
        self,
        counts: np.ndarray,
        n: int,
        power: float = 0.5,
        in_batch: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0.0 <= power <= 1.0:
            raise ConfigError(f"negatives: power is {power}; it must lie between 0 and 1")
        self.n, self.in_batch = n, in_batch
        counts = np.asarray(counts, dtype=np.float64)
        weights = np.maximum(counts, 1e-12) ** power  # never minus infinity as a logarithm
        probability = weights / weights.sum()
        self.cumulative = torch.from_numpy(np.cumsum(probability)).to(device)
        self.drawn = torch.from_numpy(probability).to(device)
        self.occurring = torch.from_numpy(counts / max(counts.sum(), 1.0)).to(device)

    def log_q(self, items: Tensor, n_targets: int) -> Tensor:
        """Log of the expected number of times each item appears among the step's negatives."""
        expected = self.n * self.drawn[items - 1]
        if self.in_batch:
            expected = expected + n_targets * self.occurring[items - 1]
        return expected.log().float()

    def draw(self, users: Tensor, targets: Tensor, generator: torch.Generator) -> Drawn:
        """Draw ``[n]`` items for the step (``[n + M]`` with the batch's own targets)."""
        u = torch.rand(self.n, generator=generator, device=targets.device, dtype=torch.float64)
        items = torch.searchsorted(self.cumulative, u).clamp_(max=len(self.cumulative) - 1) + 1
        if self.in_batch:
            items = torch.cat([items, targets])
        m = len(targets)
        return Drawn(items, self.log_q(items, m), self.log_q(targets, m))


class SupportNegatives(PopularityNegatives):
    """Items drawn by ``support^power``, with what GRU4Rec's correction takes off their scores.

    As in the authors' code this is the log of an item's support, a count and not a share, for a
    target of the batch, and `power` times that for an item drawn: not a log-probability, and so
    not the exact correction that `PopularityNegatives` has. Parameters are those of it.
    """

    def __init__(
        self, counts: np.ndarray, n: int, power: float, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(counts, n, power, device=device)
        self.power = power
        support = torch.from_numpy(np.maximum(np.asarray(counts, dtype=np.float64), 1.0))
        self.log_support = support.log().float().to(device)

    def draw(self, users: Tensor, targets: Tensor, generator: torch.Generator) -> Drawn:
        """Draw ``[n]`` items for the step."""
        items = super().draw(users, targets, generator).items
        return Drawn(items, self.power * self.log_support[items - 1], self.log_support[targets - 1])
