"""Options that say how voxels are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from radioloader.config import TileConfig, WriteConfig
from radioloader.errors import ConfigError

__all__ = ["write_config"]


def write_config(tile: str, preset: str, codec: str | None, level: int | None) -> WriteConfig:
    """What ``--tile``, ``--preset``, ``--codec`` and ``--level`` say together.

    Raises:
        ConfigError: One of them makes no sense.
    """
    write = WriteConfig.preset(preset, tile=_tile(tile))
    given: dict[str, Any] = {name: value for name, value in (("codec", codec), ("level", level)) if value is not None}
    return replace(write, compression=replace(write.compression, **given))


def _tile(value: str) -> TileConfig:
    if value == "custom":
        raise ConfigError("--tile custom needs the extents themselves: give them instead, such as --tile 64,64,32")
    parts = value.split(",")
    if len(parts) == 1 and not value.isdigit():
        return TileConfig(orientation=cast(Any, value))
    try:
        extents = [int(part) for part in parts]
    except ValueError:
        raise ConfigError(f"--tile {value!r} is neither a name nor extents such as 64,64,32") from None
    return TileConfig(extent=extents[0]) if len(extents) == 1 else TileConfig(custom=cast(Any, tuple(extents)))
