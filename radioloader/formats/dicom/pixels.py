"""The voxels of a volume: frames decoded one at a time, rescaled, each at its place."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from radioloader._optional import require
from radioloader.errors import FormatError
from radioloader.formats.dicom._quiet import quiet
from radioloader.formats.dicom.frames import LOSSY, Frame, Pixels
from radioloader.formats.dicom.geometry import lay_out
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.headers import open_dataset
from radioloader.formats.dicom.resample import resample_stack
from radioloader.formats.dicom.suv import suv_factor
from radioloader.formats.dicom.volumes import DicomVolume

__all__ = ["DicomVoxels", "check_unchanged", "hash_files", "read_volume", "source_grid"]

_IN_MEMORY = 64 * 2**20
_SLAB = 16
_DEFLATED = "1.2.840.10008.1.2.1.99"
_JPEG = {f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 57, 70)}
_ALIKE, _OFF = 0.98, 0.05
"""Of a copy that was compressed with loss: how well it must correlate, and how far off it may be, as a part of the range."""


@dataclass(frozen=True, slots=True)
class DicomVoxels:
    """The voxels of a volume as they are stored.

    Attributes:
        voxels: (X, Y, Z) or (X, Y, Z, T).
        slope: Multiplied to them.
        intercept: Added after that.
        source_hash: SHA-256 over the SHA-256 of the files.
        notes: What a user should know.
    """

    voxels: npt.NDArray[Any]
    slope: float
    intercept: float
    source_hash: str
    notes: tuple[str, ...] = ()


def read_volume(volume: DicomVolume, *, suv: str = "") -> DicomVoxels:
    """Read a volume whole; besides its voxels some slices are in memory.

    Values are what the modality means by them (PS3.3 C.11.1): stored value x slope + intercept. One rescale for all frames stays beside the
    stored integers, except where the result is a whole number that fits int16 (CT in Hounsfield units): then it is applied. A
    rescale that differs from slice to slice (PET) is applied in float32, bit for bit as ITK and dcm2niix do it.

    Args:
        volume: What to read.
        suv: ``"bw"``: PET as standardized uptake values.

    Raises:
        FormatError: A file is damaged, gone, or its encoding is not supported; the message names it.
    """
    grid, _ = volume.laid_out
    factor = suv_factor(volume) if suv else 1.0
    pairs = {(frame.slope * factor, frame.intercept * factor) for places in volume.slices for frame in places}
    if any(slope == 0 for slope, _ in pairs):
        raise FormatError(f"{volume.describe()}: RescaleSlope is 0: the values are lost")
    per_slice = len(pairs) > 1
    # Software that edits some slices may leave them signed and the rest unsigned.
    kinds = {_dtype(frame.pixels) for places in volume.slices for frame in places}
    dtype = np.dtype(np.float32) if per_slice else np.result_type(*kinds)
    voxels = np.empty(_source_shape(volume), dtype)
    hashes: dict[str, str] = {}
    fourth = voxels.ndim == 4
    with quiet(lenient=True):
        times = range(len(volume.slices[0]))
        # One run over all frames: a file of many frames is opened once.
        decoded = _decode([places[t] for t in times for places in volume.slices], hashes, volume.stamps)
        for t in times:
            target = voxels[..., t] if fourth else voxels
            frames = [places[t] for places in volume.slices]
            for start in range(0, len(frames), _SLAB):
                slab = frames[start : start + _SLAB]
                planes = np.empty((len(slab), target.shape[1], target.shape[0]), dtype)
                for place, frame in enumerate(slab):
                    plane = next(decoded)
                    if per_slice:
                        plane = plane.astype(np.float32) * np.float32(frame.slope * factor)
                        plane += np.float32(frame.intercept * factor)
                    planes[place] = plane
                # Row by row: a transposed copy of the whole would touch another cache line for each voxel.
                for row in range(target.shape[1]):
                    target[:, row, start : start + len(slab)] = planes[:, row].T
        _check_copies(volume, hashes)
    slope, intercept = (1.0, 0.0) if per_slice else pairs.pop()
    if per_slice:
        whole = all(float(value).is_integer() for pair in pairs for value in pair)
        if whole and "f" not in {kind.kind for kind in kinds} and _fits(voxels.min(), voxels.max()):
            voxels = voxels.astype(np.int16)
    elif (slope, intercept) != (1.0, 0.0) or volume.facts.modality == "CT":
        voxels, slope, intercept = _whole_numbers(voxels, slope, intercept)
    if volume.resample:
        voxels = resample_stack(voxels, source_grid(volume), grid, _fill(voxels, slope))
    return DicomVoxels(voxels, slope, intercept, _combined(hashes))


def _fill(voxels: npt.NDArray[Any], slope: float) -> float:
    """The stored value that means the lowest one."""
    return float(voxels.max() if slope < 0 else voxels.min())


def _source_shape(volume: DicomVolume) -> tuple[int, ...]:
    rows, columns = volume.slices[0][0].picture
    times = (len(volume.slices[0]),) if volume.dimension is not None else ()
    return (columns, rows, len(volume.slices), *times)


def source_grid(volume: DicomVolume) -> ImageGrid:
    """Where the frames of a volume lie, before it is resampled."""
    grid, _ = volume.laid_out
    if not volume.resample:
        return grid
    layout = lay_out([places[0] for places in volume.slices], np.inf)
    x, y, z = _source_shape(volume)[:3]
    slices = tuple(tuple((frame.sop, frame.number) for frame in places) for places in volume.slices)
    return replace(grid, shape=(x, y, z), affine=layout.affine, origins=layout.origins, slices=slices)


def _dtype(pixels: Pixels) -> np.dtype[Any]:
    return np.dtype(pixels.floating or f"{'int' if pixels.signed else 'uint'}{pixels.allocated}")


def _whole_numbers(voxels: npt.NDArray[Any], slope: float, intercept: float) -> tuple[npt.NDArray[Any], float, float]:
    """Voxels with slope and intercept applied, where that gives whole numbers of 16 bits; else as they are."""
    as_they_are = voxels, slope, intercept
    if voxels.dtype.kind not in "iu":
        return as_they_are
    if not (float(slope).is_integer() and float(intercept).is_integer() and max(abs(slope), abs(intercept)) < 2**15):
        return as_they_are
    whole, added = int(slope), int(intercept)
    if not _fits(*(int(end) * whole + added for end in (voxels.min(), voxels.max()))):
        return as_they_are
    # Wrapping around in 16 bits is right where the result fits, and needs no second copy.
    values = voxels.view(np.int16) if voxels.dtype.itemsize == 2 else voxels.astype(np.int16)
    if whole != 1:
        values *= np.int16(whole)
    if added:
        values += np.int16(added)
    return values, 1.0, 0.0


def _fits(*values: float) -> bool:
    return min(values) >= -(2**15) and max(values) < 2**15


def check_unchanged(path: str, file: IO[bytes], stamp: tuple[int, int] | None) -> None:
    """That a file is still the one whose header was read: its geometry and its patient are those of that header.

    Args:
        path: For the message.
        file: It, open.
        stamp: Size in bytes and time of the last change in ns; None: unknown.

    Raises:
        FormatError: It was changed.
    """
    status = os.fstat(file.fileno())
    if stamp is not None and stamp != (status.st_size, status.st_mtime_ns):
        raise FormatError(f"{path}: it was changed after its header had been read; run the same command again")


def _decode(
    frames: Sequence[Frame], hashes: dict[str, str], stamps: Mapping[str, tuple[int, int]]
) -> Iterator[npt.NDArray[Any]]:
    """Each frame's pixels (rows, columns), stored values; the hash of each file goes into ``hashes``."""
    for path, group in groupby(frames, key=lambda frame: frame.path):
        mine = list(group)
        try:
            stream: BinaryIO
            with open(path, "rb") as file:
                check_unchanged(path, file, stamps.get(path))
                stream = file
                size = file.seek(0, 2)
                file.seek(0)
                if size <= _IN_MEMORY:
                    data = file.read()
                    hashes[path] = hashlib.sha256(data).hexdigest()
                    stream = io.BytesIO(data)
                elif path not in hashes:
                    hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
                yield from _decoded(path, stream, mine)
        except OSError as error:
            raise FormatError(f"{path}: could not be read: {error.strerror or error}") from error


def _decoded(path: str, stream: BinaryIO, frames: Sequence[Frame]) -> Iterator[npt.NDArray[Any]]:
    iter_pixels = require("pydicom.pixels", extra="dicom").iter_pixels
    wanted: dict[int, list[Frame]] = {}
    for frame in frames:
        wanted.setdefault(frame.number, []).append(frame)
    numbers = list(wanted)
    pixels = frames[0].pixels
    decoded = iter(())
    try:
        source: Any = stream
        stream.seek(0)
        # Old files do not say what they are in.
        options: dict[str, Any] = {"transfer_syntax_uid": pixels.syntax}
        if pixels.syntax == _DEFLATED:  # which iter_pixels does not inflate
            source, options = open_dataset(path, stream, stop_before_pixels=False), {}
        options |= {"indices": numbers, "raw": True, "correct_unused_bits": False}
        decoded = iter_pixels(source, **options)
        for number in numbers:
            try:
                array = next(decoded)
            except ValueError:
                if pixels.syntax not in _JPEG or pixels.stored > 8 or number != numbers[0]:
                    raise
                # Pictures of 8 bits of which the header says that they take 16
                decoded = iter_pixels(source, bits_allocated=8, **options)
                array = next(decoded)
            whole = _used_bits(path, np.asarray(array), pixels)
            for frame in wanted[number]:
                yield _tile(whole, frame)
    except FormatError:
        raise
    except (GeneratorExit, MemoryError, OSError):
        raise
    except BaseException as error:  # decoders raise anything; those in Rust panic, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        name = require("pydicom.uid", extra="dicom").UID(pixels.syntax).name
        reason = "there are fewer frames than promised" if isinstance(error, StopIteration) else f"{error}"
        # One line for each decoder that was tried
        reason = "; ".join(line.strip() for line in reason.splitlines()).replace(":;", ":") or repr(error)
        raise FormatError(f"{path}: its pixels ({name}) could not be decoded: {reason}") from error


def _tile(array: npt.NDArray[Any], frame: Frame) -> npt.NDArray[Any]:
    if array.shape != (frame.pixels.rows, frame.pixels.columns):
        raise FormatError(
            f"{frame.path}: its pixels decode to {array.shape}, expected {(frame.pixels.rows, frame.pixels.columns)}"
        )
    tile = frame.tile
    if tile is None:
        return array
    return array[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns]


def _used_bits(path: str, array: npt.NDArray[Any], pixels: Pixels) -> npt.NDArray[Any]:
    """Stored values from what lies in the file: bits above HighBit and below the lowest one are anybody's (PS3.5 8.1.1: overlays, junk)."""
    bits = array.dtype.itemsize * 8
    if bits < pixels.allocated and pixels.stored <= bits and pixels.high_bit == pixels.stored - 1:
        # A picture of fewer bits than its header reserves, which holds all that are used
        wide = np.dtype(f"{array.dtype.kind}{pixels.allocated // 8}")
        array, bits = array.astype(wide), pixels.allocated
    if bits != pixels.allocated or (array.dtype.kind == "f") != bool(pixels.floating):
        raise FormatError(f"{path}: its pixels decode to {array.dtype}, expected {pixels.allocated} bits")
    if pixels.floating:
        return array
    allocated = array.dtype.itemsize * 8
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    values = array.view(np.dtype(f"{'i' if pixels.signed else 'u'}{array.dtype.itemsize}"))
    if pixels.stored == allocated:
        return values
    return (values << (allocated - 1 - pixels.high_bit)) >> (allocated - pixels.stored)


def _check_copies(volume: DicomVolume, hashes: dict[str, str]) -> None:
    """Copies of an instance must hold the same pixels (much the same where one is compressed with loss): else which is right is unknown.

    Raises:
        FormatError: They do not.
    """
    pairs: dict[tuple[str, str], list[tuple[Frame, Frame]]] = {}
    for frame, copy in volume.copies:
        pairs.setdefault((frame.path, copy.path), []).append((frame, copy))
    for (path, other), frames in pairs.items():
        theirs: dict[str, str] = {}
        decoded = zip(
            _decode([frame for frame, _ in frames], {}, {}),
            _decode([copy for _, copy in frames], theirs, {}),
            strict=True,
        )
        lossy = bool({one.pixels.syntax for pair in frames for one in pair} & LOSSY)
        for mine, copied in decoded:
            if theirs[other] == hashes[path]:
                break  # the same file
            if not (_much_the_same(mine, copied) if lossy else np.array_equal(mine, copied)):
                raise FormatError(
                    f"{path} and {other} have the same SOPInstanceUID and different pixels; remove the wrong one"
                )


def _much_the_same(mine: npt.NDArray[Any], copied: npt.NDArray[Any]) -> bool:
    a, b = mine.astype(np.float64).ravel(), copied.astype(np.float64).ravel()
    if a.shape != b.shape:
        return False
    far = float(np.sqrt(np.mean((a - b) ** 2)))
    if far > max(_OFF * float(np.ptp(a)), 1.0):
        return False
    spread = float(a.std() * b.std())
    # Where there is next to nothing in a picture, its noise need not correlate.
    return far <= 1.0 or (spread > 0 and float(np.mean((a - a.mean()) * (b - b.mean()))) >= _ALIKE * spread)


def _combined(hashes: dict[str, str]) -> str:
    # Whatever the files are called and wherever they lie
    return hashlib.sha256("".join(sorted(hashes.values())).encode()).hexdigest()


def hash_files(volume: DicomVolume) -> str:
    """The ``source_hash`` that :func:`read_volume` gives, without decoding.

    Raises:
        FormatError: A file cannot be read.
    """
    hashes = {}
    for path in {frame.path for places in volume.slices for frame in places}:
        try:
            with open(path, "rb") as stream:
                hashes[path] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise FormatError(f"{path}: could not be read: {error.strerror or error}") from error
    return _combined(hashes)
