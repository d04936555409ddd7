"""Bytes of the images that a caller gives: as bytes, base64 text or paths."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from gemix.data.prepare.encoded_scan import MAX_ENCODED_BYTES
from gemix.data.scan import InvalidImageError

_MAX_TEXT = 2 * MAX_ENCODED_BYTES  # base64 has 4 characters for 3 bytes, and may have line breaks


def encoded_bytes(value: object) -> bytes:
    """Return the bytes of an encoded image.

    Text is base64, always: what comes through HTTP is text, and a server must not read the files
    that a client names.

    Args:
        value: bytes; base64 text, with or without line breaks; or a :class:`pathlib.Path` of a
            file on this machine.

    Raises:
        InvalidImageError: for anything else, or what cannot be read or is too large. The reason
            quotes neither the value nor the path, which may name a patient.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return _decode_base64(value)
    if isinstance(value, Path):
        return _read(value)
    raise InvalidImageError(
        f"a {type(value).__name__}; give bytes, base64 text or, within Python, a pathlib.Path"
    )


def _decode_base64(text: str) -> bytes:
    if len(text) > _MAX_TEXT:
        raise InvalidImageError(
            f"{len(text)} characters of base64; files of up to {MAX_ENCODED_BYTES} bytes are read"
        )
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImageError(
            "text that is not base64 (RFC 4648, 4); encode the file's bytes without a prefix such "
            "as data:image/png, and give a file by its path as a pathlib.Path"
        ) from None


def _read(path: Path) -> bytes:
    try:
        # a pipe would be waited for, and a device has no end
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InvalidImageError("a path of something that is no file; give files")
            if found.st_size > MAX_ENCODED_BYTES:
                raise InvalidImageError(
                    f"a file of {found.st_size} bytes; files of up to {MAX_ENCODED_BYTES} bytes "
                    "are read"
                )
            return file.read(MAX_ENCODED_BYTES)
    except OSError as error:
        raise InvalidImageError(
            f"a path of a file that cannot be read ({error.strerror}); correct it"
        ) from None
