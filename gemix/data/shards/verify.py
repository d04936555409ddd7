"""Verify a shard set: every file, every image and the manifest itself, against each other.

Other readers stop at the first damage; this one goes on and names all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.core.errors import DataError
from gemix.data.leakage.provenance import PROVENANCE
from gemix.data.shards.manifest import MANIFEST, Manifest, ShardEntry
from gemix.data.shards.schema import class_names_of, content_hash, image_checksum, is_shard_schema
from gemix.io.storage import Store

_SHOWN = 5  # names in one finding


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem: the file, or files, inside the set, and a plain sentence."""

    file: str
    problem: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """The manifest of a set, and all problems; `findings` is empty where the set is whole."""

    manifest: Manifest
    findings: tuple[Finding, ...]


def verify(store: Store) -> Verification:
    """Read every shard of the set, one at a time.

    Raises:
        DataError: if the manifest is missing or unreadable.
    """
    manifest = Manifest.load(store, check=False)
    findings = [Finding(MANIFEST, problem) for problem in manifest.problems()]
    groups: dict[str, dict[str, str]] = defaultdict(dict)  # of each group: a file of each split
    for shard in manifest.shards:
        table, problems = _read(store, shard)
        if table is not None:
            problems += _check_rows(table, manifest, shard)
            for group in table["patient"].unique().to_pylist():
                groups[group].setdefault(shard.split, shard.name)
        findings += [Finding(shard.name, problem) for problem in problems]
    findings += _check_groups(groups)
    unknown = {name for name in store.list() if name.endswith(".parquet")}
    unknown -= {PROVENANCE, *(shard.name for shard in manifest.shards)}
    findings += [Finding(name, "the manifest does not know this file") for name in sorted(unknown)]
    return Verification(manifest=manifest, findings=tuple(findings))


def _read(store: Store, shard: ShardEntry) -> tuple[pa.Table | None, list[str]]:
    """Return the table, None if it cannot be read, and the problems of the file."""
    if not store.exists(shard.name):
        return None, ["missing"]
    try:
        data = store.read_bytes(shard.name)
    except DataError as error:
        return None, [str(error)]
    problems = []
    if len(data) != shard.bytes:
        problems.append(f"{len(data)} bytes, the manifest says {shard.bytes}")
    elif hashlib.sha256(data).hexdigest() != shard.sha256:
        problems.append("its SHA-256 is not the manifest's")
    try:
        table = pq.read_table(pa.BufferReader(data))
        table.validate(full=True)  # damage may leave text that is not UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        return None, [*problems, f"not a readable Parquet file ({str(error).splitlines()[0]})"]
    if not is_shard_schema(table.schema):
        return None, [*problems, f"not of the shard schema: columns {table.column_names}"]
    return table, problems


def _check_rows(table: pa.Table, manifest: Manifest, shard: ShardEntry) -> list[str]:
    """Return the problems of the rows of a shard."""
    problems = []
    if table.num_rows != shard.rows:
        problems.append(f"{table.num_rows} rows, the manifest says {shard.rows}")
    if others := sorted(set(table["split"].to_pylist()) - {shard.split}):
        problems.append(f"rows of split {_some(others)}, the manifest says {shard.split}")
    sources = table["source"].to_pylist()
    problems += _check_images(table, manifest.image_shape, sources)
    names = class_names_of(table.schema)
    if names is not None and names != list(manifest.classes):
        problems.append(f"written for the classes {names}, the manifest names {manifest.classes}")
    classes = len(manifest.classes)
    indices = table["class_index"].to_numpy()
    outside = (indices < 0) | (indices >= classes)
    if outside.any():
        where = _some([sources[row] for row in np.flatnonzero(outside)])
        problems.append(f"class index outside 0 to {classes - 1}: {where}")
    else:
        counts = tuple(np.bincount(indices, minlength=classes).tolist())
        if counts != shard.class_counts:
            problems.append(f"images by class {counts}, the manifest says {shard.class_counts}")
    labels = table["soft_label"].to_pylist()
    if any(len(label) != classes or None in label for label in labels):
        problems.append(f"a soft label of other than {classes} weights")
    else:
        weights = np.asarray(labels, np.float32).reshape(-1, classes)
        splits = table["split"].to_pylist()
        content = content_hash(table["checksum"].to_pylist(), indices, weights, splits)
        if content != shard.content:
            problems.append("its rows do not give the content digest of the manifest")
    return problems


def _check_images(table: pa.Table, shape: tuple[int, int, int], sources: list[str]) -> list[str]:
    """Check size and checksum of every image."""
    size = int(np.prod(shape))
    misfits, damaged = [], []
    columns = (table[name] for name in ("image", "checksum", "channels", "height", "width"))
    for source, pixels, checksum, *given in zip(sources, *columns, strict=True):
        data = pixels.as_buffer()
        if data.size != size or tuple(side.as_py() for side in given) != shape:
            misfits.append(source)
        if image_checksum(data) != checksum.as_py():
            damaged.append(source)
    problems = []
    if misfits:
        problems.append(f"images of another shape than {shape}: {_some(misfits)}")
    if damaged:
        problems.append(f"images whose bytes differ from their checksum: {_some(damaged)}")
    return problems


def _check_groups(groups: dict[str, dict[str, str]]) -> list[Finding]:
    """Find patients in several splits, on whom a classifier would be trained and tested."""
    crossing: dict[tuple[str, ...], list[str]] = defaultdict(list)
    files: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group, places in sorted(groups.items()):
        if len(places) > 1:
            crossing[tuple(places)].append(group)
            files.setdefault(tuple(places), tuple(places.values()))
    return [
        Finding(", ".join(files[splits]), f"groups in {' and '.join(splits)}: {_some(names)}")
        for splits, names in crossing.items()
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
