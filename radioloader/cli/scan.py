"""``radioloader scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["scan"]

_SHOWN = 200


def scan(
    folder: Annotated[list[Path], typer.Argument(help="Folders (any depth, any file names) or files.")],
    csv: Annotated[Path | None, typer.Option(help="Also write the table as CSV, with UIDs.")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Also write everything as JSON, with UIDs and left-out files.")
    ] = None,
    on_tilt: Annotated[str, typer.Option(help="As for ingest: keep, resample or error.")] = "keep",
    on_irregular: Annotated[str, typer.Option(help="As for ingest: error, resample, split or keep.")] = "error",
    slice_tolerance: Annotated[float, typer.Option(help="How far a slice may lie off a regular grid, in mm.")] = 0.1,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores when not given.")] = None,
) -> None:
    """Show what DICOM files hold and what an ingest would make of them. Reads headers only, and writes nothing by itself.

    Example: radioloader scan dicom --csv found.csv
    """
    from radioloader.ingestion.scan import scan as run

    found = run(
        *folder, on_tilt=on_tilt, on_irregular=on_irregular, slice_tolerance_mm=slice_tolerance, workers=workers
    )
    _show(found)
    if csv is not None:
        found.to_csv(csv)
        typer.echo(f"wrote {csv}")
    if json is not None:
        found.to_json(json)
        typer.echo(f"wrote {json}")
    raise typer.Exit(0 if found.ok else 1)


def _show(found: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    # Lines that are cut off or folded cannot be searched or piped.
    plain = Console(markup=False, highlight=False)
    console = Console(soft_wrap=True, markup=False, highlight=False, width=None if plain.is_terminal else 10_000)
    items = found.items
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ("series", "modality", "description", "volume", "files", "shape", "spacing (mm)", "axes", "verdict")
    for heading in headings:
        table.add_column(heading, justify="right" if heading == "files" else "left", no_wrap=not plain.is_terminal)
    numbers: dict[str, int] = {}
    for item in items:
        place = numbers.setdefault(item.series, len(numbers) + 1)
        row = item.row()
        verdict = f"NOT USABLE: {item.problem}" if item.problem else item.verdict or ", ".join(item.structures)
        cells = (place, item.modality, item.description, item.name, item.files, row["shape"], row["spacing"])
        if len(table.rows) < _SHOWN:
            table.add_row(*map(str, cells), item.axcodes, verdict)
    console.print(table)
    if len(items) > _SHOWN:
        console.print(f"and {len(items) - _SHOWN} more; --csv writes all")
    images = [item for item in items if item.what == "image"]
    usable, labels = sum(not item.problem for item in images), len(items) - len(images)
    console.print(
        f"{found.files} files, {len(numbers)} series, {len(images)} volumes ({usable} usable), {labels} segmentations and structure sets; "
        f"{found.seconds:.1f} s"
    )
    for line in found.left_out():
        console.print(line)
