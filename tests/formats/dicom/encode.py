"""Frames as the bytes of every transfer syntax that can be written here."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from tests.formats.dicom.volumes import Array

__all__ = ["CONVERTED", "SYNTAX", "SYNTAXES", "put_pixels", "save", "uid"]

SYNTAXES: list[tuple[str, UID]] = [
    ("implicit", uids.ImplicitVRLittleEndian),
    ("explicit", uids.ExplicitVRLittleEndian),
    ("big-endian", uids.ExplicitVRBigEndian),
    ("deflated", uids.DeflatedExplicitVRLittleEndian),
    ("rle", uids.RLELossless),
    ("jpeg-lossless", uids.JPEGLossless),
    ("jpeg-lossless-sv1", uids.JPEGLosslessSV1),
    ("jpeg-ls", uids.JPEGLSLossless),
    ("jpeg2000", uids.JPEG2000Lossless),
]
"""(name, UID) of the lossless ones."""


def _each(syntaxes: list[tuple[str, UID]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("syntax", [uid for _, uid in syntaxes], ids=[name for name, _ in syntaxes])


SYNTAX = _each(SYNTAXES)
"""Runs a test with each of them as ``syntax``."""
CONVERTED = _each([one for one in SYNTAXES if one[0] != "deflated"])
"""Runs a test with each of them that dcm2niix reads."""

PLUGINS = {
    uids.RLELossless: "pylibjpeg",
    uids.JPEGLSLossless: "pyjpegls",
    uids.JPEGLSNearLossless: "pyjpegls",
    uids.JPEG2000Lossless: "pylibjpeg",
    uids.JPEG2000: "pylibjpeg",
}


def uid(*parts: object) -> UID:
    """A UID that is always the same for the same parts."""
    return uids.generate_uid(entropy_srcs=[repr(part) for part in parts])


def put_pixels(
    ds: Dataset,
    frames: Array,
    syntax: UID = uids.ExplicitVRLittleEndian,
    *,
    bits_stored: int = 16,
    bits_allocated: int | None = None,
    signed: bool = True,
    junk: bool = False,
    fragments: int = 1,
) -> None:
    """Sets PixelData and what describes it, and the file meta.

    Args:
        frames: Stored values, (frames, rows, columns), or (frames, rows, columns, 3) for colour by pixel.
        junk: Fill the unused high bits with noise, as overlays in them did; a reader has to mask them.
        fragments: Into how many fragments each compressed frame is cut.

    JPEG 2000 wants at least 32 rows and columns here: pylibjpeg-openjpeg always makes 6 resolutions.
    """
    low, high = (-(1 << (bits_stored - 1)), (1 << (bits_stored - 1)) - 1) if signed else (0, (1 << bits_stored) - 1)
    if frames.min() < low or frames.max() > high:
        raise ValueError(f"{frames.min()}..{frames.max()} does not fit {bits_stored} bits, signed {signed}")
    allocated = bits_allocated or (8 if bits_stored <= 8 else 16 if bits_stored <= 16 else 32)
    pattern = np.ascontiguousarray(frames).astype(f"<i{allocated // 8}").view(f"<u{allocated // 8}")
    if junk:
        noise = np.random.default_rng(0).integers(0, 1 << allocated, pattern.shape, dtype=np.uint64)
        mask = (1 << bits_stored) - 1
        pattern = ((pattern & mask) | (noise.astype(pattern.dtype) & ~np.array(mask, pattern.dtype))).astype(
            pattern.dtype
        )
    ds.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    if frames.ndim == 4:
        ds.PlanarConfiguration = 0
        ds.PhotometricInterpretation = "RGB"
    elif "PhotometricInterpretation" not in ds:
        ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = frames.shape[1:3]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, bits_stored, bits_stored - 1
    ds.PixelRepresentation = int(signed)
    if len(frames) > 1:
        ds.NumberOfFrames = len(frames)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = uid("radioloader tests")
    ds.file_meta = meta
    if not syntax.is_compressed or syntax == uids.DeflatedExplicitVRLittleEndian:
        raw = pattern.astype(pattern.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        ds.PixelData = raw + b"\0" * (len(raw) % 2)
        ds["PixelData"].VR = "OB" if allocated == 8 and not syntax.is_implicit_VR else "OW"
        return
    if syntax in (uids.JPEGLossless, uids.JPEGLosslessSV1):
        coded = [jpeg_lossless(frame, allocated if signed or junk else bits_stored) for frame in pattern]
    else:
        raw = pattern.tobytes()
        ds.PixelData = raw + b"\0" * (len(raw) % 2)
        meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
        ds.compress(syntax, encoding_plugin=PLUGINS[syntax], generate_instance_uid=False)
        coded = list(generate_frames(ds.PixelData, number_of_frames=len(frames)))
    ds.PixelData = encapsulate(coded, fragments_per_frame=fragments)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True


def jpeg_lossless(frame: Array, precision: int) -> bytes:
    """One grey frame of unsigned integers as JPEG lossless (process 14, predictor 1: that is SV1), by ITU T.81, annex H.

    No package that radioloader's tests use can write it, and a large part of the CT that hospitals hold is in it.
    """
    rows, columns = frame.shape
    values = frame.astype(np.int64)
    guess = np.empty_like(values)
    guess[:, 1:] = values[:, :-1]
    guess[1:, 0] = values[:-1, 0]
    guess[0, 0] = 1 << (precision - 1)
    difference = (values - guess).ravel() % 65536
    difference = np.where(difference > 32768, difference - 65536, difference)
    size = np.ceil(np.log2(np.abs(difference) + 1)).astype(np.int64)
    # Every category has the code of its own number in 5 bits; 32768 (category 16) is followed by no bits.
    bits = np.where(size == 16, 0, size)
    low = np.where(difference < 0, difference + (1 << bits) - 1, difference) & ((1 << bits) - 1)
    code, length = (size << bits) | low, 5 + bits
    place = np.arange(20)
    kept = place < length[:, None]
    shift = np.where(kept, length[:, None] - 1 - place, 0)
    stream = ((code[:, None] >> shift) & 1)[kept]
    stream = np.concatenate([stream, np.ones(-len(stream) % 8, np.int64)])
    body = np.packbits(stream.astype(np.uint8)).tobytes().replace(b"\xff", b"\xff\0")
    table = bytes([0, *(17 if n == 5 else 0 for n in range(1, 17)), *range(17)])
    segments = b"\xff\xd8"
    segments += struct.pack(">HHBHHBBBB", 0xFFC3, 11, precision, rows, columns, 1, 1, 0x11, 0)
    segments += struct.pack(">HH", 0xFFC4, 2 + len(table)) + table
    segments += struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 1, 0, 0)
    return segments + body + b"\xff\xd9"


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path
