"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("calm", deadline=None)  # a busy machine is not a failing test
settings.load_profile("calm")

SMALL_WORK = {"nn", "models", "train"}
"""Rooms whose tensors are tiny: there more threads only wait for each other."""


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.parent.name not in SMALL_WORK:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
