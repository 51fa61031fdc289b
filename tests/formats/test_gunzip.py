"""Decompression with ISA-L gives what Python's gzip gives, or the same error."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from radioloader.formats import _gunzip
from radioloader.formats._gunzip import Gunzip


def plain(size: int = 3000) -> bytes:
    return np.random.default_rng(0).integers(0, 40, size, dtype=np.uint8).tobytes()


def member(content: bytes, *, flags: int = 0, fields: bytes = b"") -> bytes:
    """A gzip member with optional fields in its header, which Python's gzip reads but does not write."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = packer.compress(content) + packer.flush()
    return (
        struct.pack("<HBBIBB", 0x8B1F, 8, flags, 0, 0, 255)
        + fields
        + body
        + struct.pack("<II", zlib.crc32(content), len(content))
    )


def outcome(read: Callable[[bytes], bytes], data: bytes) -> bytes | str:
    """The content, or what was raised."""
    try:
        return read(data)
    except EOFError:
        return "truncated"
    except (gzip.BadGzipFile, zlib.error) as error:
        return "not gzip" if str(error).startswith("Not a gzipped file") else "damaged"


def python_reads(data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        return stream.read()


def we_read(data: bytes) -> bytes:
    return io.BufferedReader(Gunzip(io.BytesIO(data))).read()


WHOLE = gzip.compress(plain(), mtime=0)
CASES = {
    "whole": WHOLE,
    "empty content": gzip.compress(b""),
    "stored blocks": gzip.compress(plain(200_000), compresslevel=0),
    "members": WHOLE + gzip.compress(b"") + gzip.compress(b"more"),
    "zeros behind": WHOLE + bytes(700),
    "zeros between": WHOLE + bytes(5) + WHOLE,
    "zeros before": bytes(3) + WHOLE,
    "one byte behind": WHOLE + b"x",
    "few bytes behind": WHOLE + b"hello",
    "many bytes behind": WHOLE + b"hello" * 100,
    "bytes behind zeros": WHOLE + bytes(5) + b"abc",
    "half a magic number behind": WHOLE + b"\x1f",
    "a header behind": WHOLE + WHOLE[:9],
    "half a member behind": WHOLE + WHOLE[:300],
    "extra field": member(plain(), flags=4, fields=struct.pack("<H", 6) + b"BC\2\0ab"),
    "name": member(plain(), flags=8, fields=b"scan.nii\0"),
    "comment": member(plain(), flags=16, fields=b"a comment\0"),
    "header checksum": member(plain(), flags=2, fields=b"\1\2"),
    "all fields": member(plain(), flags=31, fields=struct.pack("<H", 1) + b"zname\0comment\0\1\2"),
    "name without end": WHOLE[:3] + b"\x08" + WHOLE[4:10] + b"n" * 50,
    "another method": WHOLE[:2] + b"\7" + WHOLE[3:],
    "wrong checksum": WHOLE[:-8] + bytes([WHOLE[-8] ^ 1]) + WHOLE[-7:],
    "wrong length": WHOLE[:-1] + b"\1",
    "broken data": WHOLE[:60] + b"\xff" * 40 + WHOLE[100:],
    "another file": b"hello world",
    "nothing": b"",
}


@pytest.mark.parametrize("amount", [1, 7, 2**18])
@pytest.mark.parametrize("case", CASES)
def test_what_python_reads(case: str, amount: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the file is cut into what is read of it at a time."""
    monkeypatch.setattr(_gunzip, "_INPUT", amount)
    assert outcome(we_read, CASES[case]) == outcome(python_reads, CASES[case])


def test_every_truncation_of_two_members() -> None:
    whole = gzip.compress(plain(300), mtime=0) + gzip.compress(plain(100), mtime=0)
    for length in range(len(whole)):
        assert outcome(we_read, whole[:length]) == outcome(python_reads, whole[:length])


def test_reads_fill_buffers_of_any_size() -> None:
    stream = io.BufferedReader(Gunzip(io.BytesIO(WHOLE + WHOLE)), buffer_size=64)
    content = plain() * 2
    assert [stream.read(n) for n in (1, 10, 2990, 0, 1000)] == [
        content[:1],
        content[1:11],
        content[11:3001],
        b"",
        content[3001:4001],
    ]
    rest = bytearray(5000)
    count = 0
    while part := stream.readinto(memoryview(rest)[count:]):
        count += part
    assert bytes(rest[:count]) == content[4001:]
