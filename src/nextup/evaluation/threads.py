"""One thread an operation, where small ones would mostly wait for each other."""

from __future__ import annotations

from threading import Lock, local

import torch


class _OneThread:
    """Lets each tensor operation of the threads that are inside use one thread.

    PyTorch keeps the number for each thread that calls it, so each one that enters sets its own,
    and its own again when it leaves.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.usual = Lock(), 0, 1
        self.mine = local()

    def threads(self) -> int:
        """Return how many threads tensor operations use when nobody is inside."""
        with self.lock:
            return self.usual if self.inside else torch.get_num_threads()

    def __enter__(self) -> None:
        self.mine.depth = getattr(self.mine, "depth", 0) + 1
        if self.mine.depth > 1:
            return
        with self.lock:
            before = torch.get_num_threads()
            if self.inside == 0:
                self.usual = before
            elif before == 1:  # a thread that began while others are inside has their number
                before = self.usual
            self.mine.before = before
            self.inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        self.mine.depth -= 1
        if self.mine.depth:
            return
        with self.lock:
            self.inside -= 1
            torch.set_num_threads(self.mine.before)


one_thread = _OneThread()
"""Use as ``with one_thread:``; callers may overlap."""
