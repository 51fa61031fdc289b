"""What the catalog says about a cohort, as columns. No voxel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.formats.dicom.geometry import Verdict
from radioloader.storage.catalog import CollectionInfo, VolumeIndex
from radioloader.storage.foreground import class_voxels
from radioloader.storage.snapshot import Snapshot

__all__ = [
    "AXES",
    "CollectionFacts",
    "class_names",
    "duplicates",
    "missing",
    "read_facts",
    "region_ml",
    "without_volume",
]

AXES = ("left-right", "back-front", "foot-head")
"""The anatomical axes, in the order in which anatomical columns have them."""
_AXIS_OF = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}

_NO_ROWS = np.zeros(0, np.int64)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CollectionFacts:
    """One collection; n volumes in the order of ``index``.

    Attributes:
        index: The catalog's rows.
        dtypes: (n,) stored dtypes, str objects.
        spacings: (n, 3) mm, along the stored axes x, y, z.
        low: (n,) lowest finite value; ``high``, ``mean`` and ``std`` alike. NaN where there is none.
        nonfinite: (n,) voxels that are NaN or infinite.
        nonzero: (n,) voxels that are not 0.
        content: (n,) SHA-256 of what a volume holds, str objects.
        verdicts: What is known of the geometry of each; None of a volume that is not from DICOM.
        modality: (n,) DICOM Modality; None where it is not known.
        class_rows: Of labels, (rows,) each: place of a volume, class, voxels of it.
    """

    index: VolumeIndex
    dtypes: npt.NDArray[Any]
    spacings: Floats
    low: Floats
    high: Floats
    mean: Floats
    std: Floats
    nonfinite: npt.NDArray[np.int64]
    nonzero: npt.NDArray[np.int64]
    content: npt.NDArray[Any]
    verdicts: Sequence[Verdict | None]
    modality: npt.NDArray[Any]
    class_rows: tuple[npt.NDArray[np.int64], ...] = (_NO_ROWS,) * 3

    def __len__(self) -> int:
        return len(self.index)

    @property
    def info(self) -> CollectionInfo:
        """The collection's row."""
        return self.index.info

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self.index.info.name

    @property
    def kind(self) -> str:
        """``"image"`` or ``"label"``."""
        return self.index.info.kind

    @property
    def axcodes(self) -> npt.NDArray[Any]:
        """(n,) axis codes, str objects."""
        return self.index.all_axcodes

    @cached_property
    def _anatomical(self) -> npt.NDArray[np.int64]:
        """(n, 3) the stored axis that lies along each of :data:`AXES`."""
        orders = {codes: np.argsort([_AXIS_OF[code] for code in codes]) for codes in set(self.axcodes.tolist())}
        return np.array([orders[codes] for codes in self.axcodes.tolist()], np.int64).reshape(-1, 3)

    @cached_property
    def anatomical_spacings(self) -> Floats:
        """(n, 3) mm along :data:`AXES`, so that volumes of different orientation compare."""
        return np.take_along_axis(self.spacings, self._anatomical, axis=1)

    @cached_property
    def extents(self) -> Floats:
        """(n, 3) mm along :data:`AXES` that a volume covers."""
        return np.take_along_axis(self.spacings * self.index.shapes[:, :3], self._anatomical, axis=1)

    @cached_property
    def voxel_ml(self) -> Floats:
        """(n,) volume of a voxel in ml, also of sheared grids."""
        volumes: Floats = np.abs(np.linalg.det(self.index.affines[:, :3, :3])) / 1000
        return volumes

    @property
    def time_points(self) -> npt.NDArray[np.int64]:
        """(n,) time points of a volume; 1 of a 3D one."""
        return np.maximum(self.index.shapes[:, 3].astype(np.int64), 1)

    @cached_property
    def _rows_of(self) -> dict[int, npt.NDArray[np.int64]]:
        """Which of the class rows each class has: to look for them among all would take long where classes are many."""
        values = self.class_rows[1]
        order = np.argsort(values, kind="stable")
        known, first = np.unique(values[order], return_index=True)
        return dict(zip(known.tolist(), np.split(order, first)[1:], strict=True))

    @property
    def class_values(self) -> list[int]:
        """The classes that occur, other than the background."""
        return [value for value in self._rows_of if value]

    def classes_of(self, place: int) -> list[int]:
        """The classes that a volume has, other than the background; those of maps with very many classes are not known."""
        places, values, voxels = self.class_rows  # sorted by place
        rows = slice(*np.searchsorted(places, [place, place + 1]).tolist())
        return [int(value) for value in values[rows][(values[rows] != 0) & (voxels[rows] > 0)]]

    @cached_property
    def indexed(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the classes of a volume were counted at ingest; those of maps with very many classes were not."""
        known: npt.NDArray[np.bool_] = self.nonzero == 0
        known[self.class_rows[0]] = True
        return known

    def class_voxels(self, value: int) -> Floats:
        """(n,) voxels of a class, the mean of the time points; 0 where a volume has none of it, NaN where nobody counted."""
        places, _, voxels = self.class_rows
        rows = self._rows_of.get(value, _NO_ROWS)
        result = np.where(self.indexed, 0.0, np.nan)
        result[places[rows]] = voxels[rows]
        return result / self.time_points

    def class_sum(self, value: int) -> float:
        """Voxels of a class in all volumes and time points."""
        return float(self.class_rows[2][self._rows_of.get(value, _NO_ROWS)].sum())

    def class_ml(self, value: int) -> Floats:
        """(n,) as :meth:`class_voxels`, in ml."""
        return self.class_voxels(value) * self.voxel_ml


def read_facts(snapshot: Snapshot) -> dict[str, CollectionFacts]:
    """The facts of all collections, by name.

    Raises:
        ReadError: A table of the store is damaged or out of reach.
    """
    return {name: _read(snapshot, name) for name in snapshot.collections}


def _read(snapshot: Snapshot, name: str) -> CollectionFacts:
    index = snapshot.index(name)
    numbers = ["spacing_x", "spacing_y", "spacing_z", "stat_min", "stat_max", "stat_mean", "stat_std"]
    columns = snapshot.details(name, [*numbers, "nonfinite", "nonzero", "content_hash"])
    x, y, z, low, high, mean, std = (columns[number].astype(np.float64) for number in numbers)
    geometry = snapshot.optional_detail(name, "geometry").tolist()
    # Parsed once for each text: a thousand regular volumes share a few.
    parsed = {text: Verdict.from_json(text) for text in set(geometry) if text is not None}
    is_label = snapshot.collection(name).kind == "label"
    return CollectionFacts(
        index=index,
        dtypes=index.columns(np.arange(len(index)))["dtype"].astype(object),
        spacings=np.stack([x, y, z], axis=1),
        low=low,
        high=high,
        mean=mean,
        std=std,
        nonfinite=columns["nonfinite"].astype(np.int64),
        nonzero=columns["nonzero"].astype(np.int64),
        content=columns["content_hash"],
        verdicts=[None if text is None else parsed[text] for text in geometry],
        modality=snapshot.optional_detail(name, "Modality"),
        **({"class_rows": class_voxels(snapshot.store, index)} if is_label else {}),
    )


def class_names(facts: CollectionFacts) -> dict[int, str]:
    """A name for each class that occurs or was named: the given one and its number, or the number alone."""
    single = {values[0]: name for name, values in facts.info.classes.items() if len(values) == 1}
    every = sorted({*facts.class_values, *(value for value in single if value)})
    return {value: f"{value} ({single[value]})" if value in single else str(value) for value in every}


def region_ml(facts: CollectionFacts) -> list[tuple[str, tuple[int, ...], Floats]]:
    """Of each named region of several classes its classes with its name, such as ``"1+2 (whole)"``, the classes, and (n,) its volume in
    ml."""
    return [
        (
            f"{'+'.join(map(str, values))} ({name})",
            values,
            np.sum([facts.class_ml(value) for value in values if value], axis=0),
        )
        for name, values in facts.info.classes.items()
        if len(values) > 1
    ]


def duplicates(cohort: dict[str, CollectionFacts]) -> list[list[tuple[str, int]]]:
    """Groups of volumes (collection, place) that hold the same voxels on the same grid. Empty labels are alike and are not counted."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, facts in cohort.items():
        for place, content in enumerate(facts.content.tolist()):
            if content and (facts.kind == "image" or facts.nonzero[place]):
                found.setdefault(content, []).append((name, place))
    return [group for group in found.values() if len(group) > 1]


def without_volume(snapshot: Snapshot) -> dict[str, list[str]]:
    """Subjects that have no volume in a collection, by collection."""
    return {
        name: sorted(set(snapshot.subject_ids) - set(map(str, snapshot.index(name).subject_ids)))
        for name in snapshot.collections
    }


def missing(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(n,) which values of a column are missing: None, NaN, NaT or an empty text."""
    if values.dtype == object:
        return np.array([value is None or value == "" or value != value for value in values.tolist()], np.bool_)
    result: npt.NDArray[np.bool_] = values != values  # only NaN and NaT differ from themselves
    return result
