"""Numeric arrays of MATLAB files, version 5, as `save` writes them by default.

Read here, since SciPy's reader follows a null pointer where a damaged file names a type that does
not exist.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.archive import MOST_BYTES

_HEADER_BYTES = 128
_LITTLE_ENDIAN = b"IM"
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800
_NUMERIC_CLASSES = range(6, 16)
_TYPES = {
    1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8",
    13: "<u8",
}  # fmt: skip


def load_arrays(path: Path) -> dict[str, NDArray]:
    """The file's real arrays by name, in the type in which they are stored; all else is left out.

    Raises:
        ValueError: it is no such file, is damaged, or would unpack to more than `MOST_BYTES`.
        OSError: it cannot be read.
    """
    data = memoryview(path.read_bytes())
    if len(data) < _HEADER_BYTES or bytes(data[126:128]) != _LITTLE_ENDIAN:
        raise ValueError("it has no header of MATLAB 5")
    found = {}
    for kind, content in _elements(data[_HEADER_BYTES:]):
        packed = kind == _COMPRESSED
        for inner, matrix in _elements(_unpacked(content)) if packed else [(kind, content)]:
            if inner == _MATRIX:
                found.update(_array(matrix))
    return found


def _unpacked(content: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked ({error})") from error
    if stream.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {MOST_BYTES / 1e9:.0f} GB")
    return memoryview(data)


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and content of every element; small ones hold their four bytes in the tag."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        start, small = at + 8, kind >> 16
        if small:
            kind, size, start = kind & 0xFFFF, small, at + 4
        if start + size > (at + 8 if small else len(data)):
            raise ValueError("it is cut off, or its sizes are wrong")
        yield kind, data[start : start + size]
        at = start + size
        if kind != _COMPRESSED:
            at += -at % 8


def _array(matrix: memoryview) -> dict[str, NDArray]:
    """The array by its name; nothing if it is no real numeric one."""
    parts = list(_elements(matrix))
    if len(parts) < 4 or len(parts[0][1]) < 4:
        return {}
    (flags,) = struct.unpack_from("<I", parts[0][1])
    (_, shape), (_, name), (kind, content) = parts[1:4]
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX:
        return {}
    if kind not in _TYPES:
        raise ValueError(f"an array's numbers are of the unknown type {kind}")
    sides, numbers = _numbers(shape, "<i4"), _numbers(content, _TYPES[kind])
    if (sides < 0).any() or int(np.prod(sides, dtype=object)) != len(numbers):
        raise ValueError(f"an array of shape {sides.tolist()} holds {len(numbers)} numbers")
    return {bytes(name).decode(errors="replace"): numbers.reshape(sides, order="F")}


def _numbers(content: memoryview, kind: str) -> NDArray:
    return np.frombuffer(content, kind) if len(content) else np.zeros(0, kind)
