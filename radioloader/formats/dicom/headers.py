"""The header of one DICOM file, read up to its pixels."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Hashable, Iterable
from typing import Any, BinaryIO

from radioloader._optional import require
from radioloader.errors import FormatError
from radioloader.formats.dicom._quiet import quiet
from radioloader.formats.dicom.codestream import check_codestreams
from radioloader.formats.dicom.enhanced import enhanced_frames
from radioloader.formats.dicom.frames import Frame, Ignored, Instance, Pixels, SeriesFacts
from radioloader.formats.dicom.meaning import indexes, kinds
from radioloader.formats.dicom.mosaic import is_mosaic, mosaic_frames
from radioloader.formats.dicom.references import references
from radioloader.formats.dicom.tags import TECHNICAL, technical_values
from radioloader.formats.dicom.values import depth_of, has_rescale, integer, number, text, vector
from radioloader.formats.dicom.view import HeaderView

__all__ = ["open_dataset", "read_instance", "read_instances"]

_SEG = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_NATIVE = {_IMPLICIT, _EXPLICIT, _BIG_ENDIAN, _DEFLATED}

_Known = dict[tuple[Hashable, ...], SeriesFacts]

_IDENTITY = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesNumber", "SeriesDescription")

VOLUMES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.128": "PET",
    "1.2.840.10008.5.1.4.1.1.130": "Enhanced PET",
    "1.2.840.10008.5.1.4.1.1.128.1": "Legacy Converted Enhanced PET",
}
"""Storage classes (PS3.4 B.5) whose frames have a place in the patient. Others are looked at as well when they give one."""

_UNDEFINED = b"\xff\xff\xff\xff"
_NAMED = (".dcm", ".dicom", ".ima")
"""Suffixes of DICOM files, besides none at all."""

_MEMORY_LIMIT = 2**31
_INFLATION = 100
"""A deflated file of more than _MEMORY_LIMIT bytes when inflated is not read (the whole of it has to be inflated before its header can be
read), nor one of more than four times _FREE_BYTES that grows more than _INFLATION-fold: pictures do not."""

_FREE_BYTES = 64 * 2**20
_PADDING = 1024
"""Bytes that may follow the last pixel; an eighth of the pixels where that is less."""
_RATIO = 1000
"""A frame or a file that decodes to more than _FREE_BYTES must have a _RATIO-th of that in the file. (A black slice of 512x512 in JPEG 2000
takes some 100 bytes, a 5,000th: small ones are free.)"""


def read_instances(paths: Iterable[str], keep_tags: Iterable[str] = ()) -> list[Instance | Ignored]:
    """:func:`read_instance` of each file."""
    with quiet(lenient=True):
        known: _Known = {}
        return [read_instance(path, keep_tags, known) for path in paths]


def read_instance(path: str, keep_tags: Iterable[str] = (), known: _Known | None = None) -> Instance | Ignored:
    """What a file is. Never raises for what is in a file: a folder holds anything.

    Args:
        path: The file.
        keep_tags: Attributes to keep besides the technical ones.
        known: Series whose facts are known already; that of this file is added.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Ignored(path, "no regular file")
        with open(path, "rb") as stream:
            start = stream.read(132)
            if start[128:] != b"DICM" and not _without_preamble(start):
                return _no_dicom(path, start)
            return _read(path, stream, keep_tags, {} if known is None else known, marked=start[128:] == b"DICM")
    except OSError as error:
        return Ignored(path, f"cannot be read: {error.strerror or error}", broken=True)
    except MemoryError:
        return Ignored(path, "its header does not fit into memory", broken=True)
    except Exception as error:  # what pydicom raises for damage is not documented
        return Ignored(path, f"broken DICOM: {type(error).__name__}: {_short(error)}", broken=True)


def _no_dicom(path: str, start: bytes) -> Ignored:
    """A file that is no DICOM. One that is empty, cut off in its preamble, or of zeros where the mark should be is a copy that failed: it
    could be a slice that nobody would miss at the end of a stack."""
    suffix = os.path.splitext(path)[1].lower()
    named = suffix in _NAMED or suffix[1:].isdigit()  # the end of a UID
    if (named and len(start) < 132) or ((named or not suffix) and start and not any(start)):
        return Ignored(path, "broken: cut off, or nothing but zeros" if start else "broken: an empty file", broken=True)
    return Ignored(path, "not DICOM" if start else "empty file")


def _short(error: Exception) -> str:
    # Damaged files put their bytes into messages of pydicom, and these bytes may be names.
    return "it cannot be parsed" if not isinstance(error, FormatError) else str(error)


def _without_preamble(start: bytes) -> bool:
    """Whether this may be DICOM without the 128 bytes and the prefix (old archives): the first element is of group 2 or 8."""
    group, element = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    return len(start) == 132 and group in (2, 8) and element <= 0x18 and (start[4:6].isalpha() or start[6:8] == b"\0\0")


def open_dataset(path: str, stream: BinaryIO, *, stop_before_pixels: bool = True) -> Any:
    """The dataset of an open file; a deflated one only when it inflates to a size that can be held.

    Raises:
        FormatError: It would not fit.
    """
    pydicom = require("pydicom", extra="dicom")
    stream.seek(0)
    start = stream.read(1024)
    if _DEFLATED.encode() in start:
        _check_inflated(stream, os.path.getsize(path))
    stream.seek(0)
    return pydicom.dcmread(stream, stop_before_pixels=stop_before_pixels, force=True)


def _check_inflated(stream: BinaryIO, stored: int) -> None:
    if stored * 1032 < 4 * _FREE_BYTES:  # more than 1032-fold deflate cannot do
        return
    pydicom = require("pydicom", extra="dicom")
    stream.seek(0)
    pydicom.filereader.read_preamble(stream, force=True)
    pydicom.filereader._read_file_meta_info(stream)
    engine, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := stream.read(2**20):
        while block:
            size += len(engine.decompress(block, 2**24))
            block = engine.unconsumed_tail
            if size > min(_MEMORY_LIMIT, max(4 * _FREE_BYTES, _INFLATION * stored)):
                raise FormatError(
                    f"deflated: {stored} bytes grow to more than {size // 2**20} MiB when inflated; store it uncompressed"
                )


def _read(path: str, stream: BinaryIO, keep_tags: Iterable[str], known: _Known, *, marked: bool) -> Instance | Ignored:
    dataset = HeaderView(open_dataset(path, stream))
    sop_class = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    if sop_class == _DICOMDIR:
        return Ignored(path, "DICOMDIR")
    series = text(dataset, "SeriesInstanceUID")
    if not sop_class or not series:
        if not marked:
            return Ignored(path, "not DICOM")
        missing = "SOPClassUID" if not sop_class else "SeriesInstanceUID"
        return Ignored(path, f"broken DICOM: it has no {missing}", broken=True)
    # Converting what is the same in the next slice took a fifth of the time of a scan.
    key = (series, *(dataset.raw(keyword) for keyword in (*_IDENTITY, *TECHNICAL, *keep_tags)))
    if key not in known:
        known[key] = SeriesFacts(
            patient=(text(dataset, "PatientID"), text(dataset, "IssuerOfPatientID")),
            study=text(dataset, "StudyInstanceUID"),
            series=series,
            modality=text(dataset, "Modality"),
            number=integer(dataset, "SeriesNumber"),
            description=text(dataset, "SeriesDescription"),
            tags=technical_values(dataset, keep_tags),
        )
    facts = known[key]
    sop = text(dataset, "SOPInstanceUID")
    status = os.fstat(stream.fileno())
    size, modified = status.st_size, status.st_mtime_ns
    if sop_class in _SEG or sop_class == _RTSTRUCT:
        what = "seg" if sop_class in _SEG else "rtstruct"
        return Instance(path, facts, what, sop, sop_class, size, modified=modified, **references(dataset, what))
    if sop_class not in VOLUMES and not (text(dataset, "Rows") and _has_place(dataset)):
        return Ignored(path, _class_name(sop_class, facts.modality))
    if sop_class.startswith("1.2.840.10008.5.1.4.1.1.481."):
        return Ignored(path, _class_name(sop_class, facts.modality))
    problem, frames = "", list[Frame]()
    try:
        frames = _frames(path, dataset, sop, _syntax(dataset, stream))
        _check_pixels(stream, dataset, size, frames)
    except FormatError as error:
        problem, frames = str(error), []
    return Instance(path, facts, "image", sop, sop_class, size, tuple(frames), problem, modified=modified)


def _has_place(dataset: Any) -> bool:
    return any(
        keyword in dataset
        for keyword in (
            "ImagePositionPatient",
            "PerFrameFunctionalGroupsSequence",
            "SharedFunctionalGroupsSequence",
        )
    )


def _class_name(uid: str, modality: str) -> str:
    name = require("pydicom.uid", extra="dicom").UID(uid).name
    return f"no volume ({name if name != uid else modality or uid})"


def _frames(path: str, dataset: Any, sop: str, syntax: str) -> list[Frame]:
    if not sop:
        raise FormatError("it has no SOPInstanceUID")
    pixels = _pixels(dataset, syntax)
    if "PerFrameFunctionalGroupsSequence" in dataset or (
        "SharedFunctionalGroupsSequence" in dataset and "ImagePositionPatient" not in dataset
    ):
        return enhanced_frames(path, dataset, sop, pixels)
    if is_mosaic(dataset):
        return mosaic_frames(path, dataset, sop, pixels)
    count = integer(dataset, "NumberOfFrames") or 1
    if count > 1:
        raise FormatError(
            f"it has {count} frames, but does not say where each of them lies (no PerFrameFunctionalGroupsSequence)"
        )
    frame = Frame(
        path=path,
        number=0,
        sop=sop,
        position=vector(dataset, "ImagePositionPatient", 3),
        orientation=vector(dataset, "ImageOrientationPatient", 6),
        spacing=vector(dataset, "PixelSpacing", 2),
        pixels=pixels,
        slope=number(dataset, "RescaleSlope", 1.0),
        intercept=number(dataset, "RescaleIntercept", 0.0),
        instance=integer(dataset, "InstanceNumber"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        thickness=depth_of(dataset),
        kind=kinds(dataset),
        index=indexes(dataset),
        rescaled=has_rescale(dataset),
    )
    return [frame]


def _pixels(dataset: Any, syntax: str) -> Pixels:
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if not rows or not columns:
        raise FormatError("it has no Rows and Columns: no picture")
    samples = integer(dataset, "SamplesPerPixel") or 1
    photometric = text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise FormatError(f"its pixels are colours ({photometric}); only grey values make volumes")
    if "ModalityLUTSequence" in dataset:
        raise FormatError("its values are given by a table (ModalityLUTSequence), which is not supported")
    allocated = integer(dataset, "BitsAllocated")
    if allocated not in (8, 16, 32, 64):
        raise FormatError(f"BitsAllocated is {allocated}; expected 8, 16, 32 or 64")
    # Float and Double Float Pixel Data (PS3.3 C.7.6.24) have no BitsStored and no PixelRepresentation.
    plain = allocated in (8, 16) or "PixelRepresentation" in dataset
    stored = integer(dataset, "BitsStored") or allocated
    high = integer(dataset, "HighBit")
    high = stored - 1 if high is None else high
    if not stored <= high + 1 <= allocated:
        raise FormatError(f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict each other")
    return Pixels(
        rows=rows,
        columns=columns,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        high_bit=high,
        signed=integer(dataset, "PixelRepresentation") == 1,
        floating="" if plain else f"float{allocated}",
        syntax=syntax,
    )


def _syntax(dataset: Any, stream: BinaryIO) -> str:
    """TransferSyntaxUID; of old files without one, and of files that are in another native one than they say (archives decompress pixels
    and leave it as it was), what they are in.

    Args:
        dataset: The header.
        stream: Its file, at its pixels; stays there.
    """
    said = text(dataset.file_meta, "TransferSyntaxUID")
    if said == _DEFLATED:
        return said
    position = stream.tell()
    head = stream.read(12)
    stream.seek(position)
    if len(head) < 12:
        return said or _IMPLICIT
    if said and said not in _NATIVE:
        plain = head[4:6] in (b"OB", b"OW") and head[8:] not in (_UNDEFINED, bytes(4))
        return _EXPLICIT if plain else said
    if head[:2] == b"\x7f\xe0":
        return _BIG_ENDIAN
    return _EXPLICIT if head[4:6].isalpha() else _IMPLICIT


def _check_pixels(stream: BinaryIO, dataset: Any, size: int, frames: list[Frame]) -> None:
    """That the file can hold what its header promises, before anything is allocated for it."""
    pixels = frames[0].pixels
    # Frames without a functional group of their own still take memory when their file is decoded.
    count = max(integer(dataset, "NumberOfFrames") or 1, len({frame.number for frame in frames}))
    frame_bytes = pixels.rows * pixels.columns * pixels.allocated // 8
    promised = count * frame_bytes
    what = f"{count} x {pixels.rows} x {pixels.columns} pixels of {pixels.allocated} bits"
    if pixels.syntax == _DEFLATED:
        available = size * 1032
    elif pixels.syntax in _NATIVE:
        available = size
        position = stream.tell()
        order = "big" if pixels.syntax == _BIG_ENDIAN else "little"
        head = stream.read(12)
        if len(head) < 8:
            raise FormatError(f"truncated: it ends before its pixels, {what} ({promised} bytes)")
        if head[:2] != (b"\x7f\xe0" if order == "big" else b"\xe0\x7f"):
            raise FormatError("it holds no pixels")
        explicit = pixels.syntax != _IMPLICIT
        start = position + (12 if explicit else 8)
        length = int.from_bytes(head[8:12] if explicit else head[4:8], order)  # type: ignore[arg-type]
        if length == int.from_bytes(_UNDEFINED, "little"):
            raise FormatError("its pixels are compressed, but it does not say how (TransferSyntaxUID)")
        # A pixel size that the header lies about must not pass; real files pad their pixels by a few bytes.
        if length > promised + max(1, min(_PADDING, promised // 8)):
            raise FormatError(f"its pixels take {length} bytes, more than the {promised} for {what}")
        if length < promised:
            raise FormatError(f"its pixels take {length} bytes, expected {promised} for {what}")
        available = size - start
        if available < promised:
            raise FormatError(f"truncated: {available} bytes of pixels are there, expected {promised} for {what}")
    else:
        position = stream.tell()
        if not stream.read(1):
            raise FormatError(f"truncated: it ends before its pixels, {what}")
        if promised > _FREE_BYTES and promised > _RATIO * size:
            raise FormatError(f"{size} bytes cannot hold {what} ({promised} bytes)")
        stream.seek(position)
        check_codestreams(stream, size, pixels.rows, pixels.columns)
        return
    if promised > available:
        raise FormatError(f"{size} bytes cannot hold {what} ({promised} bytes)")
