"""Time the SasRec of RePlay on given histories; runs in the environment ``.peers/replay``.

Everything goes through the documented interface: parquet files, ``ParquetModule`` with the default
transforms, ``SasRec.from_params``, ``LightningModule`` and the top-items callback with the filter
of seen items. Items are numbered from 0 and padding is the number of items. The inner size of the
feed-forward layers can be chosen; as shipped it equals the model width.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from common import (
    BATCH,
    BLOCKS,
    DIM,
    DROPOUT,
    HEADS,
    MAX_LEN,
    RATE,
    EpochClock,
    Histories,
    answer_times,
    arguments,
    emit,
    load_npz,
    timed,
)
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import TorchTopItemsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import BCESampled
from replay.nn.sequential import SasRec
from replay.nn.transform.template import make_default_sasrec_transforms


class Clock(EpochClock, lightning.Callback):
    """Times the epochs of the trainer."""


class NegativePerPosition(torch.nn.Module):
    """A transform that adds one uniform negative for each position of each history."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add ``negative_labels`` in the shape of ``positive_labels``."""
        batch["negative_labels"] = torch.randint_like(batch["positive_labels"], self.n_items)
        return batch


def write_parquet(path: Path, lists: list[np.ndarray], seen: bool) -> None:
    """Write one row per user, with a second column of seen items where one asks for it."""
    columns = {"user_id": np.arange(len(lists)), "item_id": [items.tolist() for items in lists]}
    if seen:
        columns["seen_ids"] = columns["item_id"]
    pl.DataFrame(columns).write_parquet(path)


def build_schema(n_items: int) -> TensorSchema:
    """Return a schema with one categorical sequence, the items."""
    return TensorSchema(
        [
            TensorFeatureInfo(
                "item_id",
                is_seq=True,
                feature_type=FeatureType.CATEGORICAL,
                embedding_dim=DIM,
                padding_value=n_items,
                cardinality=n_items,
                feature_hint=FeatureHint.ITEM_ID,
                feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
            )
        ]
    )


def answers(
    model: SasRec, lists: list[np.ndarray], n_items: int
) -> Callable[[int, int], Callable[[], Any]]:
    """Return what ``answer_times`` calls: network, filter of seen items and top-10, in process."""
    seen_filter = SeenItemsFilter(n_items)

    def prepare(first: int, count: int) -> Callable[[], Any]:
        rows = lists[first : first + count]

        def answer() -> torch.Tensor:
            ids = np.full((count, MAX_LEN), n_items)
            seen = np.full((count, max(map(len, rows))), n_items)
            for row, items in enumerate(rows):
                ids[row, -min(len(items), MAX_LEN) :] = items[-MAX_LEN:]
                seen[row, : len(items)] = items
            inputs = torch.from_numpy(ids)
            with torch.inference_mode():
                logits = model({"item_id": inputs}, inputs != n_items)["logits"]
                batch = {"seen_ids": torch.from_numpy(seen)}
                return seen_filter.on_prediction(batch, logits).topk(10)

        return answer

    return prepare


def main() -> None:
    args = arguments(__doc__ or "")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    histories = load_npz(args.sequences)
    shifted = Histories(histories.items.astype(np.int64) - 1, histories.starts, histories.ends)
    lists, n_items = shifted.lists(), int(histories.items.max())
    trainable = [items for items in lists if len(items) >= 2]
    schema = build_schema(n_items)
    transforms = make_default_sasrec_transforms(schema)
    model = SasRec.from_params(
        schema=schema,
        embedding_dim=DIM,
        num_heads=HEADS,
        num_blocks=BLOCKS,
        max_sequence_length=MAX_LEN,
        dropout=DROPOUT,
        hidden_dim=args.ffn_dim,
    )
    if args.loss == "bce":
        model = SasRec(body=model.body, loss=BCESampled())
        transforms["train"].append(NegativePerPosition(n_items))
    clock = Clock(args.max_batches)
    top = TorchTopItemsCallback(10, "user_id", postprocessors=[SeenItemsFilter(n_items)])
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        train, predict = Path(folder, "train.parquet"), Path(folder, "predict.parquet")
        with timed() as prepare:
            write_parquet(train, trainable, seen=False)
            write_parquet(predict, lists, seen=True)
        longest = max(map(len, lists))
        data = ParquetModule(
            batch_size=BATCH,
            metadata={
                "train": {
                    "user_id": {},
                    "item_id": {"shape": MAX_LEN + 1, "padding": n_items},
                },
                "predict": {
                    "user_id": {},
                    "item_id": {"shape": MAX_LEN, "padding": n_items},
                    "seen_ids": {"shape": longest, "padding": n_items},
                },
            },
            transforms=transforms,
            train_path=str(train),
            predict_path=str(predict),
        )
        module = LightningModule(
            model, optimizer_factory=OptimizerFactory("adam", learning_rate=RATE)
        )
        # Without limit_val_batches=0 the trainer asks for validation data and fails.
        trainer = lightning.Trainer(
            max_epochs=args.epochs,
            limit_train_batches=args.max_batches,
            limit_val_batches=0,
            callbacks=[clock],
            **quiet,
        )
        with timed() as fit:
            trainer.fit(module, datamodule=data)
        spans: list[dict[str, Any]] = []
        users, items = [], torch.empty(0)
        for _ in range(args.repeats):
            with timed() as span:
                predictor = lightning.Trainer(callbacks=[top], **quiet)
                predictor.predict(module, datamodule=data, return_predictions=False)
                users, items, _ = top.get_result()
            spans.append(asdict(span))
    model.eval()
    emit(
        "replay",
        ["replay-rec", "torch", "lightning", "numpy", "polars"],
        args,
        note="one-user and many-user times are the network, the filter of seen items and top-k in "
        "process, without a trainer and without files",
        ffn_dim=args.ffn_dim,
        training=clock.report(len(trainable)),
        prepare_seconds=prepare.seconds,
        fit_seconds=fit.seconds,
        recommend_seconds=[span["seconds"] for span in spans],
        recommend_spans=spans,
        recommend_users=len(users),
        recommend_rows=items.numel(),
        **answer_times(answers(model, lists, n_items), len(lists)),
    )


if __name__ == "__main__":
    main()
