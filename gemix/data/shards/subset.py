"""Copies of a shard set with some of its training patients alone."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_table
from gemix.data.shards.schema import write_shard
from gemix.io.storage import Store


def write_subset(source: Store, target: Store, patients: Collection[str]) -> Manifest:
    """Write a copy of a set whose training split has some patients; return its manifest.

    The other splits are copied as they are. A finished copy is kept.

    Args:
        patients: group keys.

    Raises:
        DataError: if a shard is missing or damaged.
    """
    if target.exists(MANIFEST):
        return Manifest.load(target)
    manifest, entries, wanted = Manifest.load(source), [], pa.array(sorted(patients))
    for shard in manifest.shards:
        if shard.split != "train":
            target.write_bytes(shard.name, source.read_bytes(shard.name))
            entries.append(shard)
            continue
        table = read_table(source, manifest, shard)
        table = table.filter(pc.is_in(table["patient"], wanted))
        if len(table):
            columns = {name: table[name].to_pylist() for name in table.column_names}
            entries.append(write_shard(target, shard.name, columns, "train", manifest.classes))
    subset = Manifest.of(
        entries,
        kind=manifest.kind,
        classes=manifest.classes,
        resolution=manifest.resolution,
        channels=manifest.channels,
        preprocessing=manifest.preprocessing,
        origin={**manifest.origin, "part_of": manifest.digest},
    )
    subset.save(target)
    return subset
