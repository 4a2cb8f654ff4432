"""What the plain implementations call the weights of ours."""

from __future__ import annotations

from typing import Any

import torch


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """What a plain teacher calls the weights of ours."""
    ours, found = model.state_dict(), {}
    for name, value in ours.items():
        if "query_key_value" in name:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[name.replace("query_key_value", part)] = piece
            continue
        for mine, theirs in (
            ("input_norm.", "norm."),
            ("head_norm.", "head.2."),
            ("head.", "head.0.") if name.startswith("head.") else ("", ""),
            (".output_norm", ".ffn_norm"),
            (".output.", ".out."),
            (".expand.", ".inner."),
            (".contract.", ".outer."),
        ):
            if mine and mine in name:
                name = name.replace(mine, theirs)
                break
        found[name] = value[1:] if name == "bias" else value
    return found
