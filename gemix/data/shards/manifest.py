"""The manifest of a shard set: its contents, origin and checksums."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from gemix.core.errors import DataError
from gemix.io.storage import Store

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2  # 1 has no labels asked and seen
_READABLE = (1, 2)
SPLITS = ("train", "val", "test")
_CONTENT_BITS = 256
_HEX = re.compile(r"[0-9a-f]{64}")
# of the fields that are no text
_JSON_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("classes", "shards", "class_counts"), (list, "a list")),
    **dict.fromkeys(("counts", "preprocessing", "origin"), (dict, "an object")),
    **dict.fromkeys(
        ("resolution", "channels", "rows", "bytes", "schema_version"), (int, "a whole number")
    ),
}


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
        """Return plain values."""
        return dataclasses.asdict(self) | {"class_counts": list(self.class_counts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build the entry of such values."""
        return cls(**{**values, "class_counts": tuple(values["class_counts"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents and origin of a shard set.

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
        """Build the manifest of written shards; counts and digest follow from the entries."""
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
        """Count the images of a split, or of all splits."""
        return sum(shard.rows for shard in self.shards if split in (None, shard.split))

    def content_digest(self, split: str | None = None, classes: Sequence[str] | None = None) -> str:
        """Return the digest of a split, as :func:`gemix.data.shards.reading.read_images` does.

        Args:
            split: None for all.
            classes: the order that labels are read in; None for that of this set.
        """
        content = combine_content(shard.content for shard in self.shards_of(split))
        if classes is None or tuple(classes) == self.classes:
            return content
        # the content has the numbers of classes, which mean others in another order
        return hashlib.sha256("\n".join([content, *self.classes, *classes]).encode()).hexdigest()

    def shards_of(self, split: str | None = None) -> list[ShardEntry]:
        """Return the shards of a split, None for all, sorted by name."""
        return [shard for shard in self.shards if split in (None, shard.split)]

    def class_order(self, classes: Sequence[str]) -> list[int]:
        """Return where each of these classes stands among those of the set.

        Raises:
            DataError: if they are not the same classes.
        """
        if sorted(classes) != sorted(self.classes):
            raise DataError(f"classes {list(self.classes)}, not {list(classes)}")
        return [self.classes.index(name) for name in classes]

    def matches(self, classes: Sequence[str], image_shape: tuple[int, int, int]) -> bool:
        """Return whether the images have these classes, in any order, and this shape [C, H, W]."""
        return sorted(self.classes) == sorted(classes) and self.image_shape == image_shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.channels, self.resolution, self.resolution

    def problems(self) -> list[str]:
        """Return sentences on what disagrees: counts, digest and names follow from the shards."""
        problems = []
        counts = Counter(shard.name for shard in self.shards)
        if repeated := sorted(name for name, count in counts.items() if count > 1):
            problems.append(f"lists a shard more than once: {', '.join(repeated)}")
        if len(set(self.classes)) < len(self.classes):
            problems.append(f"classes {list(self.classes)}: has a duplicate name")
        for shard in self.shards:
            if shard.split not in SPLITS or sum(shard.class_counts) != shard.rows:
                problems.append(
                    f"{shard.name}: split {shard.split}, {shard.rows} rows and class_counts "
                    f"{list(shard.class_counts)} do not fit together"
                )
        try:
            expected = Manifest.of(
                self.shards,
                kind=self.kind,
                classes=self.classes,
                resolution=self.resolution,
                channels=self.channels,
            )
        except (KeyError, TypeError, ValueError) as error:
            problem = f"an entry has another split or number of classes than the set ({error})"
            return [*problems, problem]
        if self.counts != expected.counts:
            problems.append(f"counts is {self.counts}, but the shards add up to {expected.counts}")
        if self.digest != expected.digest:
            problems.append(f"content digest {self.digest}, its shards give {expected.digest}")
        return problems

    def save(self, store: Store) -> None:
        """Write ``manifest.json``; call it last, since it marks the set as finished."""
        store.write_json(MANIFEST, dataclasses.asdict(self))

    @classmethod
    def load(cls, store: Store, *, check: bool = True) -> Self:
        """Read ``manifest.json``.

        Args:
            check: whether to refuse a manifest whose fields disagree (:meth:`problems`).

        Raises:
            DataError: if it is missing, damaged, edited or of another schema version.
        """
        where = f"{store.url}/{MANIFEST}"
        if not store.exists(MANIFEST):
            raise DataError(
                f"{where}: not there, so this is no finished shard set; run the step that writes "
                "it (gemix prepare or gemix synthesize) or correct the path"
            )
        remedy = "restore it from a copy, or write the set again with --overwrite"
        try:
            tree = store.read_json(MANIFEST)
        except DataError as error:
            raise DataError(f"{error}; {remedy}") from error
        version = tree.get("schema_version") if isinstance(tree, dict) else None
        if version not in _READABLE:
            raise DataError(
                f"{where}: schema version {version!r}, this gemix reads up to {SCHEMA_VERSION}; "
                "update gemix, or write the set again with --overwrite"
            )
        try:
            manifest = cls._from_json(tree)
        except ValueError as error:
            raise DataError(f"{where}: not a manifest of this schema: {error}; {remedy}") from error
        if check and (problems := manifest.problems()):
            raise DataError(f"{where}: {problems[0]}: edited or damaged; {remedy}")
        return manifest

    @classmethod
    def _from_json(cls, tree: dict[str, Any]) -> Self:
        """Build a manifest of parsed JSON; ValueError names a field that is wrong."""
        _check_fields(tree, cls, "")
        for index, shard in enumerate(tree["shards"]):
            _check_fields(shard, ShardEntry, f"shards.{index}.")
            _check_items(shard["class_counts"], int, f"shards.{index}.class_counts")
            if not _HEX.fullmatch(shard["content"]):
                raise ValueError(f"field shards.{index}.content: {shard['content']!r}")
        _check_items(tree["classes"], str, "classes")
        for split, counts in tree["counts"].items():
            if not isinstance(counts, dict):
                raise ValueError(f"field counts.{split}: {counts!r}; wanted: an object")
            _check_items(counts.values(), int, f"counts.{split}")
        shards = tuple(ShardEntry.from_json(shard) for shard in tree["shards"])
        return cls(**{**tree, "shards": shards, "classes": tuple(tree["classes"])})


def _check_fields(values: Any, record: type, path: str) -> None:
    """Check that a JSON object has the fields of a record, each of the right JSON type."""
    if not isinstance(values, dict):
        raise ValueError(f"field {path.rstrip('.')}: {values!r}; wanted: an object")
    names = [field.name for field in dataclasses.fields(record)]
    for name in names:
        if name not in values:
            raise ValueError(f"field {path}{name} is missing")
        kind, words = _JSON_TYPES.get(name, (str, "text"))
        value = values[name]
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0):
            raise ValueError(f"field {path}{name}: {value!r}; wanted: {words}")
    if strange := sorted(values.keys() - set(names)):
        raise ValueError(f"field {path}{strange[0]} is not known")


def _check_items(values: Iterable[Any], kind: type, path: str) -> None:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0):
            words = "counts" if kind is int else "texts"
            raise ValueError(f"field {path}: {value!r} among its values; wanted: {words}")


def combine_content(parts: Iterable[str]) -> str:
    """Combine content hashes (hex): the hash of a union is the sum modulo 2**256."""
    total = sum(int(part, 16) for part in parts) % 2**_CONTENT_BITS
    return f"{total:0{_CONTENT_BITS // 4}x}"
