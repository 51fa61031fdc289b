"""Names of BIDS (https://bids-specification.readthedocs.io, version 1.9): entities, suffixes, and the folder of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from radioloader.errors import ConfigError
from radioloader.exporting.names import mark

__all__ = ["FileName", "Person", "image_name", "label_name", "person_of"]

_SUFFIXES = {
    "anat": (
        "T1w T2w FLAIR PD PDw PDT2 T2star T2starw FLASH angio inplaneT1 inplaneT2 MESE MEGRE VFA IRT1 MP2RAGE MPM MTS MTR UNIT1 T1map "
        "T2map T2starmap R1map R2map R2starmap PDmap MTRmap MTsat S0map M0map Chimap defacemask"
    ),
    "func": "bold cbv phase",
    "dwi": "dwi",
    "pet": "pet",
    "perf": "asl m0scan",
}
_DATATYPE = {suffix: datatype for datatype, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_AFTER_RUN = (
    *("mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split"),
    *("recording", "chunk", "atlas", "seg", "res", "den", "label", "desc"),
)
_NAME = re.compile(r"((?:[a-z]+-[A-Za-z0-9]+_)*)([A-Za-z0-9]+)")
_PERSON = re.compile(r"sub-([A-Za-z0-9]+)(?:_ses-([A-Za-z0-9]+))?")
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class FileName:
    """A name after ``sub-<label>[_ses-<label>]_``.

    Attributes:
        entities: Values by entity, in the order of the name.
        suffix: What kind of data it is.
        datatype: The folder.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    datatype: str

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{value}" for key, value in self.entities), self.suffix])

    def entity(self, key: str) -> str | None:
        """The value of an entity."""
        return dict(self.entities).get(key)

    def with_run(self, run: int) -> FileName:
        """The name of one of several volumes.

        Raises:
            ConfigError: It has a run already.
        """
        if self.entity("run") is not None:
            raise ConfigError(f"{self} names a run, and a subject has several volumes of it; export them as nifti")
        before = [pair for pair in self.entities if pair[0] not in _AFTER_RUN]
        after = [pair for pair in self.entities if pair[0] in _AFTER_RUN]
        return replace(self, entities=(*before, ("run", str(run)), *after))


@dataclass(frozen=True, slots=True)
class Person:
    """A subject in BIDS.

    Attributes:
        label: After ``sub-``.
        session: After ``ses-``; empty without.
    """

    label: str
    session: str = ""

    @property
    def participant(self) -> str:
        """``sub-<label>``."""
        return f"sub-{self.label}"

    @property
    def id(self) -> str:
        """``sub-<label>[_ses-<label>]``, the subject's id after an ingest."""
        return f"{self.participant}_ses-{self.session}" if self.session else self.participant

    @property
    def folder(self) -> str:
        """``sub-<label>[/ses-<label>]``."""
        return f"{self.participant}/ses-{self.session}" if self.session else self.participant


def _parse(name: str) -> tuple[tuple[tuple[str, str], ...], str] | None:
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    pairs = [part.split("-") for part in found.group(1).split("_") if part]
    entities = tuple((key, value) for key, value in pairs)
    keys = [key for key, _ in entities]
    if len(set(keys)) < len(keys) or {"sub", "ses"} & set(keys):
        return None
    return entities, found.group(2)


def image_name(collection: str, name: str) -> FileName:
    """The name of an image collection's files.

    Args:
        collection: The collection, for messages.
        name: What it is to be called: entities and a suffix.

    Raises:
        ConfigError: It is no name of BIDS.
    """
    parsed = _parse(name)
    if parsed is not None:
        entities, suffix = parsed
        keys = {key for key, _ in entities}
        datatype = _DATATYPE.get(suffix)
        if suffix == "sbref":
            datatype = "func" if "task" in keys else "dwi"
        if datatype == "func" and "task" not in keys:
            raise ConfigError(
                f"image collection {collection!r}: in BIDS, {suffix} has a task; name it, such as --name {collection}=task-rest_{name} "
                "(names={...})"
            )
        if datatype is not None:
            return FileName(entities, suffix, datatype)
    raise ConfigError(
        f"image collection {collection!r}: {name!r} is no name of BIDS, which is entities and a suffix such as T1w, acq-highres_T2w or "
        f"task-rest_bold; give it one, such as --name {collection}=T1w (names={{{collection!r}: 'T1w'}}). Suffixes: {', '.join(_DATATYPE)}"
    )


def label_name(name: str) -> FileName:
    """The name of a label collection's files: as it is where it ends in ``dseg`` or ``mask``, and else ``desc-<name>_dseg``."""
    parsed = _parse(name)
    if parsed is not None and parsed[1] in ("dseg", "mask"):
        entities, suffix = parsed
    else:
        label = _letters(name) or f"x{mark(name)[1:]}"
        entities, suffix = (("desc", label),), "dseg"
    return FileName(entities, suffix, "func" if "task" in dict(entities) else "anat")


def person_of(subject: str) -> Person:
    """The subject in BIDS: as its id says, ``sub-01`` or ``sub-01_ses-1``, and else of the letters and digits of the id."""
    found = _PERSON.fullmatch(subject)
    if found is not None and len(subject) <= 2 * _LONGEST:
        return Person(found.group(1), found.group(2) or "")
    label = _letters(subject.removeprefix("sub-")) or f"x{mark(subject)[1:]}"
    if len(label) > _LONGEST:
        label = label[: _LONGEST - 8] + mark(subject)[1:]
    return Person(label)


def _letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)
