"""Which layout a folder has. Where there is a doubt, the user is asked, and nothing is guessed."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from radioloader.errors import ConfigError
from radioloader.ingestion.discover import is_label_name
from radioloader.ingestion.layouts import bids, decathlon, dicom, folders, manifest, nnunet
from radioloader.ingestion.layouts._challenge import IMAGES, LABELS
from radioloader.ingestion.layouts.plan import LayoutPlan, some
from radioloader.ingestion.layouts.tree import Tree
from radioloader.ingestion.naming import file_stem

__all__ = ["LAYOUTS", "recognise"]

_MATCHERS: Mapping[str, tuple[Callable[[Tree], str | None], Callable[[Tree, str], LayoutPlan]]] = {
    "nnunet": (nnunet.match, nnunet.plan),
    "decathlon": (decathlon.match, decathlon.plan),
    "bids": (bids.match, bids.plan),
    "dicom": (dicom.match, dicom.plan),
    "folders": (folders.match_folders, folders.plan_folders),
    "subjects": (folders.match_subjects, folders.plan_subjects),
}
_PLAIN = ("folders", "subjects")
_CONVENTIONS = tuple(name for name in _MATCHERS if name not in _PLAIN)

LAYOUTS = ("auto", *_MATCHERS, "manifest")
"""Names of layouts; ``auto`` looks which one it is."""


def recognise(source: str | os.PathLike[str], layout: str = "auto") -> LayoutPlan:
    """What a folder or a table holds.

    Args:
        source: A folder, or a .csv or .tsv file.
        layout: One of :data:`LAYOUTS`.

    Raises:
        ConfigError: There is no such folder or layout; or no layout fits, or several do: the message says which, and how to go on.
        CatalogError: A table cannot be read.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r} (--layout) is none of {', '.join(LAYOUTS)}")
    path = os.path.abspath(os.path.expanduser(os.fspath(source)))
    if os.path.isfile(path):
        if layout not in ("auto", "manifest") or not path.lower().endswith(manifest.SUFFIXES_OF_TABLES):
            raise ConfigError(
                f"{path}: this is a file; a layout is a folder, or a table of files ({', '.join(manifest.SUFFIXES_OF_TABLES)})"
            )
        return manifest.plan(path)
    if not os.path.isdir(path):
        hint = (
            f"; for a glob say which collection it is: --image NAME={shlex.quote(path)}" if glob.has_magic(path) else ""
        )
        raise ConfigError(f"{path}: there is no such folder or table{hint}")
    if layout == "manifest":
        raise ConfigError(
            f"{path}: this is a folder, and a manifest is a table ({', '.join(manifest.SUFFIXES_OF_TABLES)})"
        )
    tree = Tree(path)
    if layout != "auto":
        matcher, planner = _MATCHERS[layout]
        why = matcher(tree)
        if why is None:
            others = _matching(tree, _CONVENTIONS)
            hint = f"; it looks like {', '.join(others)}" if others else ""
            raise ConfigError(f"{path} does not look like {layout}{hint}: {_seen(tree)}\n{_choices(path, tree)}")
        return planner(tree, why)
    # What has a convention of its own is not a plain folder, though it may look like one.
    found = _matching(tree, _CONVENTIONS) or _matching(tree, _PLAIN)
    if len(found) == 1:
        name, why = next(iter(found.items()))
        plan = _MATCHERS[name][1](tree, why)
        plan.notes += _above(path)
        return plan
    if found:
        reasons = "\n".join(f"  --layout {name}: {why}" for name, why in found.items())
        raise ConfigError(f"{path} may be several things; say which:\n{reasons}")
    inner = {name: sub for name in sorted(os.listdir(path)) if (sub := _inner(path, name)) is not None}
    if inner:
        listed = "\n".join(f"  {os.path.join(path, name)}: {sub}" for name, sub in list(inner.items())[:10])
        raise ConfigError(f"{path} is no dataset itself, but there are some in it; give one of them:\n{listed}")
    what = "; ".join([f"{path} is of no layout that is known", *_above(path)])
    raise ConfigError(f"{what}: {_seen(tree)}\n{_choices(path, tree)}")


def _matching(tree: Tree, names: Iterable[str]) -> dict[str, str]:
    """The layouts that fit, with the reasons."""
    found = {name: _MATCHERS[name][0](tree) for name in names}
    return {name: why for name, why in found.items() if why is not None}


def _inner(path: str, name: str) -> str | None:
    """The layout of a folder within; of plain ones, only where it has folders of its own: else it may be a subject's."""
    folder = os.path.join(path, name)
    if name.startswith(".") or not os.path.isdir(folder):
        return None
    tree = Tree(folder)
    found = _matching(tree, _CONVENTIONS)
    if not found and set(tree.folders) - {""}:
        found = _matching(tree, _PLAIN)
    return next(iter(found), None)


def _above(path: str) -> list[str]:
    """A hint where only a part of a dataset was given."""
    folder, name = os.path.split(path)
    if not name.startswith(("sub-", "ses-")) and name not in (*IMAGES, *LABELS):
        return []
    found = _matching(Tree(folder), [name for name in _CONVENTIONS if name != "dicom"])
    return [f"the folder above, {folder}, is a dataset: {', '.join(found)}"] if found else []


def _seen(tree: Tree) -> str:
    """What is there, in a sentence."""
    if not tree.files:
        return "there is no file in it"
    if not tree.volumes:
        return f"there is no NIfTI file in it, and no DICOM file, but {len(tree.files)} others such as {tree.files[0]}"
    places = sorted({name.rpartition("/")[0] or "the folder itself" for name in tree.volumes})
    if tree.holds_dicom:
        return (
            f"it holds DICOM files and {len(tree.volumes)} NIfTI files, such as {some(tree.volumes)}; layout dicom is for folders without "
            "NIfTI files, and --image NAME=FOLDER takes either"
        )
    return f"it holds {len(tree.volumes)} NIfTI files, such as {some(tree.volumes)}; they lie in {len(places)} folders ({some(places)})"


def _examples(path: str, tree: Tree) -> list[tuple[str, str]]:
    """Collections and globs that may be meant, made of what is there."""
    names = [os.path.basename(name) for name in tree.volumes]
    common = [name for name, count in Counter(names).most_common(4) if 2 * count >= len(tree.folders) > 2]
    if common:  # such as s0001/ct.nii.gz
        return [(re.sub(r"[^A-Za-z0-9]+", "_", file_stem(name)), os.path.join(path, "**", name)) for name in common]
    if set(tree.folders) == {""}:
        endings = Counter(name.rpartition("_")[2] for name in names if "_" in name)
        shared = [ending for ending, count in endings.most_common(4) if count > 1 and not ending[:1].isdigit()]
        if shared:
            return [(file_stem(ending), os.path.join(path, f"*_{ending}")) for ending in shared]
    below = "*" if "" in tree.folders else "**/*"
    return [(name, os.path.join(path, f"{below}_{name}.nii.gz")) for name in ("T1w", "seg")]


def _choices(path: str, tree: Tree) -> str:
    if not tree.volumes:
        return "give the folder that holds the images"
    words = [
        f"{'--label' if is_label_name(name) else '--image'} {name}={shlex.quote(pattern)}"
        for name, pattern in _examples(path, tree)
    ]
    return (
        "say what is what, with a folder or a quoted glob for each collection, such as\n"
        f"  radioloader ingest STORE {' '.join(words)}\n"
        "or with a table that has a column subject_id and one of paths for each collection:\n"
        "  radioloader ingest STORE table.csv\n"
        f"or name the layout, one of {', '.join(LAYOUTS[1:])}, with --layout"
    )
