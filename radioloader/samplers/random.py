"""All randomness: Philox streams keyed by what they decide, so that no stream depends on who else draws."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

__all__ = ["generator", "seed_of"]


def seed_of(*parts: int | str) -> int:
    """A 128-bit seed that depends on each of ``parts`` and on their order."""
    return int.from_bytes(_digest(parts), "little")


def _digest(parts: tuple[int | str, ...]) -> bytes:
    # numpy's integers make keys that are equal to those of Python's, so they must give the same stream.
    text = "\x1f".join(f"str:{part}" if isinstance(part, str) else f"int:{int(part)}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class _Key(ISeedSequence):
    """A key of Philox. ``Philox(key=...)`` gives the same stream, but asks the system for entropy each time, which it does not use."""

    def __init__(self, digest: bytes) -> None:
        self._words = np.frombuffer(digest, "<u8").astype(np.uint64, copy=False)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        return self._words


def generator(*parts: int | str) -> np.random.Generator:
    """The stream of ``parts``, such as ``("position", seed, epoch, obs_id, draw)``; the same on every machine."""
    return np.random.Generator(np.random.Philox(_Key(_digest(parts))))  # type: ignore[arg-type]  # numpy takes any ISeedSequence
