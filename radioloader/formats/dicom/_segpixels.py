"""The frames of a SEG, read one by one.

Uncompressed frames are unpacked here. BINARY frames follow each other bit by bit (PS3.5 8.1.1), so that a frame may begin within a byte:
pydicom 3.0 reads too few bytes of such a frame when asked for one alone, and highdicom refuses big endian files. Compressed frames are
decoded by highdicom and pydicom, but for Deflated Image Frame Compression, which they do not know.
"""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from radioloader._optional import require
from radioloader.errors import FormatError
from radioloader.formats.dicom._segheader import SegHeader

__all__ = ["SegPixels", "read_dataset"]

_DEFLATED = "1.2.840.10008.1.2.1.99"  # the whole data set
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_NATIVE = {"", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _DEFLATED}


def read_dataset(stream: BinaryIO) -> Any:
    """pydicom's dataset of an open file up to its pixels, where the stream then stands. Only a deflated file is read whole."""
    from pydicom import dcmread

    dataset = dcmread(stream, stop_before_pixels=True)
    if _syntax(dataset) == _DEFLATED:
        stream.seek(0)
        dataset = dcmread(stream)
    return dataset


class SegPixels:
    """Frames by index, from 0: ``pixels[3]`` is (rows, columns), uint8 (0 or 1 where a pixel is one bit) or uint16. What is read is the
    file last given to :meth:`attach`.

    Args:
        dataset: From :func:`read_dataset`.
        stream: The file, where :func:`read_dataset` left it.
        header: The file's header.
        path: For messages.

    Raises:
        FormatError: There are fewer pixels than the header promises.
    """

    def __init__(self, dataset: Any, stream: BinaryIO, header: SegHeader, path: str | os.PathLike[str]) -> None:
        self._header, self._path, self._stream = header, path, stream
        self._syntax = _syntax(dataset)
        self._order, self._swapped = "<", False
        self._inflated: BinaryIO | None = None
        self._fragments: list[int] | None = None
        self._extended = None
        if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
            self._extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        if self._syntax == _DEFLATED:
            if "PixelData" not in dataset:
                raise FormatError(f"{path}: no pixel data")
            self._inflated, self._start, length = BytesIO(dataset.PixelData), 0, len(dataset.PixelData)
        else:
            length = self._open(dataset)
        bits = header.info.frames * header.rows * header.columns * header.bits
        if self._syntax in _NATIVE and length < -(-bits // 8):
            raise FormatError(
                f"{path}: truncated: {length} bytes of pixels, expected {-(-bits // 8)} for {header.info.frames} frames of "
                f"{header.rows} x {header.columns} pixels of {header.bits} bits"
            )

    def attach(self, stream: BinaryIO) -> None:
        """Read frames from ``stream``, the open file.

        Raises:
            FormatError: It holds fewer compressed frames than the header promises.
        """
        self._stream = stream if self._inflated is None else self._inflated
        if self._syntax not in _NATIVE and self._fragments is None:
            self._find_fragments()

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        """Frame ``index``.

        Raises:
            FormatError: It cannot be decoded.
        """
        header = self._header
        if self._syntax in _NATIVE:
            return self._unpack(index, lambda start, stop: self._bytes(start, stop))
        data = self._frame(index)
        if self._syntax == _DEFLATED_FRAMES:
            # Each frame is deflated by itself, and its bits begin anew (PS3.5 A.4.13).
            size = -(-header.rows * header.columns * header.bits // 8)
            plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
            if len(plain) < size:
                raise FormatError(
                    f"{self._path}: frame {index + 1} holds {len(plain)} bytes, expected {size}; download the file again"
                )
            return self._unpack(0, lambda start, stop: plain[start:stop])
        frame = require("highdicom.frame", extra="dicom").decode_frame(
            data,
            self._syntax,
            rows=header.rows,
            columns=header.columns,
            samples_per_pixel=1,
            bits_allocated=header.bits,
            bits_stored=header.bits,
            photometric_interpretation="MONOCHROME2",  # a palette is for showing labels, not for their values
            pixel_representation=0,
        )
        return np.asarray(frame).reshape(header.rows, header.columns)

    def _open(self, dataset: Any) -> int:
        """Read the element header of the pixel data; returns the number of bytes of the value that the file has."""
        implicit, little = dataset.original_encoding
        self._order = "<" if little else ">"
        head = self._stream.read(8 if implicit else 12)
        if len(head) < (8 if implicit else 12):
            raise FormatError(f"{self._path}: no pixel data; the file is truncated, or is a header only")
        integer = "little" if little else "big"
        length = int.from_bytes(head[-4:], cast(Any, integer))
        self._start = self._stream.tell()
        # OW of 8 bits or less is written as words (PS3.5 8.1.1), whose bytes stand the other way round in big endian files.
        self._swapped = not little and not implicit and head[4:6] == b"OW" and self._header.bits <= 8
        there = self._stream.seek(0, os.SEEK_END) - self._start
        return there if length == 0xFFFFFFFF else min(there, length)

    def _bytes(self, start: int, stop: int) -> bytes:
        even = (start - start % 2, stop + stop % 2) if self._swapped else (start, stop)
        self._stream.seek(self._start + even[0])
        data = self._stream.read(even[1] - even[0])
        if self._swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], np.uint16).byteswap().tobytes()[start - even[0] :]
        return data[: stop - start]

    def _unpack(self, index: int, read: Any) -> npt.NDArray[Any]:
        rows, columns, bits = self._header.rows, self._header.columns, self._header.bits
        count = rows * columns
        first = index * count
        if bits == 1:
            start, stop = first // 8, -(-(first + count) // 8)
            unpacked = np.unpackbits(np.frombuffer(read(start, stop), np.uint8), bitorder="little")
            return unpacked[first - 8 * start :][:count].reshape(rows, columns)
        size = bits // 8
        stored = np.frombuffer(read(first * size, (first + count) * size), f"{self._order}u{size}")
        return stored.astype(stored.dtype.newbyteorder("="), copy=False).reshape(rows, columns)

    def _find_fragments(self) -> None:
        """Find the pieces of compressed pixel data (PS3.5 A.4)."""
        from pydicom.encaps import parse_basic_offsets, parse_fragments

        self._stream.seek(self._start)
        parse_basic_offsets(self._stream)
        count, self._fragments = parse_fragments(self._stream)
        if count < self._header.info.frames:
            raise FormatError(
                f"{self._path}: truncated: pixel data of {count} compressed frames, expected {self._header.info.frames}"
            )

    def _frame(self, index: int) -> bytes:
        """The compressed bytes of a frame."""
        from pydicom.encaps import get_frame

        frames = self._header.info.frames
        assert self._fragments is not None
        if len(self._fragments) > frames:
            self._stream.seek(self._start)
            return bytes(get_frame(self._stream, index, number_of_frames=frames, extended_offsets=self._extended))
        # As usual, one piece per frame: no need to look for it each time.
        self._stream.seek(self._fragments[index] + 4)
        length = int.from_bytes(self._stream.read(4), "little")
        data = self._stream.read(length)
        if len(data) < length:
            raise FormatError(f"{self._path}: truncated: frame {index + 1} has {len(data)} of {length} bytes")
        return data


def _syntax(dataset: Any) -> str:
    return str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
