"""The manifest of a shard set: what the shards hold, how they came to be, how to check them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from gemix.core.errors import DataError
from gemix.io.storage import Store

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")
_CONTENT_BITS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard file.

    Attributes:
        name: file name inside the set's directory.
        split: one of `SPLITS`; all rows of a shard are of one split.
        rows: number of images, at least 1.
        bytes: size of the file.
        sha256: hex digest of the file.
        class_counts: images of each dominant class, in the order of the manifest's classes.
        content: 64 hex digits, the sum modulo 2**256 of the rows' hashes (image, labels, split):
            it depends on what the rows hold, neither on their order nor on the file's encoding.
    """

    name: str
    split: str
    rows: int
    bytes: int
    sha256: str
    class_counts: tuple[int, ...]
    content: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"class_counts": list(self.class_counts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The entry of such values."""
        return cls(**{**values, "class_counts": tuple(values["class_counts"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a shard set holds.

    Attributes:
        kind: whether the images are real (or phantom) scans or came from a generator.
        classes: the K class names; class index k is classes[k].
        resolution: height and width of every image, in pixels.
        channels: 1 or 3.
        counts: images by split and class name.
        shards: every shard file, sorted by name.
        preprocessing: the settings that turned scans into these images.
        origin: free JSON about where the images came from (found and missing scans, quarantine,
            generator, method, notes).
        digest: 64 hex digits; equal for equal content however it is sharded or stored.
        schema_version: version of the Parquet schema and of this file.
    """

    kind: Literal["real", "synthetic"]
    classes: tuple[str, ...]
    resolution: int
    channels: int
    counts: Mapping[str, Mapping[str, int]]
    shards: tuple[ShardEntry, ...]
    preprocessing: Mapping[str, Any]
    origin: Mapping[str, Any]
    digest: str
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(
        cls,
        shards: Iterable[ShardEntry],
        *,
        kind: Literal["real", "synthetic"],
        classes: Iterable[str],
        resolution: int,
        channels: int,
        preprocessing: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> Self:
        """The manifest of written shards; counts and digest follow from the entries."""
        ordered = tuple(sorted(shards, key=lambda shard: shard.name))
        names = tuple(classes)
        counts = {split: dict.fromkeys(names, 0) for split in SPLITS}
        for shard in ordered:
            for name, count in zip(names, shard.class_counts, strict=True):
                counts[shard.split][name] += count
        return cls(
            kind=kind,
            classes=names,
            resolution=resolution,
            channels=channels,
            counts=counts,
            shards=ordered,
            preprocessing=preprocessing or {},
            origin=origin or {},
            digest=combine_content(shard.content for shard in ordered),
        )

    def images(self, split: str | None = None) -> int:
        """Number of images of a split, or of all splits."""
        return sum(shard.rows for shard in self.shards if split in (None, shard.split))

    def content_digest(self, split: str) -> str:
        """The digest of one split; :func:`gemix.data.shards.reading.read_images` gives the same."""
        return combine_content(shard.content for shard in self.shards_of(split))

    def shards_of(self, split: str) -> list[ShardEntry]:
        """The shards of a split, sorted by name."""
        return [shard for shard in self.shards if shard.split == split]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.channels, self.resolution, self.resolution

    def save(self, store: Store) -> None:
        """Writes ``manifest.json``; call it last, since it marks the set as finished."""
        store.write_json(MANIFEST, dataclasses.asdict(self))

    @classmethod
    def load(cls, store: Store) -> Self:
        """Reads ``manifest.json``.

        Raises:
            DataError: if it is missing, damaged or of another schema version.
        """
        where = f"{store.url}/{MANIFEST}"
        if not store.exists(MANIFEST):
            raise DataError(
                f"{where}: not there, so this is no finished shard set; run the step that writes "
                "it (gemix prepare or gemix synthesize) or mend the path"
            )
        tree = store.read_json(MANIFEST)
        version = tree.get("schema_version") if isinstance(tree, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{where}: schema version {version!r}, this gemix reads {SCHEMA_VERSION}; write "
                "the set again with --overwrite"
            )
        try:
            tree["shards"] = tuple(ShardEntry.from_json(shard) for shard in tree["shards"])
            return cls(**{**tree, "classes": tuple(tree["classes"])})
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{where}: not a manifest of this schema ({error}); write the set again with "
                "--overwrite"
            ) from error


def combine_content(parts: Iterable[str]) -> str:
    """The content hash of a union: the sum modulo 2**256 of its parts' hashes (hex)."""
    total = sum(int(part, 16) for part in parts) % 2**_CONTENT_BITS
    return f"{total:0{_CONTENT_BITS // 4}x}"
