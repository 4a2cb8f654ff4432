"""Where training runs: Lightning Fabric gives the device, the precision and the processes."""

from __future__ import annotations

import atexit
import os
import warnings
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from nextup.devices import device_here
from nextup.errors import ConfigError


def spare_memory(precision: str) -> None:
    """Keep the memory of long training on a CPU from creeping up.

    oneDNN remembers a compiled product for each shape it meets. Packed batches hardly ever have
    the same shape twice, so nothing is found again, while what is remembered lies scattered over
    the heap and keeps it from being used anew: five times the memory after a hundred epochs.
    Without it, training is as fast and stays where it began. A value that is set already stays.
    """
    if precision != "bf16":  # where products are compiled for the processor's own instructions
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")


def precision_on(device: str, precision: str) -> str:
    """Return ``"bf16"`` or ``"32"``: what a word for the precision comes to on a device.

    Parameters and errors are those of `make_fabric`.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: `{device}` is not one of auto, cpu, cuda")
    if precision not in ("auto", "32", "bf16"):
        raise ConfigError(f"precision: `{precision}` is not one of auto, 32, bf16")
    on_gpu = device_here(device).type == "cuda"
    if precision != "auto":
        return precision
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "32"


def make_fabric(device: str = "auto", precision: str = "auto") -> Fabric:
    """Start Fabric on a device; under ``torchrun`` every process joins.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    precision
        ``"auto"`` (bf16 on a GPU that has it, 32 bits elsewhere), ``"32"`` or ``"bf16"``.

    Raises
    ------
    ConfigError
        For another word, or a device this machine does not have.
    """
    precision = precision_on(device, precision)
    use_gpu = device_here(device).type == "cuda"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator="cuda" if use_gpu else "cpu",
            devices=here,
            num_nodes=max(world // here, 1),
            strategy="ddp" if world > 1 else "auto",
            precision="bf16-mixed" if precision == "bf16" else "32-true",
        )
        fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Say goodbye to the other processes; one that just ends may be torn down by its threads."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def sum_over_processes(fabric: Fabric, parameters: list[torch.nn.Parameter]) -> None:
    """Add up gradients over processes, in one message.

    Each process divides its loss by the targets of the whole step, so the sum is the gradient of
    the mean over all of them, however the rows were shared out.
    """
    if fabric.world_size == 1:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat: Any = fabric.all_reduce(torch.cat([g.reshape(-1) for g in grads]), reduce_op="sum")
    for parameter, part in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = part.view_as(parameter)


def gather_arrays(fabric: Fabric, mine: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Put together an array of which process ``r`` holds the entries ``r, r + world, ...``.

    Parameters
    ----------
    fabric
        The processes.
    mine
        The entries of this one.
    total
        How many there are in all.

    Returns
    -------
    ``float64[total]``, on every process.
    """
    if fabric.world_size == 1:
        return mine
    world = fabric.world_size
    padded = np.full(-(-total // world), np.nan)
    padded[: len(mine)] = mine
    gathered: Any = fabric.all_gather(torch.from_numpy(padded).to(fabric.device))
    whole: NDArray[np.float64] = gathered.reshape(world, -1).T.reshape(-1)[:total].cpu().numpy()
    return whole
