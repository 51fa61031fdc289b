"""``radioloader.ingest_layout``: a dataset's folder, as it is, into a store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from radioloader.config import StorageConfig
from radioloader.errors import ConfigError, RadioloaderError
from radioloader.formats.orientation import check_orientation
from radioloader.ingestion.classes import read_all_classes
from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.layouts.command import by_sources, command
from radioloader.ingestion.layouts.plan import LayoutPlan
from radioloader.ingestion.layouts.recognise import recognise
from radioloader.ingestion.metadata import load_metadata, read_table
from radioloader.ingestion.pipeline import ingest
from radioloader.ingestion.report import IngestReport
from radioloader.ingestion.splits import find_splits
from radioloader.storage.problems import LEFT_OUT, NO_VOLUME, Problem, change_problems, read_problems
from radioloader.storage.snapshot import Snapshot
from radioloader.storage.store import Store

__all__ = ["check_options", "choose", "explain_plan", "ingest_layout", "plan_layout", "run_plan"]


def plan_layout(
    source: str | os.PathLike[str],
    *,
    layout: str = "auto",
    images: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> LayoutPlan:
    """What :func:`ingest_layout` would ingest. Reads names, ``dataset.json`` and such, and of DICOM files the headers; writes nothing.

    Args:
        source: A folder, or a table of files.
        layout: ``"auto"`` looks which it is; or ``"nnunet"``, ``"decathlon"``, ``"bids"``, ``"dicom"``, ``"folders"`` (one for each
            collection), ``"subjects"`` (a folder for each), ``"manifest"`` (a table).
        images: The collections to take, as images. None with ``labels`` None takes all, and what is a label as the layout says.
        labels: The collections to take, as labels.

    Raises:
        ConfigError: No layout fits, or several do, or there is no such collection.
        CatalogError: A table cannot be read.
    """
    plan = recognise(source, layout)
    if images is None and labels is None:
        return plan
    return choose(plan, images=_list(images), labels=_list(labels))


def _list(names: Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def choose(plan: LayoutPlan, *, images: Sequence[str], labels: Sequence[str]) -> LayoutPlan:
    """Take some of the collections of what was recognised.

    Args:
        plan: What was recognised; is changed.
        images: The collections to take, as images.
        labels: The collections to take, as labels.

    Raises:
        ConfigError: There is no such collection.
    """
    wanted = {**dict.fromkeys(images, "image"), **dict.fromkeys(labels, "label")}
    both = sorted(set(images) & set(labels))
    if both:
        raise ConfigError(f"{both[0]!r} is named among the images and among the labels; each collection is one of them")
    there = plan.collections
    for name in wanted:
        if name not in there:
            raise ConfigError(
                f"{plan.root} ({plan.layout}) has no collection {name!r}; it has {', '.join(map(repr, there)) or 'none'}"
            )
    others = [repr(name) for name in there if name not in wanted]
    if others:
        plan.notes.append(f"not asked for, and left out: {', '.join(others)}")
    for name, kind in wanted.items():
        was = "label" if name in plan.labels else "image"
        if kind != was:
            plan.notes.append(
                f"{name!r} holds {was}s, going by its name or the layout, and is taken as {kind}s, as told"
            )
    plan.images = {name: there[name] for name, kind in wanted.items() if kind == "image"}
    plan.labels = {name: there[name] for name, kind in wanted.items() if kind == "label"}
    plan.classes = {name: classes for name, classes in plan.classes.items() if name in plan.labels}
    plan.splits = {name: folder for name, folder in plan.splits.items() if plan.takes_from(folder)}
    return plan


def ingest_layout(
    uri: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    layout: str = "auto",
    images: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    say: Callable[[str], object] | None = None,
    config: StorageConfig | None = None,
    **options: Any,
) -> IngestReport:
    """Bring a dataset into a store as it lies there: nnU-Net, decathlon, BIDS, a table of files, DICOM, or plain folders.

    What is not taken (files that are no volumes, derivatives in another space, ...) and what is missing (images without a label, labels
    without an image) is reported and does not stop the rest; the store remembers it (:meth:`radioloader.RadiObject.problems`).

    Args:
        uri: Local path or ``s3://bucket/prefix`` of the store.
        source: A folder, or a .csv or .tsv table.
        layout: As for :func:`plan_layout`.
        images: As for :func:`plan_layout`.
        labels: As for :func:`plan_layout`.
        say: Is told, line by line, what was recognised, why, and the explicit command that does the same; before anything is written.
        config: Tiles, compression and access; None takes the process's defaults.
        options: As for :func:`radioloader.ingest`.

    Returns:
        What was ingested, skipped and failed, and why; its notes hold what was recognised.

    Raises:
        ConfigError: No layout fits, or several do: the message lists them. Or an argument is wrong.
        IngestError, CatalogError, NotAStoreError, ...: As :func:`radioloader.ingest`.
    """
    plan = plan_layout(source, layout=layout, images=images, labels=labels)
    return run_plan(plan, uri, say=say, config=config, options=options, spelled=_spelled(options))


def _spelled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of :func:`radioloader.ingest` as the command line has them, as far as it has them."""
    names = {
        "grid_tolerance_mm": "grid-tolerance",
        "slice_tolerance_mm": "slice-tolerance",
        "commit_interval_s": "commit-interval",
    }
    names |= {name: name for name in ("orientation", "subject", "suv", "strict", "workers", "pseudonymize")}
    names |= {name: name.replace("_", "-") for name in ("subject_regex", "on_tilt", "on_irregular", "obs_meta")}
    found = {
        word: value
        for name, word in names.items()
        if (value := options.get(name)) is not False and isinstance(value, str | os.PathLike | bool | int | float)
    }
    keep = options.get("keep_tags") or ()
    return found | ({"keep-tag": [keep] if isinstance(keep, str) else list(keep)} if keep else {})


def explain_plan(
    plan: LayoutPlan, uri: str | os.PathLike[str], spelled: Mapping[str, Any], regex: str | None = None
) -> tuple[list[str], dict[str, str] | None]:
    """What was recognised and the command that does the same, as lines; and that command's sources, where it has globs.

    Args:
        plan: What was recognised.
        uri: The store.
        spelled: Options as the command line has them.
        regex: Finds subject ids in paths, in the place of the layout's rule.

    Raises:
        ConfigError: There is nothing to ingest, or the regular expression does not fit.
    """
    if regex is not None:
        plan.rename(regex)
    lines = plan.describe()
    if not plan.collections:
        raise ConfigError("\n".join([*lines, f"there is no volume that could be taken from {plan.root}"]))
    sources = by_sources(plan, regex)
    return [*lines, "the same, spelled out:", f"  {command(plan, sources, os.fspath(uri), spelled)}"], sources


def check_options(plan: LayoutPlan, options: Mapping[str, Any]) -> None:
    """Find what is wrong with options, for those who only want to see what would be done.

    Args:
        plan: What was recognised.
        options: As for :func:`radioloader.ingest`.

    Raises:
        ConfigError, CatalogError: An option cannot be used.
    """
    if options.get("orientation") is not None:
        check_orientation(options["orientation"])
    if options.get("obs_meta") is not None:
        load_metadata(read_table(options["obs_meta"]), {}, plan.subjects)
    read_all_classes(options.get("classes"), list(plan.labels))
    if options.get("splits"):
        files: dict[str, dict[str, str]] = {subject: {} for subject in plan.subjects}
        for name, found in plan.collections.items():
            for subject, paths in found.items() if isinstance(found, dict) else ():
                files[subject][name] = paths[0]
        find_splits(options["splits"], Cohort(files=files), IngestReport(""))


def run_plan(
    plan: LayoutPlan,
    uri: str | os.PathLike[str],
    *,
    say: Callable[[str], object] | None = None,
    config: StorageConfig | None = None,
    options: Mapping[str, Any],
    spelled: Mapping[str, Any] | None = None,
) -> IngestReport:
    """Ingest what was recognised.

    Args:
        plan: What was recognised.
        uri: The store.
        say: As for :func:`ingest_layout`.
        config: As for :func:`ingest_layout`.
        options: As for :func:`ingest_layout`.
        spelled: The options as the command line has them, for the command that does the same.
    """
    lines, sources = explain_plan(plan, uri, spelled or {}, options.get("subject_regex"))
    for line in lines if say is not None else ():
        say(line)  # type: ignore[misc]
    given = dict(options)
    if given.get("obs_meta") is None and plan.obs_meta is not None:
        table = read_table(plan.obs_meta)
        given["obs_meta"] = replace(table, optional=True)
    if sources is None:
        given.pop("subject_regex", None)  # the files of the plan have their ids already
    given["classes"] = {**plan.classes, **(given.get("classes") or {})}
    given["splits"] = given.get("splits") or plan.splits or None
    given["allow_missing"] = True
    # Of globs, where they say the same: then ids come from names, and a file that was renamed is not taken for another patient.
    taken: Mapping[str, Any] = plan.collections if sources is None or plan.of_dicom else sources
    report = ingest(uri, taken, labels=list(plan.labels), config=config, **given)
    if say is None:
        report.notes = [*lines, *report.notes]
    report.notes += _mixed(report.uri, list(plan.collections), config)
    try:
        _keep_left_out(report.uri, plan, config)
    except RadioloaderError as error:  # what was ingested is there, and its report must not be lost
        report.notes.append(f"what was left out could not be noted in the store: {error}")
    return report


def _mixed(uri: str, names: Sequence[str], config: StorageConfig | None) -> list[str]:
    """Collections whose volumes differ in what networks and statistics may trip over: dtype, shape, a 4th axis."""
    snapshot = Snapshot.open(uri, config=config)
    notes = []
    for name in names:
        if name not in snapshot.collections:
            continue
        index = snapshot.index(name)
        dtypes = Counter(snapshot.detail(name, "dtype").tolist())
        parts = []
        if len(dtypes) > 1:
            parts.append("dtypes " + ", ".join(f"{dtype} ({count})" for dtype, count in dtypes.most_common()))
        if len(np.unique(index.shapes[:, :3], axis=0)) > 1:
            low, high = index.shapes[:, :3].min(axis=0), index.shapes[:, :3].max(axis=0)
            parts.append(f"shapes from {'x'.join(map(str, low))} to {'x'.join(map(str, high))}")
        if len(np.unique(index.shapes[:, 3] > 0)) > 1:
            parts.append(
                f"3D ({int((index.shapes[:, 3] == 0).sum())}) and 4D ({int((index.shapes[:, 3] > 0).sum())}) volumes"
            )
        if parts:
            notes.append(f"collection {name!r} is mixed: {'; '.join(parts)}")
    return notes


def _keep_left_out(uri: str, plan: LayoutPlan, config: StorageConfig | None) -> None:
    """Note in the store what was left out, and forget what an earlier ingest of the same folder left out."""
    found = [Problem(LEFT_OUT, "", path, reason) for path, reason in plan.left_out]
    found += [
        Problem(NO_VOLUME, "", f"{plan.root}: {ending}", f"no volumes, by their names ({count} of this kind)")
        for ending, count in plan.strangers.items()
    ]
    inside = (os.path.join(plan.root, ""), f"{plan.root}:")
    if plan.layout == "dicom":  # of which no path is kept
        found = [problem for problem in found if problem.status == LEFT_OUT]
        inside = ("SEG files", "RTSTRUCT files")
    store = Store.open(uri, config=config)
    before = [
        problem
        for problem in read_problems(store, store.commits())
        if problem.status in (LEFT_OUT, NO_VOLUME) and problem.source.startswith(inside)
    ]
    if sorted(found) == before:  # the writer's lock need not be had
        return
    with store.write() as transaction:
        change_problems(store, transaction, found, before)
        if transaction.pending:
            transaction.commit("files that were left out", {"left_out": len(found)})
