"""One thread an operation, where small ones would mostly wait for each other."""

from __future__ import annotations

from threading import Lock

import torch


class _OneThread:
    """Lets each tensor operation use one thread while any caller is inside."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = Lock(), 0, 1

    def threads(self) -> int:
        """Return how many threads tensor operations use when nobody is inside."""
        with self.lock:
            return self.before if self.inside else torch.get_num_threads()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = torch.get_num_threads()
                torch.set_num_threads(1)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                torch.set_num_threads(self.before)


one_thread = _OneThread()
"""Use as ``with one_thread:``; callers may overlap, the last to leave puts the number back."""
