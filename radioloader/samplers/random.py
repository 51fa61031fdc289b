"""All randomness: Philox streams keyed by what they decide, so that no stream depends on who else draws."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator", "seed_of"]


def seed_of(*parts: int | str) -> int:
    """A 128-bit seed that depends on each of ``parts`` and on their order."""
    # numpy's integers make keys that are equal to those of Python's, so they must give the same stream.
    text = "\x1f".join(f"str:{part}" if isinstance(part, str) else f"int:{int(part)}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def generator(*parts: int | str) -> np.random.Generator:
    """The stream of ``parts``, such as ``("position", seed, epoch, obs_id, draw)``; the same on every machine."""
    return np.random.Generator(np.random.Philox(key=seed_of(*parts)))
