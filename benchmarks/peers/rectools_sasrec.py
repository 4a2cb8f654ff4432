"""Time the SASRec of RecTools on given histories; runs in the environment ``.peers/rectools``.

Everything goes through the documented interface: ``Dataset.construct``, ``SASRecModel`` with a
trainer function, ``fit`` and ``recommend``. The network is as shipped: the inner size of its
feed-forward layers equals the model width and cannot be chosen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
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
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Clock(EpochClock, Callback):
    """Times the epochs of the trainer."""


def interactions(histories: Histories) -> pd.DataFrame:
    """Return one row per interaction; the position in the history serves as its time."""
    lengths = histories.ends - histories.starts
    users = np.repeat(np.arange(len(lengths)), lengths)
    order = np.concatenate([np.arange(length) for length in lengths])
    return pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: np.concatenate(histories.lists()),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(order, unit="s"),
        }
    )


def main() -> None:
    args = arguments(__doc__ or "")
    warnings.filterwarnings("ignore")
    histories = load_npz(args.sequences)
    table = interactions(histories)

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            min_epochs=args.epochs,
            max_epochs=args.epochs,
            limit_train_batches=args.max_batches,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            callbacks=[Clock(args.max_batches)],
        )

    model = SASRecModel(
        n_blocks=BLOCKS,
        n_heads=HEADS,
        n_factors=DIM,
        dropout_rate=DROPOUT,
        session_max_len=MAX_LEN,
        loss="BCE" if args.loss == "bce" else "softmax",
        n_negatives=1,
        lr=RATE,
        batch_size=BATCH,
        epochs=args.epochs,
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
        recommend_n_threads=args.threads,
    )
    with timed() as construct:
        dataset = Dataset.construct(table)
    with timed() as fit:
        model.fit(dataset)
    # RecTools trains with a copy of the trainer, so the callback that ran is to be found there.
    clock = next(c for c in model.fit_trainer.callbacks if isinstance(c, Clock))
    users = np.unique(table[Columns.User].to_numpy())
    spans: list[dict[str, Any]] = []
    found: Any = ()
    for _ in range(args.repeats):
        with timed() as span:
            found = model.recommend(users, dataset, k=10, filter_viewed=True)
        spans.append(asdict(span))

    def recommend(first: int, count: int) -> Callable[[], Any]:
        some = table[table[Columns.User].between(first, first + count - 1)]
        known = Dataset.construct(some)
        asked = some[Columns.User].unique()
        return lambda: model.recommend(asked, known, k=10, filter_viewed=True)

    emit(
        "rectools",
        ["rectools", "torch", "pytorch-lightning", "numpy", "pandas"],
        args,
        note="feed-forward inner size as shipped; one-user and many-user times exclude building "
        "their Dataset",
        ffn_dim=DIM,
        training=clock.report(int((histories.ends - histories.starts >= 2).sum())),
        prepare_seconds=construct.seconds,
        fit_seconds=fit.seconds,
        recommend_seconds=[span["seconds"] for span in spans],
        recommend_spans=spans,
        recommend_users=len(users),
        recommend_rows=len(found),
        **answer_times(recommend, len(users)),
    )


if __name__ == "__main__":
    main()
