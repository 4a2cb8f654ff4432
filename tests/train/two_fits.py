"""What each of two processes does: ``torchrun two_fits.py FOLDER SETTINGS``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from small_data import dataset, quick

from nextup.evaluation.protocol import Protocol
from nextup.train.assess import evaluate

SAMPLED = Protocol(candidates="sampled", n_negatives=9, ties="pessimistic", seed=5)

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = {
        "full": evaluate(folder / "alone", dataset(), device="cpu"),
        "valid": evaluate(folder / "alone", dataset(), part="valid", device="cpu"),
        "sampled": evaluate(folder / "alone", dataset(), protocol=SAMPLED, device="cpu"),
    }
    quick(dataset(), folder / "together", **settings)
    found["together"] = evaluate(folder / "together", dataset(), device="cpu")
    rank = os.environ["RANK"]
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
