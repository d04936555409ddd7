"""Training and test sets that share patients or images, told without looking at a pixel.

Only the columns that say whose an image is are read, one shard at a time. Every group key that
both sides have counts. In sets of different archives equal keys may be chance, but a false alarm
costs a setting and a miss a wrong result. Nearly the same images are found by their pixels alone
(:mod:`gemix.data.leakage.compare_sets`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from gemix.core.errors import DataError
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store

TAG = "gemix.overlap"
_EXAMPLES = 3


class TrainingSource(Protocol):
    """Images that something was, or will be, trained on."""

    @property
    def name(self) -> str:
        """For messages: "the train split of …"."""

    @property
    def url(self) -> str | None:
        """Where the images are, None where that is not known."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """What else was learned from without a record, in words."""

    def __iter__(self) -> Iterator[pa.Table]:
        """Some rows after others: `group` and `checksum`, strings as in shards."""


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a shard set, without its images."""

    store: Store
    split: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"the {self.split} split of {self.store.url}"

    @property
    def url(self) -> str:
        """Where the set is."""
        return self.store.url

    @property
    def unknown(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def __iter__(self) -> Iterator[pa.Table]:
        """`group`, `checksum` and `source`, a shard at a time."""
        for shard in Manifest.load(self.store).shards_of(self.split):
            table = self.store.read_columns(shard.name, ["patient", "checksum", "source"])
            yield table.select(["patient", "checksum", "source"]).rename_columns(
                ["group", "checksum", "source"]
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """What a side that is learned from shares with one that is tested on.

    Attributes:
        learned, held_out: names of the two.
        look: the command that shows the pictures.
        groups: group keys that both have.
        images: images of `held_out` that are byte for byte in `learned`.
        examples: up to 3 of the groups, and the sources of up to 3 of the images in `held_out`.
    """

    learned: str
    held_out: str
    look: str
    groups: int
    images: int
    examples: tuple[tuple[str, ...], tuple[str, ...]]

    def __bool__(self) -> bool:
        """Whether anything is shared."""
        return bool(self.groups or self.images)

    def __str__(self) -> str:
        counts = zip((self.groups, self.images), ("groups", "images"), self.examples, strict=True)
        parts = [
            f"{count} {what} ({', '.join(names)}{', …' if count > len(names) else ''})"
            for count, what, names in counts
            if count
        ]
        return f"{self.learned} and {self.held_out} share {' and '.join(parts) or 'nothing'}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        groups, images = self.examples
        return dataclasses.asdict(self) | {
            "examples": {"groups": list(groups), "images": list(images)}
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """What is shared although it was allowed, and of what it cannot be told what was learned."""

    shared: tuple[Shared, ...]
    unknown: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """A sentence for each."""
        return [
            *(f"{shared}; allowed by data.allow_overlap" for shared in self.shared),
            *(f"{name} are not on record: what they share is not known" for name in self.unknown),
        ]

    @property
    def tags(self) -> dict[str, str]:
        """For the run's record; empty where nothing is shared."""
        counts = "; ".join(
            f"{pair.learned} and {pair.held_out}: {pair.groups} groups, {pair.images} images"
            for pair in self.shared
        )
        return {TAG: f"allowed: {counts}"} if counts else {}

    def to_json(self) -> dict[str, Any]:
        """Plain values; both lists are empty where all is well."""
        return {
            "shared": [shared.to_json() for shared in self.shared],
            "unknown": list(self.unknown),
        }


def check_no_overlap(
    pairs: Iterable[tuple[TrainingSource, Split]], *, allow: bool = False
) -> OverlapReport:
    """Makes sure that nothing that is learned from is validated or tested on.

    Args:
        pairs: what is learned from, and what is held out of it.
        allow: whether to go on all the same (``data.allow_overlap``).

    Raises:
        DataError: if anything is shared and `allow` is not set; or for a damaged shard.
    """
    pairs = list(pairs)
    found = tuple(shared for a, b in pairs if (shared := find_shared(a, b)))
    if found and not allow:
        look = "; ".join(dict.fromkeys(shared.look for shared in found))
        raise DataError(
            f"{'; '.join(map(str, found))}: so a test would measure memory. Look at them "
            f"({look}) and prepare the data again without them, or set data.allow_overlap=true to "
            "go on all the same; the results will say so"
        )
    unknown = dict.fromkeys(name for learned, _ in pairs for name in learned.unknown)
    return OverlapReport(shared=found, unknown=tuple(unknown))


def find_shared(learned: TrainingSource, held_out: Split) -> Shared:
    """Groups and exact duplicates that both sides have; in memory is `held_out` alone.

    Images are compared by half of their checksums: 64 bits, eight bytes an image.
    """
    groups: set[str] = set()
    numbers = [np.empty(0, np.uint64)]
    for table in held_out:
        groups.update(table["group"].unique().to_pylist())
        numbers.append(_numbers(table))
    images, rows = np.unique(np.concatenate(numbers), return_counts=True)
    met = np.zeros(len(images), bool)
    common: set[str] = set()
    for table in learned if len(images) else ():
        common |= groups.intersection(table["group"].unique().to_pylist())
        found = _numbers(table)
        places = np.searchsorted(images, found).clip(max=len(images) - 1)
        met[places[images[places] == found]] = True
    return Shared(
        learned=learned.name,
        held_out=held_out.name,
        look=_look(learned.url, held_out.url),
        groups=len(common),
        images=int(rows[met].sum()),
        examples=(tuple(sorted(common)[:_EXAMPLES]), _sources(held_out, images[met])),
    )


def _sources(held_out: Split, images: np.ndarray) -> tuple[str, ...]:
    """The first few sources of these images, in the order of the shards."""
    if not len(images):
        return ()
    found = (
        table["source"][row].as_py()
        for table in held_out
        for row in np.flatnonzero(np.isin(_numbers(table), images)).tolist()
    )
    return tuple(itertools.islice(found, _EXAMPLES))


def _numbers(table: pa.Table) -> np.ndarray:
    """The first 64 bits of every checksum: uint64 [rows]."""
    words = np.frombuffer(bytes.fromhex("".join(table["checksum"].to_pylist())), np.uint64)
    return words[::2]


def _look(learned: str | None, held_out: str) -> str:
    if learned == held_out:
        return f"gemix check {held_out}"
    return f"gemix check {learned or '<the set that was learned from>'} {held_out}"
