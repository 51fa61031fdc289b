"""The Medical Segmentation Decathlon's folders (Antonelli et al. 2022): pairs in ``dataset.json``, several modalities as a 4th axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from radioloader.errors import FormatError
from radioloader.formats.nifti import read_header
from radioloader.ingestion.layouts._challenge import (
    DATASET,
    IMAGES,
    LABEL,
    LABELS,
    add_classes,
    add_splits,
    channel_names,
    inside,
)
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.naming import file_stem

__all__ = ["match", "plan"]

_LOOKED_AT = 5


def match(tree: Tree) -> str | None:
    """Why a folder is one of the decathlon; None when it is not."""
    found = [image for image, _ in _listed(tree.dataset_json[0]) if tree.has(image)]
    if found:
        return f"dataset.json lists pairs of image and label that are there, such as {found[0]}"
    if "channel_names" in (tree.dataset_json[0] or {}):
        return None  # nnU-Net's, of which something is wrong
    images = {file_stem(name) for folder in IMAGES for name in tree.inside(folder)}
    labels = {file_stem(name) for folder in LABELS for name in tree.inside(folder)}
    both = sorted(images & labels)
    if both:
        return f"imagesTr and labelsTr hold files of the same names, such as {both[0]}"
    return None


def plan(tree: Tree, why: str) -> LayoutPlan:
    """What is in such a folder.

    Args:
        tree: The folder.
        why: What it was recognised by.
    """
    dataset, problem = tree.dataset_json
    made = LayoutPlan("decathlon", tree.root, why)
    pairs = list(_listed(dataset))
    reason = "dataset.json does not list it"
    if not pairs:
        made.notes.append(
            f"{problem or 'dataset.json lists no cases'}: files are matched by name, and channels and classes have no names"
        )
        labels = {file_stem(name): name for folder in LABELS for name in tree.inside(folder)}
        images = [name for folder in IMAGES for name in tree.inside(folder)]
        pairs = [(name, labels.get(file_stem(name), "")) for name in images]
        alone = labels.keys() - {file_stem(name) for name in images}
        pairs += [("", labels[stem]) for stem in sorted(alone)]
        reason = f"it is in none of the folders {', '.join((*IMAGES, *LABELS))}"
    gone = [name for pair in pairs for name in pair if name and not tree.has(name)]
    if gone:
        made.notes.append(f"{len(gone)} files that dataset.json lists are not there, such as {gone[0]}")
    images_of: Files = {}
    labels_of: Files = {}
    for image, label in pairs:
        for files, name in ((images_of, image), (labels_of, label)):
            if name and tree.has(name):
                path = tree.path(name)
                paths = files.setdefault(file_stem(image or label), [])
                if path not in paths:
                    paths.append(path)
    names = channel_names((dataset or {}).get("modality"), "channel")
    count = _components(images_of)
    split = count > 1 and len(names) == count
    if split:
        made.images = {
            name: {subject: [f"{path}#{i}" for path in paths] for subject, paths in images_of.items()}
            for i, name in enumerate(names)
        }
    else:
        made.images = {names[0] if len(names) == 1 else "image": images_of}
        if count > 1:
            made.notes.append(
                f"the images are 4D with {count} volumes, and dataset.json names {len(names)} of them; they stay one collection. "
                f"--image T1w={tree.path('imagesTr')}#0 takes the first ones by themselves"
            )
    made.images = {name: files for name, files in made.images.items() if files}
    made.labels = {LABEL: labels_of} if labels_of else {}
    for number, name in enumerate(made.images):
        made.globs[name] = tree.path(_folder(images_of, tree)) + (f"#{number}" if split else "")
    made.globs[LABEL] = tree.path(_folder(labels_of, tree))
    add_classes(made, dataset, tree.path(DATASET))
    add_splits(made, tree)
    made.leave_out(tree, {}, otherwise=reason, read=[DATASET])
    return made


def _folder(files: Files, tree: Tree) -> str:
    """The folders that files are in, as a glob."""
    kinds = {path[len(tree.root) + 1 :].split("/")[0] for paths in files.values() for path in paths}
    if len(kinds) == 1:
        return kinds.pop()
    kind = "images" if any(name.startswith("images") for name in kinds) else "labels"
    return f"{kind}[TV]*/*.nii*"


def _listed(dataset: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The image and label (or empty) of each case that ``dataset.json`` lists, relative to it."""
    for key in ("training", "validation", "test"):
        cases = (dataset or {}).get(key)
        for case in cases if isinstance(cases, list) else ():
            image, label = (case.get("image"), case.get("label")) if isinstance(case, Mapping) else (case, None)
            if isinstance(image, list) and len(image) == 1:
                image = image[0]
            if isinstance(image, str) and image:
                yield inside(image), inside(label) if isinstance(label, str) and label else ""


def _components(files: Files) -> int:
    """How many volumes the first images that can be read hold."""
    for paths in list(files.values())[:_LOOKED_AT]:
        try:
            shape = read_header(paths[0]).shape
        except FormatError:
            continue
        return shape[3] if len(shape) == 4 else 1
    return 1
