"""``radioloader ingest``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import typer

from radioloader.cli._layout import class_names, find_plan, is_dataset, typed_options
from radioloader.cli._pairs import pairs
from radioloader.errors import ConfigError

__all__ = ["ingest"]


def ingest(
    context: typer.Context,
    uri: Annotated[str, typer.Argument(help="Store to create or continue: a path, or s3://bucket/prefix.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A dataset as it lies there: a folder of nnU-Net, decathlon, BIDS or DICOM files, plain folders, or a table (.csv, .tsv) "
            "of files. Or leave it out, and give each collection with --image and --label."
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Of SOURCE: auto (look which it is), nnunet, decathlon, bids, dicom, folders (one for each collection), subjects (a "
            "folder for each) or manifest (a table)."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Of SOURCE: say what is recognised and what would be done, and write nothing."),
    ] = False,
    image: Annotated[
        list[str],
        typer.Option(
            "--image",
            "-i",
            metavar="NAME=SOURCE",
            help="Image collection: a folder (of NIfTI or DICOM files), a file, or a quoted glob; #0 after it takes the first volume of 4D "
            "files. With SOURCE, NAME alone takes that one of its collections. Repeat for more.",
        ),
    ] = [],
    label: Annotated[
        list[str],
        typer.Option(
            "--label",
            "-l",
            metavar="NAME=SOURCE",
            help="Label collection: NIfTI files, matched to the images by file name, or DICOM SEG and RTSTRUCT.",
        ),
    ] = [],
    obs_meta: Annotated[
        str | None, typer.Option(help="CSV or TSV with one row a subject (column participant_id, subject_id, ...).")
    ] = None,
    classes: Annotated[
        list[str],
        typer.Option(
            metavar="NAME:CLASS=N",
            help="Name of a class of a label collection, such as seg:liver=1; or NAME=dataset.json. Repeat for more.",
        ),
    ] = [],
    split: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FOLDER",
            help="Split of the subjects with files there, such as test=imagesTs. Repeat for more.",
        ),
    ] = [],
    orientation: Annotated[
        str | None,
        typer.Option(help="Turn all volumes to these axis codes, such as RAS (flips only, exports undo them)."),
    ] = None,
    subject_regex: Annotated[
        str | None, typer.Option(help="Regular expression that finds the subject id in a path.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Ingest subjects that lack a file in some collections.")
    ] = False,
    grid_tolerance: Annotated[
        float, typer.Option(help="How far apart a label's and its image's voxels may lie, in mm.")
    ] = 0.05,
    modality: Annotated[
        list[str],
        typer.Option(metavar="MODALITY", help="DICOM: take these modalities only, such as MR. Repeat for more."),
    ] = [],
    series_description: Annotated[
        list[str],
        typer.Option(metavar="PATTERN", help="DICOM: take image series with such a description only, such as '*t1*'."),
    ] = [],
    structure: Annotated[
        list[str],
        typer.Option(metavar="PATTERN=CLASS", help="DICOM SEG and RTSTRUCT: class of the structures of such a name."),
    ] = [],
    on_overlap: Annotated[
        str, typer.Option(help="DICOM: voxels of two classes: error, or separate (a collection for each class).")
    ] = "error",
    planes: Annotated[
        str, typer.Option(help="DICOM RTSTRUCT: contours must lie on_slices, or go to the nearest one.")
    ] = "on_slices",
    subject: Annotated[
        str | None,
        typer.Option(help="DICOM: subject ids: PatientID, folder:N, or a CSV with PatientID and obs_subject_id."),
    ] = None,
    on_tilt: Annotated[str, typer.Option(help="DICOM: tilted gantry: keep, resample or error.")] = "keep",
    on_irregular: Annotated[
        str, typer.Option(help="DICOM: missing, doubled or uneven slices: error, resample, split or keep.")
    ] = "error",
    slice_tolerance: Annotated[
        float, typer.Option(help="DICOM: how far a slice may lie off a regular grid, in mm.")
    ] = 0.1,
    suv: Annotated[str | None, typer.Option(help="DICOM PET as standardized uptake values: bw (body weight).")] = None,
    pseudonymize: Annotated[
        str | None, typer.Option(metavar="KEYFILE", help="DICOM: subject ids and UIDs as hashes with this key.")
    ] = None,
    keep_tag: Annotated[
        list[str], typer.Option(metavar="KEYWORD", help="DICOM: keep this attribute too. Repeat for more.")
    ] = [],
    tile: Annotated[
        str, typer.Option(help="Tiles: isotropic, axial, sagittal, coronal, or extents such as 64,64,32.")
    ] = "isotropic",
    preset: Annotated[
        str, typer.Option(help="balanced; fast (quicker to read, larger), or small (slow to write).")
    ] = "balanced",
    codec: Annotated[
        str | None, typer.Option(help="Compression: zstd, lz4 or none; the preset's when not given.")
    ] = None,
    level: Annotated[int | None, typer.Option(help="Compression level of zstd; the preset's when not given.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first failure.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores when not given.")] = None,
    commit_interval: Annotated[float, typer.Option(help="Seconds between commits: what a kill can cost.")] = 10.0,
) -> None:
    """Bring NIfTI and DICOM files into a store. The same command continues where it was stopped and skips what is there.

    Examples: radioloader ingest cohort nnUNet_raw/Dataset004_Hippocampus

    radioloader ingest cohort --image "T1w=images/*.nii.gz" --label seg=labels --obs-meta participants.tsv
    """
    from radioloader.cli._write import write_config
    from radioloader.config import configure
    from radioloader.errors import IngestError
    from radioloader.ingestion.discover import is_label_name
    from radioloader.ingestion.layouts.ingest import check_options, explain_plan, run_plan
    from radioloader.ingestion.pipeline import ingest as run

    plan = find_plan(source, layout, image, label)
    images: dict[str, Any] = dict(_sources(image, "--image", "T1w=images")) if plan is None else dict(plan.images)
    labels: dict[str, Any] = dict(_sources(label, "--label", "seg=labels")) if plan is None else dict(plan.labels)
    both = sorted(set(images) & set(labels))
    if both:
        raise ConfigError(f"{both[0]!r} is given as --image and as --label; each collection has one name")
    if not images and not labels and plan is None:
        hint = (
            f" ({uri} is where the store goes; did you mean: radioloader ingest STORE {uri}?)"
            if is_dataset(uri)
            else ""
        )
        raise ConfigError(
            "nothing to ingest: give a dataset's folder, or at least one collection, such as --image 'T1w=images/*.nii.gz'"
            + hint
        )
    if dry_run and plan is None:
        raise ConfigError("--dry-run is for a SOURCE; without one nothing is recognised")
    if plan is not None and modality:
        raise ConfigError(
            "--modality chooses among DICOM files of one folder; of a SOURCE, choose collections: --image MR"
        )
    _choose(images, modality=modality or None, description=series_description or None)
    _choose(
        labels,
        structures=_structures(structure),
        on_overlap=None if on_overlap == "error" else on_overlap,
        planes=None if planes == "on_slices" else planes,
    )
    config = configure(write=write_config(tile, preset, codec, level))
    options: dict[str, Any] = {
        "obs_meta": obs_meta,
        "classes": class_names(classes),
        "splits": pairs(split, "--split", "NAME=VALUE", "test=imagesTs", twice="; each has one value") or None,
        "orientation": orientation,
        "subject_regex": subject_regex,
        "allow_missing": allow_missing,
        "grid_tolerance_mm": grid_tolerance,
        "subject": subject,
        "on_tilt": on_tilt,
        "on_irregular": on_irregular,
        "slice_tolerance_mm": slice_tolerance,
        "suv": suv,
        "pseudonymize": pseudonymize,
        "keep_tags": keep_tag,
        "strict": strict,
        "workers": workers,
        "progress": True,
        "commit_interval_s": commit_interval,
    }
    if plan is not None:
        plan.images, plan.labels = images, labels
        if dry_run:
            for line in explain_plan(plan, uri, typed_options(context), subject_regex)[0]:
                typer.echo(line)
            check_options(plan, options)
            typer.echo("a dry run: nothing was written")
            raise typer.Exit
    try:
        with _said():
            if plan is not None:
                spelled = typed_options(context)
                report = run_plan(plan, uri, say=typer.echo, config=config, options=options, spelled=spelled)
            else:
                # An empty list too: names do not tell where options do.
                report = run(uri, images | labels, labels=list(labels), config=config, **options)
                report.notes += [
                    f"{name!r} is ingested as an image, as told; if it holds labels, give it with --label, into a new store"
                    for name in images
                    if is_label_name(name)
                ]
        _summary(report, sorted({*images, *labels}))
    except IngestError as error:
        typer.echo(f"error: {error}", err=True)
        _summary(error.report, sorted({*images, *labels}))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; what was finished is in the store, and the same command continues", err=True)
        sys.exit(130)
    raise typer.Exit(0 if report.ok else 1)


@contextmanager
def _said() -> Iterator[None]:
    """Within this, a warning about identity is a line on stderr, when it comes up: before anything is written."""
    from radioloader.ingestion.identity import IdentityWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", IdentityWarning)
        show = warnings.showwarning

        def say(message: Any, category: Any, *rest: Any, **more: Any) -> None:
            if issubclass(category, IdentityWarning):
                typer.echo(f"warning: {message}", err=True)
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = say
        yield


def _sources(values: list[str], option: str, example: str) -> dict[str, str]:
    return pairs(values, option, "NAME=SOURCE", example, twice="; give a glob that matches all its files")


def _choose(sources: dict[str, Any], **choice: Any) -> None:
    """Make DICOM sources of those that are, with what was chosen for them."""
    from radioloader.ingestion.dicom_source import DicomSource
    from radioloader.ingestion.kinds import as_dicom

    given = {name: value for name, value in choice.items() if value is not None}
    for name, source in sources.items() if given else ():
        dicom = as_dicom(name, source)
        if isinstance(dicom, DicomSource):
            sources[name] = replace(dicom, **given)
    if given and not any(isinstance(source, DicomSource) for source in sources.values()):
        options = {
            "modality": "--modality",
            "description": "--series-description",
            "structures": "--structure",
            "on_overlap": "--on-overlap",
        }
        what = "--image" if "modality" in choice else "--label"
        raise ConfigError(f"{options[next(iter(given))]} chooses among DICOM files, and no {what} is of such files")


def _structures(values: list[str]) -> dict[str, int] | None:
    structures: dict[str, int] = {}
    for value in values:
        pattern, _, number = value.rpartition("=")
        if not pattern or not number.isdigit():
            raise ConfigError(f"--structure {value!r} is not PATTERN=CLASS, such as --structure 'GTV*=1'")
        structures[pattern] = int(number)
    return structures or None


_NOTES_SHOWN = 20


def _summary(report: Any, names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"ingest into {report.uri}")
    table = Table()
    for heading in ("", "subjects", "voxels"):
        table.add_column(heading, justify="left" if not heading else "right")
    ingested = sum(item.voxel_bytes for item in report.ingested)
    table.add_row("ingested", str(len(report.ingested)), f"{ingested / 1e6:.1f} MB")
    table.add_row("skipped (unchanged)", str(len(report.skipped)), "")
    table.add_row("failed", str(len(report.failed)), "")
    console.print(table)
    console.print(f"collections: {', '.join(names)}; {report.seconds:.1f} s; version {report.version}")
    notes = [f"note {item.subject!r}: {note}" for item in report.items for note in item.notes]
    for note in notes[:_NOTES_SHOWN]:
        console.print(note)
    if len(notes) > _NOTES_SHOWN:
        console.print(f"and {len(notes) - _NOTES_SHOWN} more notes like these")
    for note in report.notes:
        console.print(f"note: {note}")
    for item in report.failed:
        console.print(f"failed {item.subject!r}: {item.reason}", style="red")
