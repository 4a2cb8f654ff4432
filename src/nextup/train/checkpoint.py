"""Checkpoints: one safetensors file from which a killed run goes on to the same numbers."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nextup.errors import RunError


@dataclass
class Progress:
    """Where training stands; everything that is not a tensor."""

    stage: int = 0
    """The stage of training under way."""
    epoch: int = 0
    """The epoch that comes next, or is under way."""
    step: int = 0
    """The step within it that comes next."""
    best_epoch: int = -1
    best_value: float = float("-inf")
    stale: int = 0
    """Validations since the best."""
    seconds: float = 0.0
    """Time spent in training and validation so far, over all sittings."""
    began: float = 0.0
    """What `seconds` were when the stage began."""
    log_bytes: int = 0
    """How long the log was; what was written later is written again."""
    code: str = ""
    """The checksum of the code (`nextup.train.kept.code_mark`) when the stage began."""
    stopped: bool = False
    out_of_time: bool = False
    """Whether it was the clock that stopped the stage."""
    extra: dict[str, Any] = field(default_factory=dict)

    def time_is_up(self, limit: float, stages: int, more: float = 0.0) -> bool:
        """Whether a stage has had its share of the seconds that the stages before it left.

        Parameters
        ----------
        limit
            Seconds for all stages.
        stages
            How many there are.
        more
            Seconds that are not in `seconds` yet.
        """
        share = (limit - self.began) / (stages - self.stage)
        return self.seconds + more - self.began >= share


def save(
    file: Path,
    progress: Progress,
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    others: dict[str, dict[str, Tensor]],
) -> None:
    """Write a checkpoint whole or not at all.

    Parameters
    ----------
    file
        Where.
    progress
        Where training stands.
    weights
        The model's state.
    optimizer
        Its state goes along.
    others
        More named sets of tensors (the best weights, the running average, sums of the epoch).
    """
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
    for label, group in others.items():
        tensors.update({f"{label}.{name}": tensor for name, tensor in group.items()})
    ready = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(ready, partial, metadata={"progress": json.dumps(asdict(progress))})
        with partial.open("rb") as opened:
            os.fsync(opened.fileno())
        partial.replace(file)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{file}: the checkpoint could not be written ({error}); "
            "free some space and go on with --resume"
        ) from None


def read_progress(file: Path) -> Progress:
    """Read where training stood when a checkpoint was written.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            return Progress(**json.loads(opened.metadata()["progress"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from None


def load(
    file: Path, device: torch.device, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """Read a checkpoint: fills the optimizer, returns progress and the sets of tensors.

    Parameters
    ----------
    file
        What `save` wrote.
    device
        Where the tensors shall lie.
    optimizer
        A fresh one, of the same parameters.

    Raises
    ------
    RunError
        If the file is damaged or belongs to another model.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(file, framework="pt", device=str(device)) as opened:
            progress = Progress(**json.loads(opened.metadata()["progress"]))
            for name in opened.keys():  # noqa: SIM118  (not a dict)
                label, rest = name.split(".", 1)
                groups.setdefault(label, {})[rest] = opened.get_tensor(name)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, error) from None
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in groups.pop("optimizer", {}).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    document = optimizer.state_dict()
    document["state"] = state
    optimizer.load_state_dict(document)
    return progress, groups


def _unreadable(file: Path, error: Exception) -> RunError:
    return RunError(f"{file}: is not a readable checkpoint ({error}); fit again with --overwrite")
