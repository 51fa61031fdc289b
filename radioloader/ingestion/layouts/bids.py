"""BIDS, the Brain Imaging Data Structure (https://bids-specification.readthedocs.io): ``sub-*/ses-*/anat|func|dwi|pet|perf``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from radioloader.errors import CatalogError, FormatError
from radioloader.formats.nifti import NiftiHeader, read_header
from radioloader.geometry import GRID_TOLERANCE_MM, grid_distance
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.metadata import load_metadata, read_table
from radioloader.ingestion.naming import file_stem

__all__ = ["match", "plan"]

_DATATYPES = ("anat", "func", "dwi", "pet", "perf")
_LABELS = ("dseg", "mask", "seg", "label", "labels", "roi", "lesion")
_FILE = re.compile(
    r"(?:(?:(?P<raw>rawdata/)?)|derivatives/(?P<pipeline>(?:(?!sub-)[^/]+/)*))"
    r"(?P<sub>sub-[A-Za-z0-9]+)/(?:(?P<ses>ses-[A-Za-z0-9]+)/)?(?P<datatype>[a-z]+)/[^/]+"
)
_NAME = re.compile(r"(?P<sub>sub-[A-Za-z0-9]+)(?:_(?P<ses>ses-[A-Za-z0-9]+))?_(?P<rest>.+)", re.S)
_NATIVE = {"", "orig", "individual", "native", "T1w", "scanner", "func"}


def match(tree: Tree) -> str | None:
    """Why a folder is one of BIDS; None when it is not."""
    found = [
        name
        for name in tree.volumes
        if (it := _FILE.fullmatch(name)) and it["datatype"] in _DATATYPES and not name.startswith("derivatives/")
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
        if name.startswith("derivatives/"):
            pipeline = (place["pipeline"] or "").rstrip("/").replace("/", "_") or "derivatives"
            if not label:
                reasons[name] = "of derivatives, only segmentations and masks are taken"
                continue
            space = re.search(r"(?:^|_)space-([A-Za-z0-9]+)", collection)
            if space is not None and space.group(1) not in _NATIVE:
                reasons[name] = f"it lies in the space {space.group(1)}, not in that of the subject's images"
                continue
            derived.setdefault(collection, {}).setdefault(pipeline, {}).setdefault(subject, []).append(tree.path(name))
            continue
        group = made.labels if label else made.images
        files = group.setdefault(collection, {})
        assert isinstance(files, dict)
        files.setdefault(subject, []).append(tree.path(name))
        made.globs[collection] = tree.path(f"sub-*/**/{place['datatype']}/*_{collection}.nii*")
    grids = _Grids(made.images)
    for pipelines in derived.values():
        for files in pipelines.values():
            for subject in list(files):
                for path in list(files[subject]):
                    if why_not := grids.problem(subject, path):
                        reasons[path[len(tree.path("")) :]] = why_not
                        files[subject].remove(path)
                if not files[subject]:
                    del files[subject]
    derived = {
        name: kept for name, found in derived.items() if (kept := {key: files for key, files in found.items() if files})
    }
    for collection, pipelines in sorted(derived.items()):
        for pipeline, files in sorted(pipelines.items()):
            alone = len(pipelines) == 1 and collection not in made.labels and collection not in made.images
            name = collection if alone else f"{pipeline}_{collection}"
            made.labels[name] = files
            made.globs[name] = tree.path(f"derivatives/**/*_{collection}.nii*")
    made.images, made.labels = dict(sorted(made.images.items())), dict(sorted(made.labels.items()))
    if tree.has("participants.tsv"):
        table = tree.path("participants.tsv")
        try:
            load_metadata(read_table(table), {}, made.subjects)
            made.obs_meta = table
        except CatalogError as error:
            made.notes.append(f"the subjects' columns were left out: {error}")
    made.leave_out(tree, reasons, read=["participants.tsv", "dataset_description.json"])
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


class _Grids:
    """Whether labels of derivatives lie on the grid of an image of their subject: one that does not would take the images down with it."""

    def __init__(self, images: Mapping[str, Files | DicomSource]) -> None:
        self._images = [files for files in images.values() if isinstance(files, dict)]
        self._headers: dict[str, NiftiHeader | str] = {}

    def _header(self, path: str) -> NiftiHeader | str:
        if path not in self._headers:
            try:
                self._headers[path] = read_header(path)
            except FormatError as error:
                self._headers[path] = str(error)
        return self._headers[path]

    def problem(self, subject: str, path: str) -> str | None:
        """Why a label is of no use; None when it lies on the grid of an image, or no image of the subject can be read."""
        label = self._header(path)
        if isinstance(label, str):
            return f"it cannot be read: {label}"
        images = [self._header(image) for files in self._images for image in files.get(subject, [])]
        headers = [image for image in images if not isinstance(image, str)]
        for image in headers:
            if image.shape[:3] == label.shape[:3] and (
                grid_distance(image.affine, label.affine, label.shape) <= GRID_TOLERANCE_MM
            ):
                return None
        return "it lies on the grid of no image of its subject" if headers else None
