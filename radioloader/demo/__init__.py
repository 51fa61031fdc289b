"""The demo: from a real brain template to a trained segmentation model, on this machine, in a few minutes."""

from __future__ import annotations

__all__: list[str] = []
