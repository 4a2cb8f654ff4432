"""Every registered model, small enough to test: what the conformance suite runs over.

A model takes part by being registered. Its settings are shrunk by the names of their fields
(`SMALL`); a model whose fields have other names, or that has several forms worth testing, gets
lines of its own in `FORMS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nextup.data.batches import Batch
from nextup.data.catalog import Catalog
from nextup.data.dataset import Dataset
from nextup.data.rawids import RawIds
from nextup.data.sequences import Sequences
from nextup.data.stream import Stream
from nextup.models.base import Recommender
from nextup.models.registry import available_models, make_model

N_ITEMS, MAX_LENGTH = 40, 8


class Thrice(nn.Module):
    """Stands where dropout stood, to see what it is on."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


SMALL: dict[str, Any] = {
    "max_length": MAX_LENGTH,
    "width": 16,
    "hidden": 16,
    "inner": 32,
    "layers": 2,
    "heads": 2,
    "dropout": 0.2,
}
"""Settings for fields of these names, in any model that has them."""


def part(model: str, **settings: Any) -> dict[str, Any]:
    """A small model as a part of another."""
    fields = available_models()[model].Config.model_fields
    small = {} if model == "mc1" else {k: v for k, v in SMALL.items() if k in fields}
    return {"model": model, "settings": {**small, **settings}}


FORMS: dict[str, list[dict[str, Any]]] = {
    "sasrec": [
        {"block": "s3", "loss": "softmax"},
        {"block": "s3", "loss": "bce", "targets": "prefix", "negatives": 2},
        {"block": "s3", "loss": "sampled_softmax", "negatives": 25, "in_batch": True},
        {"block": "s3", "loss": "softmax", "targets": "last", "layers": 0},
        {"block": "original", "loss": "bce"},
        {"block": "original", "loss": "gbce", "targets": "last", "negatives": 4},
        {"block": "original", "loss": "softmax", "targets": "prefix", "heads": 1},
    ],
    "gru4rec": [
        {"loss": "softmax", "layers": 1},
        {"loss": "softmax", "targets": "prefix", "hidden": 12, "tied": False, "bias": False},
        {
            "loss": "sampled_softmax",
            "targets": "last",
            "negatives": 20,
            "negative_power": 0.5,
            "layers": 1,
        },
        {"loss": "bpr", "negatives": 3, "tied": False},
        {"loss": "bce", "targets": "prefix", "negatives": 4, "hidden": 24, "layers": 1},
        {"loss": "gbce", "targets": "prefix", "negatives": 5, "calibration": 0.3, "layers": 1},
    ],
    "gru4rec_official": [
        {"loss": "cross_entropy", "negatives": 20, "embedding_dropout": 0.1},
        {"loss": "cross_entropy", "negatives": 5, "logq": 1.0, "bptt": 3},
        {"loss": "bpr_max", "negatives": 20, "negative_power": 0.3},
        {"loss": "top1_max", "negatives": 30, "activation": "linear"},
    ],
    "srgnn": [
        {"loss": "softmax"},
        {"loss": "softmax", "targets": "last", "steps": 2, "counted_edges": True},
        {"loss": "bce", "negatives": 3},
    ],
    "gcsan": [
        {"loss": "softmax"},
        {"loss": "bpr", "layers": 1, "steps": 2, "negatives": 5},
        {"loss": "softmax", "targets": "last", "layers": 0, "attention_weight": 0.0},
    ],
    "shan": [
        {"loss": "bpr"},
        {"loss": "softmax", "short": 5, "vector_l2": 0.0},
        {"loss": "bce", "targets": "last", "negatives": 3, "attention_l2": 0.0},
    ],
    "bpr": [{}, {"bias": False, "negatives": 3}],
    "fpmc": [{}, {"loss": "softmax"}, {"loss": "bce", "targets": "prefix", "negatives": 2}],
    "fossil": [
        {},
        {"loss": "softmax", "alpha": 0.6, "order": 1},
        {"loss": "bce", "targets": "prefix", "negatives": 2},
        {"order": 0},
    ],
    "caser": [
        {"window_targets": 1},
        {"window_targets": 0, "loss": "softmax"},
        {"window_targets": 0, "activation": "tanh", "negatives": 2},
        {"window_targets": 0, "loss": "softmax", "max_length": 14},
    ],
    "nextitnet": [
        {"dilations": [1, 2]},
        {"block": "a", "dilations": [1, 2, 4], "targets": "prefix", "tied": True, "bias": False},
        {"loss": "bce", "dilations": [1, 2], "negatives": 2},
    ],
    "grec": [{"encoder_dilations": [1, 2], "decoder_dilations": [1, 2]}],
    "consistency": [
        {"task": "temporal"},
        {"task": "persona", "replace_with": "items", "rows": "prefix", "last_only": 0.5},
        {"task": "global", "temperature": 4.0, "task_weight": 0.5},
        {"task": "none"},
    ],
    "bert4rec": [
        {},
        {"mask_share": 0.6, "last_only": 0.0, "attention_dropout": 0.1, "heads": 1},
        {"rows": "prefix", "mask_share": 0.2, "last_only": 0.5, "layers": 1},
    ],
    "s3rec": [
        {"pretrain_epochs": 1, "map_weight": 1.0, "aap_weight": 0.2},
        {"loss": "bce", "pretrain_epochs": 1, "targets": "prefix"},
        {"loss": "bce", "pretrain_epochs": 0},
    ],
    "cl4srec": [
        {"loss": "bce"},
        {
            "loss": "softmax",
            "representation": "last",
            "mask_with": "token",
            "distinct": True,
            "agreement": "cosine",
            "temperature": 0.5,
        },
    ],
    "coserec": [
        {"loss": "bce", "threshold": 3},
        {"loss": "softmax", "representation": "mean", "neighbours": "embedding"},
        {"loss": "softmax", "targets": "prefix", "representation": "last"},
        {"loss": "bce", "targets": "last", "augment": False, "agreement": "cosine"},
    ],
    "lma4rec": [
        {"loss": "bce"},
        {"loss": "softmax", "estimator": "disarm", "keep_share": "token", "passes": "doubled"},
        {"loss": "bce", "estimator": "disarm", "targets": "prefix", "keep_share": "token"},
        {"loss": "softmax", "targets": "prefix", "representation": "last", "weights_from": "both"},
        {"loss": "bce", "keep_scale": "inverse", "credit": "global", "answering": "sampled"},
        {"loss": "bce", "contrast_padding": True},
        {"loss": "bce", "block": "original", "contrast_weight": 0.0, "entropy_weight": 0.01},
        {"loss": "bce", "estimator": "concrete", "augment": False},
        {"loss": "bce", "estimator": "straight_through", "agreement": "cosine"},
        {"loss": "softmax", "estimator": "frozen", "initial_spread": 1.0},
    ],
    "srma": [
        {"loss": "bce", "operators": "CMR"},
        {"loss": "softmax", "complement_weight": 0.0, "further_layers": 3, "targets": "prefix"},
    ],
    "hgn": [
        {"loss": "bpr"},
        {"loss": "bpr", "window_targets": 0},
        {"loss": "softmax", "window_targets": 0, "l2": 0.0},
        {"loss": "bce", "window_targets": 2, "negatives": 3},
    ],
    "ssi": [
        {"student": part("hgn", l2=0.0), "teachers": [part("sasrec"), part("gru4rec", width=12)]},
        {
            "student": part("gru4rec", targets="every"),
            "teachers": [part("bert4rec"), part("mc1")],
            "imitate_over": 9,
            "item_reduction": "sum",
        },
        {
            "student": part("sasrec", targets="prefix"),
            "teachers": [part("hgn", window_targets=0)],
            "teacher_weight": 0.5,
            "keep_mb": 0,
        },
    ],
    "lma4gru": [
        {"loss": "bce", "layers": 1},
        {"loss": "softmax", "estimator": "disarm", "passes": "doubled", "hidden": 12, "layers": 1},
        {"loss": "bce", "targets": "last", "keep_share": "token", "representation": "mean"},
    ],
}
"""The forms of a model to test, over `SMALL`; a model not named here has one."""

RATES: dict[str, float] = {"gru4rec": 0.03, "lma4gru": 0.05}
"""Step sizes with which a model learns a few users by heart, where 0.01 is not the one."""

BY_HEART: dict[str, float] = {"shan": 0.55}
"""Share of a few users that a model must learn by heart, where not all can be learnt: SHAN's states
are means of the very vectors that stand for the items, which takes no account of their order."""


@dataclass(frozen=True)
class Form:
    """A model and the settings it is tested with."""

    model: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [str(v) if isinstance(v, str) else f"{k}={v}" for k, v in self.settings.items()]
        return "-".join([self.model, *said])

    @property
    def counts(self) -> bool:
        return available_models()[self.model].learns_by == "counting"

    def all_settings(self, **more: Any) -> dict[str, Any]:
        cls = available_models()[self.model]
        fields = cls.Config.model_fields.keys() - cls.Config.idle
        small = {} if self.counts else {k: v for k, v in SMALL.items() if k in fields}
        return {**small, **self.settings, **{k: v for k, v in more.items() if k in fields}}

    def fresh(self, seed: int = 0, **more: Any) -> Recommender:
        """A model with fresh weights (a counting one is empty)."""
        torch.manual_seed(seed)
        model = make_model(self.model, N_ITEMS, self.all_settings(**more))
        model.meet(dataset_of(shop()).catalog)
        model.prepare(shop(), torch.device("cpu"))
        model.begin_stage(model.stages()[-1].name, resumed=False)
        model.begin_epoch(0)
        return model

    def lively(self, seed: int = 0, **more: Any) -> Recommender:
        """A model in which every weight is far from zero, so that no path is idle."""
        model = self.fresh(seed, **more)
        if self.counts:
            model.count(shop())
        else:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape) * 0.3)
            model.conclude(shop(), torch.device("cpu"))
        return model.eval()


def in_both_precisions(model: Recommender) -> list[tuple[float, Tensor]]:
    """Loss and gradient of the first batch, in single precision and with autocast to bf16."""
    batch, found = first_batch(model), []
    for enabled in (False, True):
        model.zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            total = model.loss(batch).total
        total.backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
        found.append((float(total.detach()), gradient))
    return found


def forms() -> list[Form]:
    """All forms of all registered models."""
    return [Form(name, form) for name in available_models() for form in FORMS.get(name, [{}])]


def trainable() -> list[Form]:
    return [form for form in forms() if not form.counts]


def shop(users: int = 60, seed: int = 0) -> Sequences:
    """Histories of unlike lengths, some longer than a model reads, one user with a single item."""
    rng = np.random.default_rng(seed)
    lengths = [1, *rng.integers(4, 2 * MAX_LENGTH, users - 1)]
    return Sequences.from_lists([rng.integers(1, N_ITEMS + 1, n) for n in lengths])


def dataset_of(sequences: Sequences, n_items: int = N_ITEMS) -> Dataset:
    return Dataset(
        sequences,
        Catalog(
            RawIds.of([f"i{n}" for n in range(1, n_items + 1)]),
            attributes={"attributes": [[n % 3, f"a{n % 5}"] for n in range(1, n_items + 1)]},
        ),
        RawIds.of([f"u{n}" for n in range(len(sequences))]),
        None,
        {"name": "small"},
    )


def stream_of(model: Recommender, train: Sequences, batch_size: int = 256, seed: int = 0) -> Stream:
    device = torch.device("cpu")
    return model.training_stream(train, batch_size=batch_size, seed=seed, device=device)


def batches(model: Recommender, train: Sequences) -> Iterator[tuple[int, Batch]]:
    """All steps of a stream, epoch after epoch, numbered from 0."""
    stream, count = stream_of(model, train), itertools.count()
    for epoch in itertools.count():
        order = stream.order(epoch)
        for step in range(len(stream)):
            yield next(count), stream.batch(order, epoch, step)


def first_batch(model: Recommender, train: Sequences | None = None) -> Batch:
    stream = stream_of(model, shop() if train is None else train)
    return stream.batch(stream.order(0), 0, 0)


@torch.no_grad()
def scores_of(model: Recommender, batch: Batch) -> Tensor:
    """``[B, I]``: scores in the order of the batch's source, without the padding column."""
    return batch.in_source_order(model.scores(batch))[:, 1 : N_ITEMS + 1]
