"""Learnable Bernoulli dropout: each unit's keep probability is learnt with the weights.

Boluki, Ardywibowo, Dadaneh, Zhou & Qian, *Learnable Bernoulli Dropout for Bayesian Deep
Learning*, AISTATS 2020. A unit ``k`` is kept with probability ``p_k = sigmoid(phi_k)``; training
minimises ``E_z[loss(z)]`` over weights and logits ``phi``. Masks are binary, so the gradient for
the logits comes from an estimator:

``arm``
    Yin & Zhou, ICLR 2019. With ``u ~ U(0, 1)`` and the antithetic masks ``b = [u > sigmoid(-phi)]``
    and ``b' = [u < sigmoid(phi)]``, ``g = (f(b) - f(b')) (u - 1/2)``. Unbiased.
``disarm``
    Dong, Mnih & Tucker, NeurIPS 2020: ARM averaged over all ``u`` that give the same two masks,
    ``g = (f(b) - f(b')) (b - b') sigmoid(|phi|) / 2``. Unbiased, and its variance is never larger.
``concrete``
    The mask relaxed to ``sigmoid((phi + logit u) / T)``; biased, one pass.
``straight_through``
    Binary forwards, ``p`` backwards; biased, one pass.
``frozen``
    The logits stay as they were drawn: random dropout with shared masks, the control.

The first two need the loss under both masks. The layer draws ``u`` in training and remembers it;
whoever owns the model runs the second pass (`antithetic`) with everything else unchanged, and
gives the differences of the loss back to `estimate`.

Two scalings, which must not be mixed: with ``none`` the mask multiplies as it is, and an answer
multiplies by ``p``, so ``p`` is a gain and the estimator's gradient is complete. With ``inverse``
the mask is divided by ``p`` and an answer uses every unit; then ``1 / p`` carries a gradient too,
which autograd adds (leaving it out, as released code does, is badly biased).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor, nn

from nextup.errors import ConfigError
from nextup.nn.noise import twins
from nextup.nn.packing import Packing

Estimator = Literal["arm", "disarm", "concrete", "straight_through", "frozen"]
_sample: ContextVar[int | None] = ContextVar("sample", default=None)

LOWEST, HIGHEST = -3.0, 6.0
"""Where the logits are held: a unit is never quite lost, nor quite certain."""


class LearnableDropout(nn.Module):
    """Bernoulli dropout with a learnt keep probability for each unit.

    Parameters
    ----------
    width
        Units ``K``.
    keep
        Keep probability at the start.
    spread
        Standard deviation of the logits at the start.
    share
        ``"sequence"``: one mask for all tokens of a row; ``"token"``: one for each.
    scale
        ``"none"`` or ``"inverse"``; see above.
    estimator
        Of the logits' gradient; see above.
    temperature
        Of ``concrete``.

    Raises
    ------
    ConfigError
        If `keep` does not lie between 0 and 1.

    Examples
    --------
    >>> drop = LearnableDropout(4).eval()
    >>> drop(torch.ones(1, 4)).tolist()  # an answer meets the expected mask
    [[0.5, 0.5, 0.5, 0.5]]
    """

    def __init__(
        self,
        width: int,
        keep: float = 0.5,
        spread: float = 0.0,
        share: Literal["sequence", "token"] = "sequence",
        scale: Literal["none", "inverse"] = "none",
        estimator: Estimator = "arm",
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__()
        if not 0 < keep < 1:
            raise ConfigError(f"learnable dropout: keep is {keep}; it must lie between 0 and 1")
        self.logits: Tensor
        self.estimates: Tensor
        self.share, self.scale, self.estimator = share, scale, estimator
        self.temperature = temperature
        logits = torch.full((width,), math.log(keep / (1 - keep)))
        logits = logits + spread * torch.randn(width) if spread else logits
        if estimator == "frozen":
            self.register_buffer("logits", logits)
        else:
            self.logits = nn.Parameter(logits)
        # Sums of the gradient's estimates, their squares, and how many: part of the state, so that
        # a run that is killed within an epoch logs the same of it.
        self.register_buffer("estimates", torch.zeros(3, width))
        self.noise: Tensor | None = None
        self.second = False
        self.number = 0

    @property
    def keep(self) -> Tensor:
        """``[K]``: the keep probabilities."""
        return torch.sigmoid(self.logits)

    def clamp(self) -> None:
        """Hold the logits between `LOWEST` and `HIGHEST`."""
        with torch.no_grad():
            self.logits.clamp_(LOWEST, HIGHEST)

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """Multiply ``x: [N, K]`` by masks (in training), or by what stands for them.

        Parameters
        ----------
        x
            Packed tokens, or one token a row.
        packing
            Which token belongs to which row; None where each row has one token.
        """
        if not self.training:
            return self._answer(x)
        shared = self.share == "sequence" and packing is not None
        entries = len(packing.lengths) if shared and packing is not None else len(x)
        mask = self._mask(entries, x)
        if shared and packing is not None:
            mask = mask.index_select(0, packing.row_of)
        return x * mask

    def _answer(self, x: Tensor) -> Tensor:
        sample = _sample.get()
        if sample is not None:  # the same mask for all rows, whatever they are answered with
            seed = torch.Generator().manual_seed(1_000_003 * sample + self.number)
            u = torch.rand(len(self.logits), generator=seed).to(x.device)
            mask = antithetic_masks(u, self.logits)[0].to(x.dtype)
            return x * (mask if self.scale == "none" else mask / self.keep.to(x.dtype))
        return x * self.keep.to(x.dtype) if self.scale == "none" else x

    def _mask(self, entries: int, x: Tensor) -> Tensor:
        """Draw ``[entries, K]``; twins get the first and the second mask of the same noise."""
        logits = self.logits
        drawn = entries // 2 if twins() else entries
        u = torch.rand(drawn, len(logits), device=x.device)
        if self.estimator == "concrete":
            mask = torch.sigmoid((logits + torch.logit(u, eps=1e-6)) / self.temperature)
        else:
            first, second = antithetic_masks(u, logits)
            one = second if self.second else first
            mask = torch.cat([first, second]) if twins() else one
            mask = mask.to(logits.dtype)
            if self.estimator == "straight_through":
                mask = mask + self.keep - self.keep.detach()
        self.noise = u
        if self.scale == "inverse":
            mask = mask / self.keep
        return mask.to(x.dtype)

    # ---- the logits' gradient -----------------------------------------------------------------
    @property
    def needs_twin(self) -> bool:
        """Whether the estimator asks for the loss under the antithetic masks too."""
        return self.estimator in ("arm", "disarm")

    def estimate(self, differences: Tensor) -> Tensor:
        """Return ``[K]``: the estimated gradient of the expected loss for the logits.

        Parameters
        ----------
        differences
            ``[entries]``: for each row (or token, with ``share="token"``) of the last pass, by how
            much the loss under its first mask exceeds that under its second.
        """
        assert self.noise is not None
        weights = antithetic_weights(self.noise, self.logits.detach(), self.estimator)
        with torch.autocast(weights.device.type, enabled=False):
            gradient = differences.to(weights.dtype) @ weights
        found = torch.stack([gradient, gradient.square(), torch.ones_like(gradient)])
        self.estimates += found.to(self.estimates)
        return gradient

    def signal(self) -> float | None:
        """Return the estimates' signal to noise since the last call; None where there were none.

        The median over units of ``|mean| / deviation`` over steps.
        """
        first, second, steps = self.estimates
        many = int(steps[0])
        mean = first / max(many, 1)
        deviation = (second / max(many, 1) - mean.square()).clamp(min=0).sqrt()
        self.estimates.zero_()
        return float((mean.abs() / deviation.clamp(min=1e-30)).median()) if many > 1 else None

    def report(self) -> dict[str, float]:
        """Return keep probabilities (least, mean, most) and what they amount to.

        ``rate`` is the ordinary dropout rate with the same relative noise, from the mean of
        ``(1 - p) / p``; ``settled`` the share of logits beyond 2; ``signal`` as `signal` gives it.
        """
        keep = self.keep.detach()
        noise = float(((1 - keep) / keep).mean())
        found = {
            "least": float(keep.min()),
            "mean": float(keep.mean()),
            "most": float(keep.max()),
            "rate": noise / (1 + noise),
            "settled": float((self.logits.detach().abs() > 2).float().mean()),
        }
        signal = self.signal()
        return found if signal is None else {**found, "signal": signal}


def antithetic_masks(u: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two masks that one draw of uniform noise gives, ``bool`` shaped like `u`.

    Each unit of either is kept with probability ``sigmoid(logits)``.

    Examples
    --------
    >>> first, second = antithetic_masks(torch.tensor([0.1, 0.9]), torch.zeros(2))
    >>> first.tolist(), second.tolist()
    ([False, True], [True, False])
    """
    logits = logits.detach()
    return u > torch.sigmoid(-logits), u < torch.sigmoid(logits)


def antithetic_weights(u: Tensor, logits: Tensor, estimator: Estimator) -> Tensor:
    """Return what each unit's difference of the loss is multiplied with, shaped like `u`."""
    if estimator == "arm":
        return u - 0.5
    if estimator == "disarm":
        first, second = antithetic_masks(u, logits)
        return (first.to(u.dtype) - second.to(u.dtype)) * torch.sigmoid(logits.abs()) / 2
    raise ConfigError(f"estimator: `{estimator}` does not compare two masks")


def negative_entropy(keep: Tensor) -> Tensor:
    """``sum_k p ln p + (1 - p) ln(1 - p)``: smallest at one half; its gradient is ``phi p (1-p)``.

    Examples
    --------
    >>> negative_entropy(torch.tensor([0.5]))  # -ln 2
    tensor(-0.6931)
    """
    entropy: Tensor = (torch.special.entr(keep) + torch.special.entr(1 - keep)).sum()
    return -entropy


def learnable_dropouts(model: nn.Module) -> list[LearnableDropout]:
    """Return the layers of a model in the order in which they stand."""
    return [module for module in model.modules() if isinstance(module, LearnableDropout)]


@contextmanager
def answer_sample(number: int) -> Iterator[None]:
    """Let layers answer with the sampled mask of this number instead of the expected one."""
    before = _sample.set(number)
    try:
        yield
    finally:
        _sample.reset(before)


@contextmanager
def antithetic(layers: list[LearnableDropout]) -> Iterator[None]:
    """Let the layers answer the same noise with their second masks."""
    for layer in layers:
        layer.second = True
    try:
        yield
    finally:
        for layer in layers:
            layer.second = False


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return where the generators stand, for `replay`."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def replay(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Put the generators back to where they were, so that what follows draws the same again."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
