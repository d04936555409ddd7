"""Compare two image sets: shared groups, equal images and near duplicates.

Near duplicates are defined in :mod:`gemix.data.leakage.near_duplicates`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gemix.core.png import encode_png
from gemix.data.dataset_card.contact_sheet import thumbnail
from gemix.data.image_set import ImageSet
from gemix.data.leakage.near_duplicates import near_blocks
from gemix.data.leakage.perceptual_hash import Fingerprints, distance, fingerprint
from gemix.data.shards.schema import image_checksum

WORST = 12

# groups of neighbours where patients are not known, in older sets of the second form
_GENERATED = re.compile(r"run-[0-9a-f]{16}|.*/block-\d+")
_TILE = 128  # pixels
_TEXT = 44
_COLUMNS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images that are equal or near duplicates; first of `a`, then of `b`.

    Attributes:
        similarity: correlation of the 16 x 16 copies (of one mirrored, for a mirrored copy); 1 for
            identical images.
        bits: differing bits of the hashes.
        identical: whether every byte is the same.
        sources, groups: as the sets name them.
        splits: the split of each, None where it was not given.
        thumbnails: uint8 [h, w] of each.
    """

    similarity: float
    bits: int
    identical: bool
    sources: tuple[str, str]
    groups: tuple[str, str]
    splits: tuple[str | None, str | None]
    thumbnails: tuple[np.ndarray, np.ndarray] = dataclasses.field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without the thumbnails."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "thumbnails"]
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetComparison:
    """Groups and images that two sets share.

    Attributes:
        names: of the two sets.
        images: number of images of each.
        shared_groups: group keys that both have, sorted.
        exact: images of `b` that are byte for byte in `a`.
        near: further images of `b` with a near duplicate in `a`.
        worst: up to 12 of those images of `b`, each with the most similar image of `a`, the most
            similar pair first.
    """

    names: tuple[str, str]
    images: tuple[int, int]
    shared_groups: tuple[str, ...]
    exact: int
    near: int
    worst: tuple[Pair, ...]

    def __bool__(self) -> bool:
        """Return whether anything is shared."""
        return bool(self.shared_groups or self.exact or self.near)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(self, name) for name in names}
        return values | {"worst": [pair.to_json() for pair in self.worst]}


def compare_sets(
    a: ImageSet,
    b: ImageSet,
    *,
    names: tuple[str, str] = ("a", "b"),
    splits: tuple[Sequence[str], Sequence[str]] | None = None,
    same_source: bool = False,
) -> SetComparison:
    """Find shared groups, equal images and near duplicates in two sets of any sizes and classes.

    Args:
        names: names of the sets, for reports.
        splits: split of every image of `a` and of `b`.
        same_source: whether both were prepared from the same scans. Only then are groups of
            neighbours (``run-`` and a hash, in older sets ``<class>/block-NN``) the same files in
            both; otherwise they do not count as shared.
    """
    shared = set(a.groups) & set(b.groups)
    if not same_source:
        shared = {group for group in shared if not _GENERATED.fullmatch(group)}
    first_of = {}
    for row in reversed(range(len(a))):
        first_of[_identity(a.images[row])] = row
    # for each image of b: the row of its match in a, or -1
    match = np.array([first_of.get(_identity(image), -1) for image in b.images], dtype=np.int64)
    identical = match >= 0
    prints_a, prints_b = fingerprint(a.images), fingerprint(b.images)
    rest = np.flatnonzero(~identical)
    match[rest], similarity_of_rest = _most_similar(prints_a, prints_b.take(rest))
    similarity = np.ones(len(b))
    similarity[rest] = similarity_of_rest
    found = np.flatnonzero(match >= 0)
    order = found[np.lexsort((found, -similarity[found], ~identical[found]))]

    def pair(row: int) -> Pair:
        other = int(match[row])
        bits = int(distance(prints_a.hashes[other], prints_b.hashes[row]))
        return Pair(
            similarity=float(similarity[row]),
            bits=bits,
            identical=bool(identical[row]),
            sources=(a.sources[other], b.sources[row]),
            groups=(a.groups[other], b.groups[row]),
            splits=(splits[0][other], splits[1][row]) if splits else (None, None),
            thumbnails=(thumbnail(a.images[other]), thumbnail(b.images[row])),
        )

    return SetComparison(
        names=names,
        images=(len(a), len(b)),
        shared_groups=tuple(sorted(shared)),
        exact=int(identical.sum()),
        near=len(found) - int(identical.sum()),
        worst=tuple(pair(row) for row in order[:WORST].tolist()),
    )


def _identity(image: np.ndarray) -> tuple[tuple[int, ...], str]:
    # the shape too: flat images of other sides may have the same bytes
    return image.shape, image_checksum(np.ascontiguousarray(image))


def _most_similar(a: Fingerprints, b: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of `b` the row of its nearest duplicate in `a`, or -1, and its similarity."""
    match = np.full(len(b), -1, np.int64)
    best = np.zeros(len(b))
    for rows, columns, similarity in near_blocks(a, b):
        # ascending, so that of several assignments to a column the last is the largest
        order = np.flatnonzero(similarity > best[columns])
        order = order[np.argsort(similarity[order], kind="stable")]
        best[columns[order]] = np.minimum(similarity[order], 1)
        match[columns[order]] = rows[order]
    return match, best


def overlap_sheet(overlaps: Sequence[SetComparison]) -> bytes:
    """Draw the worst pairs side by side, each under its names and similarity, as a PNG."""
    shown = [(overlap, pair) for overlap in overlaps for pair in overlap.worst]
    rows = -(-len(shown) // _COLUMNS)
    width, height = 2 * _TILE + 8, _TILE + _TEXT
    page = Image.new("L", (_COLUMNS * width, max(rows * height, _TEXT)), 255)
    draw = ImageDraw.Draw(page)
    if not shown:
        draw.text((3, 2), "no images that are the same or nearly so", fill=0)
    for index, (overlap, pair) in enumerate(shown):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        kind = "identical" if pair.identical else f"similarity {pair.similarity:.3f}"
        draw.text((left + 3, top + 2), f"{kind}, {pair.bits} bits", fill=0)
        for side, image in enumerate(pair.thumbnails):
            start = left + side * _TILE
            where = pair.splits[side] or overlap.names[side]
            # the ends of paths differ more than their beginnings
            draw.text((start + 3, top + 15), where[-20:], fill=0)
            draw.text((start + 3, top + 28), pair.sources[side][-20:], fill=0)
            tile = Image.fromarray(image).resize((_TILE, _TILE))
            page.paste(tile, (start, top + _TEXT))
    return encode_png(np.asarray(page)[..., None])
