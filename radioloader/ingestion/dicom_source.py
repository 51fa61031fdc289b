"""What a user says of DICOM files that are to become collections."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from radioloader.errors import ConfigError
from radioloader.formats.dicom.rasterize import PlaneRule
from radioloader.formats.dicom.volumes import Policy
from radioloader.ingestion.dicom_subject import SubjectRule
from radioloader.ingestion.identity import Pseudonyms
from radioloader.ingestion.scan import ScanItem

__all__ = ["DicomOptions", "DicomSource"]

_MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "PET": "PT"}

Root = str | os.PathLike[str]


@dataclass(frozen=True)
class DicomSource:
    """DICOM files as the source of a collection, for :func:`radioloader.ingest`.

    An image collection takes the volumes of image series; a label collection takes segmentations (SEG) and structure sets (RTSTRUCT), on
    the grid of the image that they refer to, which must be among the files of this or another collection.

    Attributes:
        root: Folder, file, or a list of them.
        modality: Modality or modalities, such as ``"MR"``; of an image collection, None takes the one that it is named after (``CT``,
            ``MR``, ``MRI``, ``PT`` or ``PET``), else all.
        description: Pattern or patterns (``*``, ``?``; upper and lower case are alike) of SeriesDescription.
        select: Is shown each :class:`~radioloader.ScanItem`; says whether it is taken.
        structures: Of labels: class by pattern of the structure's name, such as ``{"GTV*": 1, "Lung_?": 2}``. None: a single structure is
            class 1, and several segments of a SEG keep their numbers.
        on_overlap: Of labels with voxels in two classes: ``"error"``, or ``"separate"``: a collection of its own for each class.
        planes: Of structure sets: ``"on_slices"``: each contour must lie on a slice of the image. ``"nearest"``: each slice takes the
            nearest contours, of structures that were drawn on another slice distance.
    """

    root: Root | Sequence[Root]
    _: KW_ONLY
    modality: str | Sequence[str] | None = None
    description: str | Sequence[str] | None = None
    select: Callable[[ScanItem], bool] | None = None
    structures: Mapping[str, int] | None = None
    on_overlap: str = "error"
    planes: PlaneRule = "on_slices"

    @property
    def roots(self) -> list[str]:
        """The folders and files, absolute."""
        found = [self.root] if isinstance(self.root, str | os.PathLike) else list(self.root)
        return [os.path.abspath(os.path.expanduser(os.fspath(one))) for one in found]

    def check(self, name: str) -> DicomSource:
        """This, when its values are allowed.

        Args:
            name: The collection, for messages.

        Raises:
            ConfigError: One is not.
        """
        if self.on_overlap not in ("error", "separate"):
            raise ConfigError(f"collection {name!r}: on_overlap={self.on_overlap!r} is not 'error' or 'separate'")
        if self.planes not in ("on_slices", "nearest"):
            raise ConfigError(f"collection {name!r}: planes={self.planes!r} is not 'on_slices' or 'nearest'")
        if self.select is not None and not callable(self.select):
            raise ConfigError(f"collection {name!r}: select={self.select!r} is not a function")
        if self.on_overlap == "separate" and not self.structures:
            raise ConfigError(
                f"collection {name!r}: on_overlap='separate' makes a collection for each class, so say what the classes are: "
                "structures={'GTV*': 1, 'Lung*': 2} (--structure)"
            )
        for pattern, value in (self.structures or {}).items():
            if (
                not isinstance(pattern, str)
                or isinstance(value, bool)
                or not isinstance(value, int)
                or not 0 < value < 2**16
            ):
                raise ConfigError(
                    f"collection {name!r}: structures maps {pattern!r} to {value!r}; expected a pattern and a class from 1 to 65535"
                )
        if not self.roots:
            raise ConfigError(f"collection {name!r}: the list of DICOM folders is empty")
        return self

    def modalities(self, collection: str) -> set[str]:
        """The modalities that are taken; empty: all."""
        if self.modality is None:
            known = _MODALITIES.get(collection.upper())
            return {known} if known else set()
        given = [self.modality] if isinstance(self.modality, str) else self.modality
        return {_MODALITIES.get(one.upper(), one.upper()) for one in given}

    @property
    def by_hand(self) -> bool:
        """Whether the user chose among the volumes."""
        return self.modality is not None or self.description is not None or self.select is not None

    def takes(self, item: ScanItem) -> bool:
        """Whether description and select take an item."""
        if self.description is not None:
            patterns = [self.description] if isinstance(self.description, str) else self.description
            text = item.description.lower()
            if not any(fnmatch.fnmatchcase(text, pattern.lower()) for pattern in patterns):
                return False
        return self.select is None or bool(self.select(item))


@dataclass(frozen=True)
class DicomOptions:
    """What holds for all DICOM sources of an ingest.

    Attributes:
        policy: For tilted and irregular stacks, and PET.
        rule: For subject ids.
        keep_tags: Attributes to keep besides the technical ones.
    """

    policy: Policy = field(default_factory=Policy)
    rule: SubjectRule = field(default_factory=lambda: SubjectRule("study"))
    keep_tags: tuple[str, ...] = ()

    @property
    def pseudonyms(self) -> Pseudonyms:
        """For UIDs."""
        return self.rule.pseudonyms
