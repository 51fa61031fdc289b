"""A cohort of simulated subjects, made from one real brain template.

Each subject is the MNI152 T1-weighted template that comes inside nilearn's wheel (grey and white matter maps give the
label), bent by a smooth random deformation, scaled, tilted, shaded by a bias field and made noisy, then written on a
voxel grid of its own: shape, spacing, tilt and storage orientation differ from subject to subject, as they do between
scanners. Nobody was scanned for it; ages and sexes are drawn from a random generator as well.

A subject depends on ``(seed, number, resolution)`` alone, so the files are the same bytes whatever the number of
processes, and a cohort that is already there can be checked against its checksums and used again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radioloader.demo.folder import replace_file
from radioloader.demo.simulate import subject_id, write_subject
from radioloader.errors import StoreWriteError
from radioloader.ingestion.pool import run

__all__ = ["CLASS_NAMES", "Cohort", "make_cohort"]

CLASS_NAMES = ("background", "grey matter", "white matter")

# Bumped when the files of a given seed change, so that a folder made by an older release is not mistaken for this one.
_RECIPE = 1


@dataclass(frozen=True)
class Cohort:
    """The files of a simulated cohort.

    Attributes:
        folder: Holds ``images/``, ``labels/``, ``participants.tsv`` and ``checksums.json``.
        subject_ids: ``sub-01``, ``sub-02``, ...
        made: Subjects written by this call; the others were there, with the checksums they should have.
    """

    folder: Path
    subject_ids: tuple[str, ...]
    made: tuple[str, ...]

    def image(self, subject: str) -> Path:
        """The subject's T1-weighted image, int16."""
        return self.folder / "images" / f"{subject}_T1w.nii.gz"

    def label(self, subject: str) -> Path:
        """The subject's label map, uint8: 0 background, 1 grey matter, 2 white matter."""
        return self.folder / "labels" / f"{subject}_seg.nii.gz"

    @property
    def participants(self) -> Path:
        """Tab-separated table: participant_id, age (years), sex and how the subject was simulated."""
        return self.folder / "participants.tsv"

    @property
    def nbytes(self) -> int:
        """Size of all image and label files in bytes."""
        return sum(f(s).stat().st_size for s in self.subject_ids for f in (self.image, self.label))


def make_cohort(
    folder: Path,
    *,
    n_subjects: int = 14,
    resolution: float = 1.0,
    seed: int = 0,
    workers: int = 2,
    on_subject: Callable[[str, bool], None] = lambda subject, made: None,
) -> Cohort:
    """Write the cohort into `folder`, or check and reuse the one that is there.

    Args:
        folder: Created if it does not exist.
        n_subjects: How many subjects.
        resolution: Factor on the spacings of about 1 mm; 4 gives small volumes for a quick test.
        seed: The same seed gives the same bytes.
        workers: Processes to use.
        on_subject: Called as each subject is done, with its name and whether it had to be made.

    Returns:
        The cohort. Files that are missing or do not have their recorded checksum are made again.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    subjects = tuple(subject_id(i + 1) for i in range(n_subjects))
    recipe = {"recipe": _RECIPE, "seed": seed, "resolution": resolution}
    known = _read_checksums(folder, recipe)
    rows: dict[str, dict[str, Any]] = {}
    todo: list[int] = []
    for i, subject in enumerate(subjects):
        entry = known.get(subject)
        if entry is not None and all(_sha256(folder / f) == digest for f, digest in entry["files"].items()):
            rows[subject] = entry
            on_subject(subject, False)
        else:
            todo.append(i)
    for i, entry in _run(todo, folder=folder, resolution=resolution, seed=seed, workers=workers):
        rows[subjects[i]] = entry
        on_subject(subjects[i], True)
    lines = ["\t".join(rows[subjects[0]]["participant"])]
    lines += ["\t".join(str(v) for v in rows[s]["participant"].values()) for s in subjects]
    replace_file(folder / "participants.tsv", ("\n".join(lines) + "\n").encode())
    table = {"made_by": "radioloader demo", **recipe, "subjects": {s: rows[s] for s in subjects}}
    replace_file(folder / "checksums.json", (json.dumps(table, indent=1) + "\n").encode())
    return Cohort(folder, subjects, tuple(subjects[i] for i in todo))


def _run(
    todo: list[int], *, folder: Path, resolution: float, seed: int, workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    tasks = [_Task(folder, i, resolution, seed) for i in todo]
    yield from run(_write, tasks, workers=min(workers, len(todo)), lost=_lost)


@dataclass(frozen=True)
class _Task:
    folder: Path
    index: int
    resolution: float
    seed: int


def _write(task: _Task) -> tuple[int, dict[str, Any]]:
    return task.index, write_subject(task.folder, number=task.index + 1, resolution=task.resolution, seed=task.seed)


def _lost(task: _Task) -> tuple[int, dict[str, Any]]:
    raise StoreWriteError(
        f"the process that simulated {subject_id(task.index + 1)} died (out of memory?); run the demo again"
    )


def _read_checksums(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    try:
        table = json.loads((folder / "checksums.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if {k: table.get(k) for k in recipe} != recipe:
        return {}
    subjects = table["subjects"]
    return subjects if isinstance(subjects, dict) else {}


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except FileNotFoundError:
        return None
