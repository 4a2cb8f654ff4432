"""The driver of the authors' public code, on a stand-in for their repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
REPOSITORY = {
    "datasets": """
class SASRecDataset:
    def __init__(self, args, user_seq, data_type):
        assert args.item_size == 8 and args.mask_id == 7
        self.rows = user_seq if data_type == "test" else [row[:-2] for row in user_seq]
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, at):
        return len(self.rows[at])
class RecWithContrastiveLearningDataset(SASRecDataset):
    def __getitem__(self, at):
        return self.rows[at][0], [at, at]
""",
    "models": """
import gensim
from tqdm import tqdm
class OnlineItemSimilarity:
    def __init__(self, item_size):
        self.item_size = item_size
class OfflineItemSimilarity:
    def __init__(self, data_file, similarity_path, model_name):
        assert len(open(data_file).readlines()) == 600 and model_name == "ItemCF_IUF"
class SASRecModel:
    def __init__(self, args):
        assert args.hidden_size == 64
""",
    "trainers": """
from tqdm import tqdm
class CoSeRecTrainer:
    def __init__(self, model, train, valid, test, args):
        self.train_batches, self.test_batches, self.args = train, test, args
    def train(self, epoch):
        bar = tqdm(enumerate(self.train_batches), total=len(self.train_batches))
        views = [len(views) for _, (batch, views) in bar]
        assert views == [2 if self.args.offline_similarity_model else 0] * len(bar), views
    def test(self, epoch, full_sort):
        print("whatever the code prints")
        assert full_sort and self.args.train_matrix == "test"
        assert sum(len(batch[0]) for batch in self.test_batches) == 600
        return [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], ""
""",
    "utils": """
def set_seed(seed):
    pass
def get_user_seqs(file):
    rows = [[int(item) for item in line.split()[1:]] for line in open(file)]
    return rows, max(map(max, rows)), "valid", "test"
""",
}


def checkout(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    for name, text in REPOSITORY.items():
        (folder / "src" / f"{name}.py").write_text(text)
    return folder


def histories(file: Path) -> Path:
    ends = np.arange(1, 601) * 5
    items = np.random.default_rng(0).integers(1, 7, 3000)
    np.savez(file, items=items, starts=ends - 5, ends=ends)
    return file


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PEERS / "coserec_public.py", "--threads", "1", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("views", [False, True])
def test_one_line_says_what_the_public_code_took(views: bool, tmp_path: Path) -> None:
    done = run(
        histories(tmp_path / "h.npz"),
        *("--checkout", checkout(tmp_path / "repository")),
        *("--max-batches", 2, "--repeats", 2, "--epochs", 2),
        *(["--views"] if views else []),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["peer"] == "coserec" and found["threads"] == 1
    assert found["recommend_users"] == 600 and len(found["recommend_seconds"]) == 2
    assert (found["hit_10"], found["ndcg_10"]) == (0.3, 0.4)
    assert len(found["training"]["epoch_seconds"]) == 2
    assert found["training"]["batches_timed"] == 1, "the first batch is the warm-up"
    assert found["training"]["batches_per_epoch"] == 3
    assert ("with views" in found["note"]) == views


def test_a_folder_that_is_no_checkout_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run(histories(tmp_path / "h.npz"), "--checkout", tmp_path)
    assert done.returncode == 1
    assert "holds no src/trainers.py" in done.stderr and "Traceback" not in done.stderr
