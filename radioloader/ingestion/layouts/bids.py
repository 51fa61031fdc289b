"""BIDS, the Brain Imaging Data Structure (https://bids-specification.readthedocs.io): ``sub-*/ses-*/anat|func|dwi|pet|perf``."""

from __future__ import annotations

import re

from radioloader.errors import CatalogError
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.metadata import load_metadata, read_table
from radioloader.ingestion.naming import file_stem

__all__ = ["match", "plan"]

_DATATYPES = ("anat", "func", "dwi", "pet", "perf")
_LABELS = ("dseg", "mask", "seg", "label", "labels", "roi", "lesion")
_FILE = re.compile(
    r"(?:derivatives/(?P<pipeline>[^/]+)/)?(?:.*/)??(?P<sub>sub-[A-Za-z0-9]+)/(?:(?P<ses>ses-[A-Za-z0-9]+)/)?(?P<datatype>[a-z]+)/[^/]+"
)
_NAME = re.compile(r"(?P<sub>sub-[A-Za-z0-9]+)(?:_(?P<ses>ses-[A-Za-z0-9]+))?_(?P<rest>.+)", re.S)
_NATIVE = {"", "orig", "individual", "native", "T1w", "scanner", "func"}


def match(tree: Tree) -> str | None:
    """Why a folder is one of BIDS; None when it is not."""
    found = [
        name
        for name in tree.volumes
        if (it := _FILE.fullmatch(name)) and it["datatype"] in _DATATYPES and not it["pipeline"]
    ]
    if not found:
        return None
    described = "it has a dataset_description.json, and " if tree.has("dataset_description.json") else ""
    return f"{described}files lie as {found[0]}"


def plan(tree: Tree, why: str) -> LayoutPlan:
    """What is in such a folder. Each session is a subject of its own; masks and segmentations, also those of derivatives, are labels.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    made = LayoutPlan("bids", tree.root, why)
    reasons: dict[str, str] = {}
    derived: dict[str, dict[str, Files]] = {}
    for name in tree.volumes:
        place, entities = _FILE.fullmatch(name), _NAME.fullmatch(file_stem(name))
        problem = _problem(name, place, entities)
        if place is None or entities is None or problem:
            reasons[name] = problem or "its name or folder is none of BIDS"
            continue
        subject = "_".join(filter(None, (entities["sub"], entities["ses"])))
        collection = entities["rest"]
        label = collection.rpartition("_")[2] in _LABELS
        if place["pipeline"]:
            if not label:
                reasons[name] = "of derivatives, only segmentations and masks are taken"
                continue
            space = re.search(r"(?:^|_)space-([A-Za-z0-9]+)", collection)
            if space is not None and space.group(1) not in _NATIVE:
                reasons[name] = f"it lies in the space {space.group(1)}, not in that of the subject's images"
                continue
            derived.setdefault(collection, {}).setdefault(place["pipeline"], {}).setdefault(subject, []).append(
                tree.path(name)
            )
            continue
        group = made.labels if label else made.images
        files = group.setdefault(collection, {})
        assert isinstance(files, dict)
        files.setdefault(subject, []).append(tree.path(name))
        made.globs[collection] = tree.path(f"sub-*/**/{place['datatype']}/*_{collection}.nii*")
    for collection, pipelines in sorted(derived.items()):
        for pipeline, files in sorted(pipelines.items()):
            alone = len(pipelines) == 1 and collection not in made.labels and collection not in made.images
            name = collection if alone else f"{pipeline}_{collection}"
            made.labels[name] = files
            made.globs[name] = tree.path(f"derivatives/{pipeline}/**/*_{collection}.nii*")
    made.images, made.labels = dict(sorted(made.images.items())), dict(sorted(made.labels.items()))
    if tree.has("participants.tsv"):
        table = tree.path("participants.tsv")
        try:
            load_metadata(read_table(table), {}, made.subjects)
            made.obs_meta = table
        except CatalogError as error:
            made.notes.append(f"the subjects' columns were left out: {error}")
    for path, why_not in reasons.items():
        made.left_out.append((tree.path(path), why_not))
    used = {"participants.tsv", "dataset_description.json"}
    made.note_strangers(tree.path(name) for name in tree.strangers if name not in used)
    return made


def _problem(name: str, place: re.Match[str] | None, entities: re.Match[str] | None) -> str | None:
    if name.split("/")[0] in ("sourcedata", "code", "stimuli"):
        return f"{name.split('/')[0]} holds no data of BIDS"
    if place is None or entities is None:
        return None
    if place["datatype"] not in _DATATYPES:
        return f"{place['datatype']} is none of {', '.join(_DATATYPES)}"
    if (entities["sub"], entities["ses"]) != (place["sub"], place["ses"]):
        return "its name says another subject or session than its folder"
    return None
