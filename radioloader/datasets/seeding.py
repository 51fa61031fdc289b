"""Random transforms that depend on the sample's key alone, and leave the script's own generators as they were."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["call_seeded"]

# Keyed by process: a lock inherited through fork may be held by a thread that was not.
_locks: dict[int, threading.RLock] = {}


def call_seeded(transform: Callable[[Any], Any], sample: Any, seed: int) -> Any:
    """``transform(sample)`` with the global generators of torch (CPU), numpy and ``random`` seeded, and restored afterwards.

    A transform that carries its own generator (``set_random_state``, as MONAI's ``Randomizable`` does) is given the seed as well.
    Global generators are shared by all threads, so one call runs at a time.
    """
    with _locks.setdefault(os.getpid(), threading.RLock()):
        states = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            torch.default_generator.manual_seed(seed % 2**63)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - this is the generator that transforms use
            random.seed(seed)
            set_state = getattr(transform, "set_random_state", None)
            if callable(set_state):
                set_state(seed=seed % 2**32)
            return transform(sample)
        finally:
            torch.default_generator.set_state(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            random.setstate(states[2])
