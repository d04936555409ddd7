"""A shard to be, and what became of it: what travels between the processes of prepare."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from PIL import Image

from gemix.data.config import DataConfig
from gemix.data.manifest import ShardEntry
from gemix.data.scan import Quarantined
from gemix.data.sources import Item, Listing
from gemix.images import encode_png


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The items of one shard to be; `classes` is K, the number of classes."""

    name: str
    split: str
    items: tuple[Item, ...]
    classes: int

    def digest(self, config: DataConfig) -> str:
        """Equal for plans and settings that make the same shard of the same scans."""
        tree = {"plan": dataclasses.asdict(self), "config": config.to_mapping()}
        text = json.dumps(tree, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What became of a plan: no pixels but one thumbnail a class.

    `entry` is None where every item was bad; `checksums` are those of the rows.
    """

    entry: ShardEntry | None
    quarantined: tuple[Quarantined, ...]
    checksums: tuple[str, ...]
    thumbnails: dict[int, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """Plain values; thumbnails as PNG in base 64."""
        return {
            "entry": self.entry and self.entry.to_json(),
            "quarantined": [dataclasses.asdict(bad) for bad in self.quarantined],
            "checksums": list(self.checksums),
            "thumbnails": {str(k): _to_png(image) for k, image in self.thumbnails.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The result of such values."""
        entry = values["entry"]
        return cls(
            entry=entry and ShardEntry.from_json(entry),
            quarantined=tuple(Quarantined(**bad) for bad in values["quarantined"]),
            checksums=tuple(values["checksums"]),
            thumbnails={int(k): _from_png(text) for k, text in values["thumbnails"].items()},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparePlan:
    """The whole job: what was found, and the shards to build."""

    listing: Listing
    notes: tuple[str, ...]
    shards: tuple[ShardPlan, ...]


def _to_png(image: np.ndarray) -> str:
    return base64.b64encode(encode_png(image[..., None])).decode()


def _from_png(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.array(image)
