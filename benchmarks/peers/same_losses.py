"""Check that ``nextup``'s packed SASRec and the plain padded one compute the same losses.

``plain_weights`` renames a packed model's weights; ``largest_difference`` gives both programs the
same histories, weights and negatives, and compares the loss of every single target.

    python benchmarks/peers/same_losses.py [Beauty.txt.gz]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

for folder in (Path(__file__).resolve().parent, Path(__file__).resolve().parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from common import read_text  # noqa: E402

from nextup.data.batches import Batch  # noqa: E402
from nextup.models.sasrec import SASRec, SASRecConfig  # noqa: E402
from plain_sasrec import PlainSASRec, pad_left  # noqa: E402

NAMES = {
    "items.": "item_embedding.",
    "positions.": "position_embedding.",
    "input_norm.": "embedding_norm.",
    ".output.": ".out.",
    ".expand.": ".inner.",
    ".contract.": ".outer.",
    ".output_norm.": ".ffn_norm.",
}


def plain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of ``nextup``'s SASRec (``block="s3"``) for ``PlainSASRec``."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".query_key_value." in name:
            for part, weight in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("query_key_value", part)] = weight
            continue
        for ours, plain in NAMES.items():
            if name.startswith(ours) or (ours[0] == "." and ours in name):
                name = name.replace(ours, plain)
                break
        renamed[name] = value
    return renamed


def packed_batch(rows: list[np.ndarray], negatives: list[np.ndarray]) -> Batch:
    """Return the rows, already sorted by length, as a batch with a target after every item."""
    lengths = np.array([len(row) - 1 for row in rows])
    tokens = torch.from_numpy(np.concatenate([row[:-1] for row in rows])).long()
    return Batch(
        tokens=tokens,
        lengths=lengths,
        rows=np.arange(len(rows)),
        users=torch.arange(len(rows)),
        targets=torch.from_numpy(np.concatenate([row[1:] for row in rows])).long(),
        target_at=torch.arange(len(tokens)),
        negatives=torch.from_numpy(np.concatenate(negatives))[:, None],
        target_total=len(tokens),
    )


def largest_difference(
    histories: list[np.ndarray], n_items: int, loss: Literal["bce", "softmax"], seed: int = 0
) -> tuple[float, float, int]:
    """Compare the losses of all targets of the histories, without dropout.

    Returns
    -------
    tuple of float, float and int
        The largest absolute difference, the largest loss, the number of targets.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    max_len = 50
    rows = [row[-max_len - 1 :] for row in sorted(histories, key=lambda row: len(row[-51:]))]
    rows = [row for row in rows if len(row) >= 2]
    negatives = [rng.integers(1, n_items + 1, len(row) - 1) for row in rows]
    packed = SASRec(SASRecConfig(loss=loss, max_length=max_len), n_items)
    with torch.no_grad():
        for parameter in packed.parameters():  # far from the start, where all losses look alike
            parameter.add_(0.1 * torch.randn_like(parameter))
        packed.items.weight[0].zero_()
    plain = PlainSASRec(n_items, loss, max_len=max_len)
    plain.load_state_dict(plain_weights(packed.state_dict()))
    packed.eval()
    plain.eval()
    with torch.no_grad():
        _, ours = packed.target_losses(packed_batch(rows, negatives))
        padded = [
            torch.from_numpy(np.stack([pad_left(row, max_len) for row in matrix]))
            for matrix in ([r[:-1] for r in rows], [r[1:] for r in rows], negatives)
        ]
        theirs = plain.per_target_losses(*padded)
    return float((ours - theirs).abs().max()), float(theirs.max()), len(theirs)


def main() -> None:
    if len(sys.argv) > 1:
        histories = read_text(sys.argv[1]).without_last(2).lists()[:1024]
    else:
        rng = np.random.default_rng(1)
        histories = [rng.integers(1, 501, rng.integers(2, 70)) for _ in range(200)]
    n_items = int(max(row.max() for row in histories))
    for loss in ("bce", "softmax"):
        difference, largest, targets = largest_difference(histories, n_items, loss)
        print(f"{loss}: {targets} targets, losses up to {largest:.3f}, differ by {difference:.2e}")
        if not difference < 1e-4 * max(1.0, largest):
            raise SystemExit(f"{loss}: the two implementations disagree")


if __name__ == "__main__":
    main()
