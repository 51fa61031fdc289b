"""Decompressing gzip files with ISA-L: half the processor time of zlib, and the checksum nearly free.

``isal.igzip.IGzipFile`` would do, but it takes a few foreign bytes behind the last member for a truncated one: files that nibabel reads
would be refused. So members are told apart here, in the way of Python's ``gzip`` and with its exceptions.
"""

from __future__ import annotations

import gzip
import io
import struct
from typing import Any, BinaryIO

from isal import igzip_lib, isal_zlib

__all__ = ["Gunzip"]

# What is read of the file at a time. What a member leaves of it is copied for the next one: files of many small members (bgzip) bound it.
_INPUT = 2**18
_OUTPUT = 2**20  # asked for at a time: more is taken from the system anew each time, and costs page faults
_EXTRA, _NAME, _COMMENT, _CHECKSUM = 4, 8, 16, 2
_DAMAGED: Any = igzip_lib.IsalError  # which its stubs declare as an instance
_TRAILER = struct.Struct("<II")


class Gunzip(io.RawIOBase):
    """The decompressed bytes of a gzip stream of one or more members, padding of zeros allowed (RFC 1952).

    Args:
        file: The stream, at its beginning. It is not closed.

    Raises (while reading):
        EOFError: The stream ends within a member.
        gzip.BadGzipFile: It is damaged: a checksum, a length or the compressed data; or something else follows a member ("Not a gzipped
            file").
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = b""  # read, not used
        self._member: Any = None
        self._members = self._checksum = self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while len(view):
            if self._member is None and not self._begin():
                return 0
            data = b""
            if self._member.needs_input:
                data, self._data = self._data or self._file.read(_INPUT), b""
                if not data:
                    raise _truncated()
            try:
                part = self._member.decompress(data, min(len(view), _OUTPUT))
            except _DAMAGED as error:
                raise gzip.BadGzipFile(str(error)) from error
            self._checksum, self._size = isal_zlib.crc32(part, self._checksum), self._size + len(part)
            if self._member.eof:
                self._end()
            if part:
                view[: len(part)] = part
                return len(part)
        return 0

    def _begin(self) -> bool:
        """Read the header of the next member; False where there is none."""
        while True:
            if self._members:  # zeros may follow each
                self._data = self._data.lstrip(b"\0")
            if self._data:
                break
            self._data = self._file.read(_INPUT)
            if not self._data:
                return False
        magic = self._data[:2] if len(self._data) > 1 else self._data + self._file.read(1)
        if magic != b"\x1f\x8b":
            raise gzip.BadGzipFile(f"Not a gzipped file ({magic!r})")
        self._data = magic + self._data[2:]
        _, method, flags, _ = struct.unpack("<HBB6s", self._take(10))
        if method != 8:
            raise gzip.BadGzipFile("Unknown compression method")
        if flags & _EXTRA:
            self._take(struct.unpack("<H", self._take(2))[0])
        for text in (_NAME, _COMMENT):
            if flags & text:
                while (end := self._data.find(b"\0")) < 0:
                    self._more()
                self._take(end + 1)
        if flags & _CHECKSUM:
            self._take(2)
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
        self._members += 1
        self._checksum = self._size = 0
        return True

    def _end(self) -> None:
        """Check a member against its trailer."""
        self._data, self._member = self._member.unused_data + self._data, None
        checksum, size = _TRAILER.unpack(self._take(_TRAILER.size))
        if checksum != self._checksum:
            raise gzip.BadGzipFile(f"CRC check failed {checksum:#x} != {self._checksum:#x}")
        if size != self._size & 0xFFFFFFFF:
            raise gzip.BadGzipFile("Incorrect length of data produced")

    def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            self._more()
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def _more(self) -> None:
        more = self._file.read(_INPUT)
        if not more:
            raise _truncated()
        self._data += more


def _truncated() -> EOFError:
    return EOFError("Compressed file ended before the end-of-stream marker was reached")
