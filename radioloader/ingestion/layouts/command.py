"""The explicit command that does what a layout does, found out by trying it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from radioloader.errors import ConfigError
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.discover import discover
from radioloader.ingestion.layouts.plan import LayoutPlan

__all__ = ["by_sources", "command"]

_DICOM = {"CT", "MR", "PT"}  # collections of these names take the modality that they are named after


def command(plan: LayoutPlan, sources: Mapping[str, str] | None, uri: str, options: Mapping[str, Any]) -> str:
    """The command in the words of ``radioloader ingest``.

    Args:
        plan: What is to be ingested.
        sources: What :func:`by_sources` gave; with None the command names the layout and its collections instead.
        uri: The store.
        options: Further options, by name, with their values as text, lists of them, or True.
    """
    words = ["radioloader", "ingest", uri]
    if sources is None:
        words += [plan.root, "--layout", plan.layout]
        words += [word for name in plan.images for word in ("--image", name)]
        words += [word for name in plan.labels for word in ("--label", name)]
    else:
        words += [word for name in plan.images for word in ("--image", f"{name}={sources[name]}")]
        words += [word for name in plan.labels for word in ("--label", f"{name}={sources[name]}")]
        typed = {re.split(r"[:=]", value)[0] for value in options.get("classes", [])}
        for name, given in plan.classes.items():
            if name in typed:
                continue
            if isinstance(given, str):
                words += ["--classes", f"{name}={given}"]
            else:
                words += [word for label, value in given.items() for word in ("--classes", f"{name}:{label}={value}")]
        splits = {} if "split" in options else plan.splits
        words += [word for name, folder in splits.items() for word in ("--split", f"{name}={folder}")]
        if isinstance(plan.obs_meta, str) and "obs-meta" not in options:
            words += ["--obs-meta", plan.obs_meta]
        if plan.missing:
            words.append("--allow-missing")
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name}"] if one is True else [f"--{name}", str(one)]
    return shlex.join(words)


def by_sources(plan: LayoutPlan, regex: str | None = None) -> dict[str, str] | None:
    """A glob or folder for each collection that gives the very same subjects and files, which is tried out; None where there is none.

    Args:
        plan: What is to be ingested.
        regex: Finds subject ids in paths.
    """
    collections = plan.collections
    if any("=" in name for name in collections):
        return None  # the command line would take what follows for the source
    dicom = {name for name, source in collections.items() if isinstance(source, DicomSource)}
    if dicom:
        fits = dicom == set(collections) and set(plan.images) <= _DICOM and len(plan.labels) <= 1
        return dict.fromkeys(dicom, plan.root) if fits else None
    if not (plan.obs_meta is None or isinstance(plan.obs_meta, str)) or not set(collections) <= set(plan.globs):
        return None
    sources = {name: plan.globs[name] for name in collections}
    try:
        found = discover(sources, labels=list(plan.labels), subject_regex=regex, allow_missing=True)
    except ConfigError:
        return None
    wanted: dict[str, dict[str, str]] = {}
    for name, files in collections.items():
        for subject, paths in files.items() if isinstance(files, dict) else ():
            if len(paths) > 1:
                return None
            wanted.setdefault(subject, {})[name] = paths[0]
    return sources if not found.failures and found.files == wanted else None
