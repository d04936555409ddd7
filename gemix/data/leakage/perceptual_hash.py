"""Perceptual fingerprints of images, which survive a small shift, noise or another contrast.

The 64-bit hash is the DCT hash of pHash (C. Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions", 2010): signs of low frequencies against their median. The second
part is a 16 x 16 copy, whose correlation is finer than a number of bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Self

import numpy as np
from scipy.fft import dctn

SIDE = 16
"""Side of a copy or thumbnail, in pixels."""

_DCT_SIDE = 32  # of the copy that is transformed
_BITS = 8  # frequencies an axis
_ROWS = 512  # images at a time: bounds the memory of the float copies

COPY_BYTES = 2 * SIDE**2
"""Bytes of a packed copy."""
THUMBNAIL_BYTES = SIDE**2
"""Bytes of a thumbnail."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Fingerprints of N images.

    Attributes:
        hashes: uint64 [N], to compare by the number of differing bits.
        copies: float32 [N, 256], of mean 0 and length 1, so that a product of two is their
            correlation; all 0 for an image of one grey.
    """

    hashes: np.ndarray
    copies: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, rows: np.ndarray | slice) -> Self:
        """Return the fingerprints of some rows, in that order."""
        return type(self)(hashes=self.hashes[rows], copies=self.copies[rows])

    def packed(self) -> list[bytes]:
        """Return the copies in half precision, which moves a correlation by less than 0.001."""
        return [copy.tobytes() for copy in self.copies.astype("<f2")]

    @classmethod
    def unpacked(cls, hashes: np.ndarray, packed: Iterable[bytes]) -> Self:
        """Build fingerprints from hashes (uint64 [N]) and :meth:`packed` copies."""
        copies = np.frombuffer(b"".join(packed), "<f2").reshape(-1, SIDE**2)
        return cls(hashes=np.asarray(hashes, np.uint64), copies=copies.astype(np.float32))


def fingerprint(images: np.ndarray) -> Fingerprints:
    """Compute fingerprints of uint8 [N, H, W], or of the mean over channels of [N, C, H, W]."""
    hashes = np.empty(len(images), np.uint64)
    copies = np.empty((len(images), SIDE**2), np.float32)
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        grey = _grey(images[rows])
        hashes[rows] = _hashes(_shrink(grey, _DCT_SIDE))
        copies[rows] = _normalised(_shrink(grey, SIDE).reshape(len(grey), -1))
    return Fingerprints(hashes=hashes, copies=copies)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Shrink uint8 [N, H, W] or [N, C, H, W] to 16 x 16 grey pixels: uint8 [N, 256]."""
    small = np.empty((len(images), THUMBNAIL_BYTES), np.uint8)
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        shrunk = _shrink(_grey(images[rows]), SIDE).reshape(-1, THUMBNAIL_BYTES)
        small[rows] = np.rint(shrunk).clip(0, 255)
    return small


def unit_vectors(small: np.ndarray) -> np.ndarray:
    """Normalize thumbnails, uint8 [N, 256], to mean 0 and length 1: float32 [N, 256]."""
    return _normalised(small.astype(np.float32))


def mirror(copies: np.ndarray) -> np.ndarray:
    """Mirror copies or thumbnails, [N, 256], left to right."""
    return copies.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(-1, SIDE**2)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count the differing bits, 0 to 64, of uint64 hashes; broadcasts."""
    return np.bitwise_count(a ^ b)


def _grey(images: np.ndarray) -> np.ndarray:
    grey = images.astype(np.float32)
    return grey.mean(axis=1) if grey.ndim == 4 else grey


def _hashes(small: np.ndarray) -> np.ndarray:
    # the first row and column of frequencies hold the brightness and what is the same along an axis
    low = dctn(small, axes=(1, 2))[:, 1 : _BITS + 1, 1 : _BITS + 1].reshape(len(small), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _normalised(copies: np.ndarray) -> np.ndarray:
    centred = copies - copies.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = length < 1e-3 * copies.shape[1] ** 0.5  # rounding, in grey values
    return np.where(flat, 0, centred / np.where(flat, 1, length))


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Average over a grid of `side` x `side` equal cells: float32 [N, side, side]."""
    height, width = images.shape[1:]
    return _cells(height, side) @ images @ _cells(width, side).T


def _cells(length: int, side: int) -> np.ndarray:
    """Return the weight of each of `length` pixels in each cell: [side, length], rows sum to 1."""
    edges = np.linspace(0, length, side + 1)[:, None]
    covered = np.clip(edges - np.arange(length), 0, 1)  # of each pixel, left of each edge
    return (np.diff(covered, axis=0) * side / length).astype(np.float32)
