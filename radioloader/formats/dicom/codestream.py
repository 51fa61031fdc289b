"""What compressed frames say of themselves, read before a decoder allocates memory for it.

Decoders of JPEG and JPEG 2000 go by the size that the codestream holds, whatever the header's Rows and Columns are (PS3.5 8.2, A.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from radioloader.errors import FormatError

__all__ = ["check_codestreams", "picture_size"]

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = b"\xff\xff\xff\xff"
_HEAD = 1024
_MOST = 2**20
"""Bytes of a frame that are searched for its size: comments and colour profiles may stand before it."""

_JPEG, _JPEG2000, _JP2 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "


def check_codestreams(stream: BinaryIO, size: int, rows: int, columns: int) -> None:
    """That every compressed frame of a file is a grey picture of the size that the header promises.

    Args:
        stream: The file, at its PixelData element; explicit VR, little endian, as all compressed files are.
        size: Of the file in bytes.
        rows: Rows of the header.
        columns: Its Columns.

    Raises:
        FormatError: One is not, or the file ends before its last frame.
    """
    element = stream.read(12)
    if element[8:] != _UNDEFINED:
        return
    pending = b""
    for number, head in enumerate(_fragments(stream, size)):
        if number == 0:
            continue  # Basic Offset Table
        begins = head.startswith((_JPEG, _JPEG2000, _JP2))
        # A frame may be cut before its size: then that is in the next fragment.
        pending = head if begins else pending + head if pending else b""
        found = picture_size(pending)
        if found is not None and found != (rows, columns, 1):
            raise FormatError(
                f"its compressed picture has {found[0]} x {found[1]} pixels of {found[2]} samples, expected {rows} x {columns} of 1, as "
                "its header says"
            )
        if found is not None or len(pending) > _MOST:
            pending = b""


def _fragments(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """The first bytes of each item; all of an item whose picture size does not stand there.

    Raises:
        FormatError: The file ends within an item.
    """
    while True:
        head = stream.read(8)
        if head[:4] != _ITEM or len(head) < 8:
            return  # the end, or nothing that can be made sense of here: the decoder will say
        length = int.from_bytes(head[4:], "little")
        place = stream.tell()
        if length > size - place:
            raise FormatError(f"truncated: {size - place} bytes of its pixels are there, expected {length}")
        start = stream.read(min(length, _HEAD))
        if length > _HEAD and start.startswith((_JPEG, _JP2)) and picture_size(start) is None:
            start += stream.read(min(length, _MOST) - _HEAD)
        yield start
        stream.seek(place + length)


def picture_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples of a frame of JPEG (ITU T.81 B.2.2), JPEG-LS (T.87 C.2.2) or JPEG 2000 (T.800 A.5.1); None when ``data``
    does not hold them.

    Args:
        data: The frame, or its beginning.
    """
    if data.startswith(_JP2):
        data = data[max(data.find(_JPEG2000), 0) :]
    if data.startswith(_JPEG2000):
        if len(data) < 42:
            return None
        width, height, left, top = (int.from_bytes(data[place : place + 4], "big") for place in (8, 12, 16, 20))
        return height - top, width - left, int.from_bytes(data[40:42], "big")
    if not data.startswith(_JPEG):
        return None
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            if place + 10 > len(data):
                return None
            rows, columns = (int.from_bytes(data[place + start : place + start + 2], "big") for start in (5, 7))
            return rows, columns, data[place + 9]
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
