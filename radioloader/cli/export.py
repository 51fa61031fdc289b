"""``radioloader export``."""

from __future__ import annotations

from typing import Annotated

import typer

from radioloader.cli._at import AtOption, open_at
from radioloader.cli._pairs import pairs

__all__ = ["export"]

_SHOWN = 20


def export(
    uri: Annotated[str, typer.Argument(help="Store: a path, or s3://bucket/prefix.")],
    out: Annotated[str, typer.Argument(help="Folder to write: one that is not there yet, or an empty one.")],
    layout: Annotated[
        str,
        typer.Option(help="nifti (a folder for each collection), nnunet, decathlon or bids."),
    ] = "nifti",
    image: Annotated[
        list[str],
        typer.Option(
            "--image",
            "-i",
            metavar="NAME",
            help="Image collection to export, in the order of channels. Without --image and --label all. Repeat for more.",
        ),
    ] = [],
    label: Annotated[
        list[str], typer.Option("--label", "-l", metavar="NAME", help="Label collection to export. Repeat for more.")
    ] = [],
    name: Annotated[
        list[str],
        typer.Option("--name", metavar="COLLECTION=NAME", help="What a collection is called there. Repeat for more."),
    ] = [],
    workers: Annotated[int | None, typer.Option(help="Threads; all cores when not given.")] = None,
    at: AtOption = None,
) -> None:
    """Write a store's volumes as NIfTI files again: voxels, dtype, scaling and geometry as they came in.

    Examples: radioloader export cohort out

    radioloader export cohort Dataset101_Heart --layout nnunet --image CT --label seg
    """
    from radioloader.exporting.export import export as run

    # Of the collection's name, all but what follows the last "=": names of BIDS hold none.
    names = pairs(name, "--name", "COLLECTION=NAME", "image=T1w", at_last=True)
    with open_at(uri, at) as store:
        report = run(
            store,
            out,
            layout=layout,
            images=image or None,
            labels=label or None,
            names=names or None,
            workers=workers,
            progress=True,
        )
    typer.echo(
        f"{report.volumes} volumes of {report.subjects} subjects exported as {report.layout} to {report.out}; {report.seconds:.1f} s"
    )
    for note in report.notes:
        typer.echo(f"note: {note}")
    for failure in report.failed[:_SHOWN]:
        typer.echo(str(failure), err=True)
    if len(report.failed) > _SHOWN:
        typer.echo(f"and {len(report.failed) - _SHOWN} more that failed", err=True)
    typer.echo(f"back into a store:\n  {report.command}")
    raise typer.Exit(0 if report.ok else 1)
