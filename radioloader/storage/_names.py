"""Names in a voxel array."""

__all__ = ["VOXELS"]

VOXELS = "voxels"
"""Name of the one attribute of a voxel array."""
