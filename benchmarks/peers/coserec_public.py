"""Time the CoSeRec authors' public code, from a checkout of their repository, on given histories.

    git clone https://github.com/YChen1993/CoSeRec CHECKOUT
    python benchmarks/peers/coserec_public.py HISTORIES.npz --checkout CHECKOUT --max-batches 12

Its modules are imported as they are; what `main.py` does between them is done here, since that
file trains as soon as it is imported. Modules it imports but does not need here (gensim, a progress
bar) are replaced by empty ones where they are not installed. By default it trains on next items
only: its own data set, model and loop, which is handed no views; `--views` trains CoSeRec.

The histories are whole: the code holds out the last two items of each itself.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import itertools
import sys
import tempfile
import types
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from common import (
    BATCH,
    BLOCKS,
    DIM,
    DROPOUT,
    HEADS,
    MAX_LEN,
    RATE,
    Histories,
    Span,
    Stopwatch,
    arguments,
    emit,
    load_npz,
    timed,
    training_report,
)
from torch.utils.data import DataLoader, RandomSampler

SETTINGS = {
    "hidden_size": DIM,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "hidden_act": "gelu",
    "attention_probs_dropout_prob": DROPOUT,
    "hidden_dropout_prob": DROPOUT,
    "initializer_range": 0.02,
    "max_seq_length": MAX_LEN,
    "lr": RATE,
    "batch_size": BATCH,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "log_freq": 1,
    "no_cuda": True,
    "cuda_condition": False,
    "noise_ratio": 0.0,
    "base_augment_type": "random",
    "augment_threshold": 12,
    "augment_type_for_short": "SIMRC",
    "augmentation_warm_up_epoches": 220,
    "tao": 0.2,
    "gamma": 0.7,
    "beta": 0.2,
    "substitute_rate": 0.05,
    "insert_rate": 0.5,
    "max_insert_num_per_pos": 1,
    "temperature": 1.0,
    "n_views": 2,
    "cf_weight": 0.1,
    "rec_weight": 1.0,
}
"""The defaults of its `main.py` and the augmentation of its script for Beauty."""


class _Bar:
    """Stands for a progress bar, and shows none."""

    def __init__(self, over: Iterable[Any], total: int = 0, **_: Any) -> None:
        self.over, self.total = over, total

    def __iter__(self) -> Iterator[Any]:
        return iter(self.over)

    def __len__(self) -> int:
        return self.total


def stand_ins() -> None:
    """Put empty modules where the code's imports lead nowhere."""
    for name, attributes in {"tqdm": {"tqdm": _Bar}, "gensim": {}}.items():
        if importlib.util.find_spec(name) is None:
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            module.__spec__ = ModuleSpec(name, None)  # PyTorch looks for it
            sys.modules[name] = module


class Timed:
    """Batches of a loader, at most so many of them; the first is the warm-up if they are counted.

    Parameters
    ----------
    loader
        What the public code would loop over.
    most
        How many batches are handed out; None for all, the first of which is timed too.
    views
        Whether a batch is handed on with its views; otherwise it gets an empty list of them.
    """

    def __init__(self, loader: Any, most: int | None, views: bool) -> None:
        self.loader, self.views = loader, views
        self.warm = most is not None
        self.count = min(len(loader), most or len(loader))
        self.spans: list[Span] = []

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        watch = Stopwatch()
        for number, batch in enumerate(itertools.islice(self.loader, self.count)):
            yield batch if self.views else (batch, [])
            if number == 0 and self.warm:
                watch = Stopwatch()
        self.spans.append(watch.stop())


def write_lines(path: Path, histories: Histories) -> None:
    """Write the lines ``user item item ...`` that the code reads."""
    rows = enumerate(histories.lists(), start=1)
    path.write_text("".join(f"{user} {' '.join(map(str, row))}\n" for user, row in rows))


def extra(parser: argparse.ArgumentParser) -> None:
    """Add what only this child takes."""
    parser.add_argument("--checkout", required=True, type=Path, help="clone of the repository")
    parser.add_argument("--views", action="store_true", help="train with contrasted views")


def main() -> None:
    args = arguments(__doc__ or "", extra)
    source = args.checkout / "src" if (args.checkout / "src").is_dir() else args.checkout
    if not (source / "trainers.py").is_file():
        raise SystemExit(f"{args.checkout}: holds no src/trainers.py; clone YChen1993/CoSeRec")
    sys.path.insert(0, str(source.resolve()))
    stand_ins()
    modules = map(importlib.import_module, ("datasets", "models", "trainers", "utils"))
    datasets, models, trainers, utils = modules
    utils.set_seed(0)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder, "data.txt")
        write_lines(file, load_npz(args.sequences))
        with timed() as prepare:
            users, last_item, valid_matrix, test_matrix = utils.get_user_seqs(str(file))
            given: Any = argparse.Namespace(
                **SETTINGS,
                item_size=last_item + 2,
                mask_id=last_item + 1,
                data_file=str(file),
                log_file=str(Path(folder, "log.txt")),
                train_matrix=valid_matrix,
                offline_similarity_model=None,
                online_similarity_model=models.OnlineItemSimilarity(item_size=last_item + 2),
            )
            if args.views:
                given.offline_similarity_model = models.OfflineItemSimilarity(
                    str(file), str(Path(folder, "similarity.pkl")), "ItemCF_IUF"
                )
            rows = datasets.RecWithContrastiveLearningDataset
            train = (rows if args.views else datasets.SASRecDataset)(
                given, users, data_type="train"
            )
            loader = DataLoader(train, sampler=RandomSampler(train), batch_size=BATCH)
            test = DataLoader(rows(given, users, data_type="test"), batch_size=BATCH)
            handed = Timed(loader, args.max_batches, args.views)
            model = models.SASRecModel(args=given)
            trainer = trainers.CoSeRecTrainer(model, handed, None, test, given)
        for epoch in range(args.epochs):
            trainer.train(epoch)
        given.train_matrix = test_matrix
        spans, scores = [], [None] * 6
        for _ in range(args.repeats):
            with timed() as span:
                scores, _text = trainer.test(0, full_sort=True)
            spans.append(asdict(span))
    emit(
        "coserec",
        ["torch", "numpy"],
        args,
        note="public code of the authors; " + ("with views" if args.views else "next items only"),
        ffn_dim=4 * DIM,
        training=training_report(handed.spans, handed.count, args.max_batches, len(users)),
        prepare_seconds=prepare.seconds,
        recommend_seconds=[span["seconds"] for span in spans],
        recommend_spans=spans,
        recommend_users=len(users),
        hit_10=scores[2],
        ndcg_10=scores[3],
    )


if __name__ == "__main__":
    main()
