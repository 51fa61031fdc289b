"""``radioloader materialize``."""

from __future__ import annotations

from typing import Annotated

import typer

from radioloader.cli._at import AtOption, open_at

__all__ = ["materialize"]


def materialize(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")],
    out: Annotated[str, typer.Argument(help="The new store; the same command continues one that was stopped.")],
    where: Annotated[
        str | None, typer.Option(help="Only subjects that this selects, such as \"age > 40 and sex == 'F'\".")
    ] = None,
    subject: Annotated[list[str], typer.Option("--subject", "-s", help="Only this subject. Repeat for more.")] = [],
    collection: Annotated[
        list[str], typer.Option("--collection", "-c", metavar="NAME", help="Only this collection. Repeat for more.")
    ] = [],
    crop: Annotated[
        str | None,
        typer.Option(metavar="X0:X1,Y0:Y1,Z0:Z1", help="Keep these voxels of each volume; ends are not part of it."),
    ] = None,
    orientation: Annotated[str | None, typer.Option(help="Turn voxels to these axis codes, such as RAS.")] = None,
    spacing: Annotated[
        str | None, typer.Option(metavar="MM", help="Resample to this spacing: 1.5, or 1,1,2 for x, y and z.")
    ] = None,
    tile: Annotated[
        str | None, typer.Option(help="Other tiles: isotropic, axial, sagittal, coronal, or extents such as 64,64,32.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Other compression: balanced, fast or small.")] = None,
    codec: Annotated[str | None, typer.Option(help="Other compression: zstd, lz4 or none.")] = None,
    level: Annotated[int | None, typer.Option(help="Compression level of zstd.")] = None,
    message: Annotated[str | None, typer.Option(help="What the new store's history says of it.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores when not given.")] = None,
    at: AtOption = None,
) -> None:
    """Write a store, or a part of it, into a store of its own. Voxels are copied as they are stored, unless an option changes them.

    Example: radioloader materialize cohort women --where "sex == 'F'" --spacing 1.5
    """
    from radioloader.cli._write import write_config

    asked = [value for value in (tile, preset, codec, level) if value is not None]
    write = write_config(tile or "isotropic", preset or "balanced", codec, level) if asked else None
    with open_at(uri, at) as store:
        chosen = store.loc[subject] if subject else store
        chosen = chosen.filter(where) if where is not None else chosen
        chosen = chosen.select_collections(collection) if collection else chosen
        report = chosen.materialize(
            out,
            crop=None if crop is None else _crop(crop),
            orientation=orientation,
            spacing=None if spacing is None else _spacing(spacing),
            write=write,
            workers=workers,
            message=message,
            progress=True,
        )
    typer.echo(str(report))
    raise typer.Exit(0 if report.ok else 1)


def _crop(text: str) -> list[tuple[int, int]]:
    from radioloader.errors import ConfigError

    try:
        pairs = [tuple(int(end) for end in part.split(":")) for part in text.split(",")]
        return [(first, stop) for first, stop in pairs]
    except ValueError:
        raise ConfigError(f"--crop {text!r} is not X0:X1,Y0:Y1,Z0:Z1, such as 10:74,0:64,5:40") from None


def _spacing(text: str) -> list[float]:
    from radioloader.errors import ConfigError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--spacing {text!r} is neither a number of mm nor three of them, such as 1,1,2") from None
    return values * 3 if len(values) == 1 else values
