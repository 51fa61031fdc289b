"""The contestants. Each is a subclass of :class:`benchmarks.peers.base.Peer` in a module of its own, which is imported only in the
process that measures it: what a contestant imports counts as its own start."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.base import Peer

__all__ = ["PEERS", "load"]

PEERS = {
    "radioloader-uniform": "benchmarks.peers.radioloader:Uniform",
    "radioloader-region": "benchmarks.peers.radioloader:Region",
    "radioloader-axial": "benchmarks.peers.radioloader:AxialTiles",
    "nnunet": "benchmarks.peers.nnunet:NNUNet",
    "zarr": "benchmarks.peers.arrays:Zarr",
    "npy-memmap": "benchmarks.peers.arrays:NpyMemmap",
    "ram": "benchmarks.peers.arrays:Ram",
    "nibabel": "benchmarks.peers.arrays:Nibabel",
    "nibabel-nii": "benchmarks.peers.arrays:NibabelNii",
    "monai": "benchmarks.peers.monai:Plain",
    "monai-cache": "benchmarks.peers.monai:Cache",
    "monai-cache-nocopy": "benchmarks.peers.monai:CacheNoCopy",
    "monai-persistent": "benchmarks.peers.monai:Persistent",
    "torchio": "benchmarks.peers.torchio:TorchIO",
    "radiobject": "benchmarks.peers.radiobject:RadiObject",
    "radiobject-spawn": "benchmarks.peers.radiobject:RadiObjectSpawn",
    "radiobject-axial": "benchmarks.peers.radiobject:RadiObjectAxial",
}
"""Name of each contestant -> where its class is."""


def load(name: str) -> type[Peer]:
    """The class of a contestant, by its name here or as ``module:Class``."""
    module, _, attribute = PEERS.get(name, name).partition(":")
    if not attribute:
        raise LookupError(f"there is no contestant {name!r}; there are {', '.join(PEERS)}, and module:Class")
    found: type[Peer] = getattr(importlib.import_module(module), attribute)
    return found
