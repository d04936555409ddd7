"""Files that are packed with gzip, told by their first bytes and not by their names."""

from __future__ import annotations

import zlib

_MAGIC = b"\x1f\x8b"  # RFC 1952, 2.3.1
_GZIP_WINDOW = zlib.MAX_WBITS | 16  # zlib's code for a gzip header


def is_gzip(data: bytes) -> bool:
    """Return whether a file that starts with these bytes is packed with gzip."""
    return data.startswith(_MAGIC)


def gunzip(data: bytes, limit: int) -> bytes:
    """Return at most `limit` unpacked bytes; fewer where the stream is truncated or damaged."""
    unpacked = bytearray()
    while is_gzip(data) and len(unpacked) < limit:  # a file may have several members
        stream = zlib.decompressobj(_GZIP_WINDOW)
        try:
            unpacked += stream.decompress(data, limit - len(unpacked))
        except zlib.error:
            break
        data = stream.unused_data
    return bytes(unpacked)
