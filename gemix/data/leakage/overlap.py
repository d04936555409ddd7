"""Overlap of training and held-out data: shared groups, equal images, and copies of images.

Groups and checksums are compared first, read from small columns, a shard at a time. Every group
key that both sets have counts: in sets of different archives equal keys may be chance, but a false
alarm costs a setting and a miss a wrong result. Then thumbnails tell copies that were saved again,
brightened or mirrored (:mod:`gemix.data.leakage.near_duplicates`). ``gemix check`` also finds
images that are nearly the same (:mod:`gemix.data.leakage.compare_sets`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from gemix.core.errors import DataError
from gemix.data.leakage.near_duplicates import find_copies
from gemix.data.leakage.perceptual_hash import THUMBNAIL_BYTES, thumbnails
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import copy_images
from gemix.data.shards.seal import check_not_sealed
from gemix.io.storage import Store

TAG = "gemix.overlap"
_EXAMPLES = 3
_ROWS = 1024  # images whose thumbnails are made at a time


class TrainingSource(Protocol):
    """Images that something was, or will be, trained on."""

    @property
    def name(self) -> str:
        """Name in messages: "the train split of …"."""

    @property
    def url(self) -> str | None:
        """Directory of the images, None where it is not known."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of further training images that are not on record."""

    @property
    def without_thumbnails(self) -> int:
        """Number of images that are on record without a thumbnail, so that copies are not found."""

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield `group` and `checksum` of all images, strings as in shards."""

    def thumbnails(self) -> Iterator[np.ndarray]:
        """Yield thumbnails, uint8 [n, 256], of all images that have one."""


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a shard set."""

    store: Store
    split: str

    @property
    def name(self) -> str:
        """See :class:`TrainingSource`."""
        return f"the {self.split} split of {self.store.url}"

    @property
    def url(self) -> str:
        """Directory of the set."""
        return self.store.url

    @property
    def unknown(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    @property
    def without_thumbnails(self) -> int:
        """Zero: thumbnails are made of the images."""
        return 0

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield `group`, `checksum` and `source`, a shard at a time.

        Raises:
            DataError: if a shard is missing, damaged or of another length than the manifest says.
        """
        check_not_sealed(self.split, self.store.url)
        manifest = Manifest.load(self.store)
        for shard in manifest.shards_of(self.split):
            table = self.store.read_columns(shard.name, ["patient", "checksum", "source"])
            if len(table) != shard.rows:
                raise DataError(
                    f"{self.store.url}/{shard.name}: {len(table)} rows, but the manifest says "
                    f"{shard.rows}; restore the file or the manifest from a copy"
                )
            yield table.select(["patient", "checksum", "source"]).rename_columns(
                ["group", "checksum", "source"]
            )

    def thumbnails(self) -> Iterator[np.ndarray]:
        """Yield the thumbnails of a shard at a time, in the order of its rows."""
        check_not_sealed(self.split, self.store.url)
        manifest = Manifest.load(self.store)
        for shard in manifest.shards_of(self.split):
            table = self.store.read_columns(shard.name, ["image"])
            small = np.empty((len(table), THUMBNAIL_BYTES), np.uint8)
            for start in range(0, len(table), _ROWS):
                part = table.slice(start, _ROWS)
                images = np.empty((len(part), *manifest.image_shape), np.uint8)
                copy_images(f"{self.store.url}/{shard.name}", part, images)
                small[start : start + len(part)] = thumbnails(images)
            yield small


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedData:
    """Patients and images that training data share with held-out data.

    Attributes:
        learned, held_out: names of the two.
        command: the command that shows the images.
        groups: group keys that both have.
        images: images of `held_out` that are byte for byte in `learned`.
        copies: further images of `held_out` that are copies of images in `learned`, saved again,
            brightened or mirrored.
        examples: up to 3 of the groups, and the sources of up to 3 of the images and copies.
    """

    learned: str
    held_out: str
    command: str
    groups: int
    images: int
    copies: int = 0
    examples: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())

    def __bool__(self) -> bool:
        """Return whether anything is shared."""
        return bool(self.groups or self.images or self.copies)

    def __str__(self) -> str:
        counts = self.groups, self.images, self.copies
        kinds = "groups", "images", "copies of images (resaved, brightened or mirrored)"
        parts = [
            f"{count} {kind} ({', '.join(names)}{', …' if count > len(names) else ''})"
            for count, kind, names in zip(counts, kinds, self.examples, strict=True)
            if count
        ]
        return f"{self.learned} and {self.held_out} share {' and '.join(parts) or 'nothing'}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        names = "groups", "images", "copies"
        return values | {"examples": dict(zip(names, map(list, self.examples), strict=True))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """Overlap that was allowed, and training data that could not be compared.

    Attributes:
        shared: of each pair of training and held-out data that share something.
        unknown: names of training images that are not on record.
        not_compared: training images on record without thumbnails: copies of them are not found.
    """

    shared: tuple[SharedData, ...]
    unknown: tuple[str, ...]
    not_compared: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """A sentence for each."""
        return [
            *(f"{shared}; allowed by data.allow_overlap" for shared in self.shared),
            *(f"{name} are not on record: what they share is not known" for name in self.unknown),
            *(
                f"{name} are on record without thumbnails, as earlier versions wrote them: images "
                "that were resaved, brightened or mirrored are not found among them"
                for name in self.not_compared
            ),
        ]

    @property
    def tags(self) -> dict[str, str]:
        """Tags for the run's record; empty where nothing is shared."""
        counts = "; ".join(
            f"{pair.learned} and {pair.held_out}: {pair.groups} groups, {pair.images} images, "
            f"{pair.copies} copies"
            for pair in self.shared
        )
        return {TAG: f"allowed: {counts}"} if counts else {}

    def to_json(self) -> dict[str, Any]:
        """Return plain values; all lists are empty where all is well."""
        return {
            "shared": [shared.to_json() for shared in self.shared],
            "unknown": list(self.unknown),
            "not_compared": list(self.not_compared),
        }


def check_no_overlap(
    pairs: Iterable[tuple[TrainingSource, Split]], *, allow: bool = False
) -> OverlapReport:
    """Check that no held-out data are trained on.

    Args:
        pairs: training data, and what is held out of them.
        allow: whether overlap is reported instead of refused (``data.allow_overlap``).

    Raises:
        DataError: if anything is shared and `allow` is not set; or for a damaged shard.
    """
    pairs = list(pairs)
    found = [find_shared(learned, held_out) for learned, held_out in pairs]
    if allow or not any(found):
        found = _with_copies(pairs, found)
    shared = tuple(filter(None, found))
    if shared and not allow:
        commands = "; ".join(dict.fromkeys(pair.command for pair in shared))
        raise DataError(
            f"{'; '.join(map(str, shared))}: so a test would measure memory. Look at them "
            f"({commands}) and prepare the data again without them, or set data.allow_overlap=true "
            "to go on all the same; the results will say so"
        )
    sources = {learned.name: learned for learned, _ in pairs}
    unknown = dict.fromkeys(name for learned in sources.values() for name in learned.unknown)
    counts = {name: learned.without_thumbnails for name, learned in sources.items()}
    return OverlapReport(
        shared=shared,
        unknown=tuple(unknown),
        not_compared=tuple(f"{count} of {name}" for name, count in counts.items() if count),
    )


def find_shared(learned: TrainingSource, held_out: Split) -> SharedData:
    """Find groups and equal images that both sets have; no image is read.

    Memory holds the checksums of `held_out`. Images are compared by half of their checksums: 64
    bits, eight bytes an image.
    """
    groups: set[str] = set()
    numbers = [np.empty(0, np.uint64)]
    for table in held_out:
        groups.update(table["group"].unique().to_pylist())
        numbers.append(_numbers(table))
    images, rows = np.unique(np.concatenate(numbers), return_counts=True)
    is_shared = np.zeros(len(images), bool)
    common: set[str] = set()
    for table in learned if len(images) else ():
        common |= groups.intersection(table["group"].unique().to_pylist())
        found = _numbers(table)
        index = np.searchsorted(images, found).clip(max=len(images) - 1)
        is_shared[index[images[index] == found]] = True
    examples = ()
    if is_shared.any():
        matches = (np.isin(_numbers(table), images[is_shared]) for table in held_out)
        examples = _sources(held_out, matches)
    return SharedData(
        learned=learned.name,
        held_out=held_out.name,
        command=_command(learned.url, held_out.url),
        groups=len(common),
        images=int(rows[is_shared].sum()),
        examples=(tuple(sorted(common)[:_EXAMPLES]), examples, ()),
    )


def _with_copies(
    pairs: Sequence[tuple[TrainingSource, Split]], shared: Sequence[SharedData]
) -> list[SharedData]:
    """Add the copies to what each pair shares; thumbnails of each side are made once."""
    sources = {learned.name: learned for learned, _ in pairs}
    small = {held_out.name: _stack(held_out.thumbnails()) for _, held_out in pairs}
    is_copy = [np.zeros(len(small[held_out.name]), bool) for _, held_out in pairs]
    for name, source in sources.items():
        mine = [index for index, (learned, _) in enumerate(pairs) if learned.name == name]
        for others in source.thumbnails():
            for index in mine:
                is_copy[index] |= find_copies(small[pairs[index][1].name], others)
    return [
        _with_copies_of(one, *pair, rows)
        for one, pair, rows in zip(shared, pairs, is_copy, strict=True)
    ]


def _with_copies_of(
    shared: SharedData, learned: TrainingSource, held_out: Split, is_copy: np.ndarray
) -> SharedData:
    """Add the rows of `held_out` that are copies, bool [M], without those that are equal."""
    if shared.images:
        equal = np.concatenate([_numbers(table) for table in learned])
        is_copy = is_copy & ~np.isin(np.concatenate([_numbers(table) for table in held_out]), equal)
    if not is_copy.any():
        return shared
    examples = _sources(held_out, _chunks(held_out, is_copy))
    return dataclasses.replace(
        shared, copies=int(is_copy.sum()), examples=(*shared.examples[:2], examples)
    )


def _chunks(held_out: Split, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Cut a column of the split, [M], into those of its tables."""
    start = 0
    for table in held_out:
        yield rows[start : start + len(table)]
        start += len(table)


def _sources(held_out: Split, matches: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Return the first few sources of the rows that match, bool [n] for each table."""
    found = (
        table["source"][row].as_py()
        for table, is_match in zip(held_out, matches, strict=True)
        for row in np.flatnonzero(is_match).tolist()
    )
    return tuple(itertools.islice(found, _EXAMPLES))


def _stack(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, THUMBNAIL_BYTES), np.uint8), *parts])


def _numbers(table: pa.Table) -> np.ndarray:
    """Return the first 64 bits of every checksum: uint64 [rows]."""
    words = np.frombuffer(bytes.fromhex("".join(table["checksum"].to_pylist())), np.uint64)
    return words[::2]


def _command(learned: str | None, held_out: str) -> str:
    if learned == held_out:
        return f"gemix check {held_out}"
    return f"gemix check {learned or '<the set that was learned from>'} {held_out}"
