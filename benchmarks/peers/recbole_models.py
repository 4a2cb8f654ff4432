"""Time training epochs of a model of RecBole; runs in the environment ``.peers/recbole``.

    run_peer("recbole", "softmax", sequences, threads=2, max_batches=12, model="GRU4Rec")

Its own data set, loaders, model and ``Trainer._train_epoch``, at the model's settings as shipped,
but for histories of 50 items and steps of 256 rows. A row is a prefix of a history and its next
item, so an epoch has as many targets as one with a target after every item, and more steps.

RecBole 1.2 turns on autograd's anomaly mode as its sequential models are imported, which is meant
for debugging and slows every step. Here it is off again, unless ``--as-shipped`` leaves it on.

The histories are whole: RecBole holds out the last two items of each itself. Answers are not timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    BATCH,
    MAX_LEN,
    RATE,
    Histories,
    arguments,
    emit,
    load_npz,
    timed,
    training_report,
)
from coserec_public import Timed


def write_interactions(folder: Path, histories: Histories) -> None:
    """Write RecBole's file of interactions; the place in the history serves as the time."""
    lengths = histories.ends - histories.starts
    users = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    times = np.concatenate([np.arange(length) for length in lengths])
    items = np.concatenate(histories.lists())
    rows = np.stack([users, items, times], axis=1)
    folder.mkdir()
    np.savetxt(
        folder / f"{folder.name}.inter",
        rows,
        fmt="%d",
        delimiter="\t",
        header="user_id:token\titem_id:token\ttimestamp:float",
        comments="",
    )


def extra(parser: argparse.ArgumentParser) -> None:
    """Add what only this child takes."""
    parser.add_argument("--model", required=True, help="as RecBole calls it, such as GRU4Rec")
    parser.add_argument("--as-shipped", action="store_true", help="leave anomaly mode on")


def main() -> None:
    args = arguments(__doc__ or "", extra)
    sys.argv = sys.argv[:1]  # RecBole reads them too
    warnings.filterwarnings("ignore")
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "histories")
        write_interactions(folder, load_npz(args.sequences))
        said: dict[str, Any] = {
            "data_path": name,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "MAX_ITEM_LIST_LENGTH": MAX_LEN,
            "train_batch_size": BATCH,
            "learning_rate": RATE,
            "use_gpu": False,
            "state": "ERROR",
            "show_progress": False,
            "checkpoint_dir": name,
            "nproc": 1,
            "worker": 0,
        }
        try:
            config = Config(model=args.model, dataset="histories", config_dict=said)
        except ValueError:  # a softmax has no negatives, which its own settings ask for
            said["train_neg_sample_args"] = None
            config = Config(model=args.model, dataset="histories", config_dict=said)
        init_seed(0, reproducibility=False)
        with timed() as prepare:
            rows, _, _ = data_preparation(config, create_dataset(config))
        model = get_model(args.model)(config, rows.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], args.model)(config, model)
        if not args.as_shipped:
            torch.autograd.set_detect_anomaly(False)
        torch.set_num_threads(args.threads)
        samples = len(rows.dataset)
        handed = Timed(rows, args.max_batches, views=True)
        for epoch in range(args.epochs):
            trainer._train_epoch(handed, epoch)
    emit(
        "recbole",
        ["recbole", "torch", "numpy"],
        args,
        model=args.model,
        anomaly_mode=torch.is_anomaly_enabled(),
        note="settings as shipped but for length and batch; rows are prefixes",
        rows=samples,
        parameters=sum(p.numel() for p in model.parameters()),
        training=training_report(handed.spans, handed.count, args.max_batches, samples),
        prepare_seconds=prepare.seconds,
    )


if __name__ == "__main__":
    main()
